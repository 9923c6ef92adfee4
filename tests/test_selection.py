"""What a choice is worth: the luck of being the best of many is taken off."""

from __future__ import annotations

import numpy as np
import pytest

from rlnas.errors import EvaluationError
from rlnas.selection import HonestScore, honest_interval


def answers(accuracies, n_items, seed=0):
    """Independent candidates of these true accuracies."""
    rng = np.random.default_rng(seed)
    return rng.uniform(size=(len(accuracies), n_items)) < np.array(accuracies)[:, None]


def best(accuracies):
    return int(np.argmax(accuracies))


def test_the_best_of_equals_is_worth_no_more_than_any_of_them():
    scores = [honest_interval(answers([0.7] * 100, 200, seed), best, seed=seed) for seed in range(20)]
    assert np.mean([score.seen for score in scores]) > 0.77
    assert abs(np.mean([score.estimate for score in scores]) - 0.7) < 0.02
    assert all(score.low <= 0.7 <= score.high for score in scores)


def test_a_choice_of_one_is_worth_what_is_seen():
    score = honest_interval(answers([0.8], 400), best)
    assert abs(score.optimism) < 0.005
    assert score.seen == pytest.approx(answers([0.8], 400).mean())
    assert score.low < score.estimate < score.high
    assert (score.gain, score.gain_ci, score.n_items) == (None, None, 400)


def test_what_is_better_beyond_luck_keeps_its_lead():
    score = honest_interval(answers([0.6] * 20 + [0.9], 200), best, n_first=20)
    assert score.gain == pytest.approx(0.3, abs=0.1)
    assert score.gain_ci[0] > 0


def test_equals_that_were_found_later_gain_nothing():
    score = honest_interval(answers([0.7] * 100, 200), best, n_first=50)
    assert score.gain_ci[0] < 0 < score.gain_ci[1]


def test_the_rule_of_the_choice_counts():
    table = answers([0.5, 0.9], 300)
    assert honest_interval(table, lambda _: 0).estimate == pytest.approx(table[0].mean(), abs=0.01)


def test_equal_seeds_give_equal_scores_and_less_confidence_a_narrower_interval():
    table = answers([0.7] * 10, 100)
    assert honest_interval(table, best, seed=3) == honest_interval(table, best, seed=3)
    wide, narrow = honest_interval(table, best), honest_interval(table, best, confidence=0.5)
    assert wide.low < narrow.low < narrow.high < wide.high
    assert HonestScore(0.7, 0.6, 0.8, 0.75, 9).optimism == pytest.approx(0.05)


@pytest.mark.parametrize("shape", [(0, 9), (3, 1), (9,)], ids=str)
def test_a_table_without_candidates_or_items_is_refused(shape):
    with pytest.raises(EvaluationError, match=rf"its shape is \({shape[0]},"):
        honest_interval(np.ones(shape), best)


@pytest.mark.parametrize("n_first", [0, 4])
def test_first_candidates_that_are_not_there_are_refused(n_first):
    with pytest.raises(EvaluationError, match=f"from 1 to 3, but got n_first={n_first}"):
        honest_interval(np.ones((3, 5)), best, n_first=n_first)


def test_a_confidence_outside_its_range_is_refused():
    with pytest.raises(EvaluationError, match="between 0 and 1, but got confidence=95"):
        honest_interval(np.ones((3, 5)), best, confidence=95)
