from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import nn
from transformers import (
    AutoModel,
    AutoModelForSequenceClassification,
    GPT2Config,
    GPT2ForSequenceClassification,
)

from rlnas.deploy.foreign import (
    check_difference,
    check_loadable,
    check_mask,
    check_pair,
    check_pruned_heads,
    check_size,
    check_zeros,
    find_zeros,
    folder_of,
    modern_names,
    read_pruned_heads,
)
from rlnas.deploy.layout import claimed_shapes
from rlnas.deploy.weights_file import WeightsFile, describe_weights
from rlnas.errors import CheckpointError
from rlnas.space import LayerConfig, SubnetConfig

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from rlnas.supernet.supernet import Supernet
    from rlnas.task import Task

    Checkpoints = Callable[[str, Task], Path]

FAMILIES = ("bert", "roberta", "distilbert", "electra")
SUBNET = SubnetConfig((LayerConfig(1, 24), LayerConfig(0, 0), LayerConfig(2, 0)))


@pytest.fixture
def folder(checkpoint: Checkpoints, task: Task, tmp_path: Path) -> Path:
    return shutil.copytree(checkpoint("bert", task), tmp_path / "model")


@pytest.fixture
def model(folder: Path) -> Any:
    return AutoModelForSequenceClassification.from_pretrained(folder).eval()


def weights_of(folder: Path) -> WeightsFile:
    return describe_weights(folder)


def claim(folder: Path, **changes: object) -> Path:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    return folder


def test_a_folder_is_where_its_files_lie(folder: Path):
    assert folder_of(str(folder)).resolve() == folder.resolve()


def test_what_is_no_model_is_refused(tmp_path: Path):
    with pytest.raises(CheckpointError, match=f"{tmp_path.name}' holds no config.json; give a folder"):
        folder_of(str(tmp_path))
    with pytest.raises(
        CheckpointError, match=r"no model 'no/such': it is no folder here, .*; check the path"
    ):
        folder_of("no/such")


@pytest.mark.parametrize("family", FAMILIES)
def test_a_config_claims_the_tensors_of_its_model(checkpoint: Checkpoints, task: Task, family: str):
    path = checkpoint(family, task)
    expected, weights = claimed_shapes(str(path), trust_remote_code=False), weights_of(path)
    assert expected == weights.shapes
    assert check_loadable(expected, weights).passed


def test_tensors_of_another_shape_cannot_be_loaded(folder: Path):
    expected = claimed_shapes(str(claim(folder, intermediate_size=24)), trust_remote_code=False)
    finding = check_loadable(expected, weights_of(folder))
    assert not finding.passed
    assert finding.sentence == (
        "the weight 'bert.encoder.layer.0.intermediate.dense.weight' has shape (48, 32), but the config "
        "makes it (24, 32): transformers does not load the model as it was saved"
    )


def test_an_encoder_alone_lacks_its_classifier(folder: Path):
    AutoModel.from_pretrained(folder, add_pooling_layer=False).save_pretrained(folder)
    expected, weights = claimed_shapes(str(folder), trust_remote_code=False), weights_of(folder)
    assert "embeddings.LayerNorm.weight" in weights.shapes
    named = WeightsFile(modern_names(weights.shapes, expected), weights.dtypes, {})
    assert check_loadable(expected, named).sentence.startswith(
        "the file lacks the weight 'bert.pooler.dense"
    )


def test_old_names_of_a_layer_norm_are_understood():
    expected = {"bert.a.LayerNorm.weight": (3,), "bert.a.LayerNorm.bias": (3,)}
    assert modern_names({"bert.a.LayerNorm.gamma": (3,), "a.LayerNorm.beta": (3,)}, expected) == expected


@pytest.mark.parametrize(
    ("claimed", "total"), [(None, 0), ({}, 0), ({"0": [1, 2], "2": [0]}, 3), ({"1": [2, 2]}, 1)]
)
def test_pruned_heads_are_read_as_transformers_4_wrote_them(folder: Path, claimed: object, total: int):
    assert read_pruned_heads(claim(folder, pruned_heads=claimed)).total == total


