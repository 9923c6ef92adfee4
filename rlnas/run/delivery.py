"""From a finished search to a certified model, a summary and a report."""

from __future__ import annotations

import logging
import shutil
from dataclasses import asdict, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rlnas.deploy import Prediction, certify, export
from rlnas.evaluation import SupernetEvaluator
from rlnas.pareto import is_pareto_optimal
from rlnas.report import write_report
from rlnas.run.accounting import read_cost
from rlnas.run.baseline import train_baseline
from rlnas.run.choice import choose, finalists, measure_again, measure_trials, settle
from rlnas.run.folder import write_folder, write_json
from rlnas.run.steps import Step, read_steps, write_steps
from rlnas.run.training import finish_subnet
from rlnas.scores import score, score_interval
from rlnas.supernet.timing import TimedModel

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rlnas.deploy import Certificate
    from rlnas.history import Result
    from rlnas.run.choice import MeasuredTrial
    from rlnas.run.folder import RunFolder
    from rlnas.run.inputs import Inputs
    from rlnas.run.job import Job
    from rlnas.space import SubnetConfig
    from rlnas.trial import Trial

logger = logging.getLogger(__name__)

VERSIONED = ("rlnas", "torch", "transformers", "stable-baselines3", "gymnasium", "datasets", "numpy")
CERTIFIED = (
    "full",
    "best",
    "latency_ratio",
    "latency_ratio_ci",
    "target_ratio",
    "target_met",
    "loss_points",
    "loss_ci",
    "note",
    "prediction",
)
LAST_EPISODES = 64
MAX_CERTIFIED = 2
"""Subnets that are finished and certified at most: the chosen one and, if it misses, the next."""


def deliver(
    job: Job,
    inputs: Inputs,
    evaluator: SupernetEvaluator,
    result: Result,
    folder: RunFolder,
    *,
    progress: bool,
) -> dict[str, Any]:
    """Measure the finalists, finish and certify the chosen one, write summary and report.

    If the certificate says that the target is missed, the next candidate is finished and certified
    once, and is kept whatever its certificate says.

    Returns:
        The summary, as in ``summary.json``.
    """
    choice = _Choice(job, inputs, result, folder)
    steps = read_steps(folder, len(result.trials))
    chosen = choice.first(steps)
    while True:
        certificate = _finish_and_certify(job, inputs, chosen, folder, progress=progress)
        ratio, met = certificate.latency_ratio, certificate.target_met
        steps.append(Step(chosen.trial.number, ratio, met))
        following = None if met is not False or len(steps) >= MAX_CERTIFIED else choice.after(steps)
        if following is None:
            break
        logger.info("certified at %.3f, which misses the target: taking the next candidate", ratio)
        write_steps(folder, steps, len(result.trials))
        chosen = following
    summary = _summary(job, inputs, result, certificate, folder)
    summary["steps"] = [step.to_dict() for step in steps]
    summary["confirmations"] = choice.confirmations
    summary["evaluation"] = _evaluation(job, evaluator, folder)
    summary["best"] |= _search_view(chosen)
    summary["best"]["search_accuracy_float32"] = _accuracy_float32(inputs, chosen.trial.config)
    summary["pareto"] = _front(choice.measured, evaluator, inputs)
    write_json(folder.best / "certificate.json", {**certificate.to_dict(), "steps": summary["steps"]})
    write_json(folder.summary, summary)
    end_delivery(folder)
    return summary


def end_delivery(folder: RunFolder) -> None:
    """Remove what only a killed run needs, and write the report of a run whose summary is there."""
    shutil.rmtree(folder.checkpoints, ignore_errors=True)
    write_report(folder.path)


