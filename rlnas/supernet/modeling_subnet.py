"""The model: one BERT-family encoder whose layers may be narrower than each other, or gone.

This file imports torch and transformers only, because it travels with every exported model:
``AutoModelForSequenceClassification.from_pretrained(folder, trust_remote_code=True)`` runs it
where `rlnas` is not installed. The supernet is the same model with nothing removed; a block
called with ``keep=k`` uses the first k of its heads or units, as views of its weights, and a
block called with a gate multiplies its heads or units by it. So one piece of code computes
the sliced, the masked and the stand-alone form of a subnet.

A block that keeps nothing is the identity: no bias, no LayerNorm, no cost.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PretrainedConfig, PreTrainedModel
from transformers.activations import ACT2FN
from transformers.modeling_outputs import SequenceClassifierOutput


class SubnetModelConfig(PretrainedConfig):  # type: ignore[no-untyped-call]
    """Sizes of a subnet.

    Args:
        vocab_size: Word pieces.
        hidden_size: Width of the residual stream.
        embedding_size: Width of the embeddings; projected where it differs from `hidden_size`.
        head_size: Width of one attention head.
        kept_heads: Heads of each layer; 0 means that the layer has no attention block.
        kept_units: FFN units of each layer; 0 means that the layer has no FFN block.
        hidden_act: Activation of the FFN, a name that transformers knows.
        pooling: ``"cls"`` reads the first token, ``"mean"`` averages all tokens.
        head_act: Activation of the classifier's dense layer; None for a plain linear classifier.
        position_padding: Padding index of RoBERTa-like positions, which count from it; None
            where positions count from 0.
        max_position_embeddings: Rows of the position table.
        type_vocab_size: Token types; 0 where the family has none.
        layer_norm_eps: Epsilon of every LayerNorm.
        hidden_dropout_prob: Dropout of block outputs, embeddings and head, in training only.
        attention_probs_dropout_prob: Dropout of attention weights, in training only.
        **kwargs: What every transformers config takes (id2label, pad_token_id, ...).
    """

    model_type = "rlnas_subnet"

    def __init__(
        self,
        vocab_size: int = 30522,
        hidden_size: int = 384,
        embedding_size: int | None = None,
        head_size: int = 32,
        kept_heads: list[int] | None = None,
        kept_units: list[int] | None = None,
        hidden_act: str = "gelu",
        pooling: str = "cls",
        head_act: str | None = "tanh",
        position_padding: int | None = None,
        max_position_embeddings: int = 512,
        type_vocab_size: int = 2,
        layer_norm_eps: float = 1e-12,
        hidden_dropout_prob: float = 0.1,
        attention_probs_dropout_prob: float = 0.1,
        **kwargs: object,
    ) -> None:
        self.vocab_size = vocab_size
        self.hidden_size = hidden_size
        self.embedding_size = hidden_size if embedding_size is None else embedding_size
        self.head_size = head_size
        self.kept_heads = [12] if kept_heads is None else list(kept_heads)
        self.kept_units = [4 * hidden_size] if kept_units is None else list(kept_units)
        self.hidden_act = hidden_act
        self.pooling = pooling
        self.head_act = head_act
        self.position_padding = position_padding
        self.max_position_embeddings = max_position_embeddings
        self.type_vocab_size = type_vocab_size
        self.layer_norm_eps = layer_norm_eps
        self.hidden_dropout_prob = hidden_dropout_prob
        self.attention_probs_dropout_prob = attention_probs_dropout_prob
        super().__init__(**kwargs)  # type: ignore[arg-type]


class Embeddings(nn.Module):
    """Words, positions and token types, normalised; projected to the hidden size if need be."""

    def __init__(self, config: SubnetModelConfig) -> None:
        super().__init__()
        width = config.embedding_size
        self.position_padding = config.position_padding
        self.word = nn.Embedding(config.vocab_size, width)
        self.position = nn.Embedding(config.max_position_embeddings, width)
        self.token_type = nn.Embedding(config.type_vocab_size, width) if config.type_vocab_size else None
        self.norm = nn.LayerNorm(width, eps=config.layer_norm_eps)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)
        self.project = nn.Linear(width, config.hidden_size) if width != config.hidden_size else None

    def positions(self, input_ids: Tensor) -> Tensor:
        """Position of every token, shape ``(batch, seq_len)`` or ``(1, seq_len)``."""
        if self.position_padding is None:
            return torch.arange(input_ids.shape[1], device=input_ids.device)[None]
        real = (input_ids != self.position_padding).long()
        return real.cumsum(dim=1) * real + self.position_padding

    def forward(self, input_ids: Tensor, token_type_ids: Tensor | None = None) -> Tensor:
        """Hidden states of shape ``(batch, seq_len, hidden_size)``."""
        hidden: Tensor = self.word(input_ids)
        if self.token_type is not None:
            types = torch.zeros_like(input_ids) if token_type_ids is None else token_type_ids
            hidden = hidden + self.token_type(types)
        hidden = self.dropout(self.norm(hidden + self.position(self.positions(input_ids))))
        if self.project is not None:
            hidden = self.project(hidden)
        return hidden


class AttentionBlock(nn.Module):
    """Self-attention, residual and LayerNorm."""

    def __init__(self, config: SubnetModelConfig, num_heads: int) -> None:
        super().__init__()
        inner = num_heads * config.head_size
        self.num_heads = num_heads
        self.head_size = config.head_size
        self.attention_dropout = config.attention_probs_dropout_prob
        self.query = nn.Linear(config.hidden_size, inner)
        self.key = nn.Linear(config.hidden_size, inner)
        self.value = nn.Linear(config.hidden_size, inner)
        self.output = nn.Linear(inner, config.hidden_size)
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(
        self, hidden: Tensor, mask: Tensor | None, keep: int | None = None, gate: Tensor | None = None
    ) -> Tensor:
        """Attend with the first `keep` heads.

        Args:
            hidden: Shape ``(batch, seq_len, hidden_size)``.
            mask: True where a token may be looked at, broadcastable to ``(batch, 1, 1, seq_len)``.
            keep: Number of heads, at least 1; by default all of this block's.
            gate: Factor per head, shape ``(heads,)`` or ``(batch, heads)``, or None.
        """
        return self.merge(hidden, self.attend(hidden, mask, self.num_heads if keep is None else keep, gate))

    def attend(self, hidden: Tensor, mask: Tensor | None, heads: int, gate: Tensor | None = None) -> Tensor:
        """What the first heads see, ``(batch, seq_len, heads * head_size)``; for `gate` see `forward`."""
        batch, seq_len, _ = hidden.shape
        query, key, value = (
            projected.view(batch, seq_len, heads, self.head_size).transpose(1, 2)
            for projected in self.project(hidden, heads)
        )
        dropout = self.attention_dropout if self.training else 0.0
        context = F.scaled_dot_product_attention(query, key, value, attn_mask=mask, dropout_p=dropout)
        if gate is not None:
            context = context * gate[..., :, None, None]
        return context.transpose(1, 2).reshape(batch, seq_len, heads * self.head_size)

    def project(self, hidden: Tensor, heads: int) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values of the first heads, each ``(..., heads * head_size)``."""
        inner = heads * self.head_size
        query, key, value = (
            F.linear(hidden, layer.weight[:inner], layer.bias[:inner])
            for layer in (self.query, self.key, self.value)
        )
        return query, key, value

    def merge(self, hidden: Tensor, context: Tensor) -> Tensor:
        """What the heads of `context`, ``(..., heads * head_size)``, make of the hidden states."""
        output = F.linear(context, self.output.weight[:, : context.shape[-1]], self.output.bias)
        result: Tensor = self.norm(hidden + self.dropout(output))
        return result


