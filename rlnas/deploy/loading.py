"""Reading a model that others have written, without running its code unless told."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, cast

import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from rlnas.deploy.files import CONFIG_FILE, MODEL_FILE
from rlnas.errors import CheckpointError, first_line
from rlnas.space import SubnetConfig
from rlnas.supernet.checkpoint import (
    announce_hub,
    check_vocabulary,
    quiet_transformers,
    refuse_misspelt,
)
from rlnas.supernet.modeling_subnet import SubnetModel, SubnetModelConfig
from rlnas.supernet.supernet import Supernet

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from rlnas.task import Task
    from rlnas.workload import Workload

    Certifiable: TypeAlias = str | Path | Supernet | tuple[PreTrainedModel, PreTrainedTokenizerBase]

NO_LIMIT = 2**31 - 1
"""Tokens taken by a model whose positions are relative."""


def read_tokenizer(name: str | Path, *, trust_remote_code: bool = False) -> PreTrainedTokenizerBase:
    """The tokenizer of a model that `certify` takes.

    Args:
        name: A folder or a hub name.
        trust_remote_code: Whether code inside other folders may run.

    Raises:
        CheckpointError: If it cannot be read, or knows no words.
    """
    refuse_misspelt(str(name))
    try:
        with quiet_transformers():
            tokenizer = _read_tokenizer(str(name), trust_remote_code)
    except Exception as error:  # transformers and its parts each raise their own
        reason = first_line(error)
        raise CheckpointError(f"cannot read the tokenizer of {str(name)!r}: {reason}") from error
    check_vocabulary(tokenizer, str(name))
    return tokenizer


@dataclass(frozen=True, slots=True, eq=False)
class Loaded:
    """A model that can be run.

    Attributes:
        name: For messages.
        module: The model.
        tokenizer: Its tokenizer; None if it is not to be judged.
        max_seq_len: Tokens that both take.
    """

    name: str
    module: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase | None
    max_seq_len: int


def load(model: Certifiable, trust_remote_code: bool, *, is_judged: bool) -> Loaded:
    """Read a model, and its tokenizer if it is to be judged on texts.

    Args:
        model: A folder or hub name, a supernet (its full model), or a loaded model with its
            tokenizer. A folder written by `rlnas.deploy.export` is read without running its code.
        trust_remote_code: Whether code inside other folders may run.
        is_judged: Whether it needs a tokenizer and a trained classifier.

    Raises:
        CheckpointError: If it cannot be read, lacks weights, or would have to run foreign code.
    """
    if isinstance(model, Supernet):
        return Loaded("the supernet", model.model, model.tokenizer, model.max_seq_len)
    tokenizer: PreTrainedTokenizerBase | None
    if isinstance(model, tuple):
        module, tokenizer = model
        name = type(module).__name__
    else:
        name = str(model)
        announce_hub(name)
        try:
            module = _read(name, trust_remote_code, is_judged=is_judged)
        except CheckpointError:
            raise
        except Exception as error:  # transformers, safetensors and json each raise their own
            reason = first_line(error)
            raise CheckpointError(f"cannot read the model {name!r}: {reason}") from error
        tokenizer = read_tokenizer(name, trust_remote_code=trust_remote_code) if is_judged else None
    limit = NO_LIMIT if tokenizer is None else tokenizer.model_max_length
    return Loaded(name, module, tokenizer, min(limit, positions(module)))


def _read(name: str, trust_remote_code: bool, *, is_judged: bool) -> PreTrainedModel:
    folder = Path(name)
    if _is_own_export(folder):
        config = SubnetModelConfig.from_pretrained(folder)
        with quiet_transformers():
            read: Any = SubnetModel.from_pretrained(
                folder, config=config, dtype="auto", output_loading_info=True
            )
    elif (folder / MODEL_FILE.name).is_file() and not trust_remote_code:
        raise CheckpointError(
            f"the model file {MODEL_FILE.name} in {name!r} is not the one of this version of rlnas; "
            "look at it, then pass trust_remote_code=True (--trust-remote-code) to run it"
        )
    else:
        with quiet_transformers(), torch.random.fork_rng(devices=[]):
            read = AutoModelForSequenceClassification.from_pretrained(
                name, dtype="auto", trust_remote_code=trust_remote_code, output_loading_info=True
            )
    module, info = read
    if info["missing_keys"] and is_judged:  # transformers fills them with random numbers
        raise CheckpointError(
            f"the model {name!r} lacks {len(info['missing_keys'])} weights, among them "
            f"{min(info['missing_keys'])!r}; give one that was trained for sequence classification"
        )
    return cast("PreTrainedModel", module)


def _read_tokenizer(name: str, trust_remote_code: bool) -> PreTrainedTokenizerBase:
    if _is_own_export(Path(name)):
        config = SubnetModelConfig.from_pretrained(name)
        return AutoTokenizer.from_pretrained(name, config=config, trust_remote_code=False)
    return AutoTokenizer.from_pretrained(name, trust_remote_code=trust_remote_code)


def _is_own_export(folder: Path) -> bool:
    """Whether a folder's model file is ours to the byte: then our own class can stand in for it."""
    file = folder / MODEL_FILE.name
    if not (folder / CONFIG_FILE).is_file() or not file.is_file():
        return False
    return file.read_bytes() == MODEL_FILE.read_bytes()


def stored_precision(model: str) -> str | None:
    """The precision in which a model that `rlnas.deploy.export` wrote is served; None of any other.

    Args:
        model: A folder or hub name.

    Raises:
        CheckpointError: If the folder's `CONFIG_FILE` is damaged.
    """
    path = Path(model) / CONFIG_FILE
    if not path.is_file():
        return None
    try:
        return SubnetConfig.from_dict(json.loads(path.read_text(encoding="utf-8"))).precision
    except (OSError, ValueError) as error:  # of a damaged subnet too
        raise CheckpointError(f"cannot read {str(path)!r}: {error}; export the model again") from error


def positions(module: PreTrainedModel) -> int:
    """How many tokens a model takes, by its positions."""
    config = module.config
    limit = int(getattr(config, "max_position_embeddings", None) or NO_LIMIT)
    padding = getattr(config, "position_padding", None)
    if config.model_type in ("roberta", "xlm-roberta", "camembert"):
        padding = config.pad_token_id
    # These families count positions from behind the padding index.
    return limit if padding is None else limit - int(padding) - 1


def check(loaded: Loaded, task: Task | None, workload: Workload) -> None:
    """Refuse a model that does not suit the task or the workload.

    Raises:
        CheckpointError: If its labels are not as many as the task's, or it takes fewer tokens than
            the workload has.
    """
    config: Any = loaded.module.config
    num_labels = int(config.num_labels)
    if task is not None and num_labels != task.num_labels:
        raise CheckpointError(
            f"the model {loaded.name!r} has num_labels={num_labels}, but task {task.name!r} needs "
            f"{task.num_labels}; give a model that was trained for this task"
        )
    limit = positions(loaded.module)
    if workload.seq_len > limit:
        raise CheckpointError(
            f"the model {loaded.name!r} takes at most {limit} tokens, "
            f"but the workload has seq_len={workload.seq_len}; ask for no more than that (--seq-len)"
        )
