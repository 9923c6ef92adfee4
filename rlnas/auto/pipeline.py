"""A choice among models and the search for the architecture of the winner, in one run folder."""

from __future__ import annotations

import logging
import shutil
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from rlnas.auto.candidates import check_optuna
from rlnas.auto.compute import search_at_most
from rlnas.auto.entrants import meet, reachable
from rlnas.auto.folder import AutoFolder
from rlnas.auto.learner import FullLearner
from rlnas.auto.plan import make_plan
from rlnas.auto.race import race
from rlnas.auto.record import Record
from rlnas.auto.summary import Choice, describe_choice
from rlnas.data import write_task
from rlnas.deploy.card import write_card
from rlnas.report import write_report
from rlnas.run import run_job
from rlnas.run.baseline import available_cores, cores
from rlnas.run.delivery import MAX_CERTIFIED
from rlnas.run.folder import read_json, write_folder, write_json
from rlnas.run.inputs import task_of
from rlnas.run.origin import origin_of
from rlnas.run.summary import base_model
from rlnas.run.torchrun import check_devices

if TYPE_CHECKING:
    from rlnas.auto.candidates import Candidate
    from rlnas.auto.compute import SearchCost
    from rlnas.auto.entrants import Entrant
    from rlnas.auto.job import AutoJob
    from rlnas.rewards import LatencyTarget
    from rlnas.run import Job
    from rlnas.task import Task

logger = logging.getLogger(__name__)

FEW_ITEMS = 200
"""Search items below which a choice among models is mostly luck: by 200, a score is known to 7 points."""


def run_auto(
    auto: AutoJob, path: str | Path, *, resume: bool = False, progress: bool = True
) -> dict[str, Any]:
    """Choose among models and trainings, search for the winner's architecture, and certify the result.

    Killed at any moment and called again with `resume`, it goes on where it was, and ends as if unbroken.

    Args:
        auto: What to do.
        path: The run folder; nothing is written outside it.
        resume: Whether to go on with what is there.
        progress: Whether to show bars.

    Returns:
        The summary, as in ``summary.json``.

    Raises:
        MissingDependencyError: If Optuna is not installed.
        InfeasibleTargetError: If no model can be made fast enough.
        BudgetError: If the budget does not hold one trial of each model and the search.
        RLNASError: Another of its kinds, for bad input of any phase.
    """
    check_optuna()
    check_devices(auto.job)
    folder = AutoFolder(Path(path))
    folder.open(auto.settings(), resume=resume)
    with folder.held():
        if folder.run.summary.is_file() and "auto" in (summary := read_json(folder.run.summary)):
            logger.info("the run in %s is finished; delete the folder to run it anew", folder.run.path)
            if not folder.run.report.is_file():  # killed before it told of the choice
                _write_choice(summary, folder)
            return summary
        task = task_of(auto.job, folder.run)
        choice = _choose(auto, task, folder, progress=progress)
        job = search_job(auto, choice.entrant, choice.winner.candidate, folder.winner)
        summary = run_job(job, folder.run.path, resume=True, progress=progress)
        return _told(auto, choice, task, summary, folder)


def _choose(auto: AutoJob, task: Task, folder: AutoFolder, *, progress: bool) -> Choice:
    """Let the arms race, and leave the winner's weights in the folder."""
    if len(task.search) < FEW_ITEMS:
        logger.warning(
            "models are compared on %d search items, and below %d such a choice is mostly luck; set more "
            "aside (--search-items)",
            *(len(task.search), FEW_ITEMS),
        )
    with folder.run.phase("meet"):
        entrants = meet(auto, task, folder.entrants)
    fitting = reachable(entrants, auto.target_ratio)
    reserved = {entrant.name: _search_cost(auto, entrant, len(task.train)) for entrant in fitting}
    costs = {entrant.name: entrant.cost for entrant in fitting}
    plan = make_plan(auto.rungs, costs, max(cost.total for cost in reserved.values()), auto.passes)
    logger.info(
        "choice: %d trials of %d models, judged after %s passes; at most %.1f passes of %s with the search",
        *(plan.n_trials, len(fitting), ", ".join(map(str, plan.rungs))),
        *(plan.at_most(list(costs.values())) + max(c.total for c in reserved.values()), entrants[0].name),
    )
    if not folder.run.data.is_dir():  # after all that can be refused
        write_folder(folder.run.data, lambda path: write_task(task, path))
    arms = {arm.name: arm for arm in auto.arms}
    learner = FullLearner(arms, task, auto.job, plan.rungs, folder.paused, progress=progress)
    record = Record(folder.record)
    with folder.run.phase("arms"), cores(auto.job.device, available_cores()):
        rates = {entrant.name: entrant.learning_rate for entrant in fitting}
        winner = race(plan, rates, costs, learner, record, auto.job.seed)
        if not folder.winner.is_dir():
            learner.keep(winner.candidate, folder.winner)
        shutil.rmtree(folder.paused, ignore_errors=True)
    logger.info("chosen: %s", winner.candidate)
    return Choice(plan, entrants, record.looks, winner, reserved[winner.candidate.arm])


def _search_cost(auto: AutoJob, entrant: Entrant, n_items: int) -> SearchCost:
    """What the search may cost at most, should this one win."""
    job = auto.job.for_items(n_items, 0)
    space = job.plain_space(entrant.shape)
    return search_at_most(
        entrant.cost, entrant.shape, space, job.schedule, budget=job.budget, n_models=MAX_CERTIFIED
    )


def search_job(auto: AutoJob, entrant: Entrant, candidate: Candidate, model: Path) -> Job:
    """The search for the winner's architecture.

    Args:
        auto: Of the choice.
        entrant: The winner; its whole model is what the search's own target refers to.
        candidate: How it was trained.
        model: Folder of its weights.
    """
    job = auto.job
    own = min(1.0, round(auto.target_ratio / entrant.latency_ratio, 4))
    return replace(
        candidate.trains(job),
        model=str(model.resolve()),
        pooling=None,
        reward=replace(cast("LatencyTarget", job.reward), ratio=own),
    )


def _told(
    auto: AutoJob, choice: Choice, task: Task, summary: dict[str, Any], folder: AutoFolder
) -> dict[str, Any]:
    """The summary with what was chosen, also on the model's card and in the report."""
    arm = next(arm for arm in auto.arms if arm.name == choice.entrant.name)
    summary = {
        **summary,
        "model": arm.name,
        "base_model": base_model(arm.model),
        "training": {**summary["training"], "full_epochs": auto.rungs[-1]},
        "auto": describe_choice(auto, choice, task, summary, folder),
    }
    folder.run.report.unlink(missing_ok=True)  # which knows of no choice
    write_json(folder.run.summary, summary)
    _write_choice(summary, folder)
    return summary


def _write_choice(summary: dict[str, Any], folder: AutoFolder) -> None:
    """Tell of the choice on the model's card and, last, in the report."""
    write_card(folder.run.best, origin_of(summary, folder.run.best))
    write_report(folder.run.path)
