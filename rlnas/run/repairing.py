"""What a repair makes of the finalists, so that the choice is among the models that would be delivered."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from tqdm.auto import tqdm

from rlnas.run.choice import MARGIN
from rlnas.run.folds import repaired_predictions
from rlnas.scores import score

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from rlnas.run.choice import MeasuredTrial
    from rlnas.run.goals import Goal
    from rlnas.run.inputs import Inputs
    from rlnas.run.job import Job
    from rlnas.space import SubnetConfig
    from rlnas.trial import Trial


N_REPAIRED = 3
"""Finalists repaired for a goal: so many of highest reward, and so many that keep most importance."""


MIN_FITTED = 5
"""Repaired subnets to which a line can be fitted."""


def worth_repairing(
    measured: Sequence[MeasuredTrial],
    goals: Sequence[Goal],
    kept: Callable[[Sequence[SubnetConfig]], Sequence[float]] | None,
) -> list[Trial]:
    """The finalists that may win after a repair: for each goal the best of those that meet its target.

    Args:
        measured: The finalists.
        goals: What the run is to deliver.
        kept: How much importance configs keep, or None where it is not known.
    """
    chosen: set[int] = set()
    for goal in goals:
        limit = math.inf if goal.target_ratio is None else MARGIN * goal.target_ratio
        meeting = [entry.trial for entry in measured if entry.ratio <= limit]
        ranks = [[goal.judged(trial).reward for trial in meeting]]
        if kept is not None and meeting:
            ranks.append(list(kept([trial.config for trial in meeting])))
        for values in ranks:
            order = sorted(range(len(meeting)), key=lambda index: -values[index])
            chosen |= {meeting[index].number for index in order[:N_REPAIRED]}
    return [entry.trial for entry in measured if entry.trial.number in chosen]


def settled_accuracies(
    accuracies: Mapping[int, float], importance: Mapping[int, float], noise: float
) -> dict[int, float]:
    """Accuracies that finalists are compared by: after a repair, without some of the luck of the items.

    The best of several noisy accuracies flatters, and a small subnet would often be taken for as good as
    a large one. What a subnet keeps of the full model's importance predicts its accuracy after a repair,
    so each accuracy is drawn towards a line fitted to them, as far as noise explains its distance (James
    and Stein). Finalists that were not repaired lie on the line: their accuracies before a repair, with all
    their luck, could not be compared with these.

    Args:
        accuracies: By number of a trial, at least one: its repaired subnet's, on the search split.
        importance: By number of a trial: how much importance it keeps, of finalists that were not repaired
            too.
        noise: Standard error of an accuracy.

    Returns:
        By number of a trial, for all of `importance`. Where there are too few for a line, or importance
        tells nothing, those repaired are as they were, and others as good as the worst of them.
    """
    numbers = list(accuracies)
    kept, found = (np.array([values[n] for n in numbers]) for values in (importance, accuracies))
    if len(numbers) < MIN_FITTED or np.ptp(kept) == 0:
        return _as_they_were(accuracies, importance)
    slope, offset = np.polyfit(kept, found, 1)
    if slope <= 0:
        return _as_they_were(accuracies, importance)
    residuals = found - (slope * kept + offset)
    variance = float(residuals @ residuals) / (len(numbers) - 2)
    trust = max(0.0, 1.0 - noise**2 / variance) if variance > 0 else 0.0
    on_line = {number: float(slope * value + offset) for number, value in importance.items()}
    return on_line | dict(zip(numbers, (found - (1 - trust) * residuals).tolist(), strict=True))


def _as_they_were(accuracies: Mapping[int, float], importance: Mapping[int, float]) -> dict[int, float]:
    worst = min(accuracies.values())
    return dict.fromkeys(importance, worst) | dict(accuracies)


def standard_error(accuracies: Mapping[int, float], n_items: int) -> float:
    """Of an accuracy on so many items, at their mean; of other metrics about as large.

    Args:
        accuracies: At least one, by number of a trial.
        n_items: At least 1.
    """
    mean = min(max(float(np.mean(list(accuracies.values()))), 0.0), 1.0)
    return math.sqrt(mean * (1 - mean) / n_items)


def repaired_accuracies(
    job: Job, inputs: Inputs, trials: Sequence[Trial], *, progress: bool
) -> dict[int, float]:
    """By number of a trial: the task's metric of its repaired subnet on the search split.

    Raises:
        EvaluationError: If predictions are not finite.
    """
    search = inputs.task.search
    accuracies = {}
    for trial in tqdm(trials, desc="repair the finalists", disable=not progress or not trials):
        predictions = repaired_predictions(job, inputs, trial)
        accuracies[trial.number] = score(inputs.task.metric, search.labels, predictions)
    return accuracies