class FFNBlock(nn.Module):
    """Feed-forward network, residual and LayerNorm."""

    def __init__(self, config: SubnetModelConfig, num_units: int) -> None:
        super().__init__()
        self.num_units = num_units
        self.inner = nn.Linear(config.hidden_size, num_units)
        self.outer = nn.Linear(num_units, config.hidden_size)
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.activation = ACT2FN[config.hidden_act]
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(self, hidden: Tensor, keep: int | None = None, gate: Tensor | None = None) -> Tensor:
        """Apply the first `keep` units.

        Args:
            hidden: Shape ``(batch, seq_len, hidden_size)``.
            keep: Number of units, at least 1; by default all of this block's.
            gate: Factor per unit, shape ``(units,)`` or ``(batch, 1, units)``, or None.
        """
        inner = self.activate(hidden, self.num_units if keep is None else keep)
        if gate is not None:
            inner = inner * gate
        return self.merge(hidden, inner)

    def activate(self, hidden: Tensor, units: int) -> Tensor:
        """Activations of the first units, ``(..., units)``."""
        activations: Tensor = self.activation(
            F.linear(hidden, self.inner.weight[:units], self.inner.bias[:units])
        )
        return activations

    def merge(self, hidden: Tensor, inner: Tensor) -> Tensor:
        """What the units of `inner`, ``(..., units)``, make of the hidden states."""
        output = F.linear(inner, self.outer.weight[:, : inner.shape[-1]], self.outer.bias)
        result: Tensor = self.norm(hidden + self.dropout(output))
        return result


