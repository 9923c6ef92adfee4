"""Which heads and FFN units matter, and the order that puts the best first.

A gate of 1 is put on every head and unit; the Fisher information of a gate is the mean over
items of its squared gradient, which is how much the loss would change were it closed, to
second order. Heads and units are then sorted, once.

References:
    W. Kwon et al. A fast post-training pruning framework for transformers. NeurIPS 2022.
    P. Michel, O. Levy, G. Neubig. Are sixteen heads really better than one? NeurIPS 2019.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.nn import functional as F

from rlnas.errors import CheckpointError
from rlnas.supernet.encoding import sorted_batches

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt
    from torch import Tensor

    from rlnas.space import SubnetConfig
    from rlnas.supernet.encoding import Batch
    from rlnas.supernet.supernet import Supernet
    from rlnas.task import Split


@dataclass(frozen=True, slots=True, eq=False)
class Importance:
    """Fisher information of the gates, all non-negative.

    Attributes:
        heads: Shape ``(num_hidden_layers, num_attention_heads)``.
        units: Shape ``(num_hidden_layers, intermediate_size)``.
    """

    heads: npt.NDArray[np.float64]
    units: npt.NDArray[np.float64]

    @property
    def in_order(self) -> Importance:
        """The same with the most important heads and units of each layer first."""
        return Importance(-np.sort(-self.heads, axis=1), -np.sort(-self.units, axis=1))

    def kept(self, configs: Sequence[SubnetConfig]) -> list[float]:
        """What configs keep of it, if heads and units are in its order: the sum over those kept."""
        heads, units = (
            np.pad(np.cumsum(values, axis=1), ((0, 0), (1, 0))) for values in (self.heads, self.units)
        )
        return [
            float(
                sum(
                    heads[index, layer.num_attention_heads] + units[index, layer.intermediate_size]
                    for index, layer in enumerate(config.layers)
                )
            )
            for config in configs
        ]

    @property
    def blocks(self) -> npt.NDArray[np.float64]:
        """Sum over each block, shape ``(num_hidden_layers, 2)``: attention, FFN."""
        return np.stack([self.heads.sum(axis=1), self.units.sum(axis=1)], axis=1)


def task_loss(logits: Tensor, labels: Tensor, *, reduction: str = "mean") -> Tensor:
    """Cross entropy of classes, or squared error of values."""
    if logits.shape[1] == 1:
        return F.mse_loss(logits[:, 0].float(), labels.float(), reduction=reduction)
    return F.cross_entropy(logits.float(), labels, reduction=reduction)


def estimate_importance(supernet: Supernet, split: Split, batch_size: int = 16) -> Importance:
    """Fisher information of every head and unit over the items of a split.

    Args:
        supernet: Its head must be trained.
        split: A few hundred training items.
        batch_size: Items in one backward pass; does not change the result.

    Raises:
        CheckpointError: If the classifier is untrained: gradients through it are noise.
    """
    if not supernet.fine_tuned:
        raise CheckpointError(
            "the checkpoint has no trained classifier for this task, so importance would be noise; "
            "train first (epochs >= 1), or give a checkpoint that is fine-tuned on the task"
        )
    shape = supernet.shape
    heads = np.zeros((shape.num_hidden_layers, shape.num_attention_heads))
    units = np.zeros((shape.num_hidden_layers, shape.intermediate_size))
    encoded = supernet.encode(split)
    supernet.model.eval()  # type: ignore[no-untyped-call]
    for batch in sorted_batches(encoded, batch_size, supernet.device):
        head_gradients, unit_gradients = _gate_gradients(supernet, batch)
        heads += head_gradients.square().sum(dim=1).double().cpu().numpy()
        units += unit_gradients.square().sum(dim=1).double().cpu().numpy()
    return Importance(heads / len(encoded), units / len(encoded))


def order_by_importance(supernet: Supernet, importance: Importance) -> None:
    """Put the most important heads and units first; the full model's outputs do not change."""
    supernet.permute(
        np.argsort(-importance.heads, axis=1, kind="stable"),
        np.argsort(-importance.units, axis=1, kind="stable"),
    )
    supernet.block_importance = importance.blocks
    supernet.importance = importance.in_order


def _gate_gradients(supernet: Supernet, batch: Batch) -> tuple[Tensor, Tensor]:
    """Gradients of each item's loss, shapes ``(layers, batch, heads)`` and ``(layers, batch, units)``."""
    shape, model = supernet.shape, supernet.model
    n_items, layers = len(batch.indices), shape.num_hidden_layers
    heads, units = (
        torch.ones(layers, n_items, size, device=supernet.device, requires_grad=True)
        for size in (shape.num_attention_heads, shape.intermediate_size)
    )
    hidden = model.embeddings(batch.input_ids, batch.token_type_ids)
    mask = model.attention_mask(batch.attention_mask)
    for index, (attention, ffn) in enumerate(supernet.blocks):
        hidden = attention(hidden, mask, gate=heads[index])
        hidden = ffn(hidden, gate=units[index][:, None, :])
    logits = model.head(hidden, batch.attention_mask)
    # The sum of the items' losses: the gates of one item see that item's loss alone.
    loss = task_loss(logits, batch.labels, reduction="sum")
    head_gradients, unit_gradients = torch.autograd.grad(loss, [heads, units])
    return head_gradients, unit_gradients
