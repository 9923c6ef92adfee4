"""The models that a finished run has delivered."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rlnas.errors import RunFolderError
from rlnas.report import models_of, read_summary
from rlnas.run.job import ratio_name

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path
    from typing import Any

    from rlnas.run.folder import RunFolder


def model_path(folder: RunFolder, model: Mapping[str, Any], *, delivered: bool = True) -> Path:
    """Where a model of a run lies.

    Args:
        folder: The run.
        model: What its summary says of the model, see `rlnas.report.models_of`.
        delivered: Whether it is to be the model that the run delivered, also where that was fine-tuned
            since, see `rlnas.run.finetuning`.
    """
    finetuned = model.get("finetuned")
    if finetuned and not delivered and (folder.path / finetuned["folder"]).is_dir():
        return folder.path / str(finetuned["folder"])
    return folder.path / model["folder"] if "folder" in model else folder.best


def models_for(folder: RunFolder, target_ratio: float | None) -> list[Mapping[str, Any]]:
    """The models of a finished run, as its summary tells of them.

    Args:
        folder: The run.
        target_ratio: Which one, of a run for several targets; None for all of them.

    Raises:
        RunFolderError: If the run is not finished, or had no such target.
    """
    models = models_of(read_summary(folder.path))
    if target_ratio is None or "folder" not in models[0]:
        return models
    wanted = [model for model in models if ratio_name(model["target_ratio"]) == ratio_name(target_ratio)]
    if not wanted:
        raise RunFolderError(
            f"the run in {str(folder.path)!r} has models for the target ratios {_targets(models)}, but got "
            f"{target_ratio:g}; see what its policy proposes for others (rlnas propose), or search for it"
        )
    return wanted


def single_model(folder: RunFolder, target_ratio: float | None) -> Mapping[str, Any]:
    """The one model of a run, or the one for a target, as the summary tells of it.

    Raises:
        RunFolderError: If the run is not finished, has several models and none is named, or had no such
            target.
    """
    models = models_for(folder, target_ratio)
    own = models[0]["target_ratio"]
    if target_ratio is not None and (own is None or ratio_name(own) != ratio_name(target_ratio)):
        was = "no target" if own is None else f"the target ratio {ratio_name(own)}"
        raise RunFolderError(
            f"the run in {str(folder.path)!r} has one model, for {was}, but got {target_ratio:g}; "
            "leave --target-ratio out, or search for it"
        )
    if len(models) > 1:
        raise RunFolderError(
            f"the run in {str(folder.path)!r} has models for the target ratios {_targets(models)}; "
            "say which (--target-ratio)"
        )
    return models[0]


def _targets(models: list[Mapping[str, Any]]) -> str:
    return ", ".join(ratio_name(model["target_ratio"]) for model in models)
