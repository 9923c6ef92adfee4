"""Estimates against values known from elsewhere, and against what intervals promise."""

from __future__ import annotations

import importlib
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import mannwhitneyu, trim_mean

ROOT = Path(__file__).parents[2]


@pytest.fixture
def estimates(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT))
    return importlib.import_module("benchmarks.estimates")


def test_the_interquartile_mean_is_that_of_each_task(estimates):
    assert estimates.interquartile_mean([[1.0, 2.0, 3.0, 100.0]]) == 2.5
    assert estimates.interquartile_mean([[0.0, 1.0, 1.0, 9.0], [4.0, 6.0]]) == 3.0
    scores = [np.arange(7.0) ** 2, np.arange(5.0)]
    expected = np.mean([trim_mean(array, 0.25) for array in scores])
    assert estimates.interquartile_mean(scores) == pytest.approx(expected)
    assert estimates.interquartile_mean([[3.0]]) == 3.0


def test_an_interval_holds_the_truth_about_as_often_as_it_says(estimates):
    rng = np.random.default_rng(0)
    held = 0
    for trial in range(100):
        estimate = estimates.interquartile_estimate([rng.normal(0, 1, 40)], seed=trial)
        assert estimate.low <= estimate.value <= estimate.high
        held += estimate.low <= 0.0 <= estimate.high
    assert 86 <= held <= 100


def test_tasks_are_drawn_from_apart(estimates):
    """Were seeds drawn across tasks, the share of each task would vary, and the mean with it."""
    estimate = estimates.interquartile_estimate([np.zeros(10), np.ones(10)])
    assert estimate.to_list() == [0.5, 0.5, 0.5]


def test_pairs_cancel_what_a_seed_does_to_both(estimates):
    luck = np.random.default_rng(0).normal(0, 5, 20)
    estimate = estimates.paired_difference([luck + 0.1], [luck])
    np.testing.assert_allclose(estimate.to_list(), 0.1)
    assert estimates.paired_difference([luck], [luck[::-1]]).high > 1


def test_improvement_is_mann_whitneys_share_of_pairs(estimates):
    rng = np.random.default_rng(1)
    first, second = rng.normal(0, 1, 15), rng.normal(0.5, 1, 15)
    estimate = estimates.probability_of_improvement([first], [second])
    assert estimate.value == pytest.approx(1 - mannwhitneyu(first, second).statistic / 225)
    assert estimate.low < estimate.value < estimate.high


def test_ties_count_half_and_tasks_alike(estimates):
    always, never = np.zeros(4), np.ones(4)
    assert estimates.probability_of_improvement([always], [never]).to_list() == [1, 1, 1]
    assert estimates.probability_of_improvement([never], [never]).to_list() == [0.5, 0.5, 0.5]
    assert estimates.probability_of_improvement([always, never], [never, never]).value == 0.75
    one = estimates.probability_of_improvement([[0.0, 2.0]], [[1.0, 1.0]])
    assert one.value == 0.5
    assert (one.low, one.high) == (0.0, 1.0)


def test_pairs_need_the_same_seeds(estimates):
    with pytest.raises(ValueError, match=r"but got \[2\] and \[3\]"):
        estimates.paired_difference([[1.0, 2.0]], [[1.0, 2.0, 3.0]])
    with pytest.raises(ValueError, match="each of one or more seeds"):
        estimates.interquartile_mean([[]])
