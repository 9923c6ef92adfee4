"""Which subnets of a batch need not see all items, with a stated confidence.

Candidates see the items in chunks, the same for all, in an order drawn anew for every batch. One leaves
as soon as it is certain enough that another one, which is not slower, would be at least as accurate on all
items, but for an indifference that the user may set. With probability `confidence` over the order, for a
whole batch at once and however often one looks, every candidate that left has such another one among those
that stayed or among the champions of earlier batches.

**The test.** For a candidate c the hypothesis is: "c is more accurate, by the indifference or more, than
every reference". References are not slower than c. A gambler bets against it. Before each chunk he chooses,
by what has been seen, some references and a stake s. With d the answer of c to an item (1 if right, else 0)
minus the mean answer of those references, each item multiplies his wealth by ``1 + s (b - d)``, where b is
the least mean of d over the items not yet seen that the hypothesis allows. A chunk is drawn without
replacement from those; by Maclaurin's inequality for elementary symmetric means the expectation of its
product is at most a power of the mean factor, and that is at most 1 if the hypothesis holds. So the
wealth is a supermartingale at chunk ends (stopped, where references change, at the first bet on one that
the hypothesis is wrong about), and ever exceeds ``m / a`` with a probability of at most a / m [Ville1939]_;
a is 1 minus the confidence and m the number of candidates. The bets follow [WaudbySmith2024]_; averages of
references vary less than any one of them, and so cost fewer items.

The bound takes the answer of a subnet to an item as given. That of packs in a reduced number format may
change with the items beside it by rounding, where the classes are all but equal.

**The stand-in.** If the hypothesis is wrong, some reference that was bet on is more accurate than c minus
the indifference. Without indifference it is more accurate than c; should it have left itself, then for
another that is more accurate still, and so on, until one that stayed. With an indifference such a chain
would add up, so references are chosen from *anchors*, the best of each latency so far, and anchors stay.

References:
    .. [Ville1939] J. Ville. Étude critique de la notion de collectif. 1939.
    .. [WaudbySmith2024] I. Waudby-Smith, A. Ramdas. Estimating means of bounded random variables by
       betting. Journal of the Royal Statistical Society B 86, 2024.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from rlnas.pareto import is_pareto_optimal

if TYPE_CHECKING:
    import numpy.typing as npt

    Bools = npt.NDArray[np.bool_]
    Floats = npt.NDArray[np.float64]
    Integers = npt.NDArray[np.int64]

N_CHUNKS = 40
MIN_CHUNK_ITEMS = 64
_STREAM = 0x72616365
# Part of his wealth that a gambler keeps whatever the next item brings.
_RESERVE = 0.1
# Part of the stake that would be best if what was seen were the truth: those chosen were lucky as well.
_CAUTION = 0.5
# A bound of exactly 1 may be above by rounding.
_ROUNDING = 1e-9
# Gamblers of each candidate: how many references they average. The wealth is the mean of theirs.
_AVERAGED = (1, 4)


@dataclass(frozen=True, slots=True)
class Racing:
    """How subnets are raced.

    Attributes:
        confidence: Probability that nothing was lost by a race, in (0, 1); see the module.
        indifference: Accuracy, as a fraction, by which a subnet has to beat the front to be worth
            seeing all items; 0 loses nothing.
        chunk_items: Items between two looks; None takes a fortieth of the split, but at least 64.
        seed: Of the order in which items are seen.

    Raises:
        ValueError: If a setting is out of range.
    """

    confidence: float = 0.95
    indifference: float = 0.0
    chunk_items: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.confidence < 1:
            raise ValueError(f"confidence must be between 0 and 1, but got confidence={self.confidence}")
        if not 0 <= self.indifference < 1:
            raise ValueError(
                "indifference is a fraction of accuracy, at least 0 and less than 1 (0.01 is one point), "
                f"but got indifference={self.indifference}"
            )
        for name, least in (("chunk_items", 1), ("seed", 0)):
            value = getattr(self, name)
            if value is not None and (not isinstance(value, int) or value < least):
                raise ValueError(f"{name} must be an integer of at least {least}, but got {name}={value}")

    def chunks(self, n_items: int, number: int) -> list[Integers]:
        """All items in an order of chance, cut into chunks.

        Args:
            n_items: Of the split.
            number: Of the race. Every race needs an order of its own: candidates that were proposed
                because others did well on the first items of an old order are no match for chance.
        """
        size = self.chunk_items or max(MIN_CHUNK_ITEMS, math.ceil(n_items / N_CHUNKS))
        # A stream of its own: not that of a controller or a training with the same seed.
        order = np.random.default_rng([self.seed, number, _STREAM]).permutation(n_items)
        return [order[start : start + size] for start in range(0, n_items, size)]


@dataclass(frozen=True, slots=True, eq=False)
class Champions:
    """Fully judged subnets of earlier batches that others are compared with.

    Attributes:
        latency_ms: Shape ``(h,)``.
        correct: Which items they answer rightly, shape ``(h, n_items)``.
    """

    latency_ms: Floats
    correct: Bools


@dataclass(frozen=True, slots=True, eq=False)
class _Bets:
    """What the gamblers of one kind bet on the next chunk; a row is a candidate.

    Attributes:
        references: Shape ``(rows, k)``.
        weights: Of the references, adding up to 1, or 0 where there is none; shape ``(rows, k)``.
        bound: The least mean over the items to come that the hypothesis allows, shape ``(rows,)``;
            above 1 it cannot hold any more.
        stake: Shape ``(rows,)``; 0 for no bet.
    """

    references: Integers
    weights: Floats
    bound: Floats
    stake: Floats

    def pay(self, rows: Integers, everyone: Bools) -> Floats:
        """Logarithms of what multiplies the wealth of `rows`, given all answers, ``(m + h, items)``."""
        difference = everyone[rows].astype(np.float64)
        for reference, weight in zip(self.references[rows].T, self.weights[rows].T, strict=True):
            difference -= weight[:, None] * everyone[reference]
        gain = self.stake[rows, None] * (self.bound[rows, None] - difference)
        factors: Floats = np.log1p(gain).sum(axis=1)
        return factors


class Race:
    """One batch of m candidates on its way through the items.

    Args:
        racing: Settings.
        latency_ms: Of the candidates, shape ``(m,)``.
        champions: Of earlier batches, h of them.
        n_items: Of the split.
    """

    def __init__(self, racing: Racing, latency_ms: Floats, champions: Champions, n_items: int) -> None:
        m, h = len(latency_ms), len(champions.latency_ms)
        self._indifference = racing.indifference
        self._champions = champions
        self._n_items = n_items
        self._n_seen = 0
        self._latency = np.concatenate([latency_ms, champions.latency_ms])
        self._is_slower = self._latency[None, :] <= latency_ms[:, None]  # or as slow, but not itself
        self._is_slower[np.arange(m), np.arange(m)] = False
        self._limit = math.log(m / (1 - racing.confidence)) if m else 0.0
        self._log_wealth = np.zeros((m, len(_AVERAGED)))
        self._bets: list[_Bets] = []
        self._alive = np.ones(m, dtype=bool)
        self._anchors = np.zeros(m, dtype=bool)
        self._both_right = np.zeros((m + h, m + h), dtype=np.float32)

    @property
    def alive(self) -> Integers:
        """Candidates that are still in the race, ascending."""
        return np.flatnonzero(self._alive)

    def enter(self, items: Integers, correct: Bools) -> None:
        """Take the answers of the candidates in `alive` to a chunk, and drop those that cannot win.

        Args:
            items: Which items of the split, shape ``(k,)``; new ones.
            correct: Shape ``(len(alive), k)``.
        """
        rows, m = self.alive, len(self._alive)
        everyone = np.zeros((len(self._latency), len(items)), dtype=bool)
        everyone[rows] = correct
        everyone[m:] = self._champions.correct[:, items]
        for kind, bets in enumerate(self._bets):
            self._log_wealth[rows, kind] += bets.pay(rows, everyone)
        answers = everyone.astype(np.float32)
        self._both_right += answers @ answers.T
        self._n_seen += len(items)
        if self._n_seen == self._n_items:
            return
        self._drop()
        if self._alive.any():
            self._find_anchors()
            self._bets = [self._bet(n_averaged) for n_averaged in _AVERAGED]
            for kind, bets in enumerate(self._bets):
                self._log_wealth[self._alive & (bets.bound > 1 + _ROUNDING), kind] = np.inf
            self._drop()

    def _drop(self) -> None:
        """Let those leave against whom enough was won, but for anchors where these have to stay."""
        wealth = np.logaddexp.reduce(self._log_wealth, axis=1) - math.log(len(_AVERAGED))
        leaves = wealth > self._limit
        self._alive &= ~leaves | self._anchors

    def _find_anchors(self) -> None:
        """With an indifference, the front by what was seen so far joins those that stay."""
        if not self._indifference:
            return
        m = len(self._alive)
        present = np.flatnonzero(np.concatenate([self._alive, np.ones(len(self._latency) - m, dtype=bool)]))
        costs = np.stack([self._latency, -np.diag(self._both_right)], axis=1)[present]
        best = present[is_pareto_optimal(costs)]
        self._anchors[best[best < m]] = True

    def _bet(self, n_averaged: int) -> _Bets:
        """Bets against every candidate: the references that look best, and what was seen of them."""
        m, n_seen = len(self._alive), self._n_seen
        n_right = np.diag(self._both_right).astype(np.float64)
        allowed = np.ones(len(self._latency), dtype=bool)
        allowed[:m] = self._alive & (self._anchors if self._indifference else True)
        score = np.where(self._is_slower & allowed, n_right, -1.0)
        references = np.argsort(-score, axis=1, kind="stable")[:, :n_averaged]
        weights = (np.take_along_axis(score, references, axis=1) >= 0).astype(np.float64)
        n_found = weights.sum(axis=1, keepdims=True)
        weights /= np.maximum(n_found, 1)
        # Mean and mean square of the difference, from how often two were right at once.
        mine, both = n_right[:m], self._both_right
        theirs = (weights * n_right[references]).sum(axis=1)
        cross = (weights * np.take_along_axis(both[:m], references, axis=1)).sum(axis=1)
        pairs = both[references[:, :, None], references[:, None, :]]
        square = (weights[:, :, None] * weights[:, None, :] * pairs).sum(axis=(1, 2))
        mean = (mine - theirs) / n_seen
        variance = (mine - 2 * cross + square) / n_seen - mean**2
        bound = (self._n_items * self._indifference - (mine - theirs)) / (self._n_items - n_seen)
        bound[n_found[:, 0] == 0] = -1.0  # nobody to be behind, and so no stake below
        gap = np.maximum(_CAUTION * (bound - mean), 0.0)
        most = (1 - _RESERVE) / np.maximum(1 - bound, 1e-9)
        stake = np.minimum(gap / np.maximum(variance + gap**2, 1e-9), most)
        return _Bets(references, weights, bound, stake)
