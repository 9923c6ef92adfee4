"""How accurate the best of a search is once the luck of having been chosen is taken off."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from rlnas.run.added import has_start
from rlnas.selection import honest_interval

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from rlnas.protocols import Controller
    from rlnas.run.goals import Goal
    from rlnas.run.searching import Searched
    from rlnas.task import Task
    from rlnas.trial import Trial


def describe_honesty(
    task: Task, goals: Sequence[Goal], controller: Controller, searched: Searched
) -> dict[str, Any] | None:
    """The accuracy of the best subnet for each goal, as ``honest`` in ``summary.json``.

    Args:
        task: Its search split is what subnets were chosen by.
        goals: What the run is to deliver.
        controller: Whose search it is.
        searched: What it found.

    Returns:
        None where the answers to single items are not known: for other metrics than the accuracy.
    """
    trials = [trial for trial in searched.result.trials if not trial.metrics.raced_out]
    n_items = len(task.search)
    if n_items < 2 or not trials or any(trial.metrics.correct is None for trial in trials):
        return None
    packed = [np.frombuffer(trial.metrics.correct or b"", dtype=np.uint8) for trial in trials]
    correct = np.unpackbits(np.stack(packed), axis=1, count=n_items)
    n_first = None
    if has_start(controller):
        n_first = sum(trial.number < searched.n_first for trial in trials) or None
    return {
        "split": task.search.name,
        "n_folds": task.n_folds,
        "n_items": n_items,
        "n_candidates": len(trials),
        "goals": [_honest(goal, trials, correct, n_first) for goal in goals],
    }


def _honest(
    goal: Goal, trials: Sequence[Trial], correct: npt.NDArray[np.uint8], n_first: int | None
) -> dict[str, Any]:
    score = honest_interval(correct, _Chooser(goal, trials), n_first=n_first)
    return {
        "target_ratio": goal.target_ratio,
        "seen_accuracy": score.seen,
        "honest_accuracy": score.estimate,
        "honest_ci": [score.low, score.high],
        "gain_points": None if score.gain is None else 100 * score.gain,
        "gain_ci": None if score.gain_ci is None else [100 * bound for bound in score.gain_ci],
    }


class _Chooser:
    """Takes the trial of highest reward for a goal, had the trials these accuracies."""

    def __init__(self, goal: Goal, trials: Sequence[Trial]) -> None:
        self._reward = goal.reward
        # Rewards see everything but the answers, which would be copied each time.
        self._metrics = [replace(trial.metrics, correct=None) for trial in trials]
        self._known: dict[tuple[int, float], float] = {}

    def __call__(self, accuracies: npt.NDArray[np.float64]) -> int:
        return int(np.argmax([self._worth(row, value) for row, value in enumerate(accuracies.tolist())]))

    def _worth(self, row: int, accuracy: float) -> float:
        if accuracy == -np.inf:
            return accuracy
        if (row, accuracy) not in self._known:
            metrics = replace(self._metrics[row], accuracy=accuracy)
            self._known[row, accuracy] = float(self._reward(metrics))
        return self._known[row, accuracy]
