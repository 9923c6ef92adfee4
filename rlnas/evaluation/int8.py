"""Products in int8 as `rlnas.runtime.onnx_int8` has them computed, on packs of items.

Weights are rounded to int8 with one scale for each output channel, activations to uint8 with one scale
and zero point for each item: what a request of one text sees. Products are sums of integers, which no
order of adding changes; where the CPU has no units for them they are computed in float32, and may be
rounded in the seventh digit.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import torch

from rlnas.supernet.modeling_subnet import AttentionBlock

if TYPE_CHECKING:
    from torch import Tensor, nn

    from rlnas.evaluation.packing import Layout
    from rlnas.supernet.modeling_subnet import FFNBlock

_HALF = 128  # what is taken off a uint8, so that an int8 holds it


def multiplies_integers(device: torch.device) -> bool:
    """Whether the device has units for products of int8: AVX512-VNNI or AMX of a CPU."""
    if device.type != "cpu":
        return False
    return bool(torch.cpu._is_amx_tile_supported() or torch.cpu._is_vnni_supported())


@dataclass(frozen=True, slots=True, eq=False)
class RoundedRows:
    """Activations of a pack in uint8.

    Attributes:
        values: The integers less 128, shape ``(n_tokens, width)``.
        scale: What one of them is worth, shape ``(n_tokens, 1)``; the same for all tokens of an item.
        zero: The integer that stands for 0, less 128, of the same shape.
    """

    values: Tensor
    scale: Tensor
    zero: Tensor

    @classmethod
    def of(cls, rows: Tensor, layout: Layout) -> RoundedRows:
        """Round, item by item.

        Args:
            rows: Shape ``(n_tokens, width)``.
            layout: Where items begin and end.
        """
        lows, highs, lengths = [], [], []
        for run in layout.runs:
            low, high = rows[run.tokens].view(run.n_items, -1).aminmax(dim=1)
            lows.append(low)
            highs.append(high)
            lengths += [run.length] * run.n_items
        low, high = torch.cat(lows).clamp(max=0), torch.cat(highs).clamp(min=0)
        scale = (high - low) / 255
        scale = torch.where(scale == 0, 1.0, scale)
        zero = (-low / scale).round().clamp(0, 255)
        counts = torch.tensor(lengths, device=rows.device)
        scale, zero = (torch.repeat_interleave(part, counts)[:, None] for part in (scale, zero))
        values = (rows / scale).round_().add_(zero).clamp_(0, 255).sub_(_HALF).to(torch.int8)
        return cls(values, scale, zero - _HALF)


@dataclass(frozen=True, slots=True, eq=False)
class RoundedLinear:
    """A linear layer with weights in int8.

    Attributes:
        values: The integers, shape ``(in, out)``.
        scale: What one of them is worth, shape ``(out,)``.
        total: Their sums over the inputs, shape ``(out,)``.
        bias: In float32, shape ``(out,)``.
    """

    values: Tensor
    scale: Tensor
    total: Tensor
    bias: Tensor

    @classmethod
    def of(cls, linear: nn.Linear, n_inputs: int | None = None) -> RoundedLinear:
        """Round the weights of the first `n_inputs` inputs; None for all."""
        weight = linear.weight.detach()[:, :n_inputs]
        scale = weight.abs().amax(dim=1) / 127
        scale = torch.where(scale == 0, 1.0, scale)
        values = (weight / scale[:, None]).round().to(torch.int8)
        return cls(values.t(), scale, values.sum(dim=1).float(), linear.bias.detach())

    def first(self, n_outputs: int) -> RoundedLinear:
        """The same with its first outputs alone."""
        return RoundedLinear(
            self.values[:, :n_outputs],
            self.scale[:n_outputs],
            self.total[:n_outputs],
            self.bias[:n_outputs],
        )

    def __call__(self, rows: RoundedRows) -> Tensor:
        """Shape ``(n_tokens, out)``, float32."""
        if multiplies_integers(rows.values.device):
            product = torch._int_mm(rows.values, self.values).float()
        else:
            product = rows.values.float() @ self.values.float()
        return (product - rows.zero * self.total) * (rows.scale * self.scale) + self.bias


class Int8Blocks:
    """The blocks of a model in int8: what `rlnas.evaluation.blocks` asks of them.

    Args:
        blocks: Of a full model in float32, by the depths at which they stand.
    """

    def __init__(self, blocks: dict[int, AttentionBlock | FFNBlock]) -> None:
        self._blocks = blocks
        self._entries: dict[int, list[RoundedLinear]] = {}
        # A scale is that of the inputs which are kept, so every width has its own rounding.
        self._exits: dict[tuple[int, int], RoundedLinear] = {}

    def __contains__(self, depth: int) -> bool:
        return depth in self._blocks

    def project(self, depth: int, hidden: Tensor, width: int, layout: Layout) -> list[Tensor]:
        """Queries, keys and values, or what enters the activation: each ``(n_tokens, width)``."""
        if depth not in self._entries:
            block = self._blocks[depth]
            is_attention = isinstance(block, AttentionBlock)
            linears = (block.query, block.key, block.value) if is_attention else (block.inner,)
            self._entries[depth] = [RoundedLinear.of(cast("nn.Linear", linear)) for linear in linears]
        rows = RoundedRows.of(hidden, layout)
        return [linear.first(width)(rows) for linear in self._entries[depth]]

    def merge(self, depth: int, hidden: Tensor, inner: Tensor, layout: Layout) -> Tensor:
        """The hidden states after the block, ``(n_tokens, hidden_size)``."""
        block, width = self._blocks[depth], inner.shape[1]
        if (depth, width) not in self._exits:
            linear = block.output if isinstance(block, AttentionBlock) else block.outer
            self._exits[depth, width] = RoundedLinear.of(linear, width)
        output = self._exits[depth, width](RoundedRows.of(inner.contiguous(), layout))
        result: Tensor = block.norm(hidden + output)
        return result
