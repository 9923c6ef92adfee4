"""What a repair makes of the finalists, so that the choice is among the models that would be delivered."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from tqdm.auto import tqdm

from rlnas.run.choice import MARGIN
from rlnas.run.folds import repaired_predictions
from rlnas.scores import score

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rlnas.run.choice import MeasuredTrial
    from rlnas.run.goals import Goal
    from rlnas.run.inputs import Inputs
    from rlnas.run.job import Job
    from rlnas.space import SubnetConfig
    from rlnas.trial import Trial


N_REPAIRED = 3
"""Finalists repaired for a goal: so many of highest reward, and so many that keep most importance."""


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
