from __future__ import annotations

import numpy as np
import pytest
import sklearn.metrics
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from rlnas.errors import EvaluationError
from rlnas.scores import (
    _resamples,
    _weighted_score,
    difference_interval,
    score,
    score_interval,
    wilson_interval,
)
from rlnas.task import METRICS, REGRESSION_METRICS

CLASS_METRICS = [metric for metric in METRICS if metric not in REGRESSION_METRICS]


def make_answers(metric: str, n_items: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Labels and predictions that agree in part."""
    rng = np.random.default_rng(seed)
    if metric in REGRESSION_METRICS:
        labels = rng.normal(size=n_items).round(1)
        return labels, (labels + rng.normal(size=n_items)).round(1)
    labels = rng.integers(2, size=n_items)
    return labels, np.where(rng.random(n_items) < 0.8, labels, 1 - labels)


def test_metrics_have_their_textbook_values():
    labels, predictions = [1, 1, 1, 0, 0, 0, 0, 0], [1, 1, 0, 1, 0, 0, 0, 0]
    assert score("accuracy", labels, predictions) == 6 / 8
    assert score("f1", labels, predictions) == pytest.approx(2 * 2 / (2 * 2 + 1 + 1))
    expected = (2 * 4 - 1 * 1) / np.sqrt(3 * 3 * 5 * 5)
    assert score("matthews", labels, predictions) == pytest.approx(expected)


def test_spearman_sees_order_alone_and_pearson_sees_values():
    labels = np.arange(1.0, 9.0)
    assert score("spearman", labels, np.exp(labels)) == pytest.approx(1)
    assert score("spearman", labels, -labels) == pytest.approx(-1)
    assert score("pearson", labels, 3 * labels - 2) == pytest.approx(1)
    assert score("pearson", labels, np.exp(labels)) < 0.8


def test_f1_is_that_of_class_one_among_many():
    assert score("f1", [0, 1, 2, 2], [0, 1, 1, 0]) == pytest.approx(2 / 3)


@pytest.mark.parametrize("metric", ["matthews", "spearman", "pearson"])
@pytest.mark.parametrize("which", ["labels", "predictions", "both"])
def test_undefined_correlations_are_zero_without_a_warning(metric, which):
    varied, constant = [0, 1, 1, 0, 1], [1, 1, 1, 1, 1]
    labels = varied if which == "predictions" else constant
    predictions = varied if which == "labels" else constant
    assert score(metric, labels, predictions) == 0
    assert score_interval(metric, labels, predictions) == (0, 0)


def test_f1_without_any_positive_is_zero():
    assert score("f1", [0, 0], [0, 0]) == 0
    assert score_interval("f1", [0, 0], [0, 0]) == (0, 0)


@pytest.mark.parametrize("metric", REGRESSION_METRICS)
def test_values_that_differ_in_their_last_digits_give_a_finite_score(metric):
    nearly_constant = 1.0 + np.arange(5) * 1e-16
    assert -1 <= score(metric, [1.0, 2.0, 3.0, 4.0, 5.0], nearly_constant) <= 1
    assert score(metric, [1e-200, 2e-200], [1.0, 2.0]) in (0.0, 1.0, pytest.approx(1))


def test_resamples_of_one_repeated_value_score_zero():
    # 0.1 is no binary fraction: the mean of three of them differs from it by a rounding error.
    labels, predictions = np.array([0.1, 0.7, 0.3]), np.array([0.1, 0.2, 0.9])
    counts = np.array([[3.0, 0.0, 0.0]])
    assert _weighted_score("pearson", labels, predictions, counts) == 0
    assert _weighted_score("spearman", labels, predictions, counts) == 0


@pytest.mark.parametrize("metric", METRICS)
@settings(max_examples=15)
@given(seed=st.integers(0, 2**32 - 1), n_items=st.integers(2, 40), n_classes=st.integers(2, 4))
def test_counts_score_like_the_repeated_items(metric, seed, n_items, n_classes):
    rng = np.random.default_rng(seed)
    if metric in REGRESSION_METRICS:
        labels, predictions = rng.integers(6, size=(2, n_items)) / 3
    else:
        labels, predictions = rng.integers(n_classes, size=(2, n_items))
    counts = rng.multinomial(n_items, np.ones(n_items) / n_items, size=3)
    found = _weighted_score(metric, labels, predictions, counts.astype(float))
    expected = [score(metric, labels.repeat(row), predictions.repeat(row)) for row in counts]
    np.testing.assert_allclose(found, expected, atol=1e-9)


def test_resamples_draw_each_item_equally_often():
    counts = np.concatenate(list(_resamples(7, seed=3)))
    assert counts.shape == (1000, 7)
    assert (counts.sum(axis=1) == 7).all()
    np.testing.assert_allclose(counts.mean(axis=0), 1, atol=0.15)
    # Binomial(7, 1/7)
    np.testing.assert_allclose(counts.var(axis=0), 6 / 7, atol=0.2)


def test_resamples_of_many_items_come_in_chunks():
    sizes = [len(chunk) for chunk in _resamples(3000, seed=0)]
    assert sum(sizes) == 1000
    assert max(sizes) * 3000 <= 1_000_000


@given(n_right=st.integers(0, 60), n_wrong=st.integers(0, 60), confidence=st.floats(0.5, 0.999))
def test_wilson_interval_contains_the_accuracy(n_right, n_wrong, confidence):
    n_wrong += n_right == n_wrong == 0
    labels = np.zeros(n_right + n_wrong, dtype=int)
    predictions = np.repeat([0, 1], [n_right, n_wrong])
    low, high = score_interval("accuracy", labels, predictions, confidence=confidence)
    assert 0 <= low <= n_right / len(labels) + 1e-12
    assert n_right / len(labels) - 1e-12 <= high <= 1


def test_wilson_interval_has_its_closed_form():
    low, high = score_interval("accuracy", np.zeros(10, int), np.repeat([0, 1], [8, 2]))
    z = stats.norm.ppf(0.975)
    centre, half = (
        (0.8 + z**2 / 20) / (1 + z**2 / 10),
        z * np.sqrt(0.8 * 0.2 / 10 + z**2 / 400) / (1 + z**2 / 10),
    )
    assert (low, high) == pytest.approx((centre - half, centre + half))


@given(n_right=st.integers(0, 60), n_wrong=st.integers(0, 60), confidence=st.floats(0.5, 0.999))
def test_wilsons_bounds_are_where_its_test_is_at_its_limit(n_right, n_wrong, confidence):
    """The accuracies p at which the observed one is z standard errors of p away."""
    n_items = n_right + n_wrong + 1
    z = stats.norm.ppf((1 + confidence) / 2)
    for p in wilson_interval(n_right, n_items, confidence):
        assert (n_right / n_items - p) ** 2 == pytest.approx(z**2 * p * (1 - p) / n_items, abs=1e-9)


def test_wilson_interval_is_the_interval_of_accuracy():
    predictions = np.repeat([0, 1], [33, 7])
    assert wilson_interval(33, 40) == score_interval("accuracy", np.zeros(40, int), predictions)
    assert wilson_interval(33, 40, 0.5) != wilson_interval(33, 40)
    assert wilson_interval(0, 5)[0] == 0
    assert wilson_interval(5, 5)[1] == 1


@pytest.mark.parametrize("rate", [0.5, 0.9, 0.97])
def test_wilson_interval_covers_as_often_as_it_says(rate):
    rng = np.random.default_rng(0)
    n_items, labels = 100, np.zeros(100, int)
    intervals = {
        n_right: score_interval("accuracy", labels, np.repeat([0, 1], [n_right, n_items - n_right]))
        for n_right in range(n_items + 1)
    }
    n_rights = rng.binomial(n_items, rate, size=20_000)
    covered = np.mean(
        [intervals[n_right][0] <= rate <= intervals[n_right][1] for n_right in n_rights.tolist()]
    )
    assert 0.92 < covered < 0.98


@pytest.mark.parametrize("metric", ["f1", "matthews", "spearman", "pearson"])
def test_bootstrap_interval_covers_as_often_as_it_says(metric):
    truth = score(metric, *make_answers(metric, 200_000, seed=999))
    intervals = [score_interval(metric, *make_answers(metric, 150, seed=seed)) for seed in range(60)]
    covered = np.mean([low <= truth <= high for low, high in intervals])
    assert 0.85 < covered <= 1


@pytest.mark.parametrize("metric", METRICS)
def test_more_confidence_makes_a_wider_interval(metric):
    answers = make_answers(metric, 80, seed=1)
    narrow = score_interval(metric, *answers, confidence=0.5)
    wide = score_interval(metric, *answers, confidence=0.99)
    assert wide[0] < narrow[0] < narrow[1] < wide[1]


@pytest.mark.parametrize("metric", METRICS)
def test_equal_seeds_give_equal_intervals(metric):
    labels, predictions = make_answers(metric, 50, seed=1)
    assert score_interval(metric, labels, predictions, seed=4) == score_interval(
        metric, labels, predictions, seed=4
    )
    flipped = predictions[::-1]
    first = difference_interval(metric, labels, predictions, flipped, seed=4)
    assert first == difference_interval(metric, labels, predictions, flipped, seed=4)
    others = {difference_interval(metric, labels, predictions, flipped, seed=seed) for seed in range(5, 9)}
    assert others != {first}


@pytest.mark.parametrize("metric", METRICS)
@settings(max_examples=15)
@given(seed=st.integers(0, 2**32 - 1), n_items=st.integers(1, 30))
def test_score_does_not_depend_on_the_order_of_items(metric, seed, n_items):
    labels, predictions = make_answers(metric, n_items, seed)
    order = np.random.default_rng(seed).permutation(n_items)
    shuffled = score(metric, labels[order], predictions[order])
    assert shuffled == pytest.approx(score(metric, labels, predictions), abs=1e-12)


@pytest.mark.parametrize("metric", METRICS)
@settings(max_examples=15)
@given(seed=st.integers(0, 2**32 - 1), n_items=st.integers(1, 30))
def test_equal_predictions_differ_by_nothing(metric, seed, n_items):
    labels, predictions = make_answers(metric, n_items, seed)
    assert difference_interval(metric, labels, predictions, predictions) == (0, 0)


@pytest.mark.parametrize("metric", METRICS)
def test_difference_is_the_second_minus_the_first(metric):
    labels, predictions = make_answers(metric, 200, seed=0)
    low, high = difference_interval(metric, labels, predictions, labels)
    assert 0 < low < 1 - score(metric, labels, predictions) < high
    swapped = difference_interval(metric, labels, labels, predictions)
    assert swapped == pytest.approx((-high, -low))


@pytest.mark.parametrize("metric", METRICS)
def test_several_runs_on_the_same_items_count_by_the_mean_of_their_scores(metric):
    labels, first = make_answers(metric, 200, seed=0)
    _, second = make_answers(metric, 200, seed=0)
    second[:20] = labels[:20]
    runs = np.stack([first, second, labels])
    mean = np.mean([score(metric, labels, run) for run in runs])
    low, high = score_interval(metric, labels, runs)
    assert low < mean < high
    assert difference_interval(metric, labels, runs, runs[::-1]) == pytest.approx((0, 0))
    single = difference_interval(metric, labels, first, labels)
    assert difference_interval(metric, labels, first[None], labels[None]) == single
    low, high = difference_interval(metric, labels, np.stack([first, first]), np.stack([labels, first]))
    assert (low, high) == pytest.approx((single[0] / 2, single[1] / 2))


def test_one_run_alone_keeps_the_interval_of_wilson():
    labels, predictions = make_answers("accuracy", 100, seed=0)
    expected = score_interval("accuracy", labels, predictions)
    assert score_interval("accuracy", labels, predictions[None]) == expected


def test_pairing_makes_the_interval_of_a_difference_narrow():
    labels, first = make_answers("accuracy", 400, seed=0)
    second = first.copy()
    second[:4] = 1 - second[:4]
    low, high = difference_interval("accuracy", labels, first, second)
    alone = score_interval("accuracy", labels, first)
    assert high - low < (alone[1] - alone[0]) / 2


def test_matthews_of_many_classes_is_that_of_scikit_learn():
    rng = np.random.default_rng(0)
    labels = rng.integers(5, size=300)
    predictions = np.where(rng.random(300) < 0.6, labels, rng.integers(5, size=300))
    expected = sklearn.metrics.matthews_corrcoef(labels, predictions)
    assert _weighted_score("matthews", labels, predictions, np.ones((1, 300))) == pytest.approx(expected)


@pytest.mark.parametrize("metric", REGRESSION_METRICS)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_predictions_that_are_not_finite_are_refused(metric, bad):
    with pytest.raises(EvaluationError, match="2 of 4 predictions are not finite, the first at index 1"):
        score(metric, [1.0, 2.0, 3.0, 4.0], [1.0, bad, 2.0, bad])


def test_labels_that_are_not_finite_are_refused():
    with pytest.raises(EvaluationError, match="1 of 2 labels are not finite, the first at index 0"):
        score_interval("pearson", [np.nan, 1.0], [1.0, 2.0])


def test_the_second_predictions_are_checked_too():
    with pytest.raises(EvaluationError, match="not finite"):
        difference_interval("pearson", [0.0, 1.0], [1.0, 2.0], [1.0, np.nan])


def test_unknown_metric_is_refused():
    with pytest.raises(EvaluationError, match=r"metric must be one of accuracy, .* got metric='auc'"):
        score("auc", [0, 1], [0, 1])


@pytest.mark.parametrize("metric", CLASS_METRICS)
def test_classes_must_be_indices(metric):
    with pytest.raises(EvaluationError, match=r"needs class indices.*predictions are of dtype=float64"):
        score(metric, [0, 1], [0.2, 0.9])
    with pytest.raises(EvaluationError, match=r"labels are of dtype=int64 with the smallest -1"):
        score(metric, [-1, 1], [0, 1])


def test_texts_are_no_predictions():
    with pytest.raises(EvaluationError, match=r"predictions must be numbers, but they are of dtype=<U1"):
        score("accuracy", [0, 1], ["0", "1"])


@pytest.mark.parametrize(("labels", "predictions"), [([], []), ([0, 1], [0]), ([[0], [1]], [[0], [1]])])
def test_shapes_must_match(labels, predictions):
    with pytest.raises(
        EvaluationError, match=r"two rows of the same length, at least 1, but their shapes are \("
    ):
        score("accuracy", labels, predictions)


@pytest.mark.parametrize("confidence", [0, 1, -0.5, 95, float("nan")])
def test_confidence_outside_its_range_is_refused(confidence):
    with pytest.raises(
        EvaluationError, match=f"confidence must be between 0 and 1, but got confidence={confidence}"
    ):
        score_interval("accuracy", [0, 1], [0, 1], confidence=confidence)
    with pytest.raises(EvaluationError, match=f"got confidence={confidence}"):
        difference_interval("accuracy", [0, 1], [0, 1], [0, 1], confidence=confidence)
