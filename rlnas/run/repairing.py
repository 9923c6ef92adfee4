"""What a repair makes of the finalists, so that the choice is among the models that would be delivered."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tqdm.auto import tqdm

from rlnas.run.choice import CAREFUL, MARGIN, most_rewarded
from rlnas.run.folds import repaired_predictions
from rlnas.scores import score
from rlnas.supernet.looks import difference_error

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import numpy as np
    import numpy.typing as npt

    from rlnas.run.choice import MeasuredTrial
    from rlnas.run.goals import Goal
    from rlnas.run.inputs import Inputs
    from rlnas.run.job import Job
    from rlnas.space import SubnetConfig
    from rlnas.task import Task
    from rlnas.trial import Trial


N_REPAIRED = 3
"""Finalists repaired for a goal: so many of highest reward, and so many that keep most importance."""


N_CAREFUL = 1
"""The same of those well below the target, in case a second look finds that the others miss it."""


N_ERRORS = 2.0
"""Standard errors that are no luck: about a 95 % interval."""


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
        for margin, n in ((MARGIN, N_REPAIRED), (CAREFUL, N_CAREFUL)):
            limit = math.inf if goal.target_ratio is None else margin * goal.target_ratio
            meeting = [entry.trial for entry in measured if entry.ratio <= limit]
            ranks = [[goal.judged(trial).reward for trial in meeting]]
            if kept is not None and meeting:
                ranks.append(list(kept([trial.config for trial in meeting])))
            for values in ranks:
                order = sorted(range(len(meeting)), key=lambda index: -values[index])
                chosen |= {meeting[index].number for index in order[:n]}
    return [entry.trial for entry in measured if entry.trial.number in chosen]


@dataclass(frozen=True, slots=True, eq=False)
class Repaired:
    """What a repair has made of a subnet.

    Attributes:
        predictions: For every search item, shape ``(n_items,)``.
        accuracy: The task's metric of these.
    """

    predictions: npt.NDArray[np.generic]
    accuracy: float


def repaired_finalists(
    job: Job, inputs: Inputs, trials: Sequence[Trial], *, progress: bool
) -> dict[int, Repaired]:
    """By number of a trial: its subnet after a repair.

    Raises:
        EvaluationError: If predictions are not finite.
    """
    search = inputs.task.search
    found = {}
    for trial in tqdm(trials, desc="repair the finalists", disable=not progress or not trials):
        predictions = repaired_predictions(job, inputs, trial)
        found[trial.number] = Repaired(predictions, score(inputs.task.metric, search.labels, predictions))
    return found


def best_beyond_noise(
    measured: Sequence[MeasuredTrial],
    repaired: Mapping[int, Repaired],
    kept: Callable[[Sequence[SubnetConfig]], Sequence[float]] | None,
    task: Task,
) -> MeasuredTrial:
    """The repaired trial that keeps most importance, unless another one is better beyond noise.

    The best of several on a few hundred items is often so by luck. What a subnet keeps of the full model's
    importance is known without that luck, and says what a repair or a training makes of it about as well.
    So the others have to beat it, in this order, by more than `N_ERRORS` standard errors of the
    difference, paired over the items.

    Args:
        measured: At least one trial, with its reward after the repair where it had one.
        repaired: By number of a trial. Those that were not repaired are passed over, unless all were not.
        kept: How much importance configs keep; None where it is not known, or nothing limits the latency:
            then rewards decide.
        task: Whose search split they were judged on.
    """
    known = [entry for entry in measured if entry.trial.number in repaired]
    if kept is None or not known:
        return most_rewarded(known or measured)
    importance = kept([entry.trial.config for entry in known])
    order = sorted(range(len(known)), key=lambda index: -importance[index])
    best, *others = (known[index] for index in order)
    metric = functools.partial(score, task.metric)
    for other in others:
        gain = other.trial.reward - best.trial.reward
        pair = (repaired[entry.trial.number].predictions for entry in (best, other))
        if gain > 0 and gain > N_ERRORS * difference_error(metric, task.search.labels, *pair):
            best = other
    return best
