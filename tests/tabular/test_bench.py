from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rlnas.controllers.random import RandomController
from rlnas.errors import EvaluationError, InfeasibleTargetError, InvalidSubnetError
from rlnas.loop import search
from rlnas.protocols import InformedEvaluator, WeighingEvaluator
from rlnas.rewards import LatencyTarget
from rlnas.space import SubnetConfig
from rlnas.testing import check_evaluator, check_latency_model


def answers_of(bench):
    return np.unpackbits(bench.right, axis=1, count=bench.n_items)


def test_rows_are_subnets_in_the_order_of_their_actions(bench):
    for row, action in enumerate(bench.actions.tolist()):
        config = bench.space.decode(action)
        assert bench.row_of(config) == row
        assert bench.config_of(row) == config
    assert bench.row_of(bench.space.largest()) == 26


def test_the_evaluator_keeps_the_laws_and_brings_what_is_known(bench):
    evaluator = bench.evaluator()
    assert isinstance(evaluator, InformedEvaluator)
    assert isinstance(evaluator, WeighingEvaluator)
    check_evaluator(evaluator, bench.space)
    check_latency_model(evaluator.latency, bench.space)
    np.testing.assert_array_equal(evaluator.importance, [1.0, 3.0, 2.0])
    assert evaluator.kept_importance([bench.space.decode((2, 1, 0)), bench.space.smallest()]).tolist() == [
        1.5,
        0.0,
    ]


def test_metrics_are_those_of_the_items_asked_for(bench):
    items = np.array([7, 3, 40, 11, 12, 13, 14, 15, 16])
    evaluator = bench.evaluator("slow", items)
    config = bench.space.decode((1, 2, 0))
    (metrics,) = evaluator([config])
    expected = answers_of(bench)[bench.row_of(config), items]
    assert metrics.accuracy == expected.mean()
    assert metrics.correct == np.packbits(expected).tobytes()
    assert (metrics.n_items, metrics.n_params, metrics.latency_ms) == (9, 130, 60.0)
    assert math.isclose(evaluator.latency([config])[0], 60.0)


def test_a_batch_is_answered_in_its_order(bench):
    configs = [bench.config_of(row) for row in (5, 26, 0, 5)]
    evaluator = bench.evaluator()
    assert evaluator(configs) == [evaluator([config])[0] for config in configs]
    assert evaluator([]) == []


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=20, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_halves_part_the_items_and_their_accuracies_average(bench, seed):
    first, second = bench.halves(seed)
    assert len(first) == len(second) == 22
    np.testing.assert_array_equal(np.sort(np.concatenate([first, second])), np.arange(44))
    mean = (bench.accuracy(first) + bench.accuracy(second)) / 2
    np.testing.assert_allclose(mean, bench.accuracy())
    np.testing.assert_allclose(bench.accuracy(), answers_of(bench).mean(axis=1))


def test_other_seeds_make_other_halves(bench):
    assert not np.array_equal(bench.halves(0)[0], bench.halves(1)[0])
    np.testing.assert_array_equal(bench.halves(3)[0], bench.halves(3)[0])


def test_no_subnet_within_the_target_beats_the_optimum(bench):
    items = bench.halves(0)[1]
    config, accuracy = bench.optimum(5.0, items=items)
    fits = bench.latency_ms() <= 5.0
    assert bench.latency()([config])[0] <= 5.0
    assert accuracy == bench.accuracy(items)[fits].max() == bench.accuracy(items)[bench.row_of(config)]
    with pytest.raises(
        InfeasibleTargetError, match=r"target_ms=1.5 cannot .* the bench made-up takes 2 ms"
    ):
        bench.optimum(1.5)


def test_noise_belongs_to_the_config_and_the_seed(bench):
    configs = [bench.config_of(row) for row in range(27)]
    quiet = np.array([m.latency_ms for m in bench.evaluator()(configs)])
    noisy = np.array([m.latency_ms for m in bench.evaluator(noise_seed=4)(configs)])
    again = bench.evaluator(noise_seed=4)(configs[::-1])
    assert again[0].latency_ms == noisy[-1]
    assert np.log(noisy / quiet).std() == pytest.approx(0.05, rel=0.5)
    assert bench.evaluator(noise_seed=5)(configs)[0].latency_ms != noisy[0]
    np.testing.assert_allclose(bench.evaluator(noise_seed=4).latency(configs), quiet)


def test_a_search_finds_the_best_of_a_bench(bench):
    result = search(bench.space, bench.evaluator(), LatencyTarget(0.5), RandomController(), budget=27)
    reachable = bench.optimum(0.5 * 11.0)[1]
    assert result.best.metrics.accuracy == reachable


def test_a_latency_that_is_not_there_is_named(bench):
    with pytest.raises(EvaluationError, match="made-up has no latency 'warp'; it has 'fast', 'slow'"):
        bench.latency_ms("warp")


@pytest.mark.parametrize("items", [[], [44], [-1], [0.5], [[1, 2]]], ids=str)
def test_items_that_are_not_of_the_bench_are_refused(bench, items):
    with pytest.raises(EvaluationError, match="items must be numbers from 0 to 43, at least one, but got"):
        bench.evaluator(items=items)


def test_items_that_repeat_are_refused(bench):
    with pytest.raises(EvaluationError, match=r"items must not repeat, but got \[1, 1\]"):
        bench.accuracy([1, 1])


def test_a_subnet_outside_the_space_is_refused(bench):
    with pytest.raises(InvalidSubnetError, match="this space has 3 layers, but the subnet has 1"):
        bench.evaluator()([SubnetConfig(bench.space.options[:1])])
