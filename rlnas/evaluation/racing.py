"""Which subnets of a batch need not see all items, with a stated confidence.

Candidates see the items in chunks, the same for all, in an order drawn anew for every batch. One leaves
as soon as it is certain enough that another one, which is not slower, would be at least as accurate on all
items, but for an indifference that the user may set. With probability `confidence` over the order, for a
whole batch at once and however often one looks, every candidate that left has such another one among those
that stayed or among the champions of earlier batches.

**The test.** For a candidate c the hypothesis is: "c is more accurate, by the margin or more, than every
reference that is not slower". A gambler bets against it. Before each chunk he chooses, by what has been
seen, one reference j and a stake s; with d = 1 for an item that c alone answers rightly, -1 for one that j
alone does, and 0 otherwise, each item multiplies his wealth by ``1 + s (m - d)``, where m is the least mean
of d over the items not yet seen that the hypothesis allows. Items of a chunk are drawn without
replacement; by Maclaurin's inequality for elementary symmetric means the expectation of the product over a
chunk is at most the power of the mean factor, which is at most 1 if the hypothesis holds. The wealth is
then a supermartingale at chunk ends, and exceeds ``1 / a`` with a probability of at most a [Ville1939]_.
The bets follow [WaudbySmith2024]_; a is shared out among the candidates of the batch.

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

if TYPE_CHECKING:
    from collections.abc import Iterable

    import numpy.typing as npt

    Bools = npt.NDArray[np.bool_]
    Floats = npt.NDArray[np.float64]
    Integers = npt.NDArray[np.int64]

N_CHUNKS = 20
MIN_CHUNK_ITEMS = 64
# Part of his wealth that a gambler keeps whatever the next item brings.
_RESERVE = 0.1
# Items of each kind that he imagines to have seen before the first.
_PRIOR_ITEMS = 0.5


@dataclass(frozen=True, slots=True)
class Racing:
    """How subnets are raced.

    Attributes:
        confidence: Probability that nothing was lost by a race, in (0, 1); see the module.
        indifference: Accuracy, as a fraction, by which a subnet has to beat the front to be worth
            seeing all items; 0 loses nothing.
        chunk_items: Items between two looks; None takes a twentieth of the split, but at least 64.
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
        if self.chunk_items is not None and self.chunk_items < 1:
            raise ValueError(f"chunk_items must be at least 1, but got chunk_items={self.chunk_items}")

    def chunks(self, n_items: int, number: int) -> list[Integers]:
        """All items in an order of chance, cut into chunks.

        Args:
            n_items: Of the split.
            number: Of the race. Every race needs an order of its own: candidates that were proposed
                because others did well on the first items of an old order are no match for chance.
        """
        size = self.chunk_items or max(MIN_CHUNK_ITEMS, math.ceil(n_items / N_CHUNKS))
        order = np.random.default_rng([self.seed, number]).permutation(n_items)
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


class _Gambler:
    """Bets against one hypothesis for each candidate: that it beats all references by a margin.

    Args:
        margin: Fraction of accuracy.
        n: Candidates.

    Attributes:
        log_wealth: Shape ``(n,)``.
        references: Whom each candidate was bet to fall behind so far.
    """

    def __init__(self, margin: float, n: int) -> None:
        self.margin = margin
        self.log_wealth = np.zeros(n)
        self.references: list[set[int]] = [set() for _ in range(n)]
        self._bets = np.full(n, -1), np.zeros(n), np.zeros(n)  # reference or -1, stake, mean

    def choose(
        self, rows: Integers, eligible: Bools, plus: Floats, minus: Floats, seen: int, n: int
    ) -> None:
        """Choose reference and stake of the candidates `rows`; the tables have shape ``(rows, refs)``."""
        mean = (n * self.margin - (plus - minus)) / (n - seen)
        certain = eligible & (mean > 1)  # even if the candidate alone is right on all that comes
        p_plus, p_minus = ((count + _PRIOR_ITEMS) / (seen + 3 * _PRIOR_ITEMS) for count in (plus, minus))
        gap = mean - (p_plus - p_minus)
        spread = p_plus + p_minus - (p_plus - p_minus) ** 2
        room = np.maximum(1 - mean, 1e-9)
        stake = np.clip(gap / (spread + gap**2), 0, (1 - _RESERVE) / room)
        stake[~eligible] = 0
        growth = p_plus * np.log1p(stake * (mean - 1).clip(max=0))
        growth += p_minus * np.log1p(stake * (mean + 1))
        growth += (1 - p_plus - p_minus) * np.log1p(stake * mean)
        best = np.argmax(np.where(certain, np.inf, np.where(stake > 0, growth, -np.inf)), axis=1)
        index = np.arange(len(rows)), best
        for values, blank in zip(self._bets, (-1, 0, 0), strict=True):
            values[:] = blank
        for row, reference, amount, bound, is_certain in zip(
            rows, best, stake[index], mean[index], certain[index], strict=True
        ):
            if is_certain:
                self.log_wealth[row], self.references[row] = np.inf, {int(reference)}
            elif amount > 0:
                for values, value in zip(self._bets, (reference, amount, bound), strict=True):
                    values[row] = value

    def settle(self, rows: Integers, correct: Bools) -> None:
        """Pay out for a chunk; `correct` has shape ``(m + h, k)`` and holds for `rows` and references."""
        choice, stakes, means = self._bets
        rows = rows[choice[rows] >= 0]
        chosen = choice[rows]
        mine, theirs = correct[rows], correct[chosen]
        n_plus = (mine & ~theirs).sum(axis=1)
        n_minus = (theirs & ~mine).sum(axis=1)
        n_zero = correct.shape[1] - n_plus - n_minus
        stake, mean = stakes[rows], means[rows]
        self.log_wealth[rows] += n_plus * np.log1p(stake * (mean - 1))
        self.log_wealth[rows] += n_minus * np.log1p(stake * (mean + 1))
        self.log_wealth[rows] += n_zero * np.log1p(stake * mean)
        for row, reference in zip(rows, chosen, strict=True):
            self.references[row].add(int(reference))


