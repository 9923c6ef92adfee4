"""The search of a run, and those of its controls, each with a history of its own in the run folder."""

from __future__ import annotations

import functools
import logging
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tqdm.auto import tqdm

from rlnas.evaluation import FoldedEvaluator, PrecisionEvaluator, SupernetEvaluator
from rlnas.loop import search
from rlnas.run.accounting import read_cost, write_cost
from rlnas.run.folder import FREE_TO_CHANGE
from rlnas.run.inputs import full_latency
from rlnas.scale.crew import Crew
from rlnas.scale.evaluator import RayEvaluator

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from rlnas.evaluation import Judge
    from rlnas.history import Result
    from rlnas.protocols import Controller
    from rlnas.run.folder import RunFolder
    from rlnas.run.inputs import Inputs
    from rlnas.run.job import Job
    from rlnas.trial import Trial

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, eq=False)
class Searched:
    """What a search found.

    Attributes:
        result: Its trials.
        n_first: Trials of the first batch that its controller proposed.
    """

    result: Result
    n_first: int


def make_evaluator(job: Job, inputs: Inputs, *, precision: str = "auto") -> Judge:
    """What judges subnets: the same for the search and for its controls."""
    supernet, task, latency = inputs.supernet, inputs.task, inputs.latency
    make: Callable[..., SupernetEvaluator] = SupernetEvaluator
    if job.cluster is not None and job.cluster.n_workers > 0:
        make = functools.partial(RayEvaluator, cluster=Crew(job.cluster))
    if job.precisions:
        return PrecisionEvaluator(supernet, task, latency, job.precisions, make=make)
    if task.n_folds:
        return FoldedEvaluator(supernet, inputs.folds, task, latency, precision=precision, make=make)
    return make(supernet, task, latency, racing=job.racing, precision=precision)


def run_search(
    job: Job, inputs: Inputs, evaluator: Judge, folder: RunFolder, *, progress: bool
) -> Searched:
    """Let the controller search; the history lies in the folder, and beside it what it has cost."""
    spent_before = read_cost(folder)
    return _search(
        job,
        inputs,
        evaluator,
        job.controller,
        folder,
        folder.path,
        name="search",
        note=lambda: write_cost(folder, spent_before + evaluator.cost),
        progress=progress,
    )


def run_controls(job: Job, inputs: Inputs, folder: RunFolder, *, progress: bool) -> dict[str, Result]:
    """Let every control search: the same judge, budget and seed; histories in ``controls/``.

    Each has an evaluator of its own, as races remember what they have seen.

    Returns:
        What each found, by name.
    """
    results = {}
    for control in job.controls:
        evaluator = make_evaluator(job, inputs)
        with closing(evaluator):
            searched = _search(
                job,
                inputs,
                evaluator,
                control.controller,
                folder,
                folder.controls / control.name,
                name=f"control {control.name}",
                note=lambda: None,
                progress=progress,
            )
        results[control.name] = searched.result
        logger.info("control %s: %d subnets evaluated", control.name, len(searched.result.trials))
    return results


def _search(
    job: Job,
    inputs: Inputs,
    evaluator: Judge,
    controller: Controller,
    folder: RunFolder,
    path: Path,
    *,
    name: str,
    note: Callable[[], None],
    progress: bool,
) -> Searched:
    own = ("seed", "reward", "controller", *FREE_TO_CHANGE)  # the search records the first three itself
    settings = {key: value for key, value in folder.portable(job.settings()).items() if key not in own}
    sizes: list[int] = []
    with tqdm(total=job.budget, desc=name, disable=not progress) as bar:

        def show(n_done: int, best: Trial) -> None:
            sizes.append(n_done)
            note()
            bar.set_postfix_str(f"best: reward {best.reward:.4f}", refresh=False)
            bar.update(n_done - bar.n)

        result = search(
            inputs.space,
            evaluator,
            job.reward,
            controller,
            budget=job.budget,
            seed=job.seed,
            path=path,
            reference_ms=full_latency(inputs.space, inputs.latency),
            target_ratios=job.target_ratios,
            resume=True,  # the folder has made sure that what lies there is this job's
            settings=settings,
            progress=show,
        )
    return Searched(result, sizes[0] if sizes else 0)
