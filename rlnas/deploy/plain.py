"""Subnets that are models of their family: stock transformers classes without a file of our own."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, cast

import torch
from transformers import AutoConfig, AutoModelForSequenceClassification

from rlnas.errors import InvalidSubnetError
from rlnas.supernet.checkpoint import quiet_transformers
from rlnas.supernet.families import FAMILIES, family_name, weight_names

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PretrainedConfig, PreTrainedModel

    from rlnas.supernet.families import Family
    from rlnas.supernet.modeling_subnet import SubnetModel, SubnetModelConfig

_SAME = ("vocab_size", "max_position_embeddings", "pad_token_id", "problem_type", "id2label", "label2id")


def obstacle_to_plain(sizes: SubnetModelConfig) -> str | None:
    """Why a subnet is no model of its family; None if it is one.

    A stock class has one number of heads, which are all heads, and one FFN width for all of its
    layers, both blocks in each layer, and the head of its family on the first token.

    Args:
        sizes: The subnet's.

    Returns:
        The first reason, as a clause, or None.
    """
    name = family_name(sizes)
    if name is None:
        return f"no family classifies by pooling={sizes.pooling!r} with head_act={sizes.head_act!r}"
    heads = sizes.hidden_size // sizes.head_size
    kept = [index for index, pair in enumerate(_pairs(sizes)) if pair != (0, 0)]
    if not kept:
        return "no layer is kept"
    for index in kept:
        if 0 in _pairs(sizes)[index]:
            return (
                f"layer {index + 1} has lost its {'FFN' if sizes.kept_heads[index] else 'attention'} block"
            )
        if sizes.kept_heads[index] != heads:
            return f"layer {index + 1} keeps {sizes.kept_heads[index]} of {heads} attention heads"
    widths = sorted({sizes.kept_units[index] for index in kept})
    if len(widths) > 1:
        return f"the FFN blocks keep different widths, {widths[0]} to {widths[-1]} units"
    epsilon = FAMILIES[name].layer_norm_eps
    if epsilon not in (None, sizes.layer_norm_eps):
        return f"layer_norm_eps={sizes.layer_norm_eps} is not that of a {name}"
    return None


def plain_model(weights: SubnetModel) -> PreTrainedModel:
    """The same model in the stock class of its family, e.g. a ``BertForSequenceClassification``.

    Args:
        weights: A subnet without an obstacle, see `obstacle_to_plain`.

    Returns:
        On the CPU, in evaluation mode and in the number format of `weights`.

    Raises:
        InvalidSubnetError: If there is an obstacle.
    """
    sizes = weights.config
    obstacle, name = obstacle_to_plain(sizes), family_name(sizes)
    if obstacle is not None or name is None:
        raise InvalidSubnetError(
            f"the subnet is no model that a stock class holds: {obstacle}; export it with its model file"
        )
    config = _stock_config(name, sizes)
    with quiet_transformers(), torch.random.fork_rng(devices=[]):
        make: Any = AutoModelForSequenceClassification.from_config
        model = make(config, dtype=weights.dtype)
    model.load_state_dict(_stock_weights(FAMILIES[name], weights))
    return cast("PreTrainedModel", model.eval())


def _pairs(sizes: SubnetModelConfig) -> list[tuple[int, int]]:
    return list(zip(sizes.kept_heads, sizes.kept_units, strict=True))


def _stock_config(name: str, sizes: SubnetModelConfig) -> PretrainedConfig:
    family = FAMILIES[name]
    kept = [pair for pair in _pairs(sizes) if pair != (0, 0)]
    values: dict[str, Any] = {
        "hidden_size": sizes.hidden_size,
        "num_hidden_layers": len(kept),
        "num_attention_heads": kept[0][0],
        "intermediate_size": kept[0][1],
    }
    for rate in ("hidden_act", "hidden_dropout_prob", "attention_probs_dropout_prob"):
        values[rate] = getattr(sizes, rate)
    values = {family.sizes.get(key, key): value for key, value in values.items()}
    values |= {key: getattr(sizes, key) for key in _SAME}
    if family.has_token_types:
        values["type_vocab_size"] = sizes.type_vocab_size
    if family.layer_norm_eps is None:
        values["layer_norm_eps"] = sizes.layer_norm_eps
    if name == "electra":
        values["embedding_size"] = sizes.embedding_size
    return AutoConfig.for_model(name, **values)


def _stock_weights(family: Family, weights: SubnetModel) -> dict[str, Tensor]:
    """By the family's names; the layers that are kept move together."""
    own = dict(weights.named_parameters())
    kept = [index for index, pair in enumerate(_pairs(weights.config)) if pair != (0, 0)]
    found = {}
    has_project = "embeddings.project.weight" in own
    for ours, theirs in weight_names(family, len(kept), has_project=has_project):
        moved = re.sub(r"^layers\.(\d+)\.", lambda match: f"layers.{kept[int(match[1])]}.", ours)
        found[theirs] = own[moved].detach().cpu()
    return found
