from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlnas.auto.compute import ArmCost
from rlnas.auto.plan import RUNGS as USUAL_RUNGS
from rlnas.auto.plan import TRIALS_OF_EACH, Plan, make_plan
from rlnas.errors import BudgetError

COSTS = st.lists(st.builds(ArmCost, st.floats(0.1, 2.0), st.floats(0.01, 0.2)), min_size=2, max_size=5).map(
    lambda costs: {f"arm {i}": cost for i, cost in enumerate(costs)}
)
RUNGS = st.sampled_from([(1,), (1, 2), (1, 2, 5), (2, 3, 9)])


def test_half_of_the_trials_go_on_at_each_rung():
    plan = Plan((1, 2, 5), 10)
    assert plan.counts == (10, 5, 2)
    assert plan.steps == (1, 1, 3)
    assert [plan.n_kept(rung) for rung in range(3)] == [5, 2, 1]
    assert Plan((1, 2, 5), 2).counts == (2, 1, 1)


def test_a_plan_costs_its_trials_as_far_as_they_come():
    even = [ArmCost(1.0, 0.0)] * 5
    assert Plan((1, 2, 5), 10).at_most(even) == 10 + 5 + 2 * 3  # all to their end: 50
    assert Plan((1, 2), 2).at_most([ArmCost(1.0, 0.0), ArmCost(0.5, 0.0)]) == 1.5 + 1.0


@given(st.integers(4, 40), st.floats(0.0, 0.19))
def test_halving_by_default_takes_less_than_half_of_all_trials_to_their_end(n_trials, judge):
    """All judging counted, for search items that are fewer than 60 % of the training items."""
    cost = ArmCost(1.0, judge)
    halved = Plan(USUAL_RUNGS, n_trials).at_most([cost] * n_trials)
    assert halved < 0.5 * n_trials * cost.look(USUAL_RUNGS[-1])


@given(COSTS, RUNGS, st.floats(0, 10), st.floats(1, 200))
def test_a_plan_keeps_to_its_budget_and_wastes_no_trial(costs, rungs, reserved, passes):
    try:
        plan = make_plan(rungs, costs, reserved, passes)
    except BudgetError:
        assert Plan(rungs, len(costs)).at_most(list(costs.values())) + reserved > passes
        return
    values = list(costs.values())
    assert plan.n_trials >= len(costs)
    more = Plan(rungs, plan.n_trials + 1)
    assert plan.at_most(values) + reserved <= passes < more.at_most(values) + reserved


@given(COSTS, RUNGS, st.floats(0, 10), st.data())
def test_no_race_costs_more_than_its_plan(costs, rungs, reserved, data):
    """Whoever is drawn beyond the first turns, and whoever goes on."""
    plan = make_plan(rungs, costs, reserved, None)
    values = list(costs.values())
    plan = Plan(rungs, plan.n_trials + data.draw(st.integers(0, 6)))
    n_arms, spread = len(values), TRIALS_OF_EACH * len(values)
    drawn = st.sampled_from(range(n_arms))
    arms = [i % n_arms if i < spread else data.draw(drawn) for i in range(plan.n_trials)]
    spent, alive = 0.0, arms
    for count, step in zip(plan.counts, plan.steps, strict=True):
        alive = data.draw(st.permutations(alive))[:count]
        spent += sum(values[arm].look(step) for arm in alive)
    assert spent <= plan.at_most(values) + 1e-9


def test_without_a_budget_every_arm_has_two_trials():
    costs = {"a": ArmCost(1.0, 0.1), "b": ArmCost(0.5, 0.1), "c": ArmCost(0.5, 0.1)}
    assert make_plan((1, 2), costs, 5.0, None).n_trials == 6


def test_a_budget_that_is_too_small_says_what_would_do():
    costs = {"a": ArmCost(1.0, 0.0), "b": ArmCost(1.0, 0.0)}
    message = (
        "passes=6 are too few: one trial of each of 2 models may take 3.0 passes of the first model, and "
        "the search that follows 4.2; give at least 7.2, or fewer models"
    )
    with pytest.raises(BudgetError, match=message):
        make_plan((1, 2), costs, 4.2, 6.0)
    assert make_plan((1, 2), costs, 4.2, 7.2).n_trials == 2