class Layer(nn.Module):
    """One transformer layer; a block of size 0 is not there at all."""

    def __init__(self, config: SubnetModelConfig, num_heads: int, num_units: int) -> None:
        super().__init__()
        self.attention = AttentionBlock(config, num_heads) if num_heads else None
        self.ffn = FFNBlock(config, num_units) if num_units else None

    def forward(
        self, hidden: Tensor, mask: Tensor | None, heads: int | None = None, units: int | None = None
    ) -> Tensor:
        """Run the layer with its first `heads` heads and `units` units (None: all, 0: drop)."""
        if self.attention is not None and heads != 0:
            hidden = self.attention(hidden, mask, heads)
        if self.ffn is not None and units != 0:
            hidden = self.ffn(hidden, units)
        return hidden


class ClassificationHead(nn.Module):
    """Pooling, an optional dense layer, and the classifier."""

    def __init__(self, config: SubnetModelConfig) -> None:
        super().__init__()
        self.pooling = config.pooling
        self.dense = nn.Linear(config.hidden_size, config.hidden_size) if config.head_act else None
        self.activation = ACT2FN[config.head_act] if config.head_act else None
        self.out = nn.Linear(config.hidden_size, config.num_labels)  # type: ignore[arg-type]
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def pool(self, hidden: Tensor, attention_mask: Tensor | None) -> Tensor:
        """One vector per text, shape ``(batch, hidden_size)``."""
        if self.pooling == "cls":
            return hidden[:, 0]
        if attention_mask is None:
            return hidden.mean(dim=1)
        weight = attention_mask[..., None].to(hidden.dtype)
        return (hidden * weight).sum(dim=1) / weight.sum(dim=1).clamp(min=1)

    def forward(self, hidden: Tensor, attention_mask: Tensor | None) -> Tensor:
        """Logits of shape ``(batch, num_labels)``."""
        return self.classify(self.pool(hidden, attention_mask))

    def classify(self, pooled: Tensor) -> Tensor:
        """Logits of one vector per text."""
        if self.dense is not None and self.activation is not None:
            pooled = self.activation(self.dense(pooled))
        logits: Tensor = self.out(self.dropout(pooled))
        return logits


class SubnetModel(PreTrainedModel):  # type: ignore[no-untyped-call]
    """Sequence classification (or regression) with an encoder of uneven layers."""

    config: SubnetModelConfig
    config_class = SubnetModelConfig
    base_model_prefix = ""
    _supports_sdpa = True

    def __init__(self, config: SubnetModelConfig) -> None:
        super().__init__(config)
        self.num_labels = config.num_labels
        self.embeddings = Embeddings(config)
        self.layers = nn.ModuleList(
            Layer(config, heads, units)
            for heads, units in zip(config.kept_heads, config.kept_units, strict=True)
        )
        self.head = ClassificationHead(config)
        self.post_init()  # type: ignore[no-untyped-call]

    @staticmethod
    def attention_mask(attention_mask: Tensor | None) -> Tensor | None:
        """The padding mask in the shape that attention wants, ``(batch, 1, 1, seq_len)``."""
        return None if attention_mask is None else attention_mask[:, None, None, :].bool()

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        labels: Tensor | None = None,
        **kwargs: object,
    ) -> SequenceClassifierOutput:
        """Classify texts.

        Args:
            input_ids: Shape ``(batch, seq_len)``.
            attention_mask: 1 for tokens, 0 for padding; shape as `input_ids`.
            token_type_ids: Shape as `input_ids`; 0 everywhere by default.
            labels: Classes or values, shape ``(batch,)``; with them a loss is returned.
            **kwargs: Taken and ignored, as trainers and pipelines pass more than is needed.
        """
        hidden = self.embeddings(input_ids, token_type_ids)
        mask = self.attention_mask(attention_mask)
        for layer in self.layers:
            hidden = layer(hidden, mask)
        logits = self.head(hidden, attention_mask)
        loss = None
        if labels is not None and self.num_labels == 1:
            loss = F.mse_loss(logits[:, 0].float(), labels.float())
        elif labels is not None:
            loss = F.cross_entropy(logits.float(), labels)
        return SequenceClassifierOutput(loss=loss, logits=logits)
