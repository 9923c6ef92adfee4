"""How accurate a choice is: the best of many on the items that it was chosen by flatters.

The choice itself is repeated on resamples of the items, and each time judged on the items that were
not drawn [Tsamardinos2018]. What that is worth on average is what such a choice is worth, and nothing
has to be trained again: the answers of all candidates to all items are enough.

References:
    [Tsamardinos2018] I. Tsamardinos, E. Greasidou, G. Borboudakis. Bootstrapping the out-of-sample
        predictions for efficient and accurate cross-validation. Machine Learning 107, 2018.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from rlnas.errors import EvaluationError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import numpy.typing as npt

    FloatArray = npt.NDArray[np.float64]
    Choose = Callable[[FloatArray], int]

N_RESAMPLES = 500


@dataclass(frozen=True, slots=True)
class HonestScore:
    """The accuracy of a choice among candidates, without the luck of having been chosen.

    Attributes:
        estimate: Mean over resamples of the accuracy, on the items not drawn, of what was chosen on those
            drawn; in [0, 1].
        low: Lower end of the interval: a quantile over the same resamples. A resample leaves about 37 % of
            the items over, so the interval is wide rather than narrow.
        high: Upper end.
        seen: Accuracy of the choice on all items, those that it was chosen by; in [0, 1].
        n_items: Items behind all of them.
        gain: By how much the choice beats that among the first candidates alone, as `estimate`; or None.
        gain_ci: Interval of `gain`, or None.
    """

    estimate: float
    low: float
    high: float
    seen: float
    n_items: int
    gain: float | None = None
    gain_ci: tuple[float, float] | None = None

    @property
    def optimism(self) -> float:
        """By how much the choice looks better than it is."""
        return self.seen - self.estimate


def honest_interval(
    correct: npt.ArrayLike,
    choose: Choose,
    *,
    n_first: int | None = None,
    confidence: float = 0.95,
    seed: int = 0,
) -> HonestScore:
    """The accuracy of a choice among candidates with an interval that accounts for the selection.

    Args:
        correct: Shape ``(n_candidates, n_items)``, whether each candidate is right on each item. No
            candidate may have been trained on the items: predictions out of fold are what serves.
        choose: Says from accuracies of shape ``(n_candidates,)`` which candidate is taken.
        n_first: The first so many candidates are those that there were before a search; then `gain` says
            what the search has added. The others are shown to `choose` with an accuracy of minus infinity.
        confidence: Probability that the interval covers, in (0, 1).
        seed: Equal seeds give equal resamples.

    Raises:
        EvaluationError: If `correct` is no table of at least 1 candidate and 2 items, `n_first` is not
            between 1 and the number of candidates, or the confidence is outside (0, 1).
    """
    if not 0 < confidence < 1:
        raise EvaluationError(f"confidence must be between 0 and 1, but got confidence={confidence}")
    right = np.asarray(correct, dtype=np.float64)
    if right.ndim != 2 or right.shape[0] < 1 or right.shape[1] < 2:
        raise EvaluationError(
            "correct must hold a row for each candidate and a column for each of at least 2 items, "
            f"but its shape is {right.shape}"
        )
    n_candidates, n_items = right.shape
    if n_first is not None and not 1 <= n_first <= n_candidates:
        raise EvaluationError(f"n_first must be from 1 to {n_candidates}, but got n_first={n_first}")
    unseen, gains = [], []
    for drawn in _resamples(n_items, seed):
        inside, outside = right @ drawn / n_items, right @ (drawn == 0) / np.count_nonzero(drawn == 0)
        unseen.append(outside[choose(inside)])
        if n_first is not None:
            only_first = np.where(np.arange(n_candidates) < n_first, inside, -np.inf)
            gains.append(unseen[-1] - outside[choose(only_first)])
    estimate, accuracies = float(np.mean(unseen)), right.mean(axis=1)
    low, high = _percentiles(unseen, confidence)
    return HonestScore(
        estimate=estimate,
        low=low,
        high=high,
        seen=float(accuracies[choose(accuracies)]),
        n_items=n_items,
        gain=float(np.mean(gains)) if gains else None,
        gain_ci=_percentiles(gains, confidence) if gains else None,
    )


def _resamples(n_items: int, seed: int) -> Iterator[FloatArray]:
    """How often each item was drawn, shape ``(n_items,)``; some item is always left over."""
    rng = np.random.default_rng(seed)
    n_left = N_RESAMPLES
    while n_left:
        drawn = np.bincount(rng.integers(n_items, size=n_items), minlength=n_items)
        if not drawn.all():
            n_left -= 1
            yield drawn.astype(np.float64)


def _percentiles(values: Sequence[float], confidence: float) -> tuple[float, float]:
    tail = (1 - confidence) / 2
    low, high = np.quantile(values, (tail, 1 - tail))
    return float(low), float(high)