class Race:
    """One batch of m candidates on its way through the items.

    Args:
        racing: Settings.
        latency_ms: Of the candidates, shape ``(m,)``.
        champions: Of earlier batches.
        n_items: Of the split.
    """

    def __init__(self, racing: Racing, latency_ms: Floats, champions: Champions, n_items: int) -> None:
        m = len(latency_ms)
        self._champions = champions
        self._n_items = n_items
        self._n_seen = 0
        latency = np.concatenate([latency_ms, champions.latency_ms])
        self._eligible = latency[None, :] <= latency_ms[:, None]
        self._eligible[np.arange(m), np.arange(m)] = False
        margins = sorted({0.0, racing.indifference})
        self._gamblers = [_Gambler(margin, m) for margin in margins]
        self._limit = math.log(m * len(margins) / (1 - racing.confidence)) if m else 0.0
        self._alive = np.ones(m, dtype=bool)
        self._n_right = np.zeros(len(latency))
        self._both_right = np.zeros((m, len(latency)))
        self._heirs: dict[int, set[int]] = {}  # references of those who left
        self._spent_margin: set[int] = set()  # who left by an indifference
        self._owing: set[int] = set()  # on whom one of those relies

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
        everyone = np.zeros((m + len(self._champions.correct), len(items)), dtype=bool)
        everyone[rows] = correct
        everyone[m:] = self._champions.correct[:, items]
        for gambler in self._gamblers:
            gambler.settle(rows, everyone)
        numbers = everyone.astype(np.float32)
        self._n_right += numbers.sum(axis=1)
        self._both_right[rows] += numbers[rows] @ numbers.T
        self._n_seen += len(items)
        if self._n_seen < self._n_items and self._alive.any():
            self._choose()
            self._drop()

    def _choose(self) -> None:
        rows = self.alive
        present = np.concatenate([self._alive, np.ones(len(self._champions.correct), dtype=bool)])
        both = self._both_right[rows]
        plus, minus = self._n_right[rows][:, None] - both, self._n_right[None, :] - both
        for gambler in self._gamblers:
            eligible = self._eligible[rows] & present
            gambler.choose(rows, eligible, plus, minus, self._n_seen, self._n_items)

    def _drop(self) -> None:
        for gambler in self._gamblers:
            for row in self.alive:
                if gambler.log_wealth[row] >= self._limit:
                    self._let_go(int(row), gambler.references[row], by_margin=gambler.margin > 0)

    def _let_go(self, row: int, references: Iterable[int], *, by_margin: bool) -> None:
        """Drop a candidate, unless nobody were left to stand in for it within one indifference."""
        standing: set[int] = set()
        passed: set[int] = set()
        ahead = set(references)
        while ahead:
            other = ahead.pop()
            if other in self._heirs:
                passed.add(other)
                ahead |= self._heirs[other] - passed
            else:
                standing.add(other)
        n_margins = by_margin or row in self._owing
        if row in standing or (n_margins and passed & self._spent_margin):
            return
        if by_margin and row in self._owing:
            return
        self._alive[row] = False
        self._heirs[row] = set(references)
        if by_margin:
            self._spent_margin.add(row)
        if n_margins:
            self._owing |= standing
