"""Which subnet to keep, decided by measurement rather than by prediction.

Subnets are compared by their medians, also where a p99 is asked for: it is about the same multiple
of the median for all of them, and hundreds of calls say little about it. The certificate takes the
time to measure it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rlnas.errors import HistoryError
from rlnas.latency import (
    clock_for,
    compare,
    compare_timings,
    level_rounds,
    measure,
    timing_conditions,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import TypeAlias

    from rlnas.history import Result
    from rlnas.latency import Timing
    from rlnas.protocols import Timeable
    from rlnas.space import SubnetConfig
    from rlnas.trial import Trial

    Best: TypeAlias = Callable[[Sequence["MeasuredTrial"]], "MeasuredTrial"]

MARGIN = 1.02
"""How far above its target a finalist may be measured. The certificate allows 1.05: what lies between
is left to the noise of its own measurement."""

PACE_SHARE = 8
"""The pacemaker's blocks are of one in so many of the full model's units."""

N_ROUNDS = 60
"""Rounds in which all finalists are measured; twice as many for a second look at one."""

MAX_SECONDS = 20.0
"""Bound on that for up to `USUAL_FINALISTS`, more in proportion; half of it for a second look."""

USUAL_FINALISTS = 12

CAREFUL = 0.95
"""Share of a target below which a subnet meets it even where the latency table flatters."""

N_FURTHER = 2
"""Further finalists of each kind, for each target."""

STEPS_BELOW = (1.0, 0.98, 0.96, 0.93)
"""Shares of a target: those that keep most importance within each are worth measuring."""


@dataclass(frozen=True, slots=True)
class MeasuredTrial:
    """A trial with its latency measured beside the full model's.

    Attributes:
        trial: The judged subnet.
        timing: Its measured latency, drift taken out.
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


def further_finalists(
    result: Result, target_ms: float, kept: Callable[[Sequence[SubnetConfig]], Sequence[float]] | None
) -> list[Trial]:
    """More trials worth measuring for a target, so that a choice near it does not hang on luck.

    Those of highest reward among trials predicted well below the target: the best ones lie close to it, and
    all of them may be measured to miss it. And those that keep most importance, which says what a repair
    or a last training makes of a subnet better than how it does before: within the target, and within
    each of `STEPS_BELOW`, so that where the table flatters the next one to take is not much smaller.

    Args:
        result: A search, with rewards for this target.
        target_ms: The target in predicted milliseconds.
        kept: How much importance configs keep, or None where it is not known.
    """
    complete = [trial for trial in result.trials if not trial.metrics.raced_out]
    fitting = [trial for trial in complete if trial.metrics.latency_ms <= target_ms]
    careful = [trial for trial in fitting if trial.metrics.latency_ms <= CAREFUL * target_ms]
    chosen = sorted(careful, key=lambda trial: (-trial.reward, trial.number))[:N_FURTHER]
    if kept is not None and fitting:
        worth = dict(zip(fitting, kept([trial.config for trial in fitting]), strict=True))
        order = sorted(fitting, key=lambda trial: (-worth[trial], trial.number))
        for step in STEPS_BELOW:
            chosen += [t for t in order if t.metrics.latency_ms <= step * target_ms][:N_FURTHER]
    return list(dict.fromkeys(chosen))


def measure_trials(
    timed: Timeable,
    trials: Sequence[Trial],
    device: str,
    *,
    max_seconds: float | None = None,
) -> list[MeasuredTrial]:
    """Measure trials in the same rounds as the full model.

    Args:
        timed: What can be run of the model.
        trials: Subnets to measure.
        device: Where they run.
        max_seconds: Bound on the timed work; by default what `MAX_SECONDS` says.

    Returns:
        In the order of `trials`.
    """
    with timing_conditions():
        calls = [timed.model_calls(config) for config in [timed.shape.full, *(t.config for t in trials)]]
        timings = measure(
            calls,
            clock_for(device),
            n_rounds=N_ROUNDS,
            max_seconds=MAX_SECONDS * max(1.0, len(trials) / USUAL_FINALISTS)
            if max_seconds is None
            else max_seconds,
            pacemaker=_pacemaker(timed) if device == "cpu" else None,
        )
    full, *levelled = level_rounds(timings)
    return [
        MeasuredTrial(trial, timing, compare_timings(full, timing).ratio)
        for trial, timing in zip(trials, levelled, strict=True)
    ]


