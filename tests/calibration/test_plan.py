"""What is timed is planned before anything is built."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from rlnas.calibration.plan import Effort, Plan
from rlnas.space import LayerwiseSpace, ModelShape
from rlnas.workload import Workload

SHAPE = ModelShape(num_hidden_layers=3, num_attention_heads=4, intermediate_size=64, hidden_size=16)
BLOCKS = [("attention", 4), ("ffn", 64)]


def make_plan(effort: Effort) -> Plan:
    space, model = LayerwiseSpace.for_model(SHAPE), SimpleNamespace(shape=SHAPE)
    return Plan.make(BLOCKS, model, space, Workload(1, 16), effort, 0)


def test_models_that_judge_are_not_those_that_correct():
    plan = make_plan(Effort(n_models=8, n_held_out=12))
    assert len(plan.models) == 8
    assert len(plan.held_out) == 12
    assert set(plan.models).isdisjoint(plan.held_out)
    assert plan.repeated == [plan.held_out[0], plan.held_out[5], plan.held_out[10]]
    assert plan.subnets == plan.models + plan.held_out + plan.repeated
    assert plan.n_calls == 1 + 2 + 8 + 12 + 3


def test_everything_is_built_once_in_the_order_of_the_timings():
    plan, built, told = make_plan(Effort(n_models=3)), [], []
    model = SimpleNamespace(
        model_calls=lambda config: built.append(config) or [config],
        block_calls=lambda *block: built.append(block) or [block],
    )
    calls = plan.calls(model, told.append)
    assert built == [plan.floor, *BLOCKS, *plan.models]
    assert [call for (call,) in calls] == built
    assert told == list(range(2, plan.n_calls + 1))


def test_a_tail_takes_more_rounds():
    effort = Effort(n_rounds=10)
    assert effort.rounds_for(Workload()) == 10
    assert effort.rounds_for(Workload(statistic="p99")) == 40


@pytest.mark.parametrize("field", ["n_models", "n_rounds"])
def test_an_effort_of_nothing_is_refused(field):
    with pytest.raises(ValueError, match=f"{field} must be at least 1, but got {field}=0"):
        Effort(**{field: 0})


def test_an_effort_of_less_than_nothing_is_refused():
    with pytest.raises(ValueError, match="n_held_out must be at least 0, but got n_held_out=-1"):
        Effort(n_held_out=-1)


def test_a_tail_takes_more_time():
    assert Effort(max_seconds=10.0).seconds_for(Workload()) == 10
    assert Effort(max_seconds=10.0).seconds_for(Workload(statistic="p99")) == 40
    assert Effort(max_seconds=None).seconds_for(Workload(statistic="p99")) is None


def test_more_judges_than_memory_are_refused():
    with pytest.raises(ValueError, match=r"n_held_out must be at most 500, .* but got n_held_out=501"):
        Effort(n_held_out=501)
