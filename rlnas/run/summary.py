"""What ``summary.json`` says; `docs/metrics.md` defines each number."""

from __future__ import annotations

from dataclasses import asdict, replace
from importlib.metadata import PackageNotFoundError, packages_distributions, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rlnas.data.hub import hub_address, is_hub_name
from rlnas.evaluation import SupernetEvaluator
from rlnas.latency import PrecisionTables
from rlnas.pareto import is_pareto_optimal
from rlnas.run.accounting import read_cost
from rlnas.run.inputs import full_latency
from rlnas.run.precisions import describe_precisions
from rlnas.run.searching import make_evaluator
from rlnas.scores import score, score_interval

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rlnas.deploy import Certificate
    from rlnas.evaluation import Judge
    from rlnas.history import Result
    from rlnas.run.choice import MeasuredTrial
    from rlnas.run.folder import RunFolder
    from rlnas.run.goals import Goal
    from rlnas.run.inputs import Inputs
    from rlnas.run.job import Job
    from rlnas.run.steps import Step
    from rlnas.space import SubnetConfig

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


def describe_model(
    job: Job,
    inputs: Inputs,
    goal: Goal,
    chosen: MeasuredTrial,
    certificate: Certificate,
    steps: Sequence[Step],
    confirmations: Sequence[dict[str, Any]],
) -> dict[str, Any]:
    """What is known of the model that was delivered for one goal."""
    certified = certificate.to_dict()
    target, full_ms = goal.target_ratio, full_latency(inputs.space, inputs.latency)
    values = {name: certified[name] for name in CERTIFIED}
    values["target_ms"] = None if target is None else target * full_ms
    values["steps"] = [step.to_dict() for step in steps]
    values["confirmations"] = list(confirmations)
    values["best"] |= _search_view(chosen, goal)
    values["best"]["search_accuracy_float32"] = _accuracy_float32(job, inputs, chosen.trial.config)
    return values


def describe_run(
    job: Job,
    inputs: Inputs,
    evaluator: Judge,
    result: Result,
    measured: Sequence[MeasuredTrial],
    folder: RunFolder,
) -> dict[str, Any]:
    """Everything but what is known of the models that were delivered."""
    task, workload = inputs.task, inputs.workload
    front = _front(measured, evaluator, inputs)
    settings = job.settings()
    return {
        "rlnas_version": _version("rlnas"),
        "model": display_name(job.model),
        "base_model": base_model(job.model),
        "task": {
            "name": task.name,
            "metric": task.metric,
            "n_train": len(task.train),
            "n_search": len(task.search),
            "n_folds": task.n_folds,
            "n_final": len(task.final),
            "train_split": task.train.name,
            "search_split": task.search.name,
            "final_split": task.final.name,
            "notes": list(task.notes),
            "hub_name": _hub_data(job.data.source),
        },
        "training": {
            "full_epochs": 0 if _was_fine_tuned(folder) else job.schedule.full_epochs,
            "epochs": job.schedule.epochs,
            "finish_epochs": job.schedule.finish_epochs,
            "repair_items": job.schedule.repair_items if job.schedule.repairs else 0,
        },
        "shape": asdict(inputs.supernet.shape),
        "device": inputs.device.to_dict(),
        "workload": workload.to_dict(),
        "versions": {name: _version(name) for name in VERSIONED},
        "controller": settings["controller"],
        "reward": settings["reward"],
        "budget": job.budget,
        "seed": job.seed,
        "n_trials": len(result.trials),
        "n_raced_out": result.n_raced_out,
        "stop_reason": result.stop_reason,
        "evaluation": _evaluation(job, evaluator, folder),
        "pareto": front,
        "latency_model": _latency_model(inputs),
        "regime": inputs.regime and {**inputs.regime.to_dict(), "sentence": str(inputs.regime)},
        **(
            {"precisions": describe_precisions(inputs.latency, result.trials)}
            if isinstance(inputs.latency, PrecisionTables)
            else {}
        ),
        "last64_mean_reward": float(np.mean(result.episode_rewards[-LAST_EPISODES:])),
        "item_passes": item_passes(job, folder),
        "seconds": total_seconds(folder),
    }


def total_seconds(folder: RunFolder) -> dict[str, float]:
    """Seconds of each phase, and their sum."""
    seconds = folder.seconds()
    return {**seconds, "total": round(sum(seconds.values()), 3)}


