from __future__ import annotations

import itertools
import math
from dataclasses import replace
from itertools import islice

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlnas.controllers.knapsack import (
    KnapsackController,
    KnownSums,
    best_first,
    solve_knapsack,
)
from rlnas.controllers.start import InformedStart
from rlnas.env import Guide
from rlnas.errors import ControllerError, InfeasibleTargetError
from rlnas.loop import search
from rlnas.precision_space import PrecisionSpace
from rlnas.protocols import Problem
from rlnas.rewards import HardBudget, LatencyTarget, LinearPenalty
from rlnas.space import LayerOptions, LayerwiseSpace, ModelShape, UniformSpace
from rlnas.tabular import additive_task
from rlnas.testing import check_controller

SPACE = LayerwiseSpace((LayerOptions((0, 1, 2, 3), (0, 1, 2, 3)),) * 3)
TASK = additive_task(SPACE, seed=1)


@st.composite
def knapsacks(draw):
    """Values and costs of up to 4 positions, whole numbers (so that there are ties) or thousandths.

    Finer ones would be told apart from rounding by nobody.
    """
    thousandths = st.integers(-3000, 6000).map(lambda number: number / 1000)
    numbers = draw(st.sampled_from([st.integers(-3, 6).map(float), thousandths]))
    sizes = draw(st.lists(st.integers(1, 4), min_size=1, max_size=4))
    return tuple(
        [np.array(draw(st.lists(numbers, min_size=n, max_size=n))) for n in sizes] for _ in range(2)
    )


def enumerated(values, costs):
    actions = np.array(list(itertools.product(*(range(len(part)) for part in values))))
    return actions, totals(values, actions), totals(costs, actions)


def totals(parts, actions):
    return sum(part[actions[:, i]] for i, part in enumerate(parts))


@given(knapsacks(), st.floats(-5.0, 20.0))
def test_it_finds_what_going_through_all_finds(parts, capacity):
    values, costs = parts
    frontier = solve_knapsack(values, costs, capacity)
    _, all_values, all_costs = enumerated(values, costs)
    assert frontier.gap == 0.0
    # Sums in another order differ by rounding.
    for limit in {capacity, *frontier.costs.tolist(), *(all_costs[all_costs <= capacity] + 1e-9).tolist()}:
        affordable = all_values[all_costs <= limit + 1e-9]
        row = frontier.best(limit + 1e-9)
        if row is None:
            assert not (all_costs <= min(limit, capacity) - 1e-9).any()
        else:
            sure = all_values[all_costs <= min(limit, capacity) - 1e-9]
            assert frontier.values[row] >= max(sure, default=-math.inf) - 1e-9
            assert frontier.values[row] <= affordable.max() + 1e-9


@given(knapsacks(), st.floats(-5.0, 20.0))
def test_a_frontier_ascends_and_its_actions_cost_and_bring_what_it_says(parts, capacity):
    values, costs = parts
    frontier = solve_knapsack(values, costs, capacity)
    assert (np.diff(frontier.costs) > 0).all()
    assert (np.diff(frontier.values) > 0).all()
    assert (frontier.costs <= capacity).all()
    np.testing.assert_allclose(totals(values, frontier.actions), frontier.values, atol=1e-9)
    np.testing.assert_allclose(totals(costs, frontier.actions), frontier.costs, atol=1e-9)


@given(knapsacks(), st.integers(2, 6))
def test_merged_states_stay_feasible_and_lose_no_more_than_they_say(parts, max_states):
    values, costs = parts
    exact, merged = solve_knapsack(values, costs), solve_knapsack(values, costs, max_states=max_states)
    np.testing.assert_allclose(totals(costs, merged.actions), merged.costs, atol=1e-9)
    for cost, value in zip(exact.costs, exact.values, strict=True):
        row = merged.best(cost + 1e-9)
        assert row is not None
        assert merged.values[row] >= value - merged.gap - 1e-9


def test_merging_keeps_the_number_of_states_and_says_what_it_may_have_cost():
    rng = np.random.default_rng(0)
    values, costs = ([rng.random(5) for _ in range(12)] for _ in range(2))
    merged = solve_knapsack(values, costs, max_states=50)
    assert len(merged.costs) <= 51
    assert 0.0 < merged.gap < 2.0
    assert solve_knapsack(values, costs).gap == 0.0


@given(knapsacks(), st.floats(-5.0, 20.0))
def test_the_next_best_come_in_order_and_all_come(parts, capacity):
    values, costs = parts
    found = np.array(list(best_first(values, costs, capacity)), dtype=np.int64).reshape(-1, len(values))
    assert len(np.unique(found, axis=0)) == len(found)
    assert (np.diff(totals(values, found)) <= 1e-7).all()
    _, _, all_costs = enumerated(values, costs)
    assert (all_costs <= capacity - 1e-9).sum() <= len(found) <= (all_costs <= capacity + 1e-9).sum()