@pytest.mark.parametrize("claimed", [[1], {"a": [1]}, {"0": 3}])
def test_pruned_heads_that_are_none_are_refused(folder: Path, claimed: object):
    with pytest.raises(
        CheckpointError, match=r"has pruned_heads=.*, which is no mapping from layers to lists"
    ):
        read_pruned_heads(claim(folder, pruned_heads=claimed))


def test_heads_that_are_pruned_on_paper_are_found(folder: Path):
    expected = claimed_shapes(str(folder), trust_remote_code=False)
    assert check_pruned_heads(read_pruned_heads(folder), expected, weights_of(folder)).passed is None
    pruned = read_pruned_heads(claim(folder, pruned_heads={"0": [1, 2]}))
    finding = check_pruned_heads(pruned, expected, weights_of(folder))
    assert not finding.passed
    assert finding.sentence == (
        "the config claims 2 pruned heads, but the weights have them all and the model computes them"
    )


def test_heads_that_are_gone_cannot_be_loaded_any_more(folder: Path):
    expected = claimed_shapes(str(folder), trust_remote_code=False)
    name = "bert.encoder.layer.0.attention.self.query.weight"
    weights = WeightsFile({**expected, name: (16, 32)}, ("float32",), {})
    finding = check_pruned_heads(
        read_pruned_heads(claim(folder, pruned_heads={"0": [1, 2]})), expected, weights
    )
    assert finding.sentence == (
        "the config claims 2 pruned heads and the weights lack them, but this version of transformers "
        f"makes full layers, so it cannot load {name!r}"
    )


@pytest.mark.parametrize("family", FAMILIES)
def test_a_mask_without_effect_is_found(checkpoint: Checkpoints, task: Task, family: str):
    model = AutoModelForSequenceClassification.from_pretrained(checkpoint(family, task)).eval()
    finding = check_mask(model)
    assert (finding.passed, finding.value) == (False, 0.0)
    assert finding.sentence == (
        "this model ignores head_mask: scores taken with it are those of the full model "
        "(12 of 12 heads masked, and the logits change by exactly 0)"
    )


def test_a_mask_of_ones_own_and_ones_own_inputs_are_used(model: Any):
    mask = torch.ones(3, 4)
    mask[0, 1] = 0
    finding = check_mask(model, mask, {"input_ids": torch.tensor([[5, 6]])})
    assert "(1 of 12 heads masked, " in finding.sentence


