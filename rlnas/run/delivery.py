"""From a finished search to certified models, a summary and a report."""

from __future__ import annotations

import functools
import logging
import shutil
from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch

from rlnas.controllers.surrogate.knowledge import expected_accuracies
from rlnas.deploy import Prediction, certify, export
from rlnas.deploy.card import write_card
from rlnas.deploy.files import CERTIFICATE_FILE, DIGEST
from rlnas.deploy.weights_file import weights_digest
from rlnas.report import write_report
from rlnas.run.apart import Apart, Setting
from rlnas.run.baseline import train_baseline
from rlnas.run.choice import (
    choose,
    finalists,
    further_finalists,
    measure_again,
    measure_trials,
    settle,
)
from rlnas.run.elsewhere import Elsewhere
from rlnas.run.folder import read_json, write_folder, write_json
from rlnas.run.goals import goals_of
from rlnas.run.inputs import full_latency
from rlnas.run.origin import origin_of
from rlnas.run.repairing import (
    Repaired,
    best_beyond_noise,
    repaired_finalists,
    worth_repairing,
)
from rlnas.run.steps import Step, read_steps, write_steps
from rlnas.run.summary import describe_model, describe_run
from rlnas.run.training import finish_subnet
from rlnas.supernet.timing import TimedPrecisions

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rlnas.deploy import Certificate
    from rlnas.evaluation import Judge
    from rlnas.history import Result
    from rlnas.run.choice import Best, MeasuredTrial
    from rlnas.run.folder import RunFolder
    from rlnas.run.goals import Goal
    from rlnas.run.inputs import Inputs
    from rlnas.run.job import Job
    from rlnas.trial import Trial

logger = logging.getLogger(__name__)

MAX_CERTIFIED = 2
"""Subnets that are finished and certified at most: the chosen one and, if it misses, the next."""


def deliver(
    job: Job,
    inputs: Inputs,
    evaluator: Judge,
    result: Result,
    folder: RunFolder,
    *,
    told: Mapping[str, Any],
    progress: bool,
) -> dict[str, Any]:
    """Measure the finalists, finish and certify the chosen ones, write summary and report.

    The finalists of all targets are measured together, once; each target then has a choice, a model
    and a certificate of its own.

    Args:
        job: What to do.
        inputs: What the search worked on.
        evaluator: What it was judged by.
        result: What it found.
        folder: The run.
        told: What the summary says beside that, e.g. what the search added.
        progress: Whether to show bars.

    Returns:
        The summary, as in ``summary.json``.
    """
    expected = _expected_accuracies(inputs, evaluator, result)
    goals = [replace(goal, expected=expected) for goal in goals_of(job, inputs, folder)]
    with closing(_timer(job, inputs, folder)) as timer:
        with folder.phase("measure"):
            found = _finalists_of(goals, result, inputs, evaluator)
            measured = timer.call(measure_trials, timer.timed, found, job.latency_device)
        repaired: dict[int, Repaired] = {}
        if job.schedule.repairs:
            with folder.phase("repair"):
                worth = worth_repairing(_as_chosen(measured, inputs), goals, evaluator.kept_importance)
                repaired = repaired_finalists(job, inputs, worth, progress=progress)
            accuracies = {number: one.accuracy for number, one in repaired.items()}
            goals = [replace(goal, repaired=accuracies) for goal in goals]
        models = []
        for goal in goals:
            kept = None if goal.target_ratio is None else evaluator.kept_importance
            best = functools.partial(best_beyond_noise, repaired=repaired, kept=kept, task=inputs.task)
            choice = _Choice(job, inputs, goal, timer, measured, folder, best)
            models.append(_delivered(job, inputs, choice, result, folder, progress=progress))
    summary = describe_run(job, inputs, evaluator, result, measured, folder)
    if job.target_ratios:
        places = (str(goal.folder.relative_to(folder.path)) for goal in goals)
        summary["targets"] = [
            {"folder": place, **model} for place, model in zip(places, models, strict=True)
        ]
    else:
        summary |= models[0]
    summary |= told
    for goal in goals:  # anew, now that everything is known; a killed run comes here again
        write_card(goal.folder, origin_of(summary, goal.folder))
    write_json(folder.summary, summary)
    end_delivery(folder)
    return summary


