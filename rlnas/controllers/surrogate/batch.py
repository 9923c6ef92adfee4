"""Which candidates are worth a true evaluation: novel, promising, uncertain, and unlike each other."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rlnas.controllers.surrogate.knowledge import Knowledge
    from rlnas.env import FloatArray, IntArray

OPTIMISM = (0.0, 1.0, 2.0)
"""Standard deviations added to the expected value, place by place: exploit, then explore."""

MIN_DISTANCE = 2
"""Positions in which a candidate differs from those chosen already for the same target, if one does."""


def choose_batch(
    knowledge: Knowledge, pools: Mapping[float, IntArray], size: int, number: int = 0
) -> IntArray:
    """The candidates to evaluate, for each target in turn.

    A batch that is too small for every degree of optimism at every target goes on where the one before
    it ended, so that over several batches no target goes short.

    Args:
        knowledge: Predicts their rewards.
        pools: Candidates of each target (NaN: none), shape ``(k, p)``.
        size: Most candidates to choose.
        number: How many batches there were before.

    Returns:
        Distinct actions that were not judged yet, shape ``(b, p)``; fewer than `size`, or none, where the
        pools hold no more.
    """
    novel = {target: _novel(knowledge, pool) for target, pool in pools.items()}
    rankings = {
        (target, optimism): _ranking(knowledge, pool, target, optimism)
        for target, pool in novel.items()
        for optimism in OPTIMISM
        if len(pool)
    }
    chosen: dict[bytes, IntArray] = {}
    of_target: dict[float, list[IntArray]] = {target: [] for target in novel}
    targets = [target for target, pool in novel.items() if len(pool)]
    first = number * size if size < len(targets) * len(OPTIMISM) else 0
    place = first
    while targets and len(chosen) < size and place < first + size * len(OPTIMISM):
        target = targets[place % len(targets)]
        optimism = OPTIMISM[place // len(targets) % len(OPTIMISM)]
        ranked = [a for a in novel[target][rankings[target, optimism]] if a.tobytes() not in chosen]
        if ranked:
            taken = _unlike(ranked, of_target[target])
            chosen[taken.tobytes()] = taken
            of_target[target].append(taken)
        place += 1
    n_positions = next(iter(pools.values())).shape[1]
    return np.array(list(chosen.values()), dtype=np.int64).reshape(len(chosen), n_positions)


def _novel(knowledge: Knowledge, pool: IntArray) -> IntArray:
    distinct = np.unique(pool, axis=0)
    return distinct[[not knowledge.is_known(action) for action in distinct]]


def _ranking(knowledge: Knowledge, pool: IntArray, target_ms: float, optimism: float) -> IntArray:
    rewards: FloatArray = knowledge.rewards(pool, np.full(len(pool), target_ms), optimism)
    return np.argsort(-rewards, kind="stable")


def _unlike(ranked: Sequence[IntArray], others: Sequence[IntArray]) -> IntArray:
    """The first that differs enough from the others, else the first."""
    for action in ranked:
        if all(np.count_nonzero(action != other) >= MIN_DISTANCE for other in others):
            return action
    return ranked[0]
