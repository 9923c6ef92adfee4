"""A repair brings a subnet closer to the full model, and never further away."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import tiny
import torch

from rlnas.errors import DataError
from rlnas.space import LayerConfig, SubnetConfig
from rlnas.supernet import SubnetRepairer
from rlnas.supernet.repair import PENALTIES, _Moments

SPLIT = tiny.make_split(48)
OTHERS = tiny.make_split(48, seed=9)
SMALLER = {
    "narrow": ((2, 24), (2, 24), (2, 24)),
    "uneven": ((1, 48), (4, 12), (3, 24)),
    "without blocks": ((4, 0), (0, 48), (4, 48)),
    "without a layer": ((0, 0), (4, 48), (4, 48)),
}


def config_of(sizes):
    return SubnetConfig(tuple(LayerConfig(*pair) for pair in sizes))


def hidden_states(model, batch):
    """Behind the last layer, real tokens only."""
    hidden, mask = model.embeddings(batch.input_ids, batch.token_type_ids), batch.attention_mask
    for layer in model.layers:
        hidden = layer(hidden, model.attention_mask(mask))
    return hidden[mask.bool()]


def distance(subnet, supernet, split):
    """Mean squared distance of the last hidden states from the full model's."""
    batch = tiny.padded_batch(supernet, split)
    with torch.no_grad():
        first, second = (hidden_states(model, batch) for model in (subnet, supernet.model))
    return float((first - second).square().mean())


def repaired(supernet, config, split=SPLIT, **settings):
    subnet = supernet.extract(config)
    SubnetRepairer(**settings).repair(subnet, supernet, split)
    return subnet


@pytest.mark.parametrize("name", SMALLER)
def test_a_repair_brings_a_subnet_closer_on_texts_that_it_has_not_seen(supernet, name):
    config = config_of(SMALLER[name])
    before = distance(supernet.extract(config), supernet, OTHERS)
    assert distance(repaired(supernet, config), supernet, OTHERS) < 0.95 * before


def test_only_output_projections_change(bert):
    config = config_of(SMALLER["uneven"])
    before, full = bert.extract(config), copy.deepcopy(bert.model.state_dict())
    after = repaired(bert, config).state_dict()
    changed = {name for name, value in before.state_dict().items() if not torch.equal(value, after[name])}
    assert changed
    assert all(".attention.output." in name or ".ffn.outer." in name for name in changed)
    assert all(torch.equal(value, full[name]) for name, value in bert.model.state_dict().items())


def test_the_full_model_needs_no_repair(supernet):
    full = supernet.shape.full
    subnet, extracted = repaired(supernet, full), supernet.extract(full)
    batch = tiny.padded_batch(supernet, OTHERS)
    with torch.no_grad():
        answers = [model(batch.input_ids, batch.attention_mask).logits for model in (subnet, extracted)]
    assert tiny.largest_gap(*answers) < 1e-4


def test_what_repeats_itself_is_left_out_without_loss(bert):
    # The second half of the units of each layer repeats the first: half the units can do it all.
    half = tiny.UNITS // 2
    with torch.no_grad():
        for _, ffn in bert.blocks:
            ffn.inner.weight[half:] = ffn.inner.weight[:half]
            ffn.inner.bias[half:] = ffn.inner.bias[:half]
    config = config_of([(tiny.NUM_HEADS, half)] * tiny.NUM_LAYERS)
    before = distance(bert.extract(config), bert, OTHERS)
    assert distance(repaired(bert, config), bert, OTHERS) < 1e-3 * before


def test_nothing_is_left_to_repair_where_all_is_dropped(bert):
    config = config_of([(0, 0)] * tiny.NUM_LAYERS)
    extracted = bert.extract(config).state_dict()
    after = repaired(bert, config).state_dict()
    assert all(torch.equal(value, after[name]) for name, value in extracted.items())


def test_equal_seeds_give_equal_repairs(bert):
    config = config_of(SMALLER["narrow"])
    first, again, other = (repaired(bert, config, n_items=16, seed=seed).state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(value, again[name]) for name, value in first.items())
    assert not all(torch.equal(value, other[name]) for name, value in first.items())


def test_a_fit_that_does_not_carry_over_is_not_taken(bert, monkeypatch):
    monkeypatch.setattr(_Moments, "gain", lambda *_: -1.0)
    config = config_of(SMALLER["narrow"])
    extracted = bert.extract(config).state_dict()
    assert all(
        torch.equal(value, extracted[name]) for name, value in repaired(bert, config).state_dict().items()
    )


@pytest.mark.parametrize("penalty", PENALTIES)
def test_the_gain_is_what_the_sum_of_squares_loses(penalty):
    rng = np.random.default_rng(0)
    inputs, errors = (torch.from_numpy(rng.normal(size=(50, width))) for width in (6, 4))
    moments = _Moments.of(inputs[:20], errors[:20]) + _Moments.of(inputs[20:], errors[20:])
    change = moments.change(penalty)
    left = errors - inputs @ change[:-1] - change[-1]
    lost = float(errors.square().sum() - left.square().sum())
    assert moments.gain(change) == pytest.approx(lost)
    assert lost > 0


def test_a_small_penalty_is_the_least_squares_fit():
    rng = np.random.default_rng(1)
    inputs, errors = (torch.from_numpy(rng.normal(size=(50, width))) for width in (6, 4))
    change = _Moments.of(inputs, errors).change(0.0)
    with_ones = torch.cat([inputs, torch.ones(50, 1)], dim=1)
    torch.testing.assert_close(change, torch.linalg.lstsq(with_ones, errors).solution)


@pytest.mark.parametrize("n_items", [2, 3, 17])
def test_few_items_are_parted_all_the_same(bert, n_items):
    subnet = repaired(bert, config_of(SMALLER["narrow"]), SPLIT.take(range(n_items)))
    assert all(bool(torch.isfinite(value).all()) for value in subnet.state_dict().values())


def test_a_single_item_is_too_few(bert):
    with pytest.raises(DataError, match="a repair needs at least 2 items, but the split has 1"):
        repaired(bert, config_of(SMALLER["narrow"]), SPLIT.take([0]))


@pytest.mark.parametrize(("name", "value", "least"), [("n_items", 1, 2), ("batch_size", 0, 1)])
def test_settings_out_of_range_are_refused(name, value, least):
    with pytest.raises(ValueError, match=f"{name} must be at least {least}, but got {name}={value}"):
        SubnetRepairer(**{name: value})
