"""Repair without training: what a subnet keeps of each block learns to do the work of the full one.

Block by block, the output projection of what is kept is fitted by least squares, so that the hidden
states behind the block come close to those of the full model. What dropped blocks would have added is
part of what the next kept block is fitted to. No gradients, and a few hundred items without labels.

References:
    Y. He, X. Zhang, J. Sun. Channel pruning for accelerating very deep neural networks. ICCV 2017
    (least-squares reconstruction).
    W. Kwon et al. A fast post-training pruning framework for transformers. NeurIPS 2022 (one factor
    per head and unit, fitted likewise).
"""

from __future__ import annotations

import functools
import operator
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import numpy as np
import torch
from torch.nn import functional as F

from rlnas.errors import DataError
from rlnas.supernet.encoding import sorted_batches
from rlnas.supernet.modeling_subnet import AttentionBlock

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor, nn

    from rlnas.supernet.encoding import Batch
    from rlnas.supernet.modeling_subnet import FFNBlock, Layer, SubnetModel
    from rlnas.supernet.supernet import Supernet
    from rlnas.task import Split

PENALTIES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
"""Weights of the penalty on changes, relative to the mean square of the inputs."""

HELD_OUT = 4
"""One batch in so many chooses the penalty."""


@dataclass(frozen=True, slots=True)
class SubnetRepairer:
    """Fits the output projections of a subnet's blocks to the full model's hidden states.

    Attributes:
        n_items: Items that it is fitted on, at least 2.
        batch_size: Items per forward pass.
        seed: Of the choice of items.

    Raises:
        ValueError: If a number is out of range.
    """

    n_items: int = 256
    batch_size: int = 16
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least in (("n_items", 2), ("batch_size", 1)):
            value = getattr(self, name)
            if value < least:
                raise ValueError(f"{name} must be at least {least}, but got {name}={value}")

    def repair(self, subnet: SubnetModel, supernet: Supernet, split: Split) -> None:
        """Change a stand-alone subnet in place; the supernet stays as it is.

        A block is changed only where that brings held-out hidden states closer to the full model's.

        Args:
            subnet: Extracted from `supernet`, in float32.
            supernet: The full model.
            split: Its texts are used, its labels are not.

        Raises:
            DataError: If the split has fewer than 2 items.
        """
        if len(split) < 2:
            raise DataError(f"a repair needs at least 2 items, but the split has {len(split)}")
        rng = np.random.default_rng(self.seed)
        chosen = rng.choice(len(split), size=min(self.n_items, len(split)), replace=False)
        encoded = supernet.encode(split.take(chosen))
        size = min(self.batch_size, len(encoded) // 2)
        subnet.eval()  # type: ignore[no-untyped-call]
        supernet.model.eval()  # type: ignore[no-untyped-call]
        with torch.no_grad():
            pairs = [_Pair.begin(subnet, supernet, b) for b in sorted_batches(encoded, size, subnet.device)]
            for layer, full in zip(cast("list[Layer]", subnet.layers), supernet.blocks, strict=True):
                _repair_block(layer.attention, full[0], pairs)
                _repair_block(layer.ffn, full[1], pairs)


@dataclass(slots=True, eq=False)
class _Pair:
    """Hidden states of one batch in both models, each ``(batch, seq_len, hidden_size)``.

    Attributes:
        subnet: Of the subnet.
        full: Of the full model.
        mask: Which tokens attention may look at.
        is_token: False for padding, shape ``(batch, seq_len)``.
    """

    subnet: Tensor
    full: Tensor
    mask: Tensor | None
    is_token: Tensor

    @classmethod
    def begin(cls, subnet: SubnetModel, supernet: Supernet, batch: Batch) -> _Pair:
        """Behind the embeddings."""
        first, second = (
            model.embeddings(batch.input_ids, batch.token_type_ids) for model in (subnet, supernet.model)
        )
        mask = batch.attention_mask
        is_token = torch.ones_like(batch.input_ids) if mask is None else mask
        return cls(first, second, subnet.attention_mask(mask), is_token.bool())


@dataclass(frozen=True, slots=True, eq=False)
class _Moments:
    """Sums over tokens, for a fit with an offset: inputs have a last column of ones.

    Attributes:
        inputs: Inputs times inputs, shape ``(p + 1, p + 1)``.
        errors: Inputs times errors, shape ``(p + 1, hidden_size)``.
    """

    inputs: Tensor
    errors: Tensor

    @classmethod
    def of(cls, inputs: Tensor, errors: Tensor) -> _Moments:
        """Of inputs of shape ``(n, p)`` and errors of shape ``(n, hidden_size)``."""
        inputs = torch.cat([inputs, inputs.new_ones(len(inputs), 1)], dim=1)
        return cls((inputs.T @ inputs).double(), (inputs.T @ errors).double())

    def __add__(self, other: _Moments) -> _Moments:
        return _Moments(self.inputs + other.inputs, self.errors + other.errors)

    def change(self, penalty: float) -> Tensor:
        """The change of weights and offset that fits best, shape ``(p + 1, hidden_size)``."""
        size = len(self.inputs)
        weights = torch.full((size,), penalty * float(self.inputs.diagonal()[:-1].mean()))
        weights[-1] = 0.0  # changes of the offset are free
        system = self.inputs + torch.diag(weights.to(self.inputs))
        # The smallest jitter keeps a system solvable in which inputs are zero or repeat each other.
        system.diagonal().add_(1e-12 * float(system.diagonal().max()))
        factor, failed = torch.linalg.cholesky_ex(system)
        if int(failed):  # not positive definite to rounding
            change: Tensor = torch.linalg.solve(system, self.errors)
            return change
        return torch.cholesky_solve(self.errors, factor)

    def gain(self, change: Tensor) -> float:
        """By how much a change lowers the sum of squared errors."""
        return float(2 * (change * self.errors).sum() - (change * (self.inputs @ change)).sum())


def _repair_block(
    block: AttentionBlock | FFNBlock | None, whole: AttentionBlock | FFNBlock, pairs: Sequence[_Pair]
) -> None:
    """Fit a block, and lead both models' hidden states through it."""
    parts: list[list[_Moments]] = [[], []]
    inputs = []
    for index, pair in enumerate(pairs):
        goal = pair.full + _project(whole, _inputs(whole, pair.full, pair.mask))
        pair.full = whole.norm(goal)
        if block is None:
            continue
        inputs.append(_inputs(block, pair.subnet, pair.mask))
        errors = goal - pair.subnet - _project(block, inputs[-1])
        is_held_out = index % HELD_OUT == HELD_OUT - 1 or index == len(pairs) - 1
        parts[is_held_out].append(_Moments.of(inputs[-1][pair.is_token], errors[pair.is_token]))
    if block is None:
        return
    fitted, held_out = (functools.reduce(operator.add, part) for part in parts)
    gains = {penalty: held_out.gain(fitted.change(penalty)) for penalty in PENALTIES}
    best = max(gains, key=lambda penalty: gains[penalty])
    if gains[best] > 0:
        change = (fitted + held_out).change(best).to(_output(block).weight)
        _output(block).weight.add_(change[:-1].T)
        _output(block).bias.add_(change[-1])
    for pair, given in zip(pairs, inputs, strict=True):
        pair.subnet = block.merge(pair.subnet, given)


def _inputs(block: AttentionBlock | FFNBlock, hidden: Tensor, mask: Tensor | None) -> Tensor:
    """What the output projection of a block sees."""
    if isinstance(block, AttentionBlock):
        return block.attend(hidden, mask, block.num_heads)
    return block.activate(hidden, block.num_units)


def _output(block: AttentionBlock | FFNBlock) -> nn.Linear:
    return block.output if isinstance(block, AttentionBlock) else block.outer


def _project(block: AttentionBlock | FFNBlock, inputs: Tensor) -> Tensor:
    output = _output(block)
    return F.linear(inputs, output.weight, output.bias)
