"""Estimates over few runs, with intervals: interquartile means, paired differences, improvement.

Scores are given task by task, an array of one number per seed each. Intervals are percentile bootstraps
that draw seeds anew within every task (stratified), as the paper does.

References:
    R. Agarwal et al. Deep reinforcement learning at the edge of the statistical precipice. NeurIPS 2021
    (its package is called rliable).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.stats import trim_mean

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    FloatArray = npt.NDArray[np.float64]

N_RESAMPLES = 2000
CONFIDENCE = 0.95
CUT = 0.25
"""Share of the scores that an interquartile mean leaves out at either end."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A number with its 95 % interval."""

    value: float
    low: float
    high: float

    def to_list(self) -> list[float]:
        """Value, low, high; for JSON."""
        return [self.value, self.low, self.high]


def interquartile_mean(scores: Sequence[npt.ArrayLike]) -> float:
    """Mean of the middle half of each task's scores, on average over tasks.

    The paper pools the scores of all tasks, after a normalisation that makes their scales alike. Regrets
    have none: pooled, the middle half would be all of one task and the ends all of another.

    Args:
        scores: Of each task, one number per seed.
    """
    return float(np.mean([trim_mean(array, CUT) for array in _checked(scores)]))


def interquartile_estimate(scores: Sequence[npt.ArrayLike], seed: int = 0) -> Estimate:
    """The same with its interval."""
    arrays = _checked(scores)
    draws = _draws([len(array) for array in arrays], seed)
    return _estimate(interquartile_mean(arrays), _resampled_means(arrays, draws))


def paired_difference(
    first: Sequence[npt.ArrayLike], second: Sequence[npt.ArrayLike], seed: int = 0
) -> Estimate:
    """Interquartile mean of `first` minus that of `second`, with seeds drawn in pairs.

    A seed decides what both methods see, so that what it does to both alike cancels out.

    Args:
        first: Of each task, one number per seed.
        second: The same tasks and seeds.
        seed: Of the resampling.

    Raises:
        ValueError: If the two have other numbers of seeds.
    """
    firsts, seconds = _paired(first, second)
    draws = _draws([len(array) for array in firsts], seed)
    resampled = _resampled_means(firsts, draws) - _resampled_means(seconds, draws)
    return _estimate(interquartile_mean(firsts) - interquartile_mean(seconds), resampled)


def probability_of_improvement(
    first: Sequence[npt.ArrayLike], second: Sequence[npt.ArrayLike], seed: int = 0
) -> Estimate:
    """How often a run of `first` has a lower cost than one of `second`; ties count half.

    Of each task over all pairs of runs (Mann and Whitney's U), then the mean over tasks; for the
    interval seeds are drawn in pairs.

    Args:
        first: Costs, of each task one number per seed; lower is better.
        second: The same tasks and seeds.
        seed: Of the resampling.

    Raises:
        ValueError: If the two have other numbers of seeds.
    """
    firsts, seconds = _paired(first, second)
    draws = _draws([len(array) for array in firsts], seed)
    wins = [
        (a[:, None] < b[None, :]) + 0.5 * (a[:, None] == b[None, :])
        for a, b in zip(firsts, seconds, strict=True)
    ]
    value = float(np.mean([table.mean() for table in wins]))
    resampled = np.mean([_resampled_tables(table, d) for table, d in zip(wins, draws, strict=True)], axis=0)
    return _estimate(value, resampled)


def _resampled_tables(table: FloatArray, draws: npt.NDArray[np.int64]) -> FloatArray:
    """Mean of the table over drawn rows and columns, one number a draw."""
    weights = np.stack([np.bincount(draw, minlength=len(table)) for draw in draws]) / len(table)
    means: FloatArray = np.einsum("di,ij,dj->d", weights, table, weights)
    return means


def _resampled_means(arrays: Sequence[FloatArray], draws: Sequence[npt.NDArray[np.int64]]) -> FloatArray:
    by_task = [trim_mean(array[draw], CUT, axis=1) for array, draw in zip(arrays, draws, strict=True)]
    means: FloatArray = np.mean(by_task, axis=0)
    return means


def _draws(sizes: Sequence[int], seed: int) -> list[npt.NDArray[np.int64]]:
    rng = np.random.default_rng(seed)
    return [rng.integers(size, size=(N_RESAMPLES, size)) for size in sizes]


def _estimate(value: float, resampled: FloatArray) -> Estimate:
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(resampled, [tail, 1 - tail])
    return Estimate(value, float(low), float(high))


def _checked(scores: Sequence[npt.ArrayLike]) -> list[FloatArray]:
    arrays = [np.asarray(array, dtype=np.float64) for array in scores]
    if not arrays or any(array.ndim != 1 or not array.size for array in arrays):
        raise ValueError(f"scores must be one array a task, each of one or more seeds, but got {arrays}")
    return arrays


def _paired(
    first: Sequence[npt.ArrayLike], second: Sequence[npt.ArrayLike]
) -> tuple[list[FloatArray], list[FloatArray]]:
    firsts, seconds = _checked(first), _checked(second)
    sizes = [[len(array) for array in arrays] for arrays in (firsts, seconds)]
    if sizes[0] != sizes[1]:
        raise ValueError(f"pairs need the same seeds of the same tasks, but got {sizes[0]} and {sizes[1]}")
    return firsts, seconds
