"""Times any callables so that the figures can be compared.

Machines drift: another process starts, a clock is throttled. So several calls are timed
in *interleaved rounds* (every call once a round, in shuffled order), which makes drift hit
all alike, and each figure is a median over rounds, which outliers do not move. Ratios are
taken within rounds: they hold where milliseconds do not.

Drift that is faster than a round, as on a machine shared with others, needs a *pacemaker*: a
short call that is timed between all others and says how slow the machine is just then.
"""

from __future__ import annotations

import gc
import math
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from rlnas.errors import DeviceError
from rlnas.latency.timing import Comparison, Timing, compare_timings

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Sequence

    from rlnas.latency.clock import Clock

    Call: TypeAlias = Callable[[], object]

MIN_ROUNDS = 5
"""Rounds that are run even if the time is over: fewer give no median to trust."""

_MAX_WARM_UP_CALLS = 40
_MAX_WARM_UP_MS = 500.0
_STABLE = 0.95
_MAX_CALLS = 1_000


def measure(
    calls: Sequence[Call | Sequence[Call]],
    clock: Clock,
    *,
    n_rounds: int = 30,
    max_seconds: float | None = None,
    min_sample_ms: float = 2.0,
    back_to_back: Collection[int] = (),
    pacemaker: Call | None = None,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> list[Timing]:
    """Time calls in interleaved rounds, after warming up each.

    Args:
        calls: What to time; each does one request's work. Instead of one call there may be
            the calls of a mix of requests: each is timed for itself, one after the other.
        clock: The clock of the device that the calls run on.
        n_rounds: Samples of each call, at least 1.
        max_seconds: Stop after the round in which the timed work, or the wall clock since
            the first round, reached this, but not before `MIN_ROUNDS` rounds; None for no
            bound.
        min_sample_ms: A sample repeats its call (or each of its mix, as often) until it is about
            this long, so that the clock's resolution does not matter; 0 for one call a sample, as
            quantiles need it.
        back_to_back: Indices of calls whose repeats do not wait for each other: parts of a
            model, which in the model do not wait either. All others are requests, waited
            for one by one.
        pacemaker: Timed before and after every other call, for `Timing.slowdowns`; best of the
            same kind of work, and some tenth as long. None on machines that run steadily.
        seed: Of the order within rounds.
        progress: Called with the rounds done and `n_rounds` after each round.

    Returns:
        One `Timing` per call or mix, in their order, all with the same number of rounds; the
        k-th samples were taken in the same round.

    Raises:
        ValueError: If there are no calls or no rounds.
        DeviceError: If the clock ran backwards, or showed no time at all.
    """
    if not calls:
        raise ValueError("measure needs at least one call, but calls is empty")
    if n_rounds < 1:
        raise ValueError(f"n_rounds must be at least 1, but got n_rounds={n_rounds}")
    mixes = [[call] if callable(call) else list(call) for call in calls]
    for index, mix in enumerate(mixes):
        if not mix:
            raise ValueError(f"a mix of requests needs at least one call, but calls[{index}] is empty")
    with _no_garbage_collection():
        subjects = [_Subject(mix, clock, min_sample_ms, i in back_to_back) for i, mix in enumerate(mixes)]
        pace = None if pacemaker is None else _Subject([pacemaker], clock, min_sample_ms, True)
        _run_rounds(subjects, pace, n_rounds, max_seconds, seed, progress)
    # The pacemaker was timed once more than all others together.
    usual_ms = None if pace is None else float(np.median(pace.samples_ms))
    return [subject.timing(usual_ms) for subject in subjects]


def compare(
    first: Call | Sequence[Call],
    second: Call | Sequence[Call],
    clock: Clock,
    *,
    n_rounds: int = 50,
    max_seconds: float | None = None,
    statistic: str = "median",
    confidence: float = 0.95,
    seed: int = 0,
) -> Comparison:
    """Time two calls in interleaved rounds.

    Args:
        first: The reference; a call, or those of a mix, see `measure`.
        second: The other.
        clock: The clock of the device that both run on.
        n_rounds: See `measure`.
        max_seconds: See `measure`.
        statistic: ``"median"``, or ``"p99"``, for which each sample is one call.
        confidence: Of the interval of the ratio, in (0, 1).
        seed: Of the order and of the bootstrap.

    Raises:
        ValueError: If a setting is outside its range.
        DeviceError: If the clock cannot be trusted.
    """
    timings = measure(
        [first, second],
        clock,
        n_rounds=n_rounds,
        max_seconds=max_seconds,
        min_sample_ms=sample_ms(statistic),
        seed=seed,
    )
    return compare_timings(timings[0], timings[1], statistic=statistic, confidence=confidence, seed=seed)


def sample_ms(statistic: str) -> float:
    """How long samples should be for a statistic: means of several calls have no tail."""
    return 0.0 if statistic == "p99" else 2.0


class _Subject:
    """One call, or the requests of one mix, with the samples taken so far."""

    def __init__(self, mix: Sequence[Call], clock: Clock, min_sample_ms: float, together: bool) -> None:
        self._mix = mix
        self._clock = clock
        self._together = together
        usual_ms = sum(_warm_up(call, clock) for call in mix)
        self._n_calls = _calls_per_sample(usual_ms, min_sample_ms)
        self.samples_ms: list[float] = []
        self._slowdowns_ms: list[float] = []

    def sample(self) -> float:
        """Take one sample of every request; returns its milliseconds, all calls together."""
        totals_ms = [_sample(call, self._clock, self._n_calls, self._together) for call in self._mix]
        self.samples_ms += [total_ms / self._n_calls for total_ms in totals_ms]
        return sum(totals_ms)

    def note_pace(self, before_ms: float, after_ms: float) -> None:
        """Remember how long the pacemaker took around the last sample."""
        self._slowdowns_ms.append(math.sqrt(before_ms * after_ms))

    def timing(self, usual_pace_ms: float | None) -> Timing:
        """All samples."""
        slowdowns = () if usual_pace_ms is None else tuple(ms / usual_pace_ms for ms in self._slowdowns_ms)
        return Timing(tuple(self.samples_ms), self._n_calls, len(self._mix), slowdowns)


def _run_rounds(
    subjects: Sequence[_Subject],
    pace: _Subject | None,
    n_rounds: int,
    max_seconds: float | None,
    seed: int,
    progress: Callable[[int, int], None] | None,
) -> None:
    """Fill the subjects with samples."""
    rng = np.random.default_rng(seed)
    order = np.arange(len(subjects))
    spent_ms = 0.0 if pace is None else pace.sample()
    started = time.monotonic()
    for n_done in range(1, n_rounds + 1):
        # A shuffled round, then its mirror image: steady drift cancels over the pair.
        order = rng.permutation(len(subjects)) if n_done % 2 else order[::-1]
        for i in order.tolist():
            spent_ms += subjects[i].sample()
            if pace is not None:
                spent_ms += pace.sample()
                subjects[i].note_pace(*pace.samples_ms[-2:])
        if progress is not None:
            progress(n_done, n_rounds)
        # On a busy machine the wall clock runs ahead of the time that was counted.
        spent_s = max(spent_ms / 1e3, time.monotonic() - started)
        if max_seconds is not None and n_done >= MIN_ROUNDS and spent_s >= max_seconds:
            break


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
        if len(times_ms) >= 2 and sum(times_ms[1:]) >= _MAX_WARM_UP_MS:
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
