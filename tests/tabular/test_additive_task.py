from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlnas.errors import EvaluationError, InvalidSpaceError
from rlnas.metrics import Metrics
from rlnas.protocols import InformedEvaluator
from rlnas.rewards import HardBudget, LatencyTarget, LinearPenalty, MnasNetReward
from rlnas.space import LayerOptions, LayerwiseSpace, ModelShape, UniformSpace
from rlnas.tabular.additive_task import MAX_ENUMERATED, additive_task
from rlnas.testing import check_evaluator, check_latency_model

SPACE = LayerwiseSpace.for_model(ModelShape(2, 4, 8, 8))
UNIFORM = UniformSpace.for_model(ModelShape(6, 4, 8, 8))
SPACES = pytest.mark.parametrize("space", [SPACE, UNIFORM], ids=["layerwise", "uniform"])


def every_member(space):
    return [space.decode(action) for action in itertools.product(*(range(n) for n in space.nvec))]


@SPACES
@pytest.mark.parametrize("noise", [0.0, 0.05])
def test_an_additive_task_keeps_the_laws_of_evaluators_and_latency_models(space, noise):
    task = additive_task(space, seed=1, noise=noise)
    assert isinstance(task, InformedEvaluator)
    check_evaluator(task, space)
    check_latency_model(task.latency, space)


@SPACES
def test_the_ends_of_an_additive_task_are_as_stated(space):
    small, large = additive_task(space)([space.smallest(), space.largest()])
    assert (small.accuracy, small.latency_ms) == (pytest.approx(0.2), pytest.approx(1.0))
    assert (large.accuracy, large.latency_ms) == (pytest.approx(0.9), pytest.approx(10.0))


def test_positions_without_a_choice_neither_gain_nor_cost():
    space = LayerwiseSpace((LayerOptions((4,), (0, 8)), LayerOptions((4,), (8,))))
    task = additive_task(space)
    (largest,) = task([space.largest()])
    assert (largest.accuracy, largest.latency_ms) == (pytest.approx(0.9), pytest.approx(10.0))
    np.testing.assert_array_equal(task.importance > 0, [False, True, False, False])
    lone = LayerwiseSpace((LayerOptions((4,), (8,)),))
    assert additive_task(lone)([lone.largest()]) == [Metrics(0.2, 1.0)]


def test_importance_is_what_each_position_decides_about():
    task = additive_task(SPACE)
    largest = np.array(SPACE.encode(SPACE.largest()))
    full = task([SPACE.largest()])[0].accuracy
    for position, importance in enumerate(task.importance):
        without = largest.copy()
        without[position] = 0
        assert full - task([SPACE.decode(without)])[0].accuracy == pytest.approx(importance)


@SPACES
@pytest.mark.parametrize(
    "reward",
    [LatencyTarget(0.5), LatencyTarget(0.5, absolute=True), LinearPenalty(), HardBudget(0.4)],
    ids=str,
)
def test_no_member_beats_the_optimum(space, reward):
    task = additive_task(space, seed=3, noise=0.02)
    config, best = task.optimum(reward)
    resolved = reward.resolve(task.predict([space.largest()])[0])
    scores = [resolved(metrics) for metrics in task(every_member(space))]
    assert best == max(scores) == resolved(task([config])[0])


def test_the_optimum_of_a_plain_function_is_found():
    assert additive_task(SPACE).optimum(lambda metrics: -metrics.latency_ms) == (SPACE.smallest(), -1.0)


def test_a_space_too_large_to_go_through_is_refused():
    space = LayerwiseSpace.for_model(ModelShape(12, 12, 3072, 768))
    with pytest.raises(
        InvalidSpaceError, match=f"at most {MAX_ENUMERATED} subnets, but the space has {space.size}"
    ):
        additive_task(space).optimum(LinearPenalty())


@pytest.mark.parametrize("noise", [-0.1, math.nan])
def test_negative_noise_is_refused(noise):
    with pytest.raises(EvaluationError, match=f"noise must be at least 0, but got noise={noise}"):
        additive_task(SPACE, noise=noise)


def test_noise_belongs_to_the_config_and_the_seed():
    configs = every_member(UNIFORM)
    quiet = np.array([m.accuracy for m in additive_task(UNIFORM, 5)(configs)])
    noisy = np.array([m.accuracy for m in additive_task(UNIFORM, 5, 0.1)(configs)])
    assert additive_task(UNIFORM, 5, 0.1)(configs[::-1])[0].accuracy == noisy[-1]
    assert np.std(noisy - quiet) == pytest.approx(0.1, rel=0.3)


def test_seeds_make_other_tasks():
    assert not np.array_equal(additive_task(SPACE, 0).importance, additive_task(SPACE, 1).importance)


@SPACES
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    "reward",
    [LatencyTarget(0.5), LatencyTarget(0.8), LinearPenalty(), MnasNetReward(0.5), HardBudget(0.5)],
    ids=str,
)
def test_guessing_is_far_from_the_optimum(space, seed, reward):
    task = additive_task(space, seed)
    resolved = reward.resolve(10.0)
    mean = np.mean([resolved(metrics) for metrics in task(every_member(space))])
    assert mean < task.optimum(reward)[1] - 0.1


@given(data=st.data())
def test_a_larger_option_is_never_less_accurate_nor_faster(data):
    task = additive_task(SPACE, data.draw(st.integers(0, 99)))
    action = [data.draw(st.integers(0, n - 2)) for n in SPACE.nvec]
    larger = list(action)
    larger[data.draw(st.integers(0, len(action) - 1))] += 1
    small, large = task([SPACE.decode(action), SPACE.decode(larger)])
    assert small.accuracy < large.accuracy
    assert small.latency_ms < large.latency_ms
