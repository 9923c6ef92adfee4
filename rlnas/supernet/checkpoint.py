"""From a Hugging Face checkpoint of any supported family to our model."""

from __future__ import annotations

import json
import logging
import os
import re
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer
from transformers.utils import logging as transformers_logging
from transformers.utils.hub import cached_file

from rlnas.errors import CheckpointError, did_you_mean, first_line
from rlnas.supernet.families import family_of, weight_names
from rlnas.supernet.modeling_subnet import SubnetModel, SubnetModelConfig

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from transformers import PretrainedConfig, PreTrainedTokenizerBase

    from rlnas.supernet.families import Family
    from rlnas.task import Task

POOLINGS = ("cls", "mean")
_UNTELLING = re.compile(r"(LABEL_)?\d+")

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, eq=False)
class Checkpoint:
    """A loaded checkpoint.

    Attributes:
        model: Our model, holding all of its weights.
        tokenizer: Its tokenizer.
        fine_tuned: Whether it came with a classifier for this task's labels.
    """

    model: SubnetModel
    tokenizer: PreTrainedTokenizerBase
    fine_tuned: bool


def load_checkpoint(
    model: str | Path, task: Task | None, pooling: str | None, *, seed: int, trust_remote_code: bool
) -> Checkpoint:
    """Read a checkpoint and give it a head for the task.

    Args:
        model: A hub name or a folder.
        task: Its labels shape the head; None keeps the labels of the checkpoint.
        pooling: ``"cls"`` or ``"mean"``; None takes what the checkpoint was made for.
        seed: For the head's weights where the checkpoint brings none.
        trust_remote_code: Whether code inside the checkpoint may run.

    Raises:
        CheckpointError: If it cannot be read or is of no supported family.
    """
    name = str(model)
    config = _read_config(name, trust_remote_code)
    family = family_of(config.model_type, name)
    chosen = native_pooling(name) if pooling is None else pooling
    check_pooling(chosen)
    _check_sizes(family, config, name)
    num_labels = len(config.id2label or {}) if task is None else task.num_labels
    weights, missing = _read_weights(name, num_labels)
    tokenizer = _read_tokenizer(name, trust_remote_code)
    ours = SubnetModelConfig(**_sizes(family, config, chosen), **_labels_of(config, task))
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        result = SubnetModel(ours)
    head = {f"{family.head_dense}.weight", f"{family.head_out}.weight"}
    has_head = missing.isdisjoint(head) and chosen == "cls"
    _copy_weights(result, family, weights, missing, name)
    if has_head and task is not None and not task.is_regression:
        has_head = fit_labels(result, config, task)
    result.eval()  # type: ignore[no-untyped-call]
    return Checkpoint(result, tokenizer, fine_tuned=has_head)


def check_pooling(pooling: str) -> None:
    """Refuse what does not stand for a text.

    Raises:
        CheckpointError: If the pooling is none of `POOLINGS`.
    """
    if pooling not in POOLINGS:
        raise CheckpointError(f"pooling must be one of {', '.join(POOLINGS)}, but got pooling={pooling!r}")


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """No reports and no progress bars of transformers: reading and writing take a moment only."""
    verbosity = transformers_logging.get_verbosity()
    bars = transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        if bars:
            transformers_logging.enable_progress_bar()  # type: ignore[no-untyped-call]


def native_pooling(model: str) -> str:
    """The pooling that a checkpoint was made for.

    Sentence-transformers checkpoints say it in ``1_Pooling/config.json``; all others classify from
    their first token.

    Raises:
        CheckpointError: If that file cannot be read.
    """
    path = cached_file(  # in a folder or on the hub; None where there is none
        model,
        "1_Pooling/config.json",
        _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_connection_errors=False,
    )
    if path is None:
        return "cls"
    try:
        settings = json.loads(Path(path).read_text(encoding="utf-8"))
        is_mean = settings.get("pooling_mode_mean_tokens") or settings.get("pooling_mode") == "mean"
    except (OSError, ValueError, AttributeError) as error:
        raise CheckpointError(f"cannot read the pooling of the checkpoint from {path}: {error}") from error
    return "mean" if is_mean else "cls"


def refuse_misspelt(name: str) -> None:
    """Refuse what can only be meant as a folder and is none: a hub's names hold one slash at most.

    Raises:
        CheckpointError: If `name` is such a path.
    """
    if (name.startswith(("/", ".", "~")) or name.count("/") > 1) and not os.path.exists(name):
        hint = (
            did_you_mean(Path(name)) or "; check the path, or give a hub name such as 'bert-base-uncased'"
        )
        raise CheckpointError(f"there is no folder {name!r}{hint}")


