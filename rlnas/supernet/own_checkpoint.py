"""From a full model that this library has written back to a supernet, without running its model file.

A run leaves such models (``full/``, ``supernet/``), and so does `rlnas.deploy.export`. They are how a
fine-tuned checkpoint with mean pooling is stored: no stock class of transformers has that head.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, cast

import torch
from transformers import AutoTokenizer

from rlnas.errors import CheckpointError, first_line
from rlnas.supernet.checkpoint import (
    Checkpoint,
    check_pooling,
    check_vocabulary,
    fit_labels,
    quiet_transformers,
    with_new_head,
)
from rlnas.supernet.modeling_subnet import SubnetModel, SubnetModelConfig

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from rlnas.task import Task


def is_own(model: str | Path) -> bool:
    """Whether a folder holds a model of ours, full or not."""
    try:
        config = json.loads((Path(model) / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):  # another checkpoint, or a damaged one: whoever reads it says why
        return False
    return isinstance(config, dict) and config.get("model_type") == SubnetModelConfig.model_type


def load_own(model: str | Path, task: Task | None, pooling: str | None, *, seed: int) -> Checkpoint:
    """Read a full model of ours, and give it another head where the task wants one.

    Args:
        model: Its folder.
        task: Its labels shape the head; None keeps those of the model.
        pooling: ``"cls"`` or ``"mean"``; None keeps that of the model.
        seed: For the head's weights where the model brings none for this task.

    Raises:
        CheckpointError: If it cannot be read, or is a subnet.
    """
    name = str(model)
    stored, tokenizer = _read(name)
    _check_full(stored.config, name)
    chosen = stored.config.pooling if pooling is None else pooling
    check_pooling(chosen)
    if chosen != stored.config.pooling or not (task is None or _has_outputs_for(stored.config, task)):
        stored.config.pooling = chosen
        stored.config.head_act = stored.config.head_act if chosen == "cls" else None
        return Checkpoint(with_new_head(stored, task, seed), tokenizer, fine_tuned=False)
    fine_tuned = task is None or task.is_regression or fit_labels(stored, stored.config, task)
    if task is not None and not task.is_regression:
        stored.config.id2label = dict(enumerate(task.label_names))
        stored.config.label2id = {label: index for index, label in enumerate(task.label_names)}
    return Checkpoint(stored, tokenizer, fine_tuned=fine_tuned)


def _read(name: str) -> tuple[SubnetModel, PreTrainedTokenizerBase]:
    try:
        config = SubnetModelConfig.from_pretrained(name)
        vars(config).pop("auto_map", None)  # names the model file of an exported model
        with quiet_transformers():
            loaded = SubnetModel.from_pretrained(
                name, config=config, dtype=torch.float32, output_loading_info=True
            )
            tokenizer = AutoTokenizer.from_pretrained(name, config=config, trust_remote_code=False)
    except Exception as error:  # transformers, safetensors and json each raise their own
        reason = first_line(error)
        raise CheckpointError(f"cannot read the model {name!r}: {reason}") from error
    model, info = cast("tuple[SubnetModel, dict[str, set[str]]]", loaded)
    if info["missing_keys"]:  # transformers would fill them with random numbers
        raise CheckpointError(
            f"the model {name!r} lacks the weight {min(info['missing_keys'])!r}, so it is incomplete"
        )
    check_vocabulary(tokenizer, name)
    model.eval()  # type: ignore[no-untyped-call]
    return model, tokenizer


def _check_full(config: SubnetModelConfig, name: str) -> None:
    """Refuse what has lost something already: shares of its sizes would be shares of a share."""
    full = {config.hidden_size // config.head_size}
    if set(config.kept_heads) != full or len(set(config.kept_units)) != 1 or 0 in config.kept_units:
        kept = " ".join(f"{h}h{u}" for h, u in zip(config.kept_heads, config.kept_units, strict=True))
        raise CheckpointError(
            f"the model {name!r} is a subnet ({kept}), and a search starts from a full model; give that "
            "one, e.g. the folder full in the run that wrote it"
        )


def _has_outputs_for(config: SubnetModelConfig, task: Task) -> bool:
    """Whether a head has as many outputs as a task, of the same kind."""
    is_regression = config.problem_type == "regression"
    return is_regression == task.is_regression and config.num_labels == task.num_labels
