"""Which FFN widths the hardware likes: a staircase under the line of cost per unit, if there is one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from rlnas.latency.clock import clock_for
from rlnas.latency.device import resolve_device, timing_conditions
from rlnas.latency.stopwatch import measure
from rlnas.latency.timing import level_rounds

if TYPE_CHECKING:
    from collections.abc import Callable

    from rlnas.latency.clock import Clock
    from rlnas.protocols import Timeable

LARGEST_MULTIPLE = 128
"""The yardstick for models of at least 512 FFN units; kernels of today want no more."""


@dataclass(frozen=True, slots=True)
class Alignment:
    """What widths cost that are no multiples of a large power of two.

    Attributes:
        excess: Pairs of a power of two m, ascending from 1, and the relative excess cost of a width
            that is a multiple of m but not of 2 m, over multiples of `yardstick`; 0.07 is 7 % more.
        limit: Excess up to which a multiple counts as free: the tolerance asked for, and twice
            `spread` over the square root of the number of rounds for noise.
        spread: Relative interquartile range of repeated timings, typical of all that were taken.
    """

    excess: tuple[tuple[int, float], ...]
    limit: float
    spread: float

    @property
    def yardstick(self) -> int:
        """The largest multiple, which all others are compared with; twice the last of `excess`."""
        return 2 * self.excess[-1][0]

    @property
    def multiple(self) -> int:
        """The smallest power of two that, like all larger ones, costs no more than `limit` allows."""
        free = self.yardstick
        for candidate, excess in reversed(self.excess):
            if excess > self.limit:
                break
            free = candidate
        return free

    def __str__(self) -> str:
        """What to choose, and what the other choice costs; says "no more" for "within `limit`"."""
        odd = self.excess[0][1]
        odd_widths = f"odd widths cost {abs(odd):.1%} {'more' if odd >= 0 else 'less'}"
        if self.multiple == 1:
            finding = f"any FFN width costs no more per unit than multiples of {self.yardstick} here"
        elif self.multiple == self.yardstick:
            below, more = self.excess[-1]
            finding = (
                f"FFN widths should be multiples of {self.yardstick} here: "
                f"multiples of {below} cost {more:.1%} more per unit"
            )
        else:
            finding = (
                f"FFN widths that are multiples of {self.multiple} cost no more per unit "
                f"than multiples of {self.yardstick} here"
            )
        return f"{finding}; {odd_widths} (differences up to {self.limit:.1%} count as none)"


def probe_alignment(
    model: Timeable,
    device: str = "cpu",
    *,
    clock: Clock | None = None,
    n_rounds: int = 50,
    max_seconds: float = 10.0,
    tolerance: float = 0.03,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Alignment:
    """Measure which powers of two FFN widths should be multiples of.

    Nine FFN blocks are timed in interleaved rounds on one torch thread: two anchors, `base` (about
    half of the full width) and ``base + 128``, both multiples of 128, and between them ``base + m``
    for m = 1, 2, 4, ..., 64. Excess of m is the time of ``base + m`` over the straight line
    between the anchors, minus 1. Models below 512 units have a smaller yardstick than 128.

    Args:
        model: Runs the workload on the clock's device.
        device: See `rlnas.latency.device.resolve_device`; says which clock, if none is given.
        clock: Times the calls; by default the clock of `device`.
        n_rounds: Samples of each timing, at least 1.
        max_seconds: See `rlnas.calibration.calibrate`.
        tolerance: Relative excess cost that does not matter, at least 0.
        seed: Of the order of timings.
        progress: Called with the rounds done and `n_rounds` after each round.

    Raises:
        DeviceError: If the device is not there, or its clock cannot be trusted.
        ValueError: If the model has fewer than 8 FFN units, `n_rounds` is below 1, or `tolerance`
            is negative.
    """
    if not tolerance >= 0:  # in this form a NaN is refused too
        raise ValueError(f"tolerance must be at least 0, but got tolerance={tolerance}")
    base, offsets = _offsets(model.shape.intermediate_size)
    calls = [model.block_calls("ffn", base + offset) for offset in offsets]
    with timing_conditions():
        timings = measure(
            calls,
            clock_for(resolve_device(device)) if clock is None else clock,
            n_rounds=n_rounds,
            max_seconds=max_seconds,
            back_to_back=range(len(calls)),
            seed=seed,
            progress=progress,
        )
    timings = level_rounds(timings)
    cost_ms = np.array([timing.median_ms for timing in timings])
    line_ms = np.interp(offsets, [0, offsets[-1]], [cost_ms[0], cost_ms[-1]])
    excess = (cost_ms / line_ms - 1)[1:-1].tolist()
    spread = float(np.median([timing.noise for timing in timings]))
    limit = tolerance + 2 * spread / float(np.sqrt(timings[0].n_samples))
    return Alignment(tuple(zip(offsets[1:-1], excess, strict=True)), limit, spread)


def _offsets(full: int) -> tuple[int, list[int]]:
    """The narrower anchor, and the widths to time less that one: 0, 1, 2, 4, ..., the yardstick."""
    if full < 8:
        raise ValueError(
            f"the probe needs a model of at least 8 FFN units, but got intermediate_size={full}"
        )
    yardstick = LARGEST_MULTIPLE
    while 4 * yardstick > full:
        yardstick //= 2
    base = round(full / 2 / yardstick) * yardstick
    return base, [0, *(2**power for power in range(yardstick.bit_length()))]