def announce_hub(name: str) -> None:
    """Say that the hub is asked for what is no folder, which takes long where it cannot be reached.

    Raises:
        CheckpointError: If `name` can only be meant as a folder.
    """
    refuse_misspelt(name)
    if not os.path.exists(name):
        logger.info("no folder %r here: asking the hub for it", name)


def _read_config(name: str, trust_remote_code: bool) -> PretrainedConfig:
    announce_hub(name)
    try:
        config = AutoConfig.from_pretrained(name, trust_remote_code=trust_remote_code)
        return cast("PretrainedConfig", config)
    except Exception as error:  # transformers raises a dozen kinds here; all mean "cannot read"
        if Path(name).is_dir() and not (Path(name) / "config.json").is_file():
            raise CheckpointError(
                f"the folder {name!r} holds no config.json; give a folder written by save_pretrained"
            ) from error
        if Path(name).is_dir():
            reason = first_line(error)
            raise CheckpointError(
                f"cannot read config.json of the checkpoint {name!r}: {reason}"
            ) from error
        raise CheckpointError(
            f"no checkpoint {name!r}: it is not a folder here, and the hub has no such model "
            "or cannot be reached"
            + (did_you_mean(Path(name)) or "; give a folder with config.json and model.safetensors")
        ) from error


def _check_sizes(family: Family, config: PretrainedConfig, name: str) -> None:
    hidden, heads = family.size(config, "hidden_size"), family.size(config, "num_attention_heads")
    if hidden % heads:
        raise CheckpointError(
            f"the checkpoint {name!r} has hidden_size={hidden}, which does not divide into "
            f"num_attention_heads={heads} equal heads"
        )
    positions = getattr(config, "position_embedding_type", "absolute")
    if positions != "absolute":
        raise CheckpointError(
            f"the checkpoint {name!r} has position_embedding_type={positions!r}; "
            "only 'absolute' is supported"
        )


def _read_weights(name: str, num_labels: int) -> tuple[dict[str, torch.Tensor], set[str]]:
    """The checkpoint's weights, and the names that it did not hold (or not in the right shape)."""
    try:
        # A new head is normal here and reported by us; it draws random numbers, which we do not use.
        with quiet_transformers(), torch.random.fork_rng():
            model, info = AutoModelForSequenceClassification.from_pretrained(
                name,
                num_labels=num_labels,
                dtype=torch.float32,
                ignore_mismatched_sizes=True,
                output_loading_info=True,
            )
    except Exception as error:
        reason = first_line(error)
        raise CheckpointError(f"cannot read the weights of the checkpoint {name!r}: {reason}") from error
    missing = set(info["missing_keys"]) | {entry[0] for entry in info["mismatched_keys"]}
    return dict(model.state_dict()), missing


def _read_tokenizer(name: str, trust_remote_code: bool) -> PreTrainedTokenizerBase:
    try:
        tokenizer = AutoTokenizer.from_pretrained(name, trust_remote_code=trust_remote_code)
    except Exception as error:
        reason = first_line(error)
        raise CheckpointError(f"cannot read the tokenizer of the checkpoint {name!r}: {reason}") from error
    check_vocabulary(tokenizer, name)
    return tokenizer


def check_vocabulary(tokenizer: PreTrainedTokenizerBase, name: str) -> None:
    """Whether a tokenizer knows any word: transformers makes an empty one where the files are lacking.

    Raises:
        CheckpointError: If it knows nothing but special tokens.
    """
    if len(tokenizer) <= len(tokenizer.all_special_tokens):
        raise CheckpointError(
            f"the checkpoint {name!r} holds no vocabulary; add the tokenizer.json that it was trained with"
        )


