from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlnas.errors import HistoryError
from rlnas.history import Result
from rlnas.latency import Timing
from rlnas.metrics import Metrics
from rlnas.run.choice import MARGIN, MeasuredTrial, choose, finalists, measure_trials
from rlnas.space import LayerConfig, ModelShape, SubnetConfig
from rlnas.trial import Trial

SHAPE = ModelShape(num_hidden_layers=1, num_attention_heads=4, intermediate_size=100_000, hidden_size=32)


def trial(number, accuracy, latency_ms, reward, raced_out=False):
    config = SubnetConfig((LayerConfig(1, number + 1),))
    return Trial(number, config, Metrics(accuracy, latency_ms, 100, 10, raced_out=raced_out), reward)


def entry(number, ratio, reward):
    return MeasuredTrial(trial(number, 0.5, ratio, reward), Timing((ratio, ratio), 1), ratio)


def result_of(trials):
    return Result(tuple(trials), np.array([one.reward for one in trials]), "the budget is spent")


percents = st.integers(0, 100).map(lambda percent: percent / 100)
results = st.lists(st.tuples(percents, percents, percents), min_size=1, max_size=40).map(
    lambda rows: result_of([trial(number, *row) for number, row in enumerate(rows)])
)
measurements = st.lists(st.tuples(st.integers(1, 200), percents), min_size=1, max_size=12).map(
    lambda rows: [entry(number, ratio / 100, reward) for number, (ratio, reward) in enumerate(rows)]
)


@given(results)
def test_finalists_are_few_and_distinct_and_ascend_in_latency(result):
    chosen = finalists(result)
    assert 1 <= len(chosen) <= 12
    assert len({one.number for one in chosen}) == len(chosen)
    latencies = [one.metrics.latency_ms for one in chosen]
    assert latencies == sorted(latencies)


@given(results)
def test_finalists_hold_the_best_and_both_ends_of_the_front(result):
    chosen = finalists(result)
    best = sorted(result.trials, key=lambda one: -one.reward)[:4]
    assert {one.number for one in best} <= {one.number for one in chosen}
    assert result.pareto_front[0] in chosen
    assert result.pareto_front[-1] in chosen


@given(results)
def test_a_short_front_is_taken_whole(result):
    if len(result.pareto_front) <= 8:
        assert set(result.pareto_front) <= set(finalists(result))


def test_a_long_front_is_thinned_evenly():
    result = result_of([trial(n, n / 100, n / 100, 0.0) for n in range(29)])
    assert [one.number for one in finalists(result, n_front=8, n_best=0)] == [0, 4, 8, 12, 16, 20, 24, 28]


def test_of_equal_rewards_the_first_trials_are_finalists():
    result = result_of([trial(n, 0.5, 1.0 + n, 0.5) for n in range(9)])
    assert [one.number for one in finalists(result, n_best=3)] == [0, 1, 2]


@given(results, st.lists(percents, max_size=5))
def test_what_was_raced_out_is_no_finalist_and_changes_nothing(result, latencies):
    n_trials = len(result.trials)
    early = [trial(n_trials + n, 1.0, ms, 2.0, raced_out=True) for n, ms in enumerate(latencies)]
    assert finalists(result_of([*early, *result.trials])) == finalists(result)


@pytest.mark.parametrize("n_trials", [0, 3])
def test_without_a_trial_that_was_judged_fully_nothing_can_be_chosen(n_trials):
    result = result_of([trial(n, 0.5, 1.0, 0.5, raced_out=True) for n in range(n_trials)])
    with pytest.raises(HistoryError, match=f"because none of {n_trials} trials was judged on all items"):
        finalists(result)


@given(measurements)
def test_without_a_target_the_highest_reward_is_chosen(measured):
    assert choose(measured, None).trial.reward == max(one.trial.reward for one in measured)


@given(measurements, st.integers(1, 200))
def test_with_a_target_the_best_of_those_that_meet_it_is_chosen(measured, percent):
    target = percent / 100
    chosen = choose(measured, target)
    meeting = [one for one in measured if one.ratio <= MARGIN * target]
    if meeting:
        assert chosen in meeting
        assert chosen.trial.reward == max(one.trial.reward for one in meeting)
    else:
        assert chosen.ratio == min(one.ratio for one in measured)


def test_what_is_predicted_to_meet_the_target_must_be_measured_to_do_so():
    measured = [entry(0, 0.52, 0.9), entry(1, 0.51, 0.7), entry(2, 0.3, 0.6)]
    assert choose(measured, 0.5).trial.number == 1


class CountedModel:
    """Stands in for `TimedModel`: a config's call works as long as it has units."""

    def model_call(self, config):
        n_steps = config.layers[0].intermediate_size
        return lambda: sum(range(n_steps))


class FullOnly:
    """Stands in for a `Supernet` that only has a shape."""

    shape = SHAPE


def test_trials_are_measured_beside_the_full_model_in_their_order():
    trials = [trial(49_999, 0.5, 1.0, 0.5), trial(9, 0.5, 1.0, 0.5)]
    measured = measure_trials(CountedModel(), FullOnly(), trials, "cpu", max_seconds=1.0)
    assert [one.trial for one in measured] == trials
    assert measured[0].timing.n_samples == measured[1].timing.n_samples
    assert measured[1].ratio < measured[0].ratio < 1.0


def test_a_trial_is_a_value():
    with pytest.raises(AttributeError):
        entry(0, 0.5, 0.5).ratio = 0.1
