"""Sums over choices."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlnas import LayerwiseSpace, ModelShape
from rlnas.additive import AdditiveModel, SplitModel, exact_sums, seen_sums
from rlnas.precision_space import PrecisionSpace
from rlnas.tabular import additive_task

SPACE = LayerwiseSpace.for_model(ModelShape(3, 4, 16, 8))


@given(st.integers(0, 1000))
def test_a_sum_is_found_exactly(seed):
    task = additive_task(SPACE, seed=seed)
    sums = AdditiveModel.exact(SPACE, task.latency)
    assert sums is not None
    rng = np.random.default_rng(seed)
    actions = rng.integers(SPACE.nvec, size=(16, len(SPACE.nvec)))
    expected = task.latency([SPACE.decode(action) for action in actions.tolist()])
    assert sums.predict(actions) == pytest.approx(expected, rel=1e-12)


def test_parts_start_at_nothing_and_have_an_entry_per_option():
    sums = AdditiveModel.probe(SPACE, additive_task(SPACE).latency)
    assert [len(part) for part in sums.parts] == list(SPACE.nvec)
    assert all(part[0] == 0 for part in sums.parts)
    assert sums.base == pytest.approx(additive_task(SPACE).latency([SPACE.smallest()])[0], rel=1e-12)


def test_a_smallest_member_of_its_own_kind_does_not_matter():
    task = additive_task(SPACE)

    def table(configs):
        return [
            7.0 if c == SPACE.smallest() else ms
            for c, ms in zip(configs, task.latency(configs), strict=True)
        ]

    assert AdditiveModel.exact(SPACE, table) is not None


def product_of_depth(configs):
    return [1.0 + config.num_hidden_layers**2 for config in configs]


@pytest.mark.parametrize(
    "model",
    [product_of_depth, lambda configs: [1.0], lambda configs: [float("nan")] * len(configs)],
    ids=["no sum", "too few numbers", "no number"],
)
def test_what_is_no_sum_is_not_taken_for_one(model):
    if model is product_of_depth:
        assert AdditiveModel.exact(SPACE, model) is None
    fitted = AdditiveModel.probe(SPACE, additive_task(SPACE).latency)
    assert not fitted.fits(SPACE, model)


SPLIT = PrecisionSpace(SPACE, ("int8", "float32"))


def by_precision(configs):
    """A sum in each precision, at twice the price in float32."""
    return [
        (1.0 + sum(layer.num_attention_heads + 2 * layer.intermediate_size for layer in config.layers))
        * (1 if config.precision == "int8" else 2)
        for config in configs
    ]


def test_a_model_that_adds_up_given_the_last_position_is_found_exactly():
    assert AdditiveModel.exact(SPLIT, by_precision) is None
    found = exact_sums(SPLIT, by_precision)
    assert isinstance(found, SplitModel)
    rng = np.random.default_rng(0)
    actions = rng.integers(SPLIT.nvec, size=(50, len(SPLIT.nvec)))
    wanted = by_precision([SPLIT.decode(action) for action in actions.tolist()])
    np.testing.assert_allclose(found.predict(actions), wanted)


def test_its_parts_are_those_of_the_first_option_and_what_the_last_position_adds():
    parts = SplitModel.exact(SPLIT, by_precision).parts
    first = AdditiveModel.exact(
        SPACE, lambda configs: by_precision([replace(config, precision="int8") for config in configs])
    )
    for found, wanted in zip(parts[:-1], first.parts, strict=True):
        np.testing.assert_allclose(found, wanted)
    full = by_precision([SPLIT.largest()])[0]
    np.testing.assert_allclose(parts[-1], [0.0, full / 2])


def test_what_adds_up_is_one_sum_and_what_never_does_is_seen_from_the_largest():
    assert isinstance(exact_sums(SPLIT, lambda configs: [1.0] * len(configs)), AdditiveModel)

    def squared(configs):
        return [value**2 for value in by_precision(configs)]

    assert exact_sums(SPLIT, squared) is None
    assert isinstance(seen_sums(SPLIT, squared), AdditiveModel)
