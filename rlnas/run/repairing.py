"""What a repair makes of the finalists, so that the choice is among the models that would be delivered."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tqdm.auto import tqdm

from rlnas.deploy.serving import predict_as_served
from rlnas.run.choice import MARGIN
from rlnas.run.training import repaired_subnet
from rlnas.scores import score
from rlnas.supernet.inference import predict

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rlnas.run.choice import MeasuredTrial
    from rlnas.run.inputs import Inputs
    from rlnas.run.job import Job
    from rlnas.trial import Trial


def worth_repairing(
    measured: Sequence[MeasuredTrial], target_ratios: Sequence[float | None]
) -> list[Trial]:
    """The finalists that meet at least one target; all of them if there is a goal without one.

    Args:
        measured: The finalists.
        target_ratios: At least one; the latencies aimed at over the full model's.
    """
    targets = [target for target in target_ratios if target is not None]
    if len(targets) < len(target_ratios):
        return [entry.trial for entry in measured]
    return [entry.trial for entry in measured if entry.ratio <= MARGIN * max(targets)]


def repaired_accuracies(
    job: Job, inputs: Inputs, trials: Sequence[Trial], *, progress: bool
) -> dict[int, float]:
    """By number of a trial: the task's metric of its repaired subnet on the search split.

    Raises:
        EvaluationError: If predictions are not finite.
    """
    search = inputs.task.search
    encoded = inputs.supernet.encode(search)
    accuracies = {}
    for trial in tqdm(trials, desc="repair the finalists", disable=not progress or not trials):
        subnet = repaired_subnet(job, inputs.supernet, trial.config, inputs.task)
        name, precision = f"trial {trial.number} after its repair", trial.config.precision
        if precision is None:
            predictions = predict(subnet, encoded, name=name)
        else:
            predictions = predict_as_served(subnet, encoded, precision, name=name)
        accuracies[trial.number] = score(inputs.task.metric, search.labels, predictions)
    return accuracies
