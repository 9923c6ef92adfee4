"""The folds of a run with few items: a supernet for each, trained without the items that it judges."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import numpy as np

from rlnas.deploy.serving import predict_as_served
from rlnas.evaluation.folded import pooled
from rlnas.run.folder import RunFolder
from rlnas.run.training import furthest_supernet, repaired_subnet, train_supernet
from rlnas.supernet.inference import predict

if TYPE_CHECKING:
    import numpy.typing as npt

    from rlnas.run.inputs import Inputs
    from rlnas.run.job import Job
    from rlnas.supernet import Supernet
    from rlnas.trial import Trial


def train_folds(job: Job, inputs: Inputs, folder: RunFolder, *, progress: bool) -> tuple[Supernet, ...]:
    """Train a supernet for every fold, as that of the run is trained; each is kept in ``folds/``.

    Args:
        job: How to train.
        inputs: The task may have no folds; then nothing is trained.
        folder: The run.
        progress: Whether to show bars.

    Raises:
        TrainingError: If a loss is not a finite number.
        RunFolderError: If a stored supernet cannot be read.
    """
    folds = []
    for number in range(inputs.task.n_folds):
        task, place = inputs.task.fold(number), RunFolder(folder.folds / str(number))
        place.path.mkdir(parents=True, exist_ok=True)
        with folder.phase("folds"):
            supernet = furthest_supernet(job, task, place)
            train_supernet(job, supernet, inputs.architectures, task, place, progress=progress)
        shutil.rmtree(place.checkpoints, ignore_errors=True)
        folds.append(supernet)
    return tuple(folds)


def repaired_predictions(job: Job, inputs: Inputs, trial: Trial) -> npt.NDArray[np.generic]:
    """What a subnet says of every search item after its repair, in its precision, shape ``(n_items,)``.

    With folds each item is answered by the subnet of the fold that holds it out, repaired without it.

    Raises:
        EvaluationError: If predictions are not finite.
    """
    task = inputs.task
    name = f"trial {trial.number} after its repair"
    if task.folds is None:
        subnet = repaired_subnet(job, inputs.supernet, trial.config, task)
        encoded = inputs.supernet.encode(task.search)
        if trial.config.precision is None:
            return predict(subnet, encoded, name=name)
        return predict_as_served(subnet, encoded, trial.config.precision, name=name)
    parts = []
    for number, supernet in enumerate(inputs.folds):
        fold = task.fold(number)
        subnet = repaired_subnet(job, supernet, trial.config, fold)
        parts.append([predict(subnet, supernet.encode(fold.search), name=name)])
    items = [np.flatnonzero(task.folds == number) for number in range(task.n_folds)]
    return pooled(parts, items)[0]
