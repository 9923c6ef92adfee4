"""What makes a model fast here: thinner blocks or fewer of them, and which widths are worth having."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from rlnas.errors import InvalidSpaceError, LatencyTableError
from rlnas.latency.timing import level_rounds
from rlnas.space import LayerConfig, LayerwiseSpace, SubnetConfig

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rlnas.latency.table import LatencyTable
    from rlnas.space import ModelShape

MAX_OPTIONS = 6
"""Options per kind of block, dropping it among them, that `Regime.space` offers."""

_LISTED = 6


@dataclass(frozen=True, slots=True)
class Regime:
    """How a workload spends its time on a device, as far as subnets can change it.

    All figures are the latency table's predictions for whole models. Gains are fractions of the
    full model's latency, in [0, 1]; those of heads and of units add up.

    Attributes:
        fixed_share: Share of a full block's time that does not depend on its size, in [0, 1]: what
            starting its operations and its LayerNorm take. From a straight line through the costs
            of the sizes timed; attention and FFN count by their share of the full model.
        full_ms: The full model, in milliseconds.
        floor_ms: The model of no blocks: embeddings and head.
        heads_gain: The most to be gained by keeping fewer heads in every layer.
        units_gain: The most to be gained by keeping fewer FFN units in every layer.
        blocks_gain: What is gained by dropping all blocks.
        num_attention_heads: Heads worth having, ascending; the last are all heads. Any other number
            that was timed costs about as much as a larger one.
        intermediate_size: FFN units worth having, in the same sense.
        n_heads_timed: How many numbers of heads were timed.
        n_units_timed: How many FFN widths were timed.
    """

    fixed_share: float
    full_ms: float
    floor_ms: float
    heads_gain: float
    units_gain: float
    blocks_gain: float
    num_attention_heads: tuple[int, ...]
    intermediate_size: tuple[int, ...]
    n_heads_timed: int
    n_units_timed: int

    @property
    def is_launch_bound(self) -> bool:
        """Whether most of a full block's time does not depend on its size."""
        return self.fixed_share > 0.5

    @property
    def name(self) -> str:
        """``"launch-bound"`` or ``"compute-bound"``."""
        return "launch-bound" if self.is_launch_bound else "compute-bound"

    @property
    def floor_share(self) -> float:
        """`floor_ms` over `full_ms`."""
        return self.floor_ms / self.full_ms

    def __str__(self) -> str:
        """One sentence, without its full stop."""
        if self.is_launch_bound:
            finding = f"{_percent(self.fixed_share)} of a full block's time does not depend on its width"
        else:
            finding = f"{_percent(1 - self.fixed_share)} of a full block's time follows its width"
        thinner = (
            f"up to {_percent(self.heads_gain + self.units_gain)} "
            f"(heads {_percent(self.heads_gain)}, FFN units {_percent(self.units_gain)})"
        )
        worth_having = (
            _worth(self.num_attention_heads, self.n_heads_timed, "heads", "numbers of heads"),
            _worth(self.intermediate_size, self.n_units_timed, "FFN units", "FFN widths that were timed"),
        )
        return (
            f"{self.name}: {finding}, so thinner blocks gain {thinner} and dropped blocks up to "
            f"{_percent(self.blocks_gain)} of the full model's {self.full_ms:.3g} ms; "
            f"the floor, embeddings and head, is {self.floor_ms:.3g} ms ({_percent(self.floor_share)}); "
            f"worth having: {'; '.join(worth_having)}"
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON, with `name`."""
        values = asdict(self) | {"name": self.name}
        return values | {key: list(values[key]) for key in ("num_attention_heads", "intermediate_size")}

    def space(self, shape: ModelShape, *, keep_last_layer: bool = False) -> LayerwiseSpace:
        """A space of the sizes worth having: at most `MAX_OPTIONS` per kind, spread evenly.

        Dropping a block and keeping all of it are always on offer.

        Args:
            shape: Sizes of the full model that the table is for.
            keep_last_layer: See `LayerwiseSpace.for_model`.

        Raises:
            InvalidSpaceError: If the shape is that of another model.
        """
        for name in ("num_attention_heads", "intermediate_size"):
            full, own = getattr(shape, name), getattr(self, name)[-1]
            if full != own:
                raise InvalidSpaceError(
                    f"these widths are for a model of {name}={own}, but the shape has {name}={full}; "
                    "calibrate its own model"
                )
        return LayerwiseSpace.for_model(
            shape,
            _options(self.num_attention_heads),
            _options(self.intermediate_size),
            keep_last_layer=keep_last_layer,
        )


def find_regime(table: LatencyTable, *, tolerance: float = 0.03) -> Regime:
    """Read from a latency table what makes a model fast on its device.

    The more sizes the table holds, the better: `rlnas.calibration.probe_blocks` are enough.

    Args:
        table: Holds the full model's blocks, and of one kind at least a second size.
        tolerance: A size is not worth having if a larger one costs at most this much more, as a
            fraction of the larger one's block, in [0, 1); what the timings' noise may feign, which
            is twice their relative spread over the square root of the number of rounds, comes on top.

    Raises:
        ValueError: If `tolerance` is outside its range.
        LatencyLookupError: If the table lacks a block of the full model.
        LatencyTableError: If the table holds one size of each kind only, or its blocks or its floor
            take no time.
    """
    if not 0 <= tolerance < 1:  # in this form a NaN is refused too
        raise ValueError(f"tolerance must be in [0, 1), but got tolerance={tolerance}")
    shape = table.shape
    heads, units = shape.num_attention_heads, shape.intermediate_size
    if len(table.attention_ms) < 2 and len(table.ffn_ms) < 2:
        raise LatencyTableError(
            f"the latency table holds heads={list(table.attention_ms)} and units={list(table.ffn_ms)}, but "
            "it takes two sizes to see what a size costs; calibrate with more (probe_blocks)"
        )
    full_ms, floor_ms = table([_uniform(shape, heads, units), _uniform(shape, 0, 0)]).tolist()
    if not 0 < floor_ms < full_ms:
        raise LatencyTableError(
            f"the latency table gives the full model {full_ms:g} ms and that of no blocks {floor_ms:g} ms, "
            "but blocks and floor take time; calibrate again on a quiet machine"
        )
    # The correction is linear in the blocks: the fastest of each kind make the fastest model.
    few = min(table.attention_ms, key=table.attention_ms.__getitem__)
    thin = min(table.ffn_ms, key=table.ffn_ms.__getitem__)
    fewest_ms, thinnest_ms = table([_uniform(shape, few, units), _uniform(shape, heads, thin)]).tolist()
    return Regime(
        fixed_share=_fixed_share(table),
        full_ms=full_ms,
        floor_ms=floor_ms,
        heads_gain=1 - fewest_ms / full_ms,
        units_gain=1 - thinnest_ms / full_ms,
        blocks_gain=1 - floor_ms / full_ms,
        num_attention_heads=_worth_having(table.attention_ms, tolerance + _noise(table, "attention")),
        intermediate_size=_worth_having(table.ffn_ms, tolerance + _noise(table, "ffn")),
        n_heads_timed=len(table.attention_ms),
        n_units_timed=len(table.ffn_ms),
    )


def _uniform(shape: ModelShape, heads: int, units: int) -> SubnetConfig:
    return SubnetConfig((LayerConfig(heads, units),) * shape.num_hidden_layers)


def _fixed_share(table: LatencyTable) -> float:
    """Both kinds together; one of which a single size is known says nothing."""
    scales = table.correction.attention_scale, table.correction.ffn_scale
    fixed_ms = total_ms = 0.0
    for cost_ms, scale in zip((table.attention_ms, table.ffn_ms), scales, strict=True):
        if len(cost_ms) > 1:
            fixed, full = _fixed_cost(cost_ms)
            fixed_ms, total_ms = fixed_ms + scale * fixed, total_ms + scale * full
    return fixed_ms / total_ms if total_ms else 1.0


def _fixed_cost(cost_ms: Mapping[int, float]) -> tuple[float, float]:
    """What a block costs whatever its size, and what the largest costs."""
    # A size never costs more than a larger one, which could be taken in its place.
    costs = np.minimum.accumulate(np.array(list(cost_ms.values()))[::-1])[::-1]
    intercept = float(np.polynomial.Polynomial.fit(list(cost_ms), costs, 1)(0.0))
    return min(max(intercept, 0.0), float(costs[0])), float(costs[-1])


def _worth_having(cost_ms: Mapping[int, float], limit: float) -> tuple[int, ...]:
    """From the largest size down: each that costs clearly less than the last one taken."""
    taken: list[int] = []
    for size in sorted(cost_ms, reverse=True):
        if not taken or cost_ms[size] < (1 - limit) * cost_ms[taken[-1]]:
            taken.append(size)
    return tuple(reversed(taken))


def _noise(table: LatencyTable, kind: str) -> float:
    """How far noise alone may make the costs of two equal blocks differ, relative to them."""
    timings = [raw.timing for raw in table.block_timings]
    levelled = level_rounds(timings) if timings else []
    own = [timing for raw, timing in zip(table.block_timings, levelled, strict=True) if raw.kind == kind]
    if not own:
        return 0.0
    return float(np.median([2 * timing.noise / np.sqrt(timing.n_rounds) for timing in own]))


def _options(worth: Sequence[int]) -> tuple[int, ...]:
    """0 and evenly spread sizes, the largest among them."""
    n = min(len(worth), MAX_OPTIONS - 1)
    return (0, *(worth[-(-len(worth) * (step + 1) // n) - 1] for step in range(n)))


def _worth(sizes: Sequence[int], n_timed: int, unit: str, counted: str) -> str:
    *others, last = (f"{size:,}" for size in sizes)
    if not others:
        return f"no fewer than {last} {unit}"
    if len(sizes) <= _LISTED:
        return f"{', '.join(others)} or {last} {unit}"
    return f"all {n_timed} {counted}" if len(sizes) == n_timed else f"{len(sizes)} of {n_timed} {counted}"


def _percent(share: float) -> str:
    return f"{share:.0%}".replace("%", " %")