class _Choice:
    """Which of the measured finalists to finish.

    Attributes:
        measured: The finalists.
        confirmations: What second looks before a training found.
    """

    def __init__(self, job: Job, inputs: Inputs, result: Result, folder: RunFolder) -> None:
        self._job, self._inputs, self._folder = job, inputs, folder
        self._timed = TimedModel(inputs.supernet, inputs.workload, job.device)
        self.confirmations: list[dict[str, Any]] = []
        with folder.phase("measure"):
            self.measured = measure_trials(self._timed, finalists(result), job.device)

    def first(self, steps: Sequence[Step]) -> MeasuredTrial:
        """The choice, after the steps of a run that was killed."""
        target = self._inputs.target_ratio
        if self._inputs.predicted_for is not None:
            return choose(_predicted(self.measured, self._inputs), target, margin=1.0)
        if target is None:
            return choose(self.measured, None)
        found = self.after(steps)
        # Timings differ from those before: what was the next one may not be faster any more.
        return choose(self.measured, target) if found is None else found

    def after(self, steps: Sequence[Step]) -> MeasuredTrial | None:
        """The next candidate after certificates that missed the target."""
        target = self._inputs.target_ratio
        if target is None:
            return None
        with self._folder.phase("measure"):
            missed = {step.trial: step.latency_ratio for step in steps}
            return settle(self.measured, target, self._look_again, missed)

    def _look_again(self, trial: Trial) -> float:
        ratio = measure_again(self._timed, trial.config, self._job.device)
        self.confirmations.append({"trial": trial.number, "latency_ratio": ratio})
        return ratio


def _predicted(measured: Sequence[MeasuredTrial], inputs: Inputs) -> list[MeasuredTrial]:
    """The finalists with the ratios that the latency table predicts where it was made."""
    full_ms = _full_ms(inputs)
    return [replace(entry, ratio=entry.trial.metrics.latency_ms / full_ms) for entry in measured]


def _finish_and_certify(
    job: Job, inputs: Inputs, chosen: MeasuredTrial, folder: RunFolder, *, progress: bool
) -> Certificate:
    """Give the chosen subnet its last training, export it, and measure it beside the full model."""
    config = chosen.trial.config
    how = "measured" if inputs.predicted_for is None else "predicted"
    logger.info("chosen: %s, %s at %.3f of the full model's latency", config, how, chosen.ratio)
    with folder.phase("finish"):
        subnet = finish_subnet(job, inputs.supernet, config, inputs.task, folder, progress=progress)
        write_folder(folder.best, lambda path: export(inputs.supernet, config, path, weights=subnet))
    with folder.phase("baseline"):
        train_baseline(job, inputs.task, folder, progress=progress)
    with folder.phase("certify"):
        certificate = certify(
            folder.best,
            baseline=folder.full,
            task=inputs.task,
            workload=inputs.workload,
            device=job.device,
            target_ratio=inputs.target_ratio,
        )
    if inputs.predicted_for is None:
        return certificate
    return replace(certificate, prediction=Prediction(chosen.ratio, inputs.predicted_for))


def _summary(
    job: Job, inputs: Inputs, result: Result, certificate: Certificate, folder: RunFolder
) -> dict[str, Any]:
    """Everything but what is known of single subnets; `docs/metrics.md` defines each number."""
    task, certified = inputs.task, certificate.to_dict()
    settings, seconds = job.settings(), folder.seconds()
    return {
        "rlnas_version": _version("rlnas"),
        "model": _display_name(job.model),
        "task": {
            "name": task.name,
            "metric": task.metric,
            "n_train": len(task.train),
            "n_search": len(task.search),
            "n_final": len(task.final),
            "final_split": task.final.name,
        },
        "shape": asdict(inputs.supernet.shape),
        "device": certified["device"],
        "workload": certified["workload"],
        "versions": {name: _version(name) for name in VERSIONED},
        "controller": settings["controller"],
        "reward": settings["reward"],
        "budget": job.budget,
        "seed": job.seed,
        "n_trials": len(result.trials),
        "n_raced_out": result.n_raced_out,
        "stop_reason": result.stop_reason,
        "target_ms": None if inputs.target_ratio is None else inputs.target_ratio * _full_ms(inputs),
        **{name: certified[name] for name in CERTIFIED},
        "latency_model": _latency_model(inputs),
        "regime": inputs.regime and {**inputs.regime.to_dict(), "sentence": str(inputs.regime)},
        "last64_mean_reward": float(np.mean(result.episode_rewards[-LAST_EPISODES:])),
        "item_passes": item_passes(job, folder),
        "seconds": {**seconds, "total": round(sum(seconds.values()), 3)},
    }


