from __future__ import annotations

import numpy as np
import pytest
import tiny
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rlnas.errors import EvaluationError
from rlnas.evaluation.prefix import block_sizes, predict_batch
from rlnas.space import LayerConfig, LayerwiseSpace, SubnetConfig
from rlnas.supernet.inference import to_predictions
from rlnas.supernet.modeling_subnet import AttentionBlock, FFNBlock

SPACE = LayerwiseSpace.for_model(tiny.SHAPE)


@pytest.fixture
def calls(monkeypatch):
    """Blocks that were computed, with their sizes."""
    seen = []
    for block, name in ((AttentionBlock, "attention"), (FFNBlock, "ffn")):

        def counting(self, *arguments, _forward=block.forward, _name=name, **settings):
            seen.append((_name, arguments[-1]))
            return _forward(self, *arguments, **settings)

        monkeypatch.setattr(block, "forward", counting)
    return seen


def run(supernet, configs, batch):
    with torch.inference_mode():
        return dict(predict_batch(supernet.model, configs, batch))


def nodes(configs):
    """Distinct beginnings that end with a block to compute."""
    paths = [block_sizes(config) for config in configs]
    return {path[: depth + 1] for path in paths for depth, size in enumerate(path) if size}


def test_sizes_stand_in_the_order_in_which_blocks_are_computed():
    config = SubnetConfig((LayerConfig(1, 12), LayerConfig(0, 24), LayerConfig(4, 0)))
    assert block_sizes(config) == (1, 12, 0, 24, 4, 0)


def test_predictions_equal_those_of_each_subnet_by_itself(supernet):
    configs = tiny.random_configs(supernet, 60)
    batch = tiny.padded_batch(supernet, tiny.make_split(8))
    found = run(supernet, configs, batch)
    assert sorted(found) == list(range(60))
    with torch.inference_mode():
        for index, config in enumerate(configs):
            assert np.array_equal(found[index], to_predictions(supernet.forward(config, batch)))
    assert len({tuple(predicted) for predicted in found.values()}) > 5


def test_common_beginnings_are_computed_once(bert, calls):
    configs = tiny.random_configs(bert, 100)
    run(bert, configs, tiny.one_batch(bert, tiny.make_split(4)))
    assert len(calls) == len(nodes(configs))
    one_by_one = sum(size > 0 for config in configs for size in block_sizes(config))
    assert len(calls) < 0.8 * one_by_one


@given(actions=st.lists(st.tuples(*(st.integers(0, n - 1) for n in SPACE.nvec)), min_size=1, max_size=12))
@settings(max_examples=25)
def test_the_work_is_the_tree_whatever_the_configs(tree_model, actions):
    model, batch, seen = tree_model
    configs = [SPACE.decode(action) for action in actions]
    seen.clear()
    with torch.inference_mode():
        found = dict(predict_batch(model, configs, batch))
    assert sorted(found) == list(range(len(configs)))
    assert sorted(seen) == sorted(path[-1] for path in nodes(configs))


@pytest.fixture(scope="module")
def tree_model():
    """Stands for the model: blocks that only note their sizes."""

    class Layer:
        def __call__(self, hidden, _mask, heads, units):
            seen.extend(size for size in (heads, units) if size)
            return hidden

    class Model:
        layers = [Layer()] * tiny.NUM_LAYERS
        embeddings = attention_mask = staticmethod(lambda *_: torch.zeros(2))
        head = staticmethod(lambda *_: torch.zeros(2, 3))

    class Batch:
        input_ids = attention_mask = token_type_ids = None

    seen = []
    return Model(), Batch(), seen


def test_dropped_blocks_cost_no_call(bert, calls):
    batch = tiny.one_batch(bert, tiny.make_split(4))
    config = SubnetConfig((LayerConfig(0, 12), LayerConfig(0, 0), LayerConfig(3, 0)))
    run(bert, [config], batch)
    assert calls == [("ffn", 12), ("attention", 3)]
    calls.clear()
    run(bert, [SPACE.smallest()], batch)
    assert calls == []


def test_equal_configs_share_all_work(bert, calls):
    batch = tiny.one_batch(bert, tiny.make_split(4))
    found = run(bert, [bert.shape.full] * 5, batch)
    assert len(calls) == 2 * tiny.NUM_LAYERS
    assert all(np.array_equal(found[0], predicted) for predicted in found.values())


def test_no_configs_are_no_work(bert, calls):
    assert run(bert, [], tiny.one_batch(bert, tiny.make_split(4))) == {}
    assert calls == []


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_the_subnet_whose_logits_are_not_finite_is_named(bert, value):
    """Classes would hide it: the largest of NaNs is a class like any other."""
    bert.model.layers[2].ffn.inner.bias.data[40] = value
    good = SubnetConfig((LayerConfig(4, 48), LayerConfig(4, 48), LayerConfig(4, 36)))
    batch = tiny.one_batch(bert, tiny.make_split(4))
    assert sorted(run(bert, [good], batch)) == [0]
    with pytest.raises(
        EvaluationError, match="the subnet 4h48 4h48 4h48 predicts values that are not finite"
    ) as caught:
        run(bert, [good, bert.shape.full], batch)
    assert caught.value.config == bert.shape.full