def test_thousands_of_equal_solutions_are_not_gone_through_side_by_side():
    values, costs = [np.array([0.0, 0.1, 0.15, 0.18, 0.2])] * 24, [np.array([0.0, 0.1, 0.2, 0.3, 0.4])] * 24
    found = np.array(list(islice(best_first(values, costs, 4.0), 200)))
    assert len(np.unique(found, axis=0)) == 200
    np.testing.assert_allclose(totals(values, found), 24 * 0.1 + 16 * 0.05)


def test_a_capacity_below_everything_has_no_solution():
    values, costs = [np.array([0.0, 1.0])] * 2, [np.array([1.0, 2.0])] * 2
    frontier = solve_knapsack(values, costs, capacity=1.5)
    assert frontier.best(1.5) is None
    assert frontier.actions.shape == (0, 2)
    assert list(best_first(values, costs, capacity=1.5)) == []


@pytest.mark.parametrize(
    ("values", "costs", "max_states", "message"),
    [
        ([[0, 1]], [[0, 1, 2]], 9, r"one array with one number per option .*\[\(2,\)\] and \[\(3,\)\]"),
        ([[0, 1]], [[0, 1]] * 2, 9, r"shapes \[\(2,\)\] and \[\(2,\), \(2,\)\]"),
        ([], [], 9, r"shapes \[\] and \[\]"),
        ([[]], [[]], 9, r"shapes \[\(0,\)\] and \[\(0,\)\]"),
        ([[0, math.nan]], [[0, 1]], 9, r"parts_value must be finite, but got \[ 0\. nan\] at position 0"),
        ([[0, 1]], [[0, math.inf]], 9, r"parts_cost must be finite, but got \[ 0\. inf\] at position 0"),
        ([[0, 1]], [[0, 1]], 1, "max_states must be at least 2, but got max_states=1"),
    ],
)
def test_a_knapsack_that_cannot_be_is_refused(values, costs, max_states, message):
    with pytest.raises(ValueError, match=message):
        solve_knapsack(
            [np.array(v, dtype=float) for v in values],
            [np.array(c, dtype=float) for c in costs],
            max_states=max_states,
        )


def problem_of(**known) -> Problem:
    return Problem(SPACE, LatencyTarget(target_ms=5.0), target_ms=5.0, **known)


def test_importance_that_configs_keep_goes_before_that_of_blocks():
    def kept(configs):
        return [7.0 + sum(x.num_attention_heads**2 for x in config.layers) for config in configs]

    both = KnownSums.of(problem_of(latency=TASK.latency, importance=TASK.importance, kept_importance=kept))
    blocks = KnownSums.of(problem_of(latency=TASK.latency, importance=TASK.importance))
    assert both.worth.base == 7.0
    np.testing.assert_allclose(both.worth.parts[0], [0, 1, 4, 9])
    np.testing.assert_allclose(blocks.worth.parts[0], TASK.importance[0] * np.array([0, 1, 2, 3]) / 3)
    np.testing.assert_allclose(both.latency.parts[0], TASK.latency_parts[0], atol=1e-12)


def exact_importance(configs):
    return [metrics.accuracy for metrics in TASK(configs)]


@pytest.mark.parametrize("ratio", [0.25, 0.5, 0.8])
def test_the_first_proposal_is_the_optimum_where_importance_is_accuracy(ratio):
    result = search(
        SPACE,
        TASK,
        HardBudget(ratio=ratio),
        KnapsackController(),
        budget=20,
        kept_importance=exact_importance,
    )
    assert result.trials[0].reward == pytest.approx(TASK.optimum(HardBudget(ratio=ratio))[1])
    accuracies = [trial.metrics.accuracy for trial in result.trials]
    np.testing.assert_allclose(accuracies, sorted(accuracies, reverse=True))


def test_several_targets_take_turns():
    ratios = (0.3, 0.5, 0.8)
    result = search(
        SPACE,
        TASK,
        HardBudget(ratio=0.5),
        KnapsackController(batch_size=2),
        budget=30,
        kept_importance=exact_importance,
        target_ratios=ratios,
    )
    for trial, ratio in zip(result.trials[:3], ratios, strict=True):
        assert trial.metrics.accuracy == pytest.approx(TASK.optimum(HardBudget(ratio=ratio))[1])
    for turn, ratio in enumerate(ratios):
        assert max(trial.metrics.latency_ms for trial in result.trials[turn::3]) <= 10.0 * ratio


def test_without_a_target_the_optima_are_spread_over_all_latencies():
    result = search(SPACE, TASK, LinearPenalty(), KnapsackController(), budget=8)
    latencies = [trial.metrics.latency_ms for trial in result.trials]
    assert latencies == sorted(latencies)
    assert latencies[-1] == pytest.approx(10.0)
    assert max(np.diff(latencies)) < 3.0


