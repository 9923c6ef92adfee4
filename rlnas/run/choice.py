"""Which subnet to keep, decided by measurement rather than by prediction."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rlnas.errors import HistoryError
from rlnas.latency import clock_for, compare_timings, measure, timing_conditions

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rlnas.history import Result
    from rlnas.latency import Timing
    from rlnas.supernet import Supernet
    from rlnas.supernet.timing import TimedModel
    from rlnas.trial import Trial


MARGIN = 1.02
"""How far above its target a finalist may be measured. The certificate allows 1.05: what lies between
is left to the noise of its own measurement."""


@dataclass(frozen=True, slots=True)
class MeasuredTrial:
    """A trial with its latency measured beside the full model's.

    Attributes:
        trial: The judged subnet.
        timing: Its measured latency.
        ratio: Measured latency over the full model's, from the same rounds.
    """

    trial: Trial
    timing: Timing
    ratio: float


def finalists(result: Result, n_front: int = 8, n_best: int = 4) -> list[Trial]:
    """The trials worth measuring: those of highest reward, and the Pareto front thinned evenly.

    Trials that were raced out are never among them: their accuracy is an estimate.

    Args:
        result: A search with at least one trial that was judged on all items.
        n_front: Trials of the front at most, at least 2; its two ends are always among them.
        n_best: Trials of highest reward.

    Returns:
        Distinct trials by ascending predicted latency.

    Raises:
        HistoryError: If no trial was judged on all items.
    """
    complete = [trial for trial in result.trials if not trial.metrics.raced_out]
    if not complete:
        raise HistoryError(
            f"no subnet can be chosen because none of {len(result.trials)} trials was judged on all items; "
            "search with a larger budget"
        )
    front = list(result.pareto_front)
    if len(front) > n_front:
        last = len(front) - 1
        front = [front[round(i * last / (n_front - 1))] for i in range(n_front)]
    best = sorted(complete, key=lambda trial: (-trial.reward, trial.number))[:n_best]
    chosen = {trial.number: trial for trial in [*front, *best]}
    return sorted(chosen.values(), key=lambda trial: trial.metrics.latency_ms)


def measure_trials(
    timed: TimedModel,
    supernet: Supernet,
    trials: Sequence[Trial],
    device: str,
    *,
    max_seconds: float = 20.0,
) -> list[MeasuredTrial]:
    """Measure trials in the same rounds as the full model; the result is in their order."""
    calls = [timed.model_call(config) for config in [supernet.shape.full, *(t.config for t in trials)]]
    with timing_conditions():
        full, *timings = measure(calls, clock_for(device), n_rounds=60, max_seconds=max_seconds)
    return [
        MeasuredTrial(trial, timing, compare_timings(full, timing).ratio)
        for trial, timing in zip(trials, timings, strict=True)
    ]


def choose(measured: Sequence[MeasuredTrial], target_ratio: float | None) -> MeasuredTrial:
    """The trial of highest reward among those that meet the target as measured, within `MARGIN`.

    Where none meets it, the fastest.

    Args:
        measured: At least one trial.
        target_ratio: Latency aimed at over the full model's, or None for rewards without a target.
    """
    if target_ratio is None:
        return max(measured, key=lambda entry: entry.trial.reward)
    meeting = [entry for entry in measured if entry.ratio <= MARGIN * target_ratio]
    if not meeting:
        return min(measured, key=lambda entry: entry.ratio)
    return max(meeting, key=lambda entry: entry.trial.reward)
