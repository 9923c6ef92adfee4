"""What other pruners leave behind: masks without effect, heads gone on paper alone, zeros at full cost."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from transformers.utils.hub import cached_file

from rlnas.deploy.claims import count_operations, differing_shape
from rlnas.deploy.findings import Finding
from rlnas.deploy.stock import read_config
from rlnas.errors import CheckpointError, did_you_mean, first_line
from rlnas.supernet.checkpoint import announce_hub
from rlnas.supernet.families import FAMILIES

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from torch import Tensor
    from transformers import PretrainedConfig, PreTrainedModel

    from rlnas.deploy.weights_file import WeightsFile

_OWN_BLOCKS = {
    name: name
    for name in ("attention.query", "attention.value", "attention.output", "ffn.inner", "ffn.outer")
}


def folder_of(name: str) -> Path:
    """Where a model's files lie: the folder itself, or what the hub's client keeps of a hub's model.

    Raises:
        CheckpointError: If there is no config.json.
    """
    if Path(name).is_dir() and not (Path(name) / "config.json").is_file():
        raise CheckpointError(
            f"the folder {name!r} holds no config.json; give a folder written by save_pretrained, or a run"
        )
    announce_hub(name)
    try:
        path = cached_file(name, "config.json")
    except Exception as error:  # the hub's client raises many kinds
        raise CheckpointError(
            f"no model {name!r}: it is no folder here, and the hub has no such model or cannot be reached"
            + (did_you_mean(Path(name)) or "; check the path")
        ) from error
    return Path(str(path)).parent


@dataclass(frozen=True, slots=True)
class PrunedHeads:
    """Heads that a config says are gone, as transformers 4 wrote it.

    Attributes:
        by_layer: Number of heads by layer.
    """

    by_layer: Mapping[int, int]

    @property
    def total(self) -> int:
        """Heads of all layers."""
        return sum(self.by_layer.values())


def read_pruned_heads(folder: Path) -> PrunedHeads:
    """What ``pruned_heads`` in ``config.json`` says.

    Raises:
        CheckpointError: If the file cannot be read, or the entry is no mapping from layers to heads.
    """
    values = read_config(folder).get("pruned_heads") or {}
    try:
        return PrunedHeads({int(layer): len(set(heads)) for layer, heads in values.items()})
    except (ValueError, TypeError, AttributeError) as error:
        raise CheckpointError(
            f"config.json in {str(folder)!r} has pruned_heads={values!r}, which is no mapping from layers "
            "to lists of heads; save the model again"
        ) from error


def check_pruned_heads(
    pruned: PrunedHeads, expected: Mapping[str, tuple[int, ...]], weights: WeightsFile
) -> Finding:
    """Whether heads that the config says are gone are gone.

    Args:
        pruned: The claim.
        expected: The tensors that transformers makes of the config.
        weights: What the file holds.
    """
    if not pruned.total:
        return Finding("pruned_heads", None, "the config claims no pruned heads", 0)
    narrower = [name for name, shape in expected.items() if _is_narrower(weights.shapes.get(name), shape)]
    if narrower:
        sentence = (
            f"the config claims {pruned.total} pruned heads and the weights lack them, but this version of "
            f"transformers makes full layers, so it cannot load {narrower[0]!r}"
        )
    else:
        sentence = (
            f"the config claims {pruned.total} pruned heads, but the weights have them all and the model "
            "computes them"
        )
    return Finding("pruned_heads", False, sentence, pruned.total, 0.0)


def _is_narrower(found: tuple[int, ...] | None, expected: tuple[int, ...]) -> bool:
    return found is not None and len(found) == len(expected) and found != expected


def check_mask(
    model: PreTrainedModel,
    head_mask: Tensor | None = None,
    inputs: Mapping[str, Tensor] | None = None,
) -> Finding:
    """Whether a model heeds ``head_mask``: whether its logits change when heads are masked.

    Args:
        model: Any classifier of transformers, in evaluation mode.
        head_mask: 0 for a masked head, shape ``(layers, heads)``; by default all heads are masked.
        inputs: What the model is called with; by default one text of 8 random tokens.

    Returns:
        A finding that has passed if a logit changes; its value is the largest change.
    """
    if inputs is None:
        vocabulary, device = int(model.config.vocab_size), model.device
        tokens = torch.randint(
            vocabulary // 2, vocabulary, (1, 8), generator=torch.Generator().manual_seed(0)
        )
        inputs = {"input_ids": tokens.to(device)}
        inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
    mask = torch.zeros(_num_heads(model.config), device=model.device) if head_mask is None else head_mask
    with torch.inference_mode():
        plain = model(**inputs).logits
        try:
            masked = model(**inputs, head_mask=mask).logits
        except TypeError as error:
            sentence = (
                f"this model takes no head_mask ({first_line(error)}), so it cannot be scored with one"
            )
            return Finding("head_mask", False, sentence)
    change = float((plain.float() - masked.float()).abs().max())
    if change > 0:
        sentence = f"head_mask has an effect: it changes a logit by {change:.1e}"
        return Finding("head_mask", True, sentence, change)
    n_masked = int((mask == 0).sum())
    sentence = (
        f"this model ignores head_mask: scores taken with it are those of the full model ({n_masked} of "
        f"{mask.numel()} heads masked, and the logits change by exactly 0)"
    )
    return Finding("head_mask", False, sentence, change)


def _num_heads(config: PretrainedConfig) -> tuple[int, int]:
    """Layers and heads of a layer; of a subnet those of its widest layer."""
    kept = getattr(config, "kept_heads", None)
    if kept is not None:
        return len(kept), max([1, *kept])
    return int(config.num_hidden_layers), int(config.num_attention_heads)


@dataclass(frozen=True, slots=True)
class Zeros:
    """Parts that compute nothing and are computed.

    Attributes:
        heads: By layer, heads whose values, or whose columns of the output, are all zero.
        units: By layer, FFN units whose input and bias, or whose column of the output, are all zero.
        n_heads: Heads of all layers.
        n_units: FFN units of all layers.
    """

    heads: tuple[int, ...]
    units: tuple[int, ...]
    n_heads: int
    n_units: int


def find_zeros(model: PreTrainedModel) -> Zeros | None:
    """Zeroed heads and units of a BERT-family model; None where its layout is not known.

    Args:
        model: A sequence classifier.
    """
    weights = {name: parameter.detach() for name, parameter in model.named_parameters()}
    heads, units, n_heads, n_units = [], [], 0, 0
    layers = list(_layers(model.config, weights))
    if not layers:
        return None
    for head_size, blocks in layers:
        dead_heads, dead_units = 0, 0
        if "attention.value" in blocks:
            inner = blocks["attention.value"].shape[0]
            values = blocks["attention.value"].reshape(inner // head_size, -1)
            outputs = blocks["attention.output"].T.reshape(inner // head_size, -1)
            dead_heads = _n_zero(values, outputs)
            n_heads += len(values)
        if "ffn.inner" in blocks:
            inputs = torch.cat([blocks["ffn.inner"], blocks["ffn.inner.bias"][:, None]], dim=1)
            dead_units = _n_zero(inputs, blocks["ffn.outer"].T)
            n_units += len(inputs)
        heads.append(dead_heads)
        units.append(dead_units)
    return Zeros(tuple(heads), tuple(units), n_heads, n_units)


def _n_zero(inputs: Tensor, outputs: Tensor) -> int:
    """Rows that are all zero on either side."""
    return int(((inputs == 0).all(dim=1) | (outputs == 0).all(dim=1)).sum())


def _layers(
    config: PretrainedConfig, weights: Mapping[str, Tensor]
) -> Iterator[tuple[int, dict[str, Tensor]]]:
    """Size of a head, and the weights of each layer's blocks under our names."""
    if config.model_type in FAMILIES:
        family = FAMILIES[config.model_type]
        prefix, names = family.layers, family.blocks
        n_layers = family.size(config, "num_hidden_layers")
        head_size = family.size(config, "hidden_size") // family.size(config, "num_attention_heads")
    elif hasattr(config, "kept_heads"):
        prefix, names, n_layers, head_size = "layers", _OWN_BLOCKS, len(config.kept_heads), config.head_size
    else:
        return
    for index in range(n_layers):
        blocks = {}
        for ours in _OWN_BLOCKS:
            for kind in ("weight", "bias"):
                key = f"{prefix}.{index}.{names[ours]}.{kind}"
                if key in weights:
                    blocks[ours if kind == "weight" else f"{ours}.bias"] = weights[key]
        yield head_size, blocks


