from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlnas.errors import HistoryError
from rlnas.history import Result
from rlnas.latency import FakeClock, Timing
from rlnas.metrics import Metrics
from rlnas.run import choice
from rlnas.run.choice import (
    MARGIN,
    MeasuredTrial,
    choose,
    choose_next,
    finalists,
    further_finalists,
    measure_again,
    measure_trials,
    settle,
)
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


def numbers(trials):
    return [one.number for one in trials]


def test_further_finalists_keep_well_below_the_target_or_keep_most_importance():
    trials = [trial(0, 0.9, 1.0, 0.9), trial(1, 0.8, 0.97, 0.8), trial(2, 0.7, 0.9, 0.7)]
    trials += [trial(3, 0.6, 0.5, 0.6), trial(4, 0.5, 0.4, 0.5), trial(5, 0.99, 1.2, 0.99)]
    result = result_of([*trials, trial(6, 0.95, 0.6, 0.95, raced_out=True)])
    assert numbers(further_finalists(result, 1.0, None)) == [2, 3]
    # The fourth keeps most; the one above the target counts for nothing.
    units = {4: 9.0, 0: 5.0, 5: 99.0}

    def kept(configs):
        return [units.get(config.layers[0].intermediate_size - 1, 1.0) for config in configs]

    assert numbers(further_finalists(result, 1.0, kept)) == [2, 3, 4, 0, 1]
    assert numbers(further_finalists(result, 0.45, kept)) == [4]
    assert further_finalists(result, 0.1, kept) == []


def test_further_finalists_are_close_below_one_another():
    # The two that keep most are just within the target; a table that flatters has them miss it.
    latencies = [1.0, 0.99, 0.975, 0.97, 0.955, 0.95, 0.925, 0.92, 0.7]
    result = result_of([trial(i, 0.5, latency, 0.5 - latency) for i, latency in enumerate(latencies)])

    def kept(configs):
        return [-float(config.layers[0].intermediate_size) for config in configs]

    assert numbers(further_finalists(result, 1.0, kept)) == [8, 7, 0, 1, 2, 3, 4, 5, 6]


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


def test_a_prediction_must_meet_the_target_itself():
    predicted = [entry(0, 0.505, 0.9), entry(1, 0.5, 0.7)]
    assert choose(predicted, 0.5).trial.number == 0
    assert choose(predicted, 0.5, margin=1.0).trial.number == 1


# The next candidate


@given(measurements, st.integers(1, 200), st.integers(100, 150), st.data())
def test_the_next_candidate_is_faster_and_the_best_of_those_that_should_meet(
    measured, percent, slower, data
):
    target, factor = percent / 100, slower / 100
    missed = data.draw(st.sampled_from(measured))
    found = choose_next(measured, target, {missed.trial.number: factor * missed.ratio})
    faster = [one for one in measured if one.ratio < missed.ratio]
    meeting = [one for one in faster if factor * one.ratio <= MARGIN * target * (1 - 1e-9)]
    if not faster:
        assert found is None
        return
    assert found in faster
    if meeting:
        assert found.trial.reward >= max(one.trial.reward for one in meeting)
        assert factor * found.ratio <= MARGIN * target * (1 + 1e-9)


def test_others_are_expected_to_be_as_far_off_as_the_one_that_missed():
    measured = [entry(0, 0.5, 0.9), entry(1, 0.48, 0.8), entry(2, 0.46, 0.7), entry(3, 0.2, 0.1)]
    assert choose_next(measured, 0.5, {0: 0.505}).trial.number == 1
    assert choose_next(measured, 0.5, {0: 0.55}).trial.number == 2
    assert choose_next(measured, 0.5, {0: 0.65}).trial.number == 3
    assert choose_next(measured, 0.5, {0: 5.0}).trial.number == 3  # should miss too, but less
    assert choose_next(measured, 0.5, {0: 0.55, 2: 0.52}).trial.number == 3
    assert choose_next(measured, 0.5, {3: 0.55}) is None


class Looks:
    """Second looks that find what they are told, and remember at what they looked."""

    def __init__(self, **ratios):
        self.ratios, self.numbers = ratios, []

    def __call__(self, trial):
        self.numbers.append(trial.number)
        return self.ratios[f"trial{trial.number}"]


MEASURED = [entry(0, 0.5, 0.9), entry(1, 0.48, 0.8), entry(2, 0.46, 0.7)]


def test_a_choice_that_a_second_look_confirms_is_kept():
    look = Looks(trial0=0.51)
    assert settle(MEASURED, 0.5, look) is MEASURED[0]
    assert look.numbers == [0]


def test_choices_that_a_second_look_finds_to_miss_are_left_one_by_one():
    look = Looks(trial0=0.52, trial1=0.53, trial2=0.5)
    assert settle(MEASURED, 0.5, look) is MEASURED[2]
    assert look.numbers == [0, 1, 2]


def test_the_last_choice_is_kept_whatever_a_second_look_finds():
    assert settle(MEASURED, 0.5, Looks(trial0=0.9, trial2=0.8)) is MEASURED[2]


def test_what_is_known_to_miss_is_not_looked_at_again():
    look = Looks(trial1=0.5)
    missed = {0: 0.52}
    assert settle(MEASURED, 0.5, look, missed) is MEASURED[1]
    assert look.numbers == [1]
    assert missed == {0: 0.52}
    assert settle(MEASURED, 0.5, look, {2: 0.6}) is None


# Measuring


class CountedModel:
    """A model on a fake clock: a subnet takes a ten-thousandth of a millisecond per unit."""

    shape, stack_size = SHAPE, 1

    def __init__(self, clock):
        self.clock, self.built = clock, []

    def block_calls(self, kind, size):
        self.built.append((kind, size))
        return [self.clock.call(size / 1e4)]

    def model_calls(self, config):
        self.built.append(config)
        return [self.clock.call(config.layers[0].intermediate_size / 1e4)]


@pytest.fixture
def clock(monkeypatch):
    clock = FakeClock()
    monkeypatch.setattr(choice, "clock_for", lambda device: clock)
    return clock


@pytest.mark.parametrize("device", ["cpu", "cuda:0"])
def test_trials_are_measured_beside_the_full_model_in_their_order(clock, device):
    model = CountedModel(clock)
    trials = [trial(49_999, 0.5, 1.0, 0.5), trial(24_999, 0.5, 1.0, 0.5)]
    measured = measure_trials(model, trials, device)
    assert [one.trial for one in measured] == trials
    assert [one.ratio for one in measured] == pytest.approx([0.5, 0.25])
    assert {one.timing.n_rounds for one in measured} == {choice.N_ROUNDS}
    assert {one.timing.n_calls for one in measured} == {1}
    # On a CPU something short runs between all others, to see how fast the machine is just then.
    assert (("ffn", 12_500) in model.built) is (device == "cpu")


def test_the_time_for_measuring_is_bounded(clock):
    trials = [trial(49_999, 0.5, 1.0, 0.5)]
    (measured,) = measure_trials(CountedModel(clock), trials, "cuda:0", max_seconds=0.15)
    assert measured.timing.n_rounds == 10  # of 15 ms


def test_a_second_look_is_at_one_trial_and_the_full_model(clock):
    model, config = CountedModel(clock), trial(49_999, 0.5, 1.0, 0.5).config
    assert measure_again(model, config, "cpu") == pytest.approx(0.5)
    assert model.built == [SHAPE.full, config]


def test_a_trial_is_a_value():
    with pytest.raises(AttributeError):
        entry(0, 0.5, 0.5).ratio = 0.1
