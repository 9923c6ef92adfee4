"""Times any callables so that the figures can be compared.

Machines drift: another process starts, a clock is throttled. So several calls are timed
in *interleaved rounds* (every call once a round, in shuffled order), which makes drift hit
all alike, and each figure is a median over rounds, which outliers do not move. Ratios are
taken within rounds: they hold where milliseconds do not.
"""

from __future__ import annotations

import gc
import math
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from rlnas.errors import DeviceError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Sequence

    from rlnas.latency.clock import Clock

NOISY = 0.2
"""Relative spread above which a timing counts as noisy."""

MIN_ROUNDS = 5
"""Rounds that are run even if the time is over: fewer give no median to trust."""

_MAX_WARM_UP_CALLS = 40
_MAX_WARM_UP_MS = 500.0
_STABLE = 0.95
_MAX_CALLS = 1_000
_N_RESAMPLES = 2_000
_N_POLISHES = 5


@dataclass(frozen=True, slots=True)
class Timing:
    """How long one call took, over the rounds of one `measure`.

    Attributes:
        samples_ms: Milliseconds of one call, one sample per round; a sample is the mean of
            `n_calls` calls.
        n_calls: Calls per sample.

    Raises:
        ValueError: If there is no sample, or one is not positive and finite.
    """

    samples_ms: tuple[float, ...]
    n_calls: int = 1

    def __post_init__(self) -> None:
        object.__setattr__(self, "samples_ms", tuple(float(sample) for sample in self.samples_ms))
        if not self.samples_ms:
            raise ValueError("a Timing needs at least one sample, but samples_ms is empty")
        for sample in self.samples_ms:
            if not (math.isfinite(sample) and sample > 0):
                raise ValueError(f"samples_ms must be positive and finite, but got {sample}")
        if self.n_calls < 1:
            raise ValueError(f"n_calls must be at least 1, but got n_calls={self.n_calls}")

    @property
    def n_samples(self) -> int:
        """Number of samples."""
        return len(self.samples_ms)

    @property
    def median_ms(self) -> float:
        """Median of the samples, in milliseconds."""
        return self.quantile_ms(0.5)

    @property
    def spread_ms(self) -> float:
        """Interquartile range of the samples, in milliseconds."""
        return self.quantile_ms(0.75) - self.quantile_ms(0.25)

    @property
    def noise(self) -> float:
        """`spread_ms` relative to `median_ms`."""
        return self.spread_ms / self.median_ms

    @property
    def is_noisy(self) -> bool:
        """Whether `noise` exceeds `NOISY`."""
        return self.noise > NOISY

    def quantile_ms(self, q: float) -> float:
        """Quantile of the samples, in milliseconds.

        Args:
            q: In [0, 1].
        """
        return float(np.quantile(self.samples_ms, q))

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON: the samples, and their summary for readers."""
        return {
            "median_ms": self.median_ms,
            "spread_ms": self.spread_ms,
            "n_calls": self.n_calls,
            "samples_ms": list(self.samples_ms),
        }


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two calls timed in the same rounds.

    Attributes:
        first: Timing of the reference.
        second: Timing of the other.
        ratio: Median over rounds of second / first.
        ratio_ci: Bootstrap interval (low, high) of `ratio`, over rounds.
        confidence: Of the interval.
    """

    first: Timing
    second: Timing
    ratio: float
    ratio_ci: tuple[float, float]
    confidence: float


