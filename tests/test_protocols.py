from __future__ import annotations

import numpy as np
import pytest

from rlnas.errors import RewardError
from rlnas.protocols import (
    InformedEvaluator,
    Problem,
    RecallingEvaluator,
    RelativeReward,
    TargetedReward,
    WeighingEvaluator,
)
from rlnas.rewards import LatencyTarget
from rlnas.space import LayerwiseSpace, ModelShape
from rlnas.tabular import TabularEvaluator, additive_task

SPACE = LayerwiseSpace.for_model(ModelShape(2, 4, 8, 8))


def plain(metrics):
    return metrics.accuracy


def test_a_plain_function_knows_no_target():
    assert not isinstance(plain, TargetedReward)
    assert not isinstance(plain, RelativeReward)


def test_evaluators_are_informed_if_they_bring_latency_and_importance():
    assert isinstance(additive_task(SPACE), InformedEvaluator)
    assert not isinstance(TabularEvaluator({}), InformedEvaluator)


def test_evaluators_recall_if_they_have_the_method():
    class Racing:
        def recall(self, trials):
            pass

        def __call__(self, configs):
            return []

    assert isinstance(Racing(), RecallingEvaluator)
    assert not isinstance(additive_task(SPACE), RecallingEvaluator)
    assert not isinstance(plain, RecallingEvaluator)


def test_the_reward_for_the_target_at_hand_is_the_reward_itself():
    problem = Problem(SPACE, plain, target_ms=4.0)
    assert problem.reward_for(4.0) is plain


def test_a_targeted_reward_serves_other_targets():
    problem = Problem(SPACE, LatencyTarget(target_ms=4.0), target_ms=4.0)
    assert problem.reward_for(8.0) == LatencyTarget(target_ms=8.0)


@pytest.mark.parametrize("target_ms", [None, 4.0])
def test_a_plain_function_serves_one_target_only(target_ms):
    with pytest.raises(
        RewardError, match=r"serves one target only; to ask for target_ms=8\.0 give it a method at"
    ):
        Problem(SPACE, plain, target_ms=target_ms).reward_for(8.0)


def test_importance_becomes_an_array_of_floats():
    importance = Problem(SPACE, plain, importance=[0, 1, 2, 3]).importance
    assert importance.dtype == np.float64
    assert Problem(SPACE, plain).importance is None


@pytest.mark.parametrize(
    ("importance", "message"),
    [
        (np.ones(5), r"importance must have shape \(4,\), but got \(5,\)"),
        (np.ones((2, 2)), r"importance must have shape \(4,\), but got \(2, 2\)"),
        ([0.0, -1.0, 0.0, 0.0], r"must be finite and not negative, but got \[ 0\. -1\."),
        ([0.0, np.nan, 0.0, 0.0], "must be finite and not negative, but got .*nan"),
    ],
    ids=["length", "table", "negative", "nan"],
)
def test_unsound_importance_is_refused(importance, message):
    with pytest.raises(ValueError, match=message):
        Problem(SPACE, plain, importance=importance)


@pytest.mark.parametrize(
    "targets_ms", [(4.0, 2.0), (2.0, 2.0), (2.0, float("nan"))], ids=["descending", "repeated", "nan"]
)
def test_targets_that_do_not_ascend_are_refused(targets_ms):
    with pytest.raises(ValueError, match=rf"must ascend without repeats, but got \({targets_ms[0]}, "):
        Problem(SPACE, plain, targets_ms=targets_ms)


def test_the_targets_served_are_several_or_the_rewards_own_or_none():
    reward = LatencyTarget(target_ms=4.0)
    assert Problem(SPACE, reward, target_ms=4.0, targets_ms=(2.0, 8.0)).served_targets_ms == (2.0, 8.0)
    assert Problem(SPACE, reward, target_ms=4.0).served_targets_ms == (4.0,)
    assert Problem(SPACE, plain).served_targets_ms == ()


def test_evaluators_weigh_if_they_have_the_method():
    class Weighing:
        def kept_importance(self, configs):
            return [1.0] * len(configs)

        def __call__(self, configs):
            return []

    assert isinstance(Weighing(), WeighingEvaluator)
    assert not isinstance(additive_task(SPACE), WeighingEvaluator)
