"""Torch-Pruning 1.6 on the full model of a study: GroupTaylor importance, heads and FFN units.

The package traces modules, so the full model is brought into transformers' own BERT with a head for its
pooling, pruned there, and brought back: the same sizes and numbers, in the form that all methods have. The
width of the residual stream stays, as for all methods.

Reference:
    G. Fang et al. DepGraph: towards any structural pruning. CVPR 2023.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from transformers import BertConfig, BertModel

from rlnas.space import LayerConfig, SubnetConfig
from rlnas.supernet.encoding import sorted_batches
from rlnas.supernet.importance import task_loss
from rlnas.supernet.modeling_subnet import SubnetModel

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.compression_study import Study

N_ITEMS = 256
"""Training items whose gradients say what matters; as many as for the other methods."""


class StockModel(nn.Module):
    """Transformers' BERT, pooled and classified as our full model does."""

    def __init__(self, full: SubnetModel) -> None:
        super().__init__()
        ours = full.config
        config = BertConfig(
            vocab_size=ours.vocab_size,
            hidden_size=ours.hidden_size,
            num_hidden_layers=len(ours.kept_heads),
            num_attention_heads=ours.kept_heads[0],
            intermediate_size=ours.kept_units[0],
            hidden_act=ours.hidden_act,
            max_position_embeddings=ours.max_position_embeddings,
            type_vocab_size=ours.type_vocab_size,
            layer_norm_eps=ours.layer_norm_eps,
            attn_implementation="eager",
        )
        self.encoder = BertModel(config, add_pooling_layer=False)
        self.head = copy.deepcopy(full.head)
        self._copy_from(full)
        self.eval()

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor | None, token_type_ids: Tensor | None
    ) -> Tensor:
        """Logits of shape ``(batch, num_labels)``."""
        hidden = self.encoder(
            input_ids=input_ids, attention_mask=attention_mask, token_type_ids=token_type_ids
        ).last_hidden_state
        logits: Tensor = self.head(hidden, attention_mask)
        return logits

    def _copy_from(self, full: SubnetModel) -> None:
        weights = full.state_dict()
        theirs = {
            "embeddings.word_embeddings.weight": weights["embeddings.word.weight"],
            "embeddings.position_embeddings.weight": weights["embeddings.position.weight"],
            "embeddings.token_type_embeddings.weight": weights["embeddings.token_type.weight"],
            "embeddings.LayerNorm.weight": weights["embeddings.norm.weight"],
            "embeddings.LayerNorm.bias": weights["embeddings.norm.bias"],
        }
        for index in range(len(full.config.kept_heads)):
            for ours, name in _names(index):
                for kind in ("weight", "bias"):
                    theirs[f"{name}.{kind}"] = weights[f"{ours}.{kind}"]
        missing, unexpected = self.encoder.load_state_dict(theirs, strict=False)
        if missing or unexpected:
            raise RuntimeError(f"weights do not match: missing {missing}, unexpected {unexpected}")


def graded(study: Study) -> StockModel:
    """The full model with gradients of its loss on training items: what Taylor importance is made of."""
    model = StockModel(study.full_model())
    for input_ids, attention_mask, token_type_ids, labels in _batches(study):
        task_loss(model(input_ids, attention_mask, token_type_ids), labels).backward()  # type: ignore[no-untyped-call]
    return model


def prune(study: Study, full: StockModel, ratio: float) -> tuple[SubnetConfig, SubnetModel]:
    """The full model without a share of its heads and FFN units, ranked over all layers.

    Args:
        study: Of the full model and the task.
        full: From `graded`; it stays as it is.
        ratio: Share to prune, in [0, 1).
    """
    import torch_pruning as tp

    model = copy.deepcopy(full)
    for parameter, graded_one in zip(model.parameters(), full.parameters(), strict=True):
        parameter.grad = graded_one.grad  # which copies of parameters lack
    layers: Any = model.encoder.encoder.layer
    parts = [part for layer in layers for part in (layer.attention.self.query, layer.attention.self.key)]
    parts += [layer.attention.self.value for layer in layers]
    pruner = tp.pruner.BasePruner(
        model,
        next(_batches(study))[:3],
        importance=tp.importance.GroupTaylorImportance(),
        global_pruning=True,
        pruning_ratio=ratio,
        head_pruning_ratio=ratio,
        prune_num_heads=True,
        prune_head_dims=False,
        num_heads={part: layers[0].attention.self.num_attention_heads for part in parts},
        # What writes into the residual stream keeps its width.
        ignored_layers=[
            *(layer.attention.output.dense for layer in layers),
            *(layer.output.dense for layer in layers),
            *model.head.modules(),
            *model.encoder.embeddings.modules(),
        ],
    )
    pruner.step()
    return _brought_back(model, study.full_model())


def _batches(study: Study) -> Iterator[tuple[Tensor, Tensor, Tensor | None, Tensor]]:
    """Random training items, padded to one shape for each batch."""
    generator = torch.Generator().manual_seed(study.seed)
    chosen = torch.randperm(len(study.task.train), generator=generator)[:N_ITEMS].numpy()
    for batch in sorted_batches(study.supernet.encode(study.task.train.take(chosen)), 32, study.device):
        mask = torch.ones_like(batch.input_ids) if batch.attention_mask is None else batch.attention_mask
        yield batch.input_ids, mask, batch.token_type_ids, batch.labels


def _names(index: int) -> Iterator[tuple[str, str]]:
    """Our name and transformers' name of each part of a layer."""
    ours, theirs = f"layers.{index}", f"encoder.layer.{index}"
    for part in ("query", "key", "value"):
        yield f"{ours}.attention.{part}", f"{theirs}.attention.self.{part}"
    yield f"{ours}.attention.output", f"{theirs}.attention.output.dense"
    yield f"{ours}.attention.norm", f"{theirs}.attention.output.LayerNorm"
    yield f"{ours}.ffn.inner", f"{theirs}.intermediate.dense"
    yield f"{ours}.ffn.outer", f"{theirs}.output.dense"
    yield f"{ours}.ffn.norm", f"{theirs}.output.LayerNorm"


def _brought_back(pruned: StockModel, full: SubnetModel) -> tuple[SubnetConfig, SubnetModel]:
    """A pruned BERT in the form of ours."""
    weights = pruned.encoder.state_dict()
    config = copy.deepcopy(full.config)
    n_layers = len(config.kept_heads)
    config.kept_heads = [
        weights[f"encoder.layer.{i}.attention.self.query.weight"].shape[0] // config.head_size
        for i in range(n_layers)
    ]
    config.kept_units = [
        weights[f"encoder.layer.{i}.intermediate.dense.weight"].shape[0] for i in range(n_layers)
    ]
    model = SubnetModel(config)
    state = {name: value for name, value in full.state_dict().items() if not name.startswith("layers.")}
    for index in range(n_layers):
        for ours, theirs in _names(index):
            for kind in ("weight", "bias"):
                state[f"{ours}.{kind}"] = weights[f"{theirs}.{kind}"]
    model.load_state_dict(state)
    model.to(full.device).eval()  # type: ignore[arg-type]
    layers = tuple(map(LayerConfig, config.kept_heads, config.kept_units))
    return SubnetConfig(layers), model
