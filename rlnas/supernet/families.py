"""Where each BERT family keeps its weights: a table, so that no family needs code of its own.

All four families compute the same post-LayerNorm encoder; they differ in names, in the
embeddings (token types, projection, how positions count) and in the classifier's head.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from rlnas.errors import CheckpointError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from transformers import PretrainedConfig

    from rlnas.supernet.modeling_subnet import SubnetModelConfig


@dataclass(frozen=True, slots=True)
class Family:
    """Names of one family, as they stand in a sequence-classification checkpoint.

    Attributes:
        embeddings: Prefix of the embeddings.
        layers: Prefix of the layers.
        blocks: Name inside a layer for each of our block weights.
        head_dense: The head's dense layer.
        head_out: The head's output layer.
        head_act: Activation between the two.
        sizes: Our name for a size to the family's name for it, where they differ.
        has_token_types: Whether there is a token-type table.
        position_padding: Whether positions count from the padding index (RoBERTa).
        layer_norm_eps: Epsilon that is fixed by the family, or None to read it.
    """

    embeddings: str
    layers: str
    blocks: dict[str, str]
    head_dense: str
    head_out: str
    head_act: str
    sizes: dict[str, str] = field(default_factory=dict)
    has_token_types: bool = True
    position_padding: bool = False
    layer_norm_eps: float | None = None

    def size(self, config: PretrainedConfig, name: str) -> Any:  # noqa: ANN401 - as the config has it
        """A size, rate or activation of the checkpoint's config under our name."""
        return getattr(config, self.sizes.get(name, name))


_BERT_BLOCKS = {
    "attention.query": "attention.self.query",
    "attention.key": "attention.self.key",
    "attention.value": "attention.self.value",
    "attention.output": "attention.output.dense",
    "attention.norm": "attention.output.LayerNorm",
    "ffn.inner": "intermediate.dense",
    "ffn.outer": "output.dense",
    "ffn.norm": "output.LayerNorm",
}

FAMILIES: dict[str, Family] = {
    "bert": Family(
        embeddings="bert.embeddings",
        layers="bert.encoder.layer",
        blocks=_BERT_BLOCKS,
        head_dense="bert.pooler.dense",
        head_out="classifier",
        head_act="tanh",
    ),
    "roberta": Family(
        embeddings="roberta.embeddings",
        layers="roberta.encoder.layer",
        blocks=_BERT_BLOCKS,
        head_dense="classifier.dense",
        head_out="classifier.out_proj",
        head_act="tanh",
        position_padding=True,
    ),
    "distilbert": Family(
        embeddings="distilbert.embeddings",
        layers="distilbert.transformer.layer",
        blocks={
            "attention.query": "attention.q_lin",
            "attention.key": "attention.k_lin",
            "attention.value": "attention.v_lin",
            "attention.output": "attention.out_lin",
            "attention.norm": "sa_layer_norm",
            "ffn.inner": "ffn.lin1",
            "ffn.outer": "ffn.lin2",
            "ffn.norm": "output_layer_norm",
        },
        head_dense="pre_classifier",
        head_out="classifier",
        head_act="relu",
        sizes={
            "hidden_size": "dim",
            "num_hidden_layers": "n_layers",
            "num_attention_heads": "n_heads",
            "intermediate_size": "hidden_dim",
            "hidden_act": "activation",
            "hidden_dropout_prob": "dropout",
            "attention_probs_dropout_prob": "attention_dropout",
        },
        has_token_types=False,
        layer_norm_eps=1e-12,
    ),
    "electra": Family(
        embeddings="electra.embeddings",
        layers="electra.encoder.layer",
        blocks=_BERT_BLOCKS,
        head_dense="classifier.dense",
        head_out="classifier.out_proj",
        head_act="gelu",
    ),
}


def family_of(model_type: str, model: str) -> Family:
    """The table entry of a checkpoint's model type.

    Raises:
        CheckpointError: If the family is not in the table.
    """
    if model_type not in FAMILIES:
        raise CheckpointError(
            f"{model!r} is a {model_type!r} checkpoint, which is not a supported family; "
            f"supported are {', '.join(FAMILIES)} (MiniLM is a bert)"
        )
    return FAMILIES[model_type]


def family_name(sizes: SubnetModelConfig) -> str | None:
    """Which family a model of ours came from, by its embeddings and its head.

    None for a head that no family has: a plain linear classifier on an average of tokens.
    """
    if sizes.pooling != "cls":
        return None
    for name, family in FAMILIES.items():
        embeddings = (family.has_token_types, family.position_padding)
        if embeddings != (sizes.type_vocab_size > 0, sizes.position_padding is not None):
            continue
        if family.head_act == sizes.head_act:
            return name
    return None


def weight_names(family: Family, num_layers: int, *, has_project: bool) -> Iterator[tuple[str, str]]:
    """Pairs of our weight name and the checkpoint's, the head's included."""
    tables = {"word": "word_embeddings", "position": "position_embeddings"}
    if family.has_token_types:
        tables["token_type"] = "token_type_embeddings"
    for ours, theirs in tables.items():
        yield f"embeddings.{ours}.weight", f"{family.embeddings}.{theirs}.weight"
    modules = {"embeddings.norm": f"{family.embeddings}.LayerNorm"}
    if has_project:
        modules["embeddings.project"] = f"{family.embeddings}_project"
    for index in range(num_layers):
        for ours, theirs in family.blocks.items():
            modules[f"layers.{index}.{ours}"] = f"{family.layers}.{index}.{theirs}"
    modules["head.dense"] = family.head_dense
    modules["head.out"] = family.head_out
    for ours, theirs in modules.items():
        yield f"{ours}.weight", f"{theirs}.weight"
        yield f"{ours}.bias", f"{theirs}.bias"
