"""The main job, phase by phase. A phase whose result lies in the run folder is not done again."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm.auto import tqdm

from rlnas.evaluation import SupernetEvaluator
from rlnas.latency import LatencyTable
from rlnas.loop import search
from rlnas.run.accounting import read_cost, write_cost
from rlnas.run.baseline import baseline_beside, half_the_cores
from rlnas.run.delivery import deliver, end_delivery
from rlnas.run.folder import FREE_TO_CHANGE, RunFolder, read_json
from rlnas.run.inputs import prepare_inputs
from rlnas.run.training import train_supernet

if TYPE_CHECKING:
    from rlnas.history import Result
    from rlnas.run.inputs import Inputs
    from rlnas.run.job import Job
    from rlnas.trial import Trial

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
    if job.latency_table is not None and not folder.latency.is_file():
        LatencyTable.load(job.latency_table)  # before the folder holds a job that cannot be done
    folder.open(job.settings(), resume=resume)
    if folder.is_finished(job.budget):
        logger.info("the run in %s is finished; delete the folder to run it anew", folder.path)
        if not folder.report.is_file():  # killed between the two
            end_delivery(folder)
        return read_json(folder.summary)
    with folder.held(), half_the_cores(job.device):
        inputs = prepare_inputs(job, folder, progress=progress)
        with baseline_beside(job, inputs.task, folder):
            train_supernet(job, inputs.supernet, inputs.space, inputs.task, folder, progress=progress)
            with folder.phase("search"):
                evaluator = SupernetEvaluator(
                    inputs.supernet, inputs.task, inputs.latency, racing=job.racing
                )
                result = run_search(job, inputs, evaluator, folder, progress=progress)
            logger.info("search: %d subnets evaluated; %s", len(result.trials), result.stop_reason)
            logger.info("search: %s; %s", read_cost(folder), evaluator.traversal)
        return deliver(job, inputs, evaluator, result, folder, added={}, progress=progress)


def run_search(
    job: Job, inputs: Inputs, evaluator: SupernetEvaluator, folder: RunFolder, *, progress: bool
) -> Result:
    """Let the controller search; the history lies in the folder, and beside it what it has cost."""
    own = ("seed", "reward", "controller", *FREE_TO_CHANGE)  # the search records the first three itself
    settings = {key: value for key, value in job.settings().items() if key not in own}
    spent_before = read_cost(folder)
    with tqdm(total=job.budget, desc="search", disable=not progress) as bar:

        def show(n_done: int, best: Trial) -> None:
            write_cost(folder, spent_before + evaluator.cost)
            bar.set_postfix_str(f"best: reward {best.reward:.4f}", refresh=False)
            bar.update(n_done - bar.n)

        return search(
            inputs.space,
            evaluator,
            job.reward,
            job.controller,
            budget=job.budget,
            seed=job.seed,
            path=folder.path,
            target_ratios=job.target_ratios,
            resume=True,  # the folder has made sure that what lies there is this job's
            settings=settings,
            progress=show,
        )