def _sizes(family: Family, config: PretrainedConfig, pooling: str) -> dict[str, Any]:
    hidden, heads = family.size(config, "hidden_size"), family.size(config, "num_attention_heads")
    num_layers = family.size(config, "num_hidden_layers")
    epsilon = family.layer_norm_eps
    return {
        "vocab_size": config.vocab_size,
        "hidden_size": hidden,
        "embedding_size": getattr(config, "embedding_size", hidden),
        "head_size": hidden // heads,
        "kept_heads": [heads] * num_layers,
        "kept_units": [family.size(config, "intermediate_size")] * num_layers,
        "hidden_act": family.size(config, "hidden_act"),
        "pooling": pooling,
        # A dense layer made for the first token means nothing for an average of tokens.
        "head_act": family.head_act if pooling == "cls" else None,
        "position_padding": config.pad_token_id if family.position_padding else None,
        "max_position_embeddings": config.max_position_embeddings,
        "type_vocab_size": config.type_vocab_size if family.has_token_types else 0,
        "layer_norm_eps": config.layer_norm_eps if epsilon is None else epsilon,
        "hidden_dropout_prob": family.size(config, "hidden_dropout_prob"),
        "attention_probs_dropout_prob": family.size(config, "attention_probs_dropout_prob"),
        "pad_token_id": config.pad_token_id,
    }


def with_new_head(model: SubnetModel, task: Task | None, seed: int) -> SubnetModel:
    """A copy of a model, in evaluation mode on the CPU, whose classifier is untrained.

    Args:
        model: All but the weights of its last linear layer are copied.
        task: Its labels shape the classifier; None keeps those of the model.
        seed: For the classifier's weights.
    """
    named = ("id2label", "label2id", "num_labels", "problem_type")
    sizes = {key: value for key, value in model.config.to_dict().items() if key not in named}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        result = SubnetModel(SubnetModelConfig(**{**sizes, **_labels_of(model.config, task)}))
    old = dict(model.named_parameters())
    with torch.no_grad():
        for name, parameter in result.named_parameters():
            if not name.startswith("head.out."):
                parameter.copy_(old[name])
    result.eval()  # type: ignore[no-untyped-call]
    return result


def _labels_of(config: PretrainedConfig, task: Task | None) -> dict[str, Any]:
    """What a config says of its outputs: the task's labels, or without one those of the checkpoint."""
    if task is None:
        kind = "regression" if config.num_labels == 1 else "single_label_classification"
        return {"id2label": config.id2label, "label2id": config.label2id, "problem_type": kind}
    if task.is_regression:
        return {"num_labels": 1, "problem_type": "regression"}
    return {
        "id2label": dict(enumerate(task.label_names)),
        "label2id": {label: index for index, label in enumerate(task.label_names)},
        "problem_type": "single_label_classification",
    }


def _copy_weights(
    model: SubnetModel, family: Family, weights: dict[str, torch.Tensor], missing: set[str], name: str
) -> None:
    """Fill our model; only the head may be missing in the checkpoint."""
    own = dict(model.named_parameters())
    has_project = "embeddings.project.weight" in own
    for ours, theirs in weight_names(family, len(model.layers), has_project=has_project):
        if ours not in own:
            continue
        if theirs in missing:
            if ours.startswith("head."):
                continue
            raise CheckpointError(
                f"the checkpoint {name!r} lacks the weight {theirs!r}, so it is incomplete"
            )
        if own[ours].shape != weights[theirs].shape:
            continue  # the head of another number of labels, already counted as missing
        own[ours].data.copy_(weights[theirs])


def fit_labels(model: SubnetModel, config: PretrainedConfig, task: Task) -> bool:
    """Put a head's outputs into the task's order of labels; False if it was made for other labels.

    Names that say nothing (``LABEL_0``, ``0``) are taken in their order.
    """
    names = {int(index): str(name) for index, name in (config.id2label or {}).items()}
    theirs = [names[index] for index in sorted(names)]
    order = label_order(theirs, task.label_names)
    if order is not None:
        model.head.out.weight.data = model.head.out.weight.data[order]
        model.head.out.bias.data = model.head.out.bias.data[order]
        return True
    if any(all(map(_UNTELLING.fullmatch, given)) for given in (theirs, task.label_names)):
        return True
    logger.warning(
        "the checkpoint's classifier tells %s apart, not %s; it counts as untrained",
        *(", ".join(given[:5]) + ", ..." * (len(given) > 5) for given in (theirs, task.label_names)),
    )
    return False


def label_order(theirs: Sequence[str], wanted: Sequence[str]) -> list[int] | None:
    """Where each wanted label stands among a model's, matched by name; None where names do not tell."""
    for spelling in (str, str.casefold):  # as they stand; then sst2's checkpoints, which say POSITIVE
        found, asked = ([spelling(name) for name in names] for names in (theirs, wanted))
        if len(set(found)) == len(found) and sorted(found) == sorted(asked):
            return [found.index(name) for name in asked]
    return None
