"""The main job, phase by phase. A phase whose result lies in the run folder is not done again."""

from __future__ import annotations

import logging
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlnas.latency import LatencyTable, PrecisionTables
from rlnas.run.accounting import read_cost
from rlnas.run.added import describe_added
from rlnas.run.baseline import baseline_beside, half_the_cores
from rlnas.run.delivery import deliver, end_delivery
from rlnas.run.folder import RunFolder, read_json, write_json
from rlnas.run.folds import train_folds
from rlnas.run.goals import goals_of
from rlnas.run.honest import describe_honesty
from rlnas.run.inputs import prepare_inputs
from rlnas.run.searching import make_evaluator, run_controls, run_search
from rlnas.run.summary import total_seconds
from rlnas.run.torchrun import check_devices, train_by_torchrun
from rlnas.run.training import train_supernet
from rlnas.run.transfer import describe_start
from rlnas.scale.pool import connected

if TYPE_CHECKING:
    from rlnas.run.inputs import Inputs
    from rlnas.run.job import Job
    from rlnas.supernet import Supernet

logger = logging.getLogger(__name__)


def run_job(job: Job, path: str | Path, *, resume: bool = False, progress: bool = True) -> dict[str, Any]:
    """Shrink a checkpoint for a task and a device, and certify the result.

    Killed at any moment and called again with `resume`, it goes on where it was: what was scored is
    not scored again, and the history ends as that of an unbroken run.

    Args:
        job: What to do.
        path: The run folder; nothing is written outside it.
        resume: Whether to go on with a run that is there.
        progress: Whether to show bars.

    Returns:
        The summary, as in ``summary.json``.

    Raises:
        RLNASError: One of its kinds, for bad input of any phase.
    """
    folder = RunFolder(Path(path))
    check_devices(job)
    if job.latency_table is not None and not folder.latency.is_file():
        load = PrecisionTables.load if job.precisions else LatencyTable.load
        load(job.latency_table)  # before the folder holds a job that cannot be done
    with ExitStack() as stack:
        if job.cluster is not None:  # one that is not there is refused before any work
            stack.enter_context(connected(job.cluster.address))
        return _run(job, folder, resume=resume, progress=progress)


def _run(job: Job, folder: RunFolder, *, resume: bool, progress: bool) -> dict[str, Any]:
    folder.open(job.settings(), resume=resume)
    is_finished = folder.is_finished(job.budget)
    if is_finished and folder.has_controls([control.name for control in job.controls]):
        logger.info("the run in %s is finished; delete the folder to run it anew", folder.path)
        if not folder.report.is_file():  # killed between the two
            end_delivery(folder)
        return read_json(folder.summary)
    with folder.held(), half_the_cores(job.device):
        inputs = prepare_inputs(job, folder, progress=progress)
        job = job.for_items(len(inputs.task.train), inputs.task.n_folds)
        with baseline_beside(job, inputs.task, folder):
            inputs = replace(inputs, supernet=_trained(job, inputs, folder, progress=progress))
            inputs = replace(inputs, folds=train_folds(job, inputs, folder, progress=progress))
            with folder.phase("search"):
                evaluator = make_evaluator(job, inputs)
                searched = run_search(job, inputs, evaluator, folder, progress=progress)
                evaluator.close()  # whose room others need
            result = searched.result
            logger.info("search: %d subnets evaluated; %s", len(result.trials), result.stop_reason)
            logger.info("search: %s; %s", read_cost(folder), evaluator.traversal)
            controls = {}
            if job.controls:
                with folder.phase("controls"):
                    controls = run_controls(job, inputs, folder, progress=progress)
        goals = goals_of(job, inputs, folder)
        added = describe_added(inputs.task, evaluator.predict, goals, job.controller, searched, controls)
        evaluator.close()
        if is_finished:
            return _amended(folder, added)
        told = {
            "added": added,
            "honest": describe_honesty(inputs.task, goals, job.controller, searched),
            "from_run": None if job.from_run is None else describe_start(job.from_run),
        }
        return deliver(job, inputs, evaluator, result, folder, told=told, progress=progress)


def _trained(job: Job, inputs: Inputs, folder: RunFolder, *, progress: bool) -> Supernet:
    """The supernet with its shared weights, trained here or by torchrun."""
    supernet, space = inputs.supernet, inputs.architectures
    if job.torchrun is not None:
        return train_by_torchrun(job, job.torchrun, supernet, space, folder, progress=progress)
    train_supernet(job, supernet, space, inputs.task, folder, progress=progress)
    return supernet


def _amended(folder: RunFolder, added: dict[str, Any]) -> dict[str, Any]:
    """The summary of a finished run with what controls have shown since."""
    summary = {**read_json(folder.summary), "added": added, "seconds": total_seconds(folder)}
    write_json(folder.summary, summary)
    end_delivery(folder)
    return summary
