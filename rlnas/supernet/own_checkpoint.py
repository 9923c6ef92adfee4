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
    labels_of,
    quiet_transformers,
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
    wanted = stored.config if task is None else _retargeted(stored.config, task)
    is_kept = chosen == stored.config.pooling and wanted.num_labels == stored.config.num_labels
    is_kept = is_kept and wanted.problem_type == stored.config.problem_type
    if not is_kept:
        return Checkpoint(_with_new_head(stored, wanted, chosen, seed), tokenizer, fine_tuned=False)
    fine_tuned = task is None or task.is_regression or fit_labels(stored, stored.config, task)
    stored.config = wanted
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


def _retargeted(config: SubnetModelConfig, task: Task) -> SubnetModelConfig:
    """The same config for the task's labels."""
    values = config.to_dict()
    for key in ("num_labels", "id2label", "label2id", "problem_type", "transformers_version"):
        values.pop(key, None)
    return SubnetModelConfig(**values, **labels_of(config, task))


def _with_new_head(stored: SubnetModel, config: SubnetModelConfig, pooling: str, seed: int) -> SubnetModel:
    """The encoder of a model under a head of other outputs, with random weights."""
    config.pooling = pooling
    config.head_act = config.head_act if pooling == "cls" else None
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = SubnetModel(config)
    weights = {k: v for k, v in stored.state_dict().items() if not k.startswith("head.")}
    model.load_state_dict(weights, strict=False)
    model.eval()  # type: ignore[no-untyped-call]
    return model