def measure(
    calls: Sequence[Callable[[], object]],
    clock: Clock,
    *,
    n_rounds: int = 30,
    max_seconds: float | None = None,
    min_sample_ms: float = 2.0,
    back_to_back: Collection[int] = (),
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> list[Timing]:
    """Time calls in interleaved rounds, after warming up each.

    Args:
        calls: What to time; each does one request's work.
        clock: The clock of the device that the calls run on.
        n_rounds: Samples of each call, at least 1.
        max_seconds: Stop after the round in which the timed work, or the wall clock since
            the first round, reached this, but not before `MIN_ROUNDS` rounds; None for no
            bound.
        min_sample_ms: A sample repeats its call until it is about this long, so that the
            clock's resolution does not matter.
        back_to_back: Indices of calls whose repeats do not wait for each other: parts of a
            model, which in the model do not wait either. All others are requests, waited
            for one by one.
        seed: Of the order within rounds.
        progress: Called with the rounds done and `n_rounds` after each round.

    Returns:
        One `Timing` per call, in their order, all with the same number of samples; the
        k-th samples were taken in the same round.

    Raises:
        ValueError: If there are no calls or no rounds.
        DeviceError: If the clock ran backwards, or showed no time at all.
    """
    if not calls:
        raise ValueError("measure needs at least one call, but calls is empty")
    if n_rounds < 1:
        raise ValueError(f"n_rounds must be at least 1, but got n_rounds={n_rounds}")
    samples: list[list[float]] = [[] for _ in calls]
    rng = np.random.default_rng(seed)
    order = np.arange(len(calls))
    spent_ms = 0.0
    with _no_garbage_collection():
        n_calls = [_calls_per_sample(_warm_up(call, clock), min_sample_ms) for call in calls]
        started = time.monotonic()
        for n_done in range(1, n_rounds + 1):
            # A shuffled round, then its mirror image: steady drift cancels over the pair.
            order = rng.permutation(len(calls)) if n_done % 2 else order[::-1]
            for i in order.tolist():
                sample_ms = _sample(calls[i], clock, n_calls[i], i in back_to_back)
                samples[i].append(sample_ms / n_calls[i])
                spent_ms += sample_ms
            if progress is not None:
                progress(n_done, n_rounds)
            # On a busy machine the wall clock runs ahead of the time that was counted.
            spent_s = max(spent_ms / 1e3, time.monotonic() - started)
            if max_seconds is not None and n_done >= MIN_ROUNDS and spent_s >= max_seconds:
                break
    return [Timing(tuple(row), n) for row, n in zip(samples, n_calls, strict=True)]


def compare(
    first: Callable[[], object],
    second: Callable[[], object],
    clock: Clock,
    *,
    n_rounds: int = 50,
    max_seconds: float | None = None,
    confidence: float = 0.95,
    seed: int = 0,
) -> Comparison:
    """Time two calls in interleaved rounds.

    Args:
        first: The reference.
        second: The other.
        clock: The clock of the device that both run on.
        n_rounds: See `measure`.
        max_seconds: See `measure`.
        confidence: Of the interval of the ratio, in (0, 1).
        seed: Of the order and of the bootstrap.

    Raises:
        ValueError: If a setting is outside its range.
        DeviceError: If the clock cannot be trusted.
    """
    timings = measure([first, second], clock, n_rounds=n_rounds, max_seconds=max_seconds, seed=seed)
    return compare_timings(timings[0], timings[1], confidence=confidence, seed=seed)


def compare_timings(
    first: Timing, second: Timing, *, confidence: float = 0.95, seed: int = 0
) -> Comparison:
    """Compare two timings of one `measure`, round by round.

    Args:
        first: The reference.
        second: The other; its k-th sample was taken in the same round as the first's.
        confidence: Of the interval of the ratio, in (0, 1).
        seed: Of the bootstrap.

    Raises:
        ValueError: If the numbers of samples differ, or `confidence` is not in (0, 1).
    """
    if first.n_samples != second.n_samples:
        raise ValueError(
            f"timings of one measure have equally many samples, but got {first.n_samples} "
            f"and {second.n_samples}; time both in one call of measure"
        )
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must be in (0, 1), but got confidence={confidence}")
    ratios = np.asarray(second.samples_ms) / np.asarray(first.samples_ms)
    drawn = np.random.default_rng(seed).integers(len(ratios), size=(_N_RESAMPLES, len(ratios)))
    tail = (1 - confidence) / 2
    low, high = np.quantile(np.median(ratios[drawn], axis=1), [tail, 1 - tail])
    return Comparison(first, second, float(np.median(ratios)), (float(low), float(high)), confidence)


def level_rounds(timings: Sequence[Timing]) -> list[Timing]:
    """Take out what slowed all calls of a round alike.

    Each sample is divided by its round's slowdown: the median, over the calls, of how much
    slower than usual the call was in that round (Tukey's median polish, for factors).

    Args:
        timings: Of one `measure`; with one or two there is little to tell drift from.

    Returns:
        Timings of the same calls, as if all rounds had been equally fast.

    Raises:
        ValueError: If the numbers of samples differ.
    """
    if len({timing.n_samples for timing in timings}) > 1:
        raise ValueError(
            "timings of one measure have equally many samples, but got "
            f"{sorted({timing.n_samples for timing in timings})}"
        )
    samples = np.array([timing.samples_ms for timing in timings])
    for _ in range(_N_POLISHES):
        usual = np.median(samples, axis=1, keepdims=True)
        samples = samples / np.median(samples / usual, axis=0)
    return [
        Timing(tuple(row), timing.n_calls) for row, timing in zip(samples.tolist(), timings, strict=True)
    ]


def noise_note(timings: Sequence[Timing]) -> str | None:
    """One sentence if more than half of the timings are noisy, else None."""
    noise = float(np.median([timing.noise for timing in timings]))
    if noise <= NOISY:
        return None
    return (
        f"this machine is noisy: the typical spread of a timing is {noise:.0%} of its median "
        f"(above {NOISY:.0%}); stop other work and time again, or take more rounds"
    )


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """A collection in the middle of a sample would be charged to whatever ran then."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _warm_up(call: Callable[[], object], clock: Clock) -> float:
    """Run `call` until it gets no faster; returns its least time, in milliseconds."""
    times_ms: list[float] = []
    for _ in range(_MAX_WARM_UP_CALLS):
        times_ms.append(_checked(clock.time_ms(call, 1)))
        # The first call may compile or allocate for seconds and says nothing about the rest.
        if len(times_ms) >= 3 and sum(times_ms[1:]) >= _MAX_WARM_UP_MS:
            break
        if len(times_ms) >= 6:
            before, now = np.median(times_ms[-6:-3]), np.median(times_ms[-3:])
            if now >= _STABLE * before:
                break
    return min(times_ms)


def _calls_per_sample(call_ms: float, min_sample_ms: float) -> int:
    if call_ms * _MAX_CALLS <= min_sample_ms:
        return _MAX_CALLS
    return max(1, math.ceil(min_sample_ms / call_ms))


def _sample(call: Callable[[], object], clock: Clock, n_calls: int, together: bool) -> float:
    if together:
        total_ms = _checked(clock.time_ms(call, n_calls))
    else:
        total_ms = sum(_checked(clock.time_ms(call, 1)) for _ in range(n_calls))
    if total_ms == 0:
        raise DeviceError(f"the clock showed 0 ms for {n_calls} calls; time a call that does some work")
    return total_ms


def _checked(elapsed_ms: float) -> float:
    if not (math.isfinite(elapsed_ms) and elapsed_ms >= 0):
        raise DeviceError(f"the clock ran backwards: a call took {elapsed_ms} ms; use a steady clock")
    return elapsed_ms
