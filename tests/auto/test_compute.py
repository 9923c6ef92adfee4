from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlnas.auto.compute import (
    FORWARD_SHARE,
    ArmCost,
    SearchCost,
    arm_cost,
    finish_passes,
    forward_flops,
    kept_share,
    mean_share,
    search_at_most,
)
from rlnas.run import Schedule
from rlnas.space import LayerwiseSpace, ModelShape
from rlnas.supernet.training import sample_by_size

SHAPE = ModelShape(num_hidden_layers=4, num_attention_heads=4, intermediate_size=64, hidden_size=32)
LENGTHS = st.lists(st.integers(2, 60), min_size=1, max_size=20)


@given(LENGTHS)
def test_half_the_layers_are_half_the_work(lengths):
    half = ModelShape(2, 4, 64, 32)
    assert forward_flops(half.full, half, lengths) == pytest.approx(
        forward_flops(SHAPE.full, SHAPE, lengths) / 2
    )


@given(LENGTHS, LENGTHS)
def test_work_adds_up_over_items(some, others):
    assert forward_flops(SHAPE.full, SHAPE, some + others) == pytest.approx(
        forward_flops(SHAPE.full, SHAPE, some) + forward_flops(SHAPE.full, SHAPE, others)
    )


def test_a_pass_of_the_reference_is_the_unit_and_an_answer_a_third_of_it():
    train, search = [10] * 30, [10] * 15
    unit = forward_flops(SHAPE.full, SHAPE, train)
    cost = arm_cost(SHAPE, train, search, unit)
    assert cost.train == 1.0
    assert cost.judge == pytest.approx(0.5 * FORWARD_SHARE)
    assert cost.look(3) == pytest.approx(3.0 + 0.5 * FORWARD_SHARE)


def test_the_mean_share_is_that_of_what_the_training_draws():
    space = LayerwiseSpace.for_model(SHAPE)
    rng = np.random.default_rng(0)
    drawn = np.mean([kept_share(sample_by_size(space, rng), SHAPE) for _ in range(4000)])
    assert mean_share(space, SHAPE) == pytest.approx(drawn, abs=0.02)
    assert kept_share(SHAPE.full, SHAPE) == 1.0
    assert kept_share(space.smallest(), SHAPE) == 0.0


def test_a_search_costs_what_its_parts_do():
    cost = ArmCost(train=0.5, judge=0.1)
    schedule = Schedule(epochs=2, finish_epochs=1)
    space = LayerwiseSpace.for_model(SHAPE)
    found = search_at_most(cost, SHAPE, space, schedule, budget=20, n_models=2)
    assert found == SearchCost(
        share=pytest.approx(0.5 * 2 * (1 + 0.25 + 0.5)),
        search=pytest.approx(20 * 0.1),
        finish=pytest.approx(2 * 0.5 * (1 + 1 / 3)),
        baseline=pytest.approx(0.5 * 3),
    )
    assert found.total == pytest.approx(sum(found.to_dict().values()))


def test_no_last_training_needs_no_teacher():
    assert finish_passes(0.5, Schedule(finish_epochs=0)) == 0.0
    assert finish_passes(0.5, Schedule(finish_epochs=2)) == pytest.approx(1.0 + FORWARD_SHARE)