class Heeding(nn.Module):
    """A classifier that heeds a mask, as those of transformers 4 did."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.config, self.device = config, torch.device("cpu")

    def forward(self, input_ids: Any, attention_mask: Any = None, head_mask: Any = None) -> Any:
        return type("Output", (), {"logits": torch.ones(1, 2) * (2.0 if head_mask is None else 0.5)})


class Refusing(Heeding):
    def forward(self, input_ids: Any, attention_mask: Any = None) -> Any:
        return super().forward(input_ids)


def test_a_mask_with_an_effect_passes(model: Any):
    finding = check_mask(Heeding(model.config))
    assert finding.passed
    assert finding.sentence == "head_mask has an effect: it changes a logit by 1.5e+00"


def test_a_model_that_takes_no_mask_says_so(model: Any):
    finding = check_mask(Refusing(model.config))
    assert not finding.passed
    assert finding.sentence.startswith("this model takes no head_mask (")


def test_a_subnet_ignores_masks_too(supernets: Callable[[str, Task], Supernet], task: Task):
    assert "(6 of 6 heads masked" in check_mask(supernets("bert", task).extract(SUBNET)).sentence


def zero(model: Any, name: str, rows: slice = slice(None), columns: slice = slice(None)) -> None:
    with torch.no_grad():
        model.get_parameter(name)[rows, columns] = 0


def test_zeroed_heads_are_counted_by_values_and_by_outputs(model: Any):
    layer = "bert.encoder.layer"
    zero(model, f"{layer}.0.attention.self.value.weight", slice(8, 16))
    zero(model, f"{layer}.2.attention.output.dense.weight", columns=slice(0, 16))
    zeros = find_zeros(model)
    assert zeros is not None
    assert (zeros.heads, zeros.units, zeros.n_heads, zeros.n_units) == ((1, 0, 2), (0, 0, 0), 12, 144)
    heads, units = check_zeros(model)
    assert (heads.passed, heads.value, units.passed) == (False, 3, True)
    assert heads.sentence == (
        "3 of 12 heads are zero (1 in layer 0, 2 in layer 2): they cost their full time; "
        "extract the model without them"
    )
    assert units.sentence == "none of the 144 FFN units is zero"


def test_one_zeroed_head_is_it(model: Any):
    zero(model, "bert.encoder.layer.1.attention.self.value.weight", slice(0, 8))
    assert check_zeros(model)[0].sentence == (
        "1 of 12 heads is zero (1 in layer 1): it costs its full time; extract the model without it"
    )


def test_zeroed_units_are_counted_by_inputs_with_their_bias_or_by_outputs(model: Any):
    layer = "bert.encoder.layer.1"
    zero(model, f"{layer}.output.dense.weight", columns=slice(0, 5))
    zero(model, f"{layer}.intermediate.dense.weight", slice(10, 12))
    with torch.no_grad():
        model.get_parameter(f"{layer}.intermediate.dense.bias")[:] = 1.0
        model.get_parameter(f"{layer}.intermediate.dense.bias")[10] = 0.0
    assert find_zeros(model).units == (0, 6, 0)


@pytest.mark.parametrize("family", FAMILIES)
def test_heads_and_units_of_every_family_are_counted(checkpoint: Checkpoints, task: Task, family: str):
    zeros = find_zeros(AutoModelForSequenceClassification.from_pretrained(checkpoint(family, task)))
    assert (zeros.n_heads, zeros.n_units) == (12, 144)
    assert not any(zeros.heads + zeros.units)


def test_dropped_blocks_of_a_subnet_have_no_zeros(supernets: Callable[[str, Task], Supernet], task: Task):
    zeros = find_zeros(supernets("bert", task).extract(SUBNET))
    assert (zeros.heads, zeros.units, zeros.n_heads, zeros.n_units) == ((0, 0, 0), (0, 0, 0), 3, 24)


def test_zeros_of_an_unknown_layout_are_not_looked_for():
    tiny = GPT2Config(n_embd=16, n_layer=1, n_head=2, vocab_size=20, n_positions=8)
    (finding,) = check_zeros(GPT2ForSequenceClassification(tiny))
    assert finding.passed is None
    assert finding.sentence == "not looked for, as the layout of a 'gpt2' is not known"


def test_two_models_that_answer_alike_are_one():
    finding = check_difference([0.0, 0.0], 2)
    assert not finding.passed
    assert finding.sentence.startswith("both models give the same logits on all 2 items, to the last bit: ")
    assert check_difference([0.0, 0.5], 2).sentence == (
        "a logit differs from the baseline's by up to 5.0e-01; 1 of 2 items are answered alike"
    )


def test_a_model_that_is_not_smaller_is_found(supernets: Callable[[str, Task], Supernet], task: Task):
    supernet = supernets("bert", task)
    full, subnet = supernet.extract(supernet.shape.full), supernet.extract(SUBNET)
    smaller, same = check_size(subnet, full), check_size(full, full)
    assert smaller.passed
    assert 0 < smaller.value < 1
    assert not same.passed
    assert same.sentence.endswith(
        " for a text of 16 tokens, no fewer than its baseline: nothing was removed"
    )


@pytest.mark.parametrize(("size", "value"), [("num_labels", 5), ("vocab_size", 99)])
def test_models_for_other_tasks_are_no_pair(model: Any, size: str, value: int):
    other = type(
        "Other", (), {"config": type("Config", (), {"num_labels": 3, "vocab_size": 17, size: value})}
    )
    with pytest.raises(
        CheckpointError, match=rf"'a' has {size}=\d+, but its baseline 'b' has {size}={value}; "
    ):
        check_pair("a", "b", model, other)