def _timer(job: Job, inputs: Inputs, folder: RunFolder) -> Apart | Elsewhere:
    """Where models are timed: what does nothing else."""
    if job.cluster is not None and job.is_timed_elsewhere:
        return Elsewhere(job.cluster, folder.supernet, inputs.workload, job.precisions)
    timed = TimedPrecisions(inputs.supernet, inputs.workload, job.precisions, job.device)
    setting = Setting(folder.supernet, inputs.workload, job.precisions, job.device, torch.get_num_threads())
    return Apart(timed, setting, inputs.supernet.n_params(inputs.supernet.shape.full))


def end_delivery(folder: RunFolder) -> None:
    """Remove what only a killed run needs, and write the report of a run whose summary is there."""
    shutil.rmtree(folder.checkpoints, ignore_errors=True)
    write_report(folder.path)


def _expected_accuracies(inputs: Inputs, evaluator: Judge, result: Result) -> dict[int, float]:
    """By number of a trial: the best of many noisy accuracies flatters, its neighbours know better.

    Nothing where single answers were not kept, so that nobody knows how noisy the metric is.
    """
    complete = [trial for trial in result.trials if not trial.metrics.raced_out]
    if not complete or any(trial.metrics.correct is None for trial in complete):
        return {}
    accuracies = expected_accuracies(inputs.space, complete, evaluator.kept_importance)
    return {trial.number: float(value) for trial, value in zip(complete, accuracies, strict=True)}


def _finalists_of(
    goals: Sequence[Goal],
    result: Result,
    inputs: Inputs,
    evaluator: Judge,
) -> list[Trial]:
    """The finalists of all goals together, as the search judged them."""
    full_ms = full_latency(inputs.space, inputs.latency)
    found: list[Trial] = []
    for goal in goals:
        judged = goal.result(result)
        found += finalists(judged)
        if goal.target_ratio is not None:
            found += further_finalists(judged, goal.target_ratio * full_ms, evaluator.kept_importance)
    numbers = {trial.number for trial in found}
    chosen = [trial for trial in result.trials if trial.number in numbers]
    return sorted(chosen, key=lambda trial: trial.metrics.latency_ms)


def _delivered(
    job: Job, inputs: Inputs, choice: _Choice, result: Result, folder: RunFolder, *, progress: bool
) -> dict[str, Any]:
    """Finish and certify the chosen subnet of a goal, unless a killed run has done so.

    If the certificate says that the target is missed, the next candidate is finished and certified
    once, and is kept whatever its certificate says.

    Returns:
        What the summary says of it.
    """
    goal, n_trials = choice.goal, len(result.trials)
    if goal.delivered.is_file() and goal.folder.is_dir():
        stored = read_json(goal.delivered)
        if stored.get("n_trials") == n_trials and "model" in stored:  # else the search has gone on since
            return dict(stored["model"])
    steps = read_steps(goal.steps, n_trials)
    chosen = choice.first(steps)
    while True:
        certificate = _finish_and_certify(job, inputs, choice, chosen, folder, progress=progress)
        ratio, met = certificate.latency_ratio, certificate.target_met
        steps.append(Step(chosen.trial.number, ratio, met))
        following = None if met is not False or len(steps) >= MAX_CERTIFIED else choice.after(steps)
        if following is None:
            break
        logger.info("certified at %.3f, which misses the target: taking the next candidate", ratio)
        write_steps(goal.steps, steps, n_trials)
        chosen = following
    model = describe_model(job, inputs, goal, chosen, certificate, steps, choice.confirmations)
    digest = weights_digest(goal.folder)
    values = {**certificate.to_dict(), "steps": model["steps"], DIGEST: digest}
    write_json(goal.folder / CERTIFICATE_FILE, values)
    goal.delivered.parent.mkdir(exist_ok=True)
    write_json(goal.delivered, {"n_trials": n_trials, "model": model})
    return model


