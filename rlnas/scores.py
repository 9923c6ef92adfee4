"""Metrics of predictions, with intervals.

Point values come from scikit-learn and SciPy. Accuracy gets Wilson's interval [Wilson1927]; all
other metrics, and all differences of two models, a percentile bootstrap over items [Efron1979].
Resamples are drawn as counts of each item and every metric is computed from the counts, for many
resamples at once.

References:
    [Wilson1927] E. B. Wilson. Probable inference, the law of succession, and statistical
        inference. Journal of the American Statistical Association 22, 1927.
    [Efron1979] B. Efron. Bootstrap methods: another look at the jackknife. Annals of
        Statistics 7, 1979.
"""

from __future__ import annotations

import warnings
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
import sklearn.metrics
from scipy import stats

from rlnas.errors import EvaluationError
from rlnas.task import METRICS, REGRESSION_METRICS

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]

N_RESAMPLES = 1000
# Elements of one array of resampled counts: bounds the memory to some 10 MB an array.
_CHUNK_ELEMENTS = 1_000_000


def score(metric: str, labels: npt.ArrayLike, predictions: npt.ArrayLike) -> float:
    """The metric of some predictions; higher is better.

    F1 is that of class 1. Where Matthews, Spearman or Pearson are not defined, because all labels or
    all predictions are the same, the score is 0.

    Args:
        metric: One of `rlnas.task.METRICS`.
        labels: Shape ``(n,)``; class indices, or values for spearman and pearson.
        predictions: Shape ``(n,)``; the same kind as the labels.

    Raises:
        EvaluationError: If the metric is unknown, the shapes differ, or a value is not finite.
    """
    true, predicted = _checked(metric, labels, predictions)
    if metric == "accuracy":
        return float(sklearn.metrics.accuracy_score(true, predicted))
    if metric == "f1":
        return float(sklearn.metrics.f1_score(true == 1, predicted == 1, zero_division=0.0))
    if np.ptp(true) == 0 or np.ptp(predicted) == 0:
        return 0.0
    if metric == "matthews":
        return float(sklearn.metrics.matthews_corrcoef(true, predicted))
    correlate = stats.spearmanr if metric == "spearman" else stats.pearsonr
    with warnings.catch_warnings():
        # Values that differ in their last digits alone are as good as constant: the result may be NaN.
        warnings.simplefilter("ignore", RuntimeWarning)
        value = float(correlate(true, predicted).statistic)
    return value if np.isfinite(value) else 0.0


def score_interval(
    metric: str,
    labels: npt.ArrayLike,
    predictions: npt.ArrayLike,
    *,
    confidence: float = 0.95,
    seed: int = 0,
) -> tuple[float, float]:
    """Confidence interval (low, high) of `score`: Wilson's for accuracy, else a bootstrap over items.

    Args:
        metric: One of `rlnas.task.METRICS`.
        labels: Shape ``(n,)``.
        predictions: Shape ``(n,)``; or ``(runs, n)``, of several seeds on the same items: then the interval
            is that of the mean of their scores, always by a bootstrap.
        confidence: Probability that the interval covers, in (0, 1).
        seed: Equal seeds give equal resamples.

    Raises:
        EvaluationError: As `score`, or if the confidence is outside (0, 1).
    """
    _check_confidence(confidence)
    true, runs = _checked_runs(metric, labels, predictions)
    if metric == "accuracy" and len(runs) == 1:
        return wilson_interval(int(np.count_nonzero(true == runs[0])), len(true), confidence)
    return _percentiles(_resampled_scores(metric, true, runs, seed).mean(axis=1), confidence)


