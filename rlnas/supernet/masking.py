"""The masked form of a subnet: the full model at full cost, with what is not kept set to zero.

No search runs it. It is the form that most pruning papers score, kept as an independent check of
the sliced form and as the baseline of the evaluation benchmark.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor

    from rlnas.space import SubnetConfig
    from rlnas.supernet.encoding import Batch
    from rlnas.supernet.supernet import Supernet


def masked_forward(supernet: Supernet, config: SubnetConfig, batch: Batch) -> Tensor:
    """Logits of a subnet by masks, shape ``(batch, num_labels)``."""
    model, shape = supernet.model, supernet.shape
    hidden = model.embeddings(batch.input_ids, batch.token_type_ids)
    mask = model.attention_mask(batch.attention_mask)
    for (attention, ffn), kept in zip(supernet.blocks, config.layers, strict=True):
        gate = _first(kept.num_attention_heads, shape.num_attention_heads, hidden)
        hidden = torch.where(gate.any(), attention(hidden, mask, gate=gate), hidden)
        gate = _first(kept.intermediate_size, shape.intermediate_size, hidden)
        hidden = torch.where(gate.any(), ffn(hidden, gate=gate), hidden)
    logits: Tensor = model.head(hidden, batch.attention_mask)
    return logits


def _first(kept: int, total: int, like: Tensor) -> Tensor:
    return (torch.arange(total, device=like.device) < kept).to(like.dtype)