class _Choice:
    """Which of the measured finalists to finish for a goal.

    Attributes:
        goal: What is chosen for.
        timer: Where it is timed.
        confirmations: What second looks before a training found.
    """

    def __init__(
        self,
        job: Job,
        inputs: Inputs,
        goal: Goal,
        timer: Apart | Elsewhere,
        measured: Sequence[MeasuredTrial],
        folder: RunFolder,
        best: Best,
    ) -> None:
        self._job, self._inputs, self._folder = job, inputs, folder
        self._best, self.timer = best, timer
        self._measured = [replace(entry, trial=goal.judged(entry.trial)) for entry in measured]
        self.goal = goal
        self.confirmations: list[dict[str, Any]] = []

    def first(self, steps: Sequence[Step]) -> MeasuredTrial:
        """The choice, after the steps of a run that was killed."""
        target = self.goal.target_ratio
        if self._inputs.predicted_for is not None:
            return choose(_as_chosen(self._measured, self._inputs), target, margin=1.0, best=self._best)
        if target is None:
            return choose(self._measured, None, best=self._best)
        found = self.after(steps)
        # Timings differ from those before: what was the next one may not be faster any more.
        return choose(self._measured, target, best=self._best) if found is None else found

    def after(self, steps: Sequence[Step]) -> MeasuredTrial | None:
        """The next candidate after certificates that missed the target."""
        target = self.goal.target_ratio
        if target is None:
            return None
        with self._folder.phase("measure"):
            missed = {step.trial: step.latency_ratio for step in steps}
            return settle(self._measured, target, self._look_again, missed, best=self._best)

    def _look_again(self, trial: Trial) -> float:
        ratio = self.timer.call(measure_again, self.timer.timed, trial.config, self._job.latency_device)
        self.confirmations.append({"trial": trial.number, "latency_ratio": ratio})
        return ratio


def _as_chosen(measured: Sequence[MeasuredTrial], inputs: Inputs) -> list[MeasuredTrial]:
    """The finalists with the ratios that count: those predicted, where the table is of another device."""
    if inputs.predicted_for is None:
        return list(measured)
    full_ms = full_latency(inputs.space, inputs.latency)
    return [replace(entry, ratio=entry.trial.metrics.latency_ms / full_ms) for entry in measured]


def _finish_and_certify(
    job: Job, inputs: Inputs, choice: _Choice, chosen: MeasuredTrial, folder: RunFolder, *, progress: bool
) -> Certificate:
    """Give the chosen subnet its last training, export it, and measure it beside the full model."""
    goal, config = choice.goal, chosen.trial.config
    how = "measured" if inputs.predicted_for is None else "predicted"
    what = "chosen" if not job.target_ratios else f"chosen for the target {goal.name}"
    logger.info("%s: %s, %s at %.3f of the full model's latency", what, config, how, chosen.ratio)
    with folder.phase("finish"):
        subnet = finish_subnet(job, inputs.supernet, config, inputs.task, folder, progress=progress)
        write_folder(goal.folder, lambda path: export(inputs.supernet, config, path, weights=subnet))
    with folder.phase("baseline"):
        train_baseline(job, inputs.task, folder, progress=progress)
    with folder.phase("certify"):
        certificate = choice.timer.call(
            certify,
            goal.folder,
            baseline=folder.full,
            task=inputs.task,
            workload=inputs.workload,
            model_workload=inputs.workload.in_precision(config.precision),
            device=job.latency_device,
            target_ratio=goal.target_ratio,
        )
    if inputs.predicted_for is None:
        return certificate
    return replace(certificate, prediction=Prediction(chosen.ratio, inputs.predicted_for))
