"""How far a student is from its teacher: in its answers, and in its hidden states.

References:
    G. Hinton, O. Vinyals, J. Dean. Distilling the knowledge in a neural network. 2015 (answers).
    X. Jiao et al. TinyBERT: distilling BERT for natural language understanding. EMNLP Findings 2020
    (hidden states, layer by layer).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import torch
from torch.nn import functional as F

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from rlnas.supernet.encoding import Batch
    from rlnas.supernet.modeling_subnet import Layer, SubnetModel


def distillation_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """How far a student's logits are from a teacher's.

    Kullback-Leibler divergence of the class probabilities; for one output (regression) the squared
    error, as a divergence over a single logit is always zero.

    Args:
        student: Shape ``(batch, num_labels)``.
        teacher: As `student`; no gradient flows into it.
    """
    goal = teacher.detach().float()
    if student.shape[1] == 1:
        return F.mse_loss(student.float(), goal)
    return F.kl_div(
        F.log_softmax(student.float(), dim=1),
        F.log_softmax(goal, dim=1),
        reduction="batchmean",
        log_target=True,
    )


def hidden_loss(
    student: Sequence[Tensor], teacher: Sequence[Tensor], attention_mask: Tensor | None
) -> Tensor:
    """How far a student's hidden states are from a teacher's, as a share of the teacher's mean square.

    0 is the teacher itself; 1 is as far off as states of zeros. Padding does not count.

    Args:
        student: At least one, each ``(batch, seq_len, hidden_size)``.
        teacher: As many of the same shape; no gradient flows into them.
        attention_mask: 1 for tokens and 0 for padding, shape ``(batch, seq_len)``; None for no padding.
    """
    losses = []
    for own, other in zip(student, teacher, strict=True):
        goal = other.detach().float()
        error, size = (own.float() - goal).square(), goal.square()
        if attention_mask is not None:
            error, size = (part * attention_mask[..., None] for part in (error, size))
        losses.append(error.sum() / size.sum())
    return torch.stack(losses).mean()


def hidden_states(model: SubnetModel, batch: Batch) -> tuple[list[Tensor], Tensor]:
    """The hidden states behind each layer, ``(batch, seq_len, hidden_size)`` each, and the logits."""
    hidden = model.embeddings(batch.input_ids, batch.token_type_ids)
    mask = model.attention_mask(batch.attention_mask)
    states = []
    for layer in model.layers:
        hidden = layer(hidden, mask)
        states.append(hidden)
    return states, model.head(hidden, batch.attention_mask)


def kept_layers(model: SubnetModel) -> list[int]:
    """The layers of which a block is kept; the others are the identity."""
    layers = cast("list[Layer]", model.layers)
    return [i for i, layer in enumerate(layers) if layer.attention is not None or layer.ffn is not None]
