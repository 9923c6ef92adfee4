"""What a run tells the cards of its models."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rlnas.deploy.files import CERTIFICATE_FILE
from rlnas.deploy.origin import BaseModel, DataFacts, Origin
from rlnas.errors import RunFolderError
from rlnas.report import read_summary
from rlnas.run.folder import read_json
from rlnas.space import ModelShape

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from rlnas.run.folder import RunFolder
    from rlnas.trial import Trial

FINETUNING_FILE = "finetuning.json"
"""How a model was trained further by `rlnas.run.finetuning`, in its folder."""


def origin_of(summary: Mapping[str, Any], model: Path) -> Origin:
    """What is known of a model that a run has delivered.

    Args:
        summary: Of the run, as in ``summary.json``.
        model: The model's folder.

    Raises:
        RunFolderError: If the summary, or the certificate in the folder, is damaged.
    """
    certificate = model / CERTIFICATE_FILE
    return Origin(
        shape=ModelShape(**_kept(summary, "shape")),
        base=_base(summary),
        data=_data(summary),
        training=(
            *_choice(summary.get("auto")),
            *_training(summary.get("training")),
            *_further_training(model),
        ),
        certificate=read_json(certificate) if certificate.is_file() else None,
        versions=_kept(summary, "versions"),
    )


def origin_of_trial(folder: RunFolder, trial: Trial) -> Origin:
    """What is known of a subnet that a run has judged: nothing certified, all of the search split.

    Raises:
        RunFolderError: If the summary is damaged.
    """
    metrics = trial.metrics
    interval = ""
    if metrics.accuracy_ci is not None:
        interval = f" [{metrics.accuracy_ci[0]:.3f}, {metrics.accuracy_ci[1]:.3f}]"
    items = f" of {metrics.n_items:,} items" if metrics.n_items else ""
    figures = {
        "trial": trial.number,
        "score with shared weights on the search split": f"{metrics.accuracy:.3f}{interval}{items}",
        "predicted latency": f"{metrics.latency_ms:.4g} ms",
    }
    if not folder.summary.is_file():
        return Origin(figures=figures)
    summary = read_summary(folder.path)
    return Origin(
        base=_base(summary),
        data=_data(summary),
        training=("with the weights that all subnets of the search share, and no last training",),
        versions=_kept(summary, "versions"),
        figures=figures,
    )


def _kept(summary: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """A part of the summary that a report can do without, but a card cannot."""
    part = summary.get(name)
    if not isinstance(part, dict):
        raise RunFolderError(
            f"summary.json is damaged: {name} is missing; delete it and write it anew by resuming the "
            "search (--resume)"
        )
    return part


def _base(summary: Mapping[str, Any]) -> BaseModel | None:
    known = summary.get("base_model")
    return None if known is None else BaseModel(**known)


def _data(summary: Mapping[str, Any]) -> DataFacts | None:
    """None for runs of earlier versions, which kept less."""
    task = summary["task"]
    if "train_split" not in task:
        return None
    return DataFacts(
        task=task["name"],
        metric=task["metric"],
        splits=(task["n_train"], task["n_search"], task["n_final"]),
        names=(task["train_split"], task["search_split"], task["final_split"]),
        notes=tuple(task["notes"]),
        hub_name=task["hub_name"],
    )


def _training(passes: Mapping[str, int] | None) -> tuple[str, ...]:
    if passes is None:
        return ()
    told = ["the checkpoint was fine-tuned on the task when it came"]
    if passes["full_epochs"]:
        told = [f"the full model alone: {_passes(passes['full_epochs'])} over the training items"]
    if passes["epochs"]:
        told.append(f"with weights shared among subnets: {_passes(passes['epochs'])}")
    if passes["finish_epochs"]:
        told.append(f"this subnet alone, taught by the full one: {_passes(passes['finish_epochs'])}")
    if passes["repair_items"]:
        told.append(
            "repaired without training: fitted by least squares to the full model on the texts of "
            f"{passes['repair_items']:,} training items"
        )
    return tuple(told)


def _choice(auto: Mapping[str, Any] | None) -> tuple[str, ...]:
    """What `rlnas auto` chose, where it did."""
    if auto is None:
        return ()
    chosen = auto["chosen"]
    return (
        f"chosen among {len(auto['arms'])} models in {len(auto['trials'])} trials, by "
        f"{chosen['n_items']:,} items of the {chosen['split']} split: {chosen['arm']}, learning rate "
        f"{chosen['learning_rate']:g}, batches of {chosen['batch_size']}",
    )


def _further_training(model: Path) -> tuple[str, ...]:
    """What `rlnas finetune` did, where it did."""
    path = model / FINETUNING_FILE
    if not path.is_file():
        return ()
    record = read_json(path)
    looks = record["looks"]
    text = f"trained further on {record['n_train']:,} items, taught by {record['teacher']}"
    if looks["n_items"]:
        text += f"; its weights were chosen on {looks['n_items']:,} items of the {looks['split']} split"
    return (text,)


def _passes(number: int) -> str:
    return f"{number} pass{'es' * (number != 1)}"