@lru_cache(maxsize=65536)
def wilson_interval(n_right: int, n_items: int, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson's interval (low, high) of an accuracy [Wilson1927].

    Args:
        n_right: Items answered rightly.
        n_items: All items, at least 1.
        confidence: Probability that the interval covers, in (0, 1).
    """
    interval = stats.binomtest(n_right, n_items).proportion_ci(confidence, method="wilson")
    return float(interval.low), float(interval.high)


def difference_interval(
    metric: str,
    labels: npt.ArrayLike,
    first: npt.ArrayLike,
    second: npt.ArrayLike,
    *,
    confidence: float = 0.95,
    seed: int = 0,
) -> tuple[float, float]:
    """Confidence interval (low, high) of ``score(second) - score(first)`` on the same items.

    A paired bootstrap: both are scored on the same resampled items, so what makes an item hard for
    both cancels.

    Args:
        metric: One of `rlnas.task.METRICS`.
        labels: Shape ``(n,)``.
        first: Shape ``(n,)``; predictions of one model. Or ``(runs, n)``, of several seeds on the same
            items: then the mean of their scores counts.
        second: As `first`, of the other model.
        confidence: Probability that the interval covers, in (0, 1).
        seed: Equal seeds give equal resamples.

    Raises:
        EvaluationError: As `score`, or if the confidence is outside (0, 1).
    """
    _check_confidence(confidence)
    true, ones = _checked_runs(metric, labels, first)
    _, others = _checked_runs(metric, labels, second)
    scores = _resampled_scores(metric, true, [*ones, *others], seed)
    before, after = scores[:, : len(ones)], scores[:, len(ones) :]
    return _percentiles(after.mean(axis=1) - before.mean(axis=1), confidence)


def _checked_runs(
    metric: str, labels: npt.ArrayLike, predictions: npt.ArrayLike
) -> tuple[npt.NDArray[np.generic], list[npt.NDArray[np.generic]]]:
    """Labels, and the predictions of each run: one for an array of one dimension."""
    given = np.asarray(predictions)
    rows = list(given) if given.ndim == 2 and len(given) else [given]
    checked = [_checked(metric, labels, row) for row in rows]
    return checked[0][0], [row for _, row in checked]


def _checked(
    metric: str, labels: npt.ArrayLike, predictions: npt.ArrayLike
) -> tuple[npt.NDArray[np.generic], npt.NDArray[np.generic]]:
    if metric not in METRICS:
        raise EvaluationError(f"metric must be one of {', '.join(METRICS)}, but got metric={metric!r}")
    true, predicted = np.asarray(labels), np.asarray(predictions)
    if true.ndim != 1 or true.shape != predicted.shape or len(true) == 0:
        raise EvaluationError(
            f"labels and predictions must be two rows of the same length, at least 1, but their shapes are "
            f"{true.shape} and {predicted.shape}"
        )
    for values, what in ((true, "labels"), (predicted, "predictions")):
        if values.dtype.kind not in "fiub":
            raise EvaluationError(f"{what} must be numbers, but they are of dtype={values.dtype}")
        n_bad = np.count_nonzero(~np.isfinite(values))
        if n_bad:
            raise EvaluationError(
                f"{n_bad} of {len(values)} {what} are not finite, the first at index "
                f"{int(np.argmin(np.isfinite(values)))}"
            )
        if metric not in REGRESSION_METRICS and (values.dtype.kind == "f" or values.min() < 0):
            raise EvaluationError(
                f"metric={metric!r} needs class indices, integers from 0 on, but the {what} are of "
                f"dtype={values.dtype} with the smallest {values.min()}"
            )
    kind = np.float64 if metric in REGRESSION_METRICS else np.int64
    return true.astype(kind), predicted.astype(kind)


def _check_confidence(confidence: float) -> None:
    if not 0 < confidence < 1:
        raise EvaluationError(f"confidence must be between 0 and 1, but got confidence={confidence}")


def _percentiles(scores: Floats, confidence: float) -> tuple[float, float]:
    tail = (1 - confidence) / 2
    low, high = np.quantile(scores, (tail, 1 - tail))
    return float(low), float(high)


def _resampled_scores(
    metric: str, labels: npt.NDArray[np.generic], predictions: list[npt.NDArray[np.generic]], seed: int
) -> Floats:
    """Scores of each of the P predictions on the same resamples, shape ``(N_RESAMPLES, P)``."""
    chunks = [
        np.stack([_weighted_score(metric, labels, each, counts) for each in predictions], axis=1)
        for counts in _resamples(len(labels), seed)
    ]
    return np.concatenate(chunks)


def _resamples(n_items: int, seed: int) -> Iterator[Floats]:
    """Chunks of bootstrap resamples: how often each item was drawn, shape ``(k, n_items)``."""
    rng = np.random.default_rng(seed)
    chunk = max(1, _CHUNK_ELEMENTS // n_items)
    for start in range(0, N_RESAMPLES, chunk):
        size = min(chunk, N_RESAMPLES - start)
        drawn = rng.integers(n_items, size=(size, n_items))
        drawn += np.arange(size)[:, None] * n_items
        counts = np.bincount(drawn.ravel(), minlength=size * n_items)
        yield counts.reshape(size, n_items).astype(np.float64)


def _weighted_score(
    metric: str, labels: npt.NDArray[np.generic], predictions: npt.NDArray[np.generic], counts: Floats
) -> Floats:
    """`score` of k resamples given as counts of the n items, shape ``(k, n)`` to ``(k,)``."""
    if metric == "accuracy":
        return np.asarray(counts @ (labels == predictions) / counts.sum(axis=1))
    if metric == "f1":
        n_hits = counts @ ((labels == 1) & (predictions == 1))
        n_either = counts @ (labels == 1) + counts @ (predictions == 1)
        return _ratio(2 * n_hits, n_either)
    if metric == "matthews":
        return _weighted_matthews(labels, predictions, counts)
    true, predicted = labels.astype(np.float64), predictions.astype(np.float64)
    if metric == "pearson":
        return _weighted_pearson(true[None], predicted[None], counts)
    return _weighted_pearson(_weighted_ranks(true, counts), _weighted_ranks(predicted, counts), counts)


def _weighted_matthews(
    labels: npt.NDArray[np.generic], predictions: npt.NDArray[np.generic], counts: Floats
) -> Floats:
    """Matthews correlation for any number of classes (Gorodkin, 2004)."""
    classes = np.union1d(labels, predictions)
    true = counts @ (labels[:, None] == classes)
    predicted = counts @ (predictions[:, None] == classes)
    n_items = counts.sum(axis=1)
    n_right = counts @ (labels == predictions)
    covariance = n_right * n_items - (true * predicted).sum(axis=1)
    spread = (n_items**2 - (true**2).sum(axis=1)) * (n_items**2 - (predicted**2).sum(axis=1))
    return _ratio(covariance, np.sqrt(spread))


def _weighted_ranks(values: Floats, counts: Floats) -> Floats:
    """Mean rank of each item within each resample, shape ``(k, n)``."""
    _, tie_group = np.unique(values, return_inverse=True)
    order = np.argsort(tie_group, kind="stable")
    starts = np.searchsorted(tie_group[order], np.arange(tie_group.max() + 1))
    group_counts = np.add.reduceat(counts[:, order], starts, axis=1)
    ranks = np.cumsum(group_counts, axis=1) - (group_counts - 1) / 2
    return np.asarray(ranks[:, tie_group])


def _weighted_pearson(first: Floats, second: Floats, counts: Floats) -> Floats:
    """Correlation of two arrays of shape ``(k, n)`` or ``(1, n)`` under counts of shape ``(k, n)``."""
    first, second = _standardised(first, counts), _standardised(second, counts)
    return np.asarray((counts * first * second).sum(axis=1))


def _standardised(values: Floats, counts: Floats) -> Floats:
    """Values of each resample minus their mean, over their norm; 0 where all drawn values are equal."""
    values = values - values.mean()
    values = values - (counts * values).sum(axis=1, keepdims=True) / counts.sum(axis=1, keepdims=True)
    norm = np.sqrt((counts * values**2).sum(axis=1, keepdims=True))
    # Equal values leave rounding errors about their mean, which must not be taken for a spread.
    norm[norm <= 1e-12 * np.abs(values).max()] = np.inf
    return np.asarray(values / norm)


def _ratio(numerator: Floats, denominator: Floats) -> Floats:
    """The quotient, 0 where the denominator is 0."""
    return np.divide(numerator, denominator, out=np.zeros_like(numerator), where=denominator > 0)
