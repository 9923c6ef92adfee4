"""A subnet that is a model of its family computes the same in the family's stock class."""

from __future__ import annotations

import json

import pytest
import torch

from rlnas.deploy.agreement import check_agreement, ready
from rlnas.deploy.plain import obstacle_to_plain, plain_model
from rlnas.errors import InvalidSubnetError
from rlnas.space import LayerConfig, SubnetConfig
from rlnas.supernet.modeling_subnet import SubnetModel, SubnetModelConfig

CLASSES = {
    "bert": "BertForSequenceClassification",
    "roberta": "RobertaForSequenceClassification",
    "distilbert": "DistilBertForSequenceClassification",
    "electra": "ElectraForSequenceClassification",
}
PLAIN = SubnetConfig((LayerConfig(4, 24), LayerConfig(0, 0), LayerConfig(4, 24)))


def sizes(**changes):
    return SubnetModelConfig(
        hidden_size=32, head_size=8, **({"kept_heads": [4, 4, 4], "kept_units": [48, 48, 48]} | changes)
    )


@pytest.mark.parametrize("family", CLASSES)
def test_the_stock_class_computes_the_same(supernets, task, family):
    subnet = supernets(family, task).extract(PLAIN)
    model = plain_model(subnet)
    assert type(model).__name__ == CLASSES[family]
    with torch.inference_mode():
        gap = check_agreement(ready(subnet), lambda request: model(**request).logits.numpy(), "it")
    assert gap <= 1e-5
    assert model.config.num_hidden_layers == 2
    assert sum(p.numel() for p in model.parameters()) == sum(p.numel() for p in subnet.parameters())
    assert not model.training


def test_labels_and_number_format_stay(supernets, task):
    subnet = supernets("bert", task).extract(PLAIN).to(torch.bfloat16)
    model = plain_model(subnet)
    assert model.dtype == torch.bfloat16
    assert tuple(model.config.id2label.values()) == task.label_names
    assert model.config.label2id == subnet.config.label2id


def test_a_regression_stays_one(supernets, regression):
    model = plain_model(supernets("electra", regression).extract(PLAIN))
    assert json.loads(model.config.to_json_string())["problem_type"] == "regression"
    assert model.config.num_labels == 1


def test_random_numbers_are_drawn_from_no_one(supernets, task):
    subnet = supernets("bert", task).extract(PLAIN)
    state = torch.get_rng_state()
    plain_model(subnet)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        (
            {"pooling": "mean", "head_act": None},
            "no family classifies by pooling='mean' with head_act=None",
        ),
        ({"head_act": "gelu_new"}, "no family classifies by pooling='cls' with head_act='gelu_new'"),
        ({"kept_heads": [4, 0, 4]}, "layer 2 has lost its attention block"),
        ({"kept_units": [48, 48, 0]}, "layer 3 has lost its FFN block"),
        ({"kept_heads": [4, 3, 4]}, "layer 2 keeps 3 of 4 attention heads"),
        ({"kept_heads": [2, 2, 2]}, "layer 1 keeps 2 of 4 attention heads"),
        ({"kept_units": [48, 12, 24]}, "the FFN blocks keep different widths, 12 to 48 units"),
        ({"kept_heads": [0, 0, 0], "kept_units": [0, 0, 0]}, "no layer is kept"),
        (
            {"head_act": "relu", "type_vocab_size": 0, "layer_norm_eps": 1e-5},
            "layer_norm_eps=1e-05 is not that of a distilbert",
        ),
    ],
)
def test_what_no_stock_class_holds_is_said(changes, reason):
    subnet = SubnetModel(sizes(**changes))
    assert obstacle_to_plain(subnet.config) == reason
    with pytest.raises(InvalidSubnetError, match=f"a stock class holds: {reason}; export it with its"):
        plain_model(subnet)


def test_narrower_ffn_blocks_and_dropped_layers_are_no_obstacle():
    assert obstacle_to_plain(sizes(kept_heads=[4, 0, 4], kept_units=[12, 0, 12])) is None