def item_passes(job: Job, folder: RunFolder) -> int:
    """Passes over the training items that the chosen subnet and the baseline have behind them here."""
    return job.schedule.total_epochs - (job.schedule.full_epochs if _was_fine_tuned(folder) else 0)


def _was_fine_tuned(folder: RunFolder) -> bool:
    """Whether the checkpoint came with a classifier for the task."""
    return "finetune" not in folder.seconds()


def _latency_model(inputs: Inputs) -> dict[str, Any]:
    """The table's error; of the controls only the mean one, as ``latency.json`` holds them whole."""
    table = inputs.table
    values: dict[str, Any] = {}
    if table.error is not None:
        values = table.error.to_dict()
        values |= values.pop("table")
        values["controls"] = {name: error.mape for name, error in table.error.controls.items()}
        values["warning"] = table.error.warning
    return {**values, "notes": list(table.notes), "foreign_note": table.foreign_note}


def _evaluation(job: Job, evaluator: Judge, folder: RunFolder) -> dict[str, Any]:
    """What the search spent on judging subnets, and how it did that."""
    racing = job.racing
    return {
        **asdict(read_cost(folder)),
        "precision": evaluator.precision,
        "traversal": evaluator.traversal,
        "racing": racing and {"confidence": racing.confidence, "indifference": racing.indifference},
    }


def _accuracy_float32(job: Job, inputs: Inputs, config: SubnetConfig) -> float:
    """The chosen subnet judged again in full precision: shared weights, search split, no race."""
    if job.precisions:
        exact: Judge = SupernetEvaluator(inputs.supernet, inputs.task, inputs.latency, precision="float32")
    else:
        exact = make_evaluator(replace(job, cluster=None), inputs, precision="float32")
    return score(inputs.task.metric, inputs.task.search.labels, exact.predict([config])[0])


def _search_view(chosen: MeasuredTrial, goal: Goal) -> dict[str, Any]:
    """What the search thought of the chosen subnet, beside what the certificate says."""
    trial = chosen.trial
    return {
        "config": trial.config.to_dict(),
        "trial": trial.number,
        "search_accuracy": trial.metrics.accuracy,
        "expected_accuracy": goal.expected.get(trial.number),
        "repaired_accuracy": goal.repaired.get(trial.number),
        "predicted_latency_ms": trial.metrics.latency_ms,
        "reward": float(goal.reward(trial.metrics)),
    }


def _front(measured: Sequence[MeasuredTrial], evaluator: Judge, inputs: Inputs) -> list[dict[str, Any]]:
    """The measured subnets that no other measured one beats, by ascending latency."""
    tail_ratio = inputs.table.tail_ratio  # 1 where the median is what counts
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
    front: Sequence[MeasuredTrial], evaluator: Judge, inputs: Inputs
) -> list[tuple[float, float]]:
    """Of the accuracies on the search split: as the search found them, else by a bootstrap now."""
    known = [entry.trial.metrics.accuracy_ci for entry in front]
    if all(interval is not None for interval in known):
        return [interval for interval in known if interval is not None]
    predictions = evaluator.predict([entry.trial.config for entry in front])
    labels = inputs.task.search.labels
    return [score_interval(inputs.task.metric, labels, predicted) for predicted in predictions]


def display_name(model: str) -> str:
    """The last parts of a path, so that a summary that is shown around names no home folder."""
    path = Path(model)
    return "/".join(path.parts[-2:]) if path.is_dir() else model


def base_model(model: str) -> dict[str, Any] | None:
    """The checkpoint by a name that others know: on the hub, or of a Python package that holds it."""
    path = Path(model)
    if not path.exists():
        return {"name": model, "on_hub": True}
    parts = path.resolve().parts
    places = [index for index, part in enumerate(parts) if part in ("site-packages", "dist-packages")]
    if not places or places[-1] + 1 == len(parts):
        return None
    package = parts[places[-1] + 1]
    return {"name": packages_distributions().get(package, [package])[0], "on_hub": False}


def _hub_data(source: str) -> str | None:
    """The data set's repository on the hub; None for local files and what is built in."""
    if source == "pydocs" or Path(source).exists() or not is_hub_name(source):
        return None
    return hub_address(source)[0]


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
