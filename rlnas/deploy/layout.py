"""What ``config.json`` makes of a model: its sizes and tensors, whichever class holds it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from transformers import AutoConfig, AutoModelForSequenceClassification

from rlnas.deploy.stock import read_config
from rlnas.errors import CheckpointError, first_line
from rlnas.supernet.checkpoint import quiet_transformers
from rlnas.supernet.families import FAMILIES
from rlnas.supernet.modeling_subnet import SubnetModel, SubnetModelConfig

if TYPE_CHECKING:
    from pathlib import Path

    from transformers import PretrainedConfig


@dataclass(frozen=True, slots=True)
class Layout:
    """Sizes and tensors of a model.

    Attributes:
        is_plain: Whether it is in the stock class of its family, which knows no layer that is gone.
        kept: Heads and FFN units of each layer that it has.
        head_size: Width of a head.
        hidden_size: Width of the residual stream.
        embedding_size: Width of the embeddings.
        num_labels: Outputs.
        has_dense: Whether the head has a dense layer before the classifier.
        max_position_embeddings: Rows of the position table.
        dtype: Number format of the weights, or None where it does not say.
        shapes: By name, of every tensor.
    """

    is_plain: bool
    kept: tuple[tuple[int, int], ...]
    head_size: int
    hidden_size: int
    embedding_size: int
    num_labels: int
    has_dense: bool
    max_position_embeddings: int
    dtype: str | None
    shapes: dict[str, tuple[int, ...]]


def is_known(folder: Path) -> bool:
    """Whether a folder's model is ours, or of a family that we know."""
    return read_config(folder).get("model_type") in (SubnetModelConfig.model_type, *FAMILIES)


def read_layout(folder: Path) -> Layout:
    """The layout of a model of ours, or of a family that we know.

    Raises:
        CheckpointError: If ``config.json`` cannot be read, or makes no model.
    """
    is_plain = read_config(folder).get("model_type") != SubnetModelConfig.model_type
    shapes = claimed_shapes(str(folder), trust_remote_code=False) if is_plain else _own_shapes(folder)
    config: Any = (AutoConfig if is_plain else SubnetModelConfig).from_pretrained(folder)
    dtype = getattr(config, "dtype", None)
    return Layout(
        is_plain=is_plain,
        **(_plain_sizes(config) if is_plain else _own_sizes(config)),
        num_labels=int(config.num_labels),
        max_position_embeddings=int(config.max_position_embeddings),
        dtype=None if dtype is None else str(dtype).removeprefix("torch."),
        shapes=shapes,
    )


def _own_sizes(config: SubnetModelConfig) -> dict[str, Any]:
    return {
        "kept": tuple(zip(config.kept_heads, config.kept_units, strict=False)),
        "head_size": config.head_size,
        "hidden_size": config.hidden_size,
        "embedding_size": config.embedding_size,
        "has_dense": config.head_act is not None,
    }


def _plain_sizes(config: PretrainedConfig) -> dict[str, Any]:
    family = FAMILIES[config.model_type]
    hidden, heads = family.size(config, "hidden_size"), family.size(config, "num_attention_heads")
    layers, units = family.size(config, "num_hidden_layers"), family.size(config, "intermediate_size")
    return {
        "kept": ((heads, units),) * layers,
        "head_size": hidden // heads,
        "hidden_size": hidden,
        "embedding_size": getattr(config, "embedding_size", hidden),
        "has_dense": True,
    }


def _own_shapes(folder: Path) -> dict[str, tuple[int, ...]]:
    try:
        config = SubnetModelConfig.from_pretrained(folder)
        with torch.device("meta"), torch.random.fork_rng(devices=[]):
            model = SubnetModel(config)
    except Exception as error:  # transformers and torch each raise their own
        raise CheckpointError(
            f"config.json of {str(folder)!r} makes no subnet: {first_line(error)}; export the model again"
        ) from error
    return {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}


def claimed_shapes(name: str, *, trust_remote_code: bool) -> dict[str, tuple[int, ...]]:
    """By name: the tensors that transformers makes of a model's config.

    Raises:
        CheckpointError: If the config cannot be read, or makes no sequence classifier.
    """
    try:
        with quiet_transformers(), torch.device("meta"), torch.random.fork_rng(devices=[]):
            config = AutoConfig.from_pretrained(name, trust_remote_code=trust_remote_code)
            auto: Any = AutoModelForSequenceClassification
            model = auto.from_config(config, trust_remote_code=trust_remote_code)
    except Exception as error:  # transformers raises a dozen kinds here
        raise CheckpointError(
            f"config.json of {name!r} makes no sequence classifier: {first_line(error)}"
        ) from error
    return {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
