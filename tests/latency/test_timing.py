from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlnas.latency.timing import Timing, compare_timings, level_rounds, noise_note, tail_note

samples = st.lists(st.floats(0.1, 100), min_size=4, max_size=40)


# --- Timing


def test_a_timing_summarises_its_samples():
    timing = Timing((1.0, 2.0, 3.0, 4.0, 5.0))
    assert timing.median_ms == 3.0
    assert timing.spread_ms == 2.0
    assert timing.noise == pytest.approx(2 / 3)
    assert timing.is_noisy
    assert timing.n_samples == 5
    assert timing.quantile_ms(1.0) == 5.0


def test_a_steady_timing_is_not_noisy():
    assert not Timing((3.0, 3.0, 3.1)).is_noisy


def test_a_timing_becomes_plain_values():
    assert Timing((1.0, 3.0), 2).to_dict() == {
        "median_ms": 2.0,
        "spread_ms": 1.0,
        "n_calls": 2,
        "n_requests": 1,
        "samples_ms": [1.0, 3.0],
        "slowdowns": [],
    }


def test_a_timing_without_samples_is_refused():
    with pytest.raises(ValueError, match="samples_ms is empty"):
        Timing(())


@pytest.mark.parametrize("sample", [0.0, -1.5, math.inf, math.nan])
def test_an_impossible_sample_is_refused(sample):
    with pytest.raises(ValueError, match=f"positive and finite, but got {sample}"):
        Timing((1.0, sample))


def test_a_sample_of_no_calls_is_refused():
    with pytest.raises(ValueError, match="n_calls=0"):
        Timing((1.0,), 0)


def test_samples_that_do_not_fill_a_round_are_refused():
    with pytest.raises(ValueError, match="n_requests=2, but there are 3 samples"):
        Timing((1.0, 2.0, 3.0), n_requests=2)


def test_a_slowdown_for_some_rounds_only_is_refused():
    with pytest.raises(ValueError, match="2 rounds need as many slowdowns, but got 1"):
        Timing((1.0, 2.0), slowdowns=(1.0,))


def test_an_impossible_slowdown_is_refused():
    with pytest.raises(ValueError, match=r"slowdowns must be positive and finite, but got 0\.0"):
        Timing((1.0,), slowdowns=(0.0,))


def test_a_mix_of_no_requests_is_refused():
    with pytest.raises(ValueError, match="n_requests=0"):
        Timing((1.0,), n_requests=0)


def test_the_median_of_a_mix_is_the_mean_of_its_requests_medians():
    mix = Timing((1.0, 10.0, 1.0, 30.0, 7.0, 20.0), n_requests=2)
    assert mix.median_ms == pytest.approx((1.0 + 20.0) / 2)
    assert mix.p99_ms > 29  # of all requests together
    assert mix.statistic_ms("p99") == mix.p99_ms
    assert mix.statistic_ms("median") == mix.median_ms


@settings(max_examples=50, deadline=None)
@given(samples)
def test_an_interval_holds_its_statistic_and_stays_within_the_samples(values):
    timing = Timing(tuple(values))
    for statistic in ("median", "p99"):
        low, high = timing.interval_ms(statistic)
        assert min(values) <= low <= high <= max(values)
    low, high = timing.interval_ms(confidence=0.999)
    assert low <= timing.median_ms <= high


def test_the_interval_of_the_median_holds_the_truth_most_times():
    rng, hits = np.random.default_rng(0), 0
    for _ in range(60):
        low, high = Timing(tuple(rng.lognormal(0, 0.2, 31))).interval_ms()
        hits += low <= 1.0 <= high
    assert 51 <= hits <= 60


def test_more_rounds_give_a_narrower_interval():
    rng = np.random.default_rng(0)
    low, high = Timing(tuple(rng.lognormal(0, 0.2, 1_000))).interval_ms()
    wide_low, wide_high = Timing(tuple(rng.lognormal(0, 0.2, 20))).interval_ms()
    assert high - low < (wide_high - wide_low) / 3


def test_an_interval_of_impossible_confidence_is_refused():
    with pytest.raises(ValueError, match=r"confidence=1\.5"):
        Timing((1.0,)).interval_ms(confidence=1.5)


def test_repeats_are_the_even_and_the_odd_rounds():
    assert Timing((1.0, 3.0, 1.0, 3.0)).repeat_noise() == pytest.approx(1.0)
    assert Timing((2.0,) * 6).repeat_noise() == 0
    assert Timing((1.0, 1.0, 5.0, 1.0)).repeat_noise("p99") == pytest.approx(2 * 3.96 / 5.96)
    assert Timing((1.0, 2.0, 3.0)).repeat_noise() is None