def item_passes(job: Job, folder: RunFolder) -> int:
    """Passes over the training items that the chosen subnet and the baseline have behind them here."""
    was_fine_tuned = "finetune" not in folder.seconds()
    return job.schedule.total_epochs - (job.schedule.full_epochs if was_fine_tuned else 0)


def _full_ms(inputs: Inputs) -> float:
    return float(inputs.latency([inputs.space.largest()])[0])


def _latency_model(inputs: Inputs) -> dict[str, Any]:
    """The table's error; of the controls only the mean one, as ``latency.json`` holds them whole."""
    table = inputs.latency
    values: dict[str, Any] = {}
    if table.error is not None:
        values = table.error.to_dict()
        values |= values.pop("table")
        values["controls"] = {name: error.mape for name, error in table.error.controls.items()}
        values["warning"] = table.error.warning
    return {**values, "notes": list(table.notes), "foreign_note": table.foreign_note}


def _evaluation(job: Job, evaluator: SupernetEvaluator, folder: RunFolder) -> dict[str, Any]:
    """What the search spent on judging subnets, and how it did that."""
    racing = job.racing
    return {
        **asdict(read_cost(folder)),
        "precision": evaluator.precision,
        "traversal": evaluator.traversal,
        "racing": racing and {"confidence": racing.confidence, "indifference": racing.indifference},
    }


def _accuracy_float32(inputs: Inputs, config: SubnetConfig) -> float:
    """The chosen subnet judged again in full precision: shared weights, search split, no race."""
    exact = SupernetEvaluator(inputs.supernet, inputs.task, inputs.latency, precision="float32")
    return score(inputs.task.metric, inputs.task.search.labels, exact.predict([config])[0])


def _search_view(chosen: MeasuredTrial) -> dict[str, Any]:
    """What the search thought of the chosen subnet, beside what the certificate says."""
    trial = chosen.trial
    return {
        "config": trial.config.to_dict(),
        "trial": trial.number,
        "search_accuracy": trial.metrics.accuracy,
        "predicted_latency_ms": trial.metrics.latency_ms,
        "reward": trial.reward,
    }


def _front(
    measured: Sequence[MeasuredTrial], evaluator: SupernetEvaluator, inputs: Inputs
) -> list[dict[str, Any]]:
    """The measured subnets that no other measured one beats, by ascending latency."""
    tail_ratio = inputs.latency.tail_ratio  # 1 where the median is what counts
    costs = [(entry.timing.median_ms, -entry.trial.metrics.accuracy) for entry in measured]
    optimal = is_pareto_optimal(costs)
    front = [entry for entry, is_optimal in zip(measured, optimal, strict=True) if is_optimal]
    front.sort(key=lambda entry: entry.timing.median_ms)
    search = inputs.task.search
    intervals = _intervals(front, evaluator, inputs)
    return [
        {
            "trial": entry.trial.number,
            "config": entry.trial.config.to_dict(),
            "accuracy": entry.trial.metrics.accuracy,
            "accuracy_ci": list(interval),
            "n_items": entry.trial.metrics.n_items,
            "split": search.name,
            "latency_ms": tail_ratio * entry.timing.median_ms,
            "latency_spread_ms": entry.timing.spread_ms,
            "latency_ratio": entry.ratio,
            "predicted_latency_ms": entry.trial.metrics.latency_ms,
            "n_params": entry.trial.metrics.n_params,
            "reward": entry.trial.reward,
        }
        for entry, interval in zip(front, intervals, strict=True)
    ]


def _intervals(
    front: Sequence[MeasuredTrial], evaluator: SupernetEvaluator, inputs: Inputs
) -> list[tuple[float, float]]:
    """Of the accuracies on the search split: as the search found them, else by a bootstrap now."""
    known = [entry.trial.metrics.accuracy_ci for entry in front]
    if all(interval is not None for interval in known):
        return [interval for interval in known if interval is not None]
    predictions = evaluator.predict([entry.trial.config for entry in front])
    labels = inputs.task.search.labels
    return [score_interval(inputs.task.metric, labels, predicted) for predicted in predictions]


def _display_name(model: str) -> str:
    """The last parts of a path, so that a summary that is shown around names no home folder."""
    path = Path(model)
    return "/".join(path.parts[-2:]) if path.is_dir() else model


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