def test_latencies_that_do_not_add_up_are_kept_to_all_the_same():
    shape = ModelShape(num_hidden_layers=4, num_attention_heads=4, intermediate_size=8, hidden_size=8)
    space = UniformSpace.for_model(shape)

    def latency(configs):
        return [
            1.0 + sum(x.num_attention_heads * x.intermediate_size for x in config.layers)
            for config in configs
        ]

    result = search(
        space,
        additive_task(space),
        LatencyTarget(ratio=0.4),
        KnapsackController(),
        budget=20,
        latency=latency,
    )
    assert len(result.trials) == 20
    assert max(latency([trial.config for trial in result.trials])) <= 0.4 * 129


def test_what_is_left_when_nothing_is_next_is_drawn_until_the_search_ends():
    space = LayerwiseSpace((LayerOptions((0, 1), (0, 1)),))
    result = search(space, additive_task(space), LatencyTarget(ratio=0.6), KnapsackController(), budget=9)
    assert len(result.trials) < 4
    assert "brought no new subnet" in result.stop_reason


def test_an_informed_start_comes_first():
    controller = KnapsackController(start=InformedStart())
    result = search(SPACE, TASK, LatencyTarget(ratio=0.5), controller, budget=60)
    problem = problem_of(latency=TASK.latency, importance=TASK.importance)
    first = InformedStart().actions(problem, np.random.default_rng(0))
    assert [SPACE.encode(trial.config) for trial in result.trials[: len(first)]] == [*map(tuple, first)]
    assert len(result.trials) == 60


@pytest.mark.parametrize(
    ("known", "message"),
    [
        (
            {"importance": TASK.importance},
            r"needs a latency model, .*give search\(\) latency=\.\.\., an eval",
        ),
        (
            {"latency": TASK.latency},
            r"needs the importance of the blocks, .* importance=\.\.\. or kept_imp",
        ),
    ],
)
def test_what_it_has_to_know_is_asked_for(known, message):
    with pytest.raises(ControllerError, match=message):
        KnapsackController().search(problem_of(**known), TASK, 10, 0)


def test_an_unreachable_target_is_refused():
    problem = Problem(SPACE, LatencyTarget(target_ms=0.5), TASK.latency, 0.5, importance=TASK.importance)
    with pytest.raises(InfeasibleTargetError, match=r"target_ms=0\.5 cannot be met"):
        KnapsackController().search(problem, TASK, 10, 0)


def test_a_batch_has_at_least_one_proposal():
    with pytest.raises(ValueError, match="batch_size=0"):
        KnapsackController(batch_size=0)


@pytest.mark.parametrize("start", [None, InformedStart()], ids=["plain", "informed"])
def test_it_keeps_the_laws_of_controllers(start):
    check_controller(KnapsackController(start=start))


PACES = {"int8": 0.25, "float32": 1.0}
WITH_PRECISION = PrecisionSpace(LayerwiseSpace((LayerOptions((0, 1, 2), (0, 1, 2)),) * 2), tuple(PACES))


def paced(configs):
    """Latencies that add up in each precision alone."""
    sizes = [
        sum(3 * layer.num_attention_heads + layer.intermediate_size for layer in c.layers) for c in configs
    ]
    return [PACES[c.precision] * (2.0 + size) for c, size in zip(configs, sizes, strict=True)]


def kept(configs):
    """Importance, whatever the precision."""
    return [
        float(sum(5 * layer.num_attention_heads + 2 * layer.intermediate_size for layer in c.layers))
        for c in configs
    ]


def test_with_a_precision_the_optimum_of_every_latency_is_found():
    problem = Problem(WITH_PRECISION, LinearPenalty(), latency=paced, kept_importance=kept)
    sums = KnownSums.of(problem)
    actions = np.array(list(itertools.product(*(range(n) for n in WITH_PRECISION.nvec))))
    configs = [WITH_PRECISION.decode(action) for action in actions.tolist()]
    latencies, worths = np.array(paced(configs)), np.array(kept(configs))
    frontier = sums.frontier()
    np.testing.assert_allclose(
        paced([WITH_PRECISION.decode(a) for a in frontier.actions.tolist()]), frontier.costs
    )
    for target in np.quantile(latencies, [0.1, 0.4, 0.8]):
        best = frontier.values[frontier.best(target)]
        assert best == pytest.approx(worths[latencies <= target].max())
        ranked = [WITH_PRECISION.decode(a) for a in list(sums.best_first(target))]
        assert len(ranked) == (latencies <= target).sum()
        assert kept(ranked) == sorted(kept(ranked), reverse=True)
        assert max(paced(ranked)) <= target * (1 + 1e-9)


def test_a_guide_shows_costs_in_the_fastest_precision_and_what_the_slower_adds():
    guide = Guide(Problem(WITH_PRECISION, LinearPenalty(), latency=paced))
    np.testing.assert_allclose(guide.cost_ms[0], [0.0, 0.75, 1.5])
    full = paced([replace(WITH_PRECISION.largest(), precision=p) for p in PACES])
    assert guide.cost_ms[-1].max() == pytest.approx(full[1] - full[0])