def test_a_levelled_timing_is_what_the_pacemaker_did_not_explain():
    timing = Timing((2.0, 8.0, 4.0, 16.0), n_requests=2, slowdowns=(0.5, 1.0))
    assert timing.levelled() == Timing((4.0, 16.0, 4.0, 16.0), n_requests=2)
    assert Timing((1.0, 2.0)).levelled() == Timing((1.0, 2.0))


# --- compare_timings


def test_the_interval_holds_the_true_ratio_most_times():
    rng = np.random.default_rng(0)
    hits = 0
    for _ in range(60):
        rows = rng.lognormal(0, 0.2, size=(2, 31)) * [[10.0], [5.0]]
        low, high = compare_timings(Timing(tuple(rows[0])), Timing(tuple(rows[1]))).ratio_ci
        hits += low <= 0.5 <= high
    assert 51 <= hits <= 60


def test_a_wider_confidence_gives_a_wider_interval():
    rows = np.random.default_rng(0).lognormal(0, 0.2, size=(2, 31))
    first, second = Timing(tuple(rows[0])), Timing(tuple(rows[1]))
    narrow = compare_timings(first, second, confidence=0.5).ratio_ci
    wide = compare_timings(first, second, confidence=0.99).ratio_ci
    assert wide[0] < narrow[0] < narrow[1] < wide[1]


def test_timings_of_different_measures_are_not_compared():
    with pytest.raises(ValueError, match=r"got \[2, 3\]"):
        compare_timings(Timing((1.0, 1.0)), Timing((1.0, 1.0, 1.0)))


@pytest.mark.parametrize("confidence", [0.0, 1.0, 95.0])
def test_an_impossible_confidence_is_refused(confidence):
    with pytest.raises(ValueError, match=f"confidence={confidence}"):
        compare_timings(Timing((1.0,)), Timing((1.0,)), confidence=confidence)


def test_tails_are_compared_by_their_ratio():
    first = Timing((1.0,) * 100)
    second = Timing((1.0,) * 90 + (3.0,) * 10)
    assert compare_timings(first, second).ratio == 1.0
    comparison = compare_timings(first, second, statistic="p99")
    assert comparison.ratio == pytest.approx(3.0)
    assert comparison.ratio_ci == pytest.approx((3.0, 3.0))


# --- level_rounds


def test_a_slowdown_common_to_a_round_is_taken_out():
    costs = np.array([1.0, 4.0, 9.0, 16.0])
    slowdown = np.array([1.0, 1.0, 1.0, 7.0, 8.0, 9.0, 10.0])
    levelled = level_rounds([Timing(tuple(cost * slowdown)) for cost in costs])
    assert all(timing.noise < 1e-9 for timing in levelled)
    medians = np.array([timing.median_ms for timing in levelled])
    assert medians / medians[0] == pytest.approx(costs)


def test_levelling_leaves_a_steady_machine_alone():
    timings = [Timing((2.0,) * 5, 3), Timing((7.0,) * 5)]
    assert level_rounds(timings) == timings


def test_one_disturbed_call_does_not_change_the_others():
    timings = [Timing((2.0, 2.0, 2.0)), Timing((5.0, 5.0, 5.0)), Timing((3.0, 90.0, 3.0))]
    assert level_rounds(timings)[:2] == timings[:2]


def test_requests_of_a_mix_are_levelled_together():
    slowdown = np.array([1.0, 1.0, 1.0, 5.0, 1.0])
    rows = np.outer(slowdown, [2.0, 6.0])
    mix = Timing(tuple(rows.ravel()), n_requests=2)
    (levelled, _) = level_rounds([mix, Timing(tuple(3 * slowdown))])
    assert levelled.rounds_ms == pytest.approx(np.tile([2.0, 6.0], (5, 1)))


def test_levelling_needs_timings_of_one_measure():
    with pytest.raises(ValueError, match=r"equally many rounds, but got \[1, 2\]"):
        level_rounds([Timing((1.0,)), Timing((1.0, 1.0))])


# --- noise_note


def test_a_noisy_machine_is_called_noisy():
    note = noise_note([Timing((1.0, 2.0, 3.0)), Timing((1.0, 2.0, 3.0)), Timing((1.0, 1.0))])
    assert note is not None
    assert "is 50% of its median" in note


def test_a_quiet_machine_needs_no_note():
    assert noise_note([Timing((1.0, 1.01, 1.02))]) is None


def test_two_timings_are_levelled_by_the_pacemaker_alone():
    first = Timing((1.0, 2.0, 1.0), slowdowns=(1.0, 2.0, 1.0))
    second = Timing((3.0, 3.0, 9.0))
    assert level_rounds([first, second]) == [Timing((1.0, 1.0, 1.0)), second]


def test_a_tail_of_few_samples_is_noted():
    assert tail_note(100) is None
    note = tail_note(30)
    assert note is not None
    assert "a p99 of 30 samples rests on one or two of them" in note
