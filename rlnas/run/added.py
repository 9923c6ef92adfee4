"""What a search added: its best subnet beside those that were to be had without it.

Two comparisons, each on the items of the search split, paired: with the best subnet of the start,
which took no search, and with the best one that a control found with the same budget. Both sides
were selected on these very items, so both flatter, the one that was selected among more flatters more.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from rlnas.scores import difference_interval

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import numpy.typing as npt

    from rlnas.history import Result
    from rlnas.protocols import Controller
    from rlnas.run.goals import Goal
    from rlnas.run.searching import Searched
    from rlnas.space import SubnetConfig
    from rlnas.task import Task
    from rlnas.trial import Trial

    Predict = Callable[[Sequence[SubnetConfig]], Sequence[npt.NDArray[np.generic]]]

USUAL_START = 16
"""Trials that stand for the start of a controller without an informed one."""


def describe_added(
    task: Task,
    predict: Predict,
    goals: Sequence[Goal],
    controller: Controller,
    searched: Searched,
    controls: Mapping[str, Result],
) -> dict[str, Any]:
    """What the search added for each goal, as ``added`` in ``summary.json``.

    Args:
        task: Its search split is what subnets are compared on.
        predict: Predictions of subnets on that split, for metrics that do not add up over items.
        goals: What the run is to deliver.
        controller: Whose search it is.
        searched: What it found.
        controls: What other controllers found with the same budget, by name.
    """
    is_informed = has_start(controller)
    n_start = searched.n_first if is_informed else min(USUAL_START, len(searched.result.trials))
    compare = _Comparison(task, predict)
    return {
        "split": task.search.name,
        "n_items": len(task.search),
        "n_start": n_start,
        "informed_start": is_informed,
        "controls": {name: len(result.trials) for name, result in controls.items()},
        "comparisons": [_compared(compare, goal, searched.result, n_start, controls) for goal in goals],
    }


def has_start(controller: Controller) -> bool:
    """Whether a controller begins with an informed start, rather than with chance or an earlier run."""
    if getattr(controller, "warm_start", None) is not None:
        return False
    owners = (controller, getattr(controller, "settings", None))
    return any(getattr(owner, "start", None) is not None for owner in owners)


def _compared(
    compare: _Comparison, goal: Goal, result: Result, n_start: int, controls: Mapping[str, Result]
) -> dict[str, Any]:
    """The winner for a goal beside the best of the start and of the controls."""
    winner = _best(goal, result.trials)
    first = _best(goal, result.trials[:n_start])
    rivals = [(name, best) for name, other in controls.items() if (best := _best(goal, other.trials))]
    entry: dict[str, Any] = {
        "target_ratio": goal.target_ratio,
        "winner": None,
        "start": None,
        "control": None,
    }
    if winner is None:
        return entry
    entry["winner"] = _view(winner)
    if first is not None:
        entry["start"] = compare(goal, winner, first)
    if rivals:
        name, best = max(rivals, key=lambda rival: rival[1].reward)
        entry["control"] = {"name": name, **compare(goal, winner, best)}
    return entry


def _best(goal: Goal, trials: Sequence[Trial]) -> Trial | None:
    """The trial of highest reward for a goal, the first of equal ones; None if all were raced out."""
    complete = [goal.judged(trial) for trial in trials if not trial.metrics.raced_out]
    return max(complete, key=lambda trial: trial.reward, default=None)


def _view(trial: Trial) -> dict[str, Any]:
    return {
        "trial": trial.number,
        "accuracy": trial.metrics.accuracy,
        "predicted_latency_ms": trial.metrics.latency_ms,
        "reward": trial.reward,
    }


def _accuracy_decides(goal: Goal, winner: Trial, other: Trial) -> bool:
    """Whether the two differ in accuracy alone, as far as the reward goes.

    Without a target, and with rewards that also look at latency within it, one is traded for the other.
    """
    if goal.target_ratio is None:
        return False
    swapped = goal.reward(replace(other.metrics, accuracy=winner.metrics.accuracy))
    return math.isclose(swapped, goal.reward(winner.metrics), rel_tol=1e-9, abs_tol=1e-9)


class _Comparison:
    """Compares subnets on the search split, item by item."""

    def __init__(self, task: Task, predict: Predict) -> None:
        self._task = task
        self._predict = predict

    def __call__(self, goal: Goal, winner: Trial, other: Trial) -> dict[str, Any]:
        """The other trial, and how much more accurate the winner is, in points."""
        low, high = (0.0, 0.0) if winner.config == other.config else self._interval(winner, other)
        return {
            **_view(other),
            "difference_points": 100 * (winner.metrics.accuracy - other.metrics.accuracy),
            "difference_ci": [100 * low, 100 * high],
            "is_better": low > 0 if _accuracy_decides(goal, winner, other) else None,
        }

    def _interval(self, winner: Trial, other: Trial) -> tuple[float, float]:
        metric, split = self._task.metric, self._task.search
        bits = [self._bits(trial) for trial in (other, winner)]
        if metric == "accuracy" and bits[0] is not None and bits[1] is not None:
            return difference_interval(metric, np.ones(len(split), dtype=np.int64), bits[0], bits[1])
        first, second = self._predict([other.config, winner.config])
        return difference_interval(metric, split.labels, first, second)

    def _bits(self, trial: Trial) -> npt.NDArray[np.int64] | None:
        """1 for each item of the split that was answered rightly, or None where that was not kept."""
        correct, n_items = trial.metrics.correct, len(self._task.search)
        if correct is None or trial.metrics.n_items != n_items:
            return None
        return np.unpackbits(np.frombuffer(correct, dtype=np.uint8), count=n_items).astype(np.int64)