def check_zeros(model: PreTrainedModel) -> list[Finding]:
    """Whether heads or units are zero, and so cost their full time for nothing."""
    zeros = find_zeros(model)
    if zeros is None:
        sentence = f"not looked for, as the layout of a {model.config.model_type!r} is not known"
        return [Finding("zeros", None, sentence)]
    findings = []
    for what, counts, total in (
        ("heads", zeros.heads, zeros.n_heads),
        ("FFN units", zeros.units, zeros.n_units),
    ):
        if total:
            findings.append(_judge_zeros(what, counts, total))
    return findings


def _judge_zeros(what: str, counts: Sequence[int], total: int) -> Finding:
    n_zero = sum(counts)
    sentence = f"none of the {total:,} {what} is zero"
    if n_zero:
        where = ", ".join(f"{count} in layer {index}" for index, count in enumerate(counts) if count)
        they = ("is", "it costs its", "it") if n_zero == 1 else ("are", "they cost their", "them")
        sentence = (
            f"{n_zero:,} of {total:,} {what} {they[0]} zero ({where}): {they[1]} full time; "
            f"extract the model without {they[2]}"
        )
    return Finding(f"zero {what.split()[-1]}", not n_zero, sentence, n_zero, 0.0)


def check_difference(differences: Sequence[float], n_items: int) -> Finding:
    """Whether a pruned model gives other outputs than the full one at all.

    Args:
        differences: Largest absolute difference of a logit, of each item.
        n_items: How many items both answered.
    """
    largest = max(differences)
    n_same = sum(difference == 0 for difference in differences)
    if largest == 0:
        sentence = (
            f"both models give the same logits on all {n_items} items, to the last bit: nothing was "
            "pruned, or it is not in the file"
        )
    else:
        sentence = f"a logit differs from the baseline's by up to {largest:.1e}"
        sentence += f"; {n_same} of {n_items} items are answered alike" if n_same else ""
    return Finding("outputs", largest > 0, sentence, largest)