def measure_again(timed: Timeable, config: SubnetConfig, device: str) -> float:
    """Latency of one subnet over the full model's, from rounds of these two alone.

    Args:
        timed: What can be run of the model.
        config: The subnet.
        device: Where both run.
    """
    with timing_conditions():
        return compare(
            timed.model_calls(timed.shape.full),
            timed.model_calls(config),
            clock_for(device),
            n_rounds=2 * N_ROUNDS,
            max_seconds=MAX_SECONDS / 2,
            seed=1,
        ).ratio


def _pacemaker(timed: Timeable) -> Callable[[], object]:
    return timed.block_calls("ffn", max(1, timed.shape.intermediate_size // PACE_SHARE))[0]


def most_rewarded(measured: Sequence[MeasuredTrial]) -> MeasuredTrial:
    """The trial of highest reward, the first of equal ones."""
    return max(measured, key=lambda entry: entry.trial.reward)


def choose(
    measured: Sequence[MeasuredTrial],
    target_ratio: float | None,
    *,
    margin: float = MARGIN,
    best: Best = most_rewarded,
) -> MeasuredTrial:
    """The best trial among those that meet the target as measured, within a margin.

    Where none meets it, the fastest.

    Args:
        measured: At least one trial.
        target_ratio: Latency aimed at over the full model's, or None for rewards without a target.
        margin: How many times the target a ratio may be.
        best: Which of several to take.
    """
    if target_ratio is None:
        return best(measured)
    meeting = [entry for entry in measured if entry.ratio <= margin * target_ratio]
    if not meeting:
        return min(measured, key=lambda entry: entry.ratio)
    return best(meeting)


def choose_next(
    measured: Sequence[MeasuredTrial],
    target_ratio: float,
    missed: Mapping[int, float],
    *,
    best: Best = most_rewarded,
) -> MeasuredTrial | None:
    """The trial to turn to when a closer look at others has shown that they miss the target.

    Only those measured faster than all of these come into question. They are expected to be as far
    off their measurement as the fastest of these was; of those that should meet the target then, the
    best is taken, and where none should, the fastest.

    Args:
        measured: Trials, those of `missed` among them.
        target_ratio: Latency aimed at over the full model's.
        missed: By number of a trial, at least one: the ratio that the closer look found.
        best: Which of several to take.

    Returns:
        None if no trial is faster.
    """
    looked_at = [entry for entry in measured if entry.trial.number in missed]
    last = min(looked_at, key=lambda entry: entry.ratio)
    faster = [entry for entry in measured if entry.ratio < last.ratio]
    if not faster:
        return None
    return choose(faster, target_ratio * last.ratio / missed[last.trial.number], best=best)


def settle(
    measured: Sequence[MeasuredTrial],
    target_ratio: float,
    look_again: Callable[[Trial], float],
    missed: Mapping[int, float] | None = None,
    *,
    best: Best = most_rewarded,
) -> MeasuredTrial | None:
    """Choose a trial, and look at it again before it is trained: the best of many flatters.

    While the second look finds that the choice misses the target (by more than `MARGIN`), the next
    one is taken.

    Args:
        measured: At least one trial.
        target_ratio: Latency aimed at over the full model's.
        look_again: Measures a trial's ratio anew.
        missed: By number: what is known already to miss the target, and its ratio.
        best: Which of several to take.

    Returns:
        The last one that was looked at; None if no trial is faster than those of `missed`.
    """
    found = dict(missed or {})
    if found:
        chosen = choose_next(measured, target_ratio, found, best=best)
    else:
        chosen = choose(measured, target_ratio, best=best)
    while chosen is not None:
        ratio = look_again(chosen.trial)
        if ratio <= MARGIN * target_ratio:
            break
        found[chosen.trial.number] = ratio
        following = choose_next(measured, target_ratio, found, best=best)
        if following is None:
            break
        chosen = following
    return chosen