def modern_names(
    shapes: Mapping[str, tuple[int, ...]], expected: Mapping[str, tuple[int, ...]]
) -> dict[str, tuple[int, ...]]:
    """Tensors of a file under the names by which transformers finds them.

    The first BERT checkpoints call a LayerNorm's weights gamma and beta, and an encoder that was saved
    alone lacks the prefix that it has in a classifier.
    """
    prefix = next(iter(expected), "").partition(".")[0]
    renamed = {}
    for name, shape in shapes.items():
        new = name.replace("LayerNorm.gamma", "LayerNorm.weight").replace(
            "LayerNorm.beta", "LayerNorm.bias"
        )
        renamed[f"{prefix}.{new}" if f"{prefix}.{new}" in expected else new] = shape
    return renamed


def check_loadable(expected: Mapping[str, tuple[int, ...]], weights: WeightsFile) -> Finding:
    """Whether the file holds what transformers makes of the config; more than that is no harm."""
    present = {name: shape for name, shape in weights.shapes.items() if name in expected}
    problem = differing_shape(expected, replace(weights, shapes=present))
    if problem is None:
        sentence = f"{len(expected)} tensors have the shapes that the config makes"
        return Finding("tensors", True, sentence, len(expected))
    return Finding("tensors", False, f"{problem}: transformers does not load the model as it was saved")


def check_pair(name: str, baseline: str, module: PreTrainedModel, full: PreTrainedModel) -> None:
    """Refuse two models that cannot answer the same items.

    Raises:
        CheckpointError: If they differ in labels or vocabulary.
    """
    for size in ("num_labels", "vocab_size"):
        one, other = getattr(module.config, size), getattr(full.config, size)
        if one != other:
            raise CheckpointError(
                f"the model {name!r} has {size}={one}, but its baseline {baseline!r} has {size}={other}; "
                "give the full model that it was made from"
            )


def check_size(module: PreTrainedModel, full: PreTrainedModel) -> Finding:
    """Whether a model is smaller than its baseline, in parameters or in operations."""
    counts = [sum(parameter.numel() for parameter in one.parameters()) for one in (module, full)]
    tokens = 16
    work = [count_operations(one, tokens) for one in (module, full)]
    sizes, operations = counts[0] / counts[1], work[0] / work[1]
    if sizes < 1 or operations < 1:
        sentence = f"{sizes:.3f} of the baseline's parameters and {operations:.3f} of its operations"
        return Finding("size", True, sentence, operations)
    sentence = (
        f"it has {counts[0]:,} parameters and takes {work[0]:,} operations for a text of {tokens} tokens, "
        "no fewer than its baseline: nothing was removed"
    )
    return Finding("size", False, sentence, operations)
