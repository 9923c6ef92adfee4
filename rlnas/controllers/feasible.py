"""Random subnets that keep to a latency target."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from rlnas.env import LatencyBudget

if TYPE_CHECKING:
    from rlnas.env import BoolArray, IntArray
    from rlnas.protocols import Problem

MAX_TRIES = 32
"""Uniform draws per subnet before one that is too slow is repaired instead."""


class FeasibleSampler:
    """Draws and repairs actions, so that no proposal is slower than the target.

    Where there is no target, no known latency or no hard budget, every action is feasible.

    Args:
        problem: The space, what is known about latency, and the target.
        rng: Where all chance comes from.
        hard_budget: Whether the target is a bound at all.

    Raises:
        InfeasibleTargetError: If even the smallest subnet is slower than the target.
    """

    def __init__(self, problem: Problem, rng: np.random.Generator, hard_budget: bool = True) -> None:
        self._space = problem.space
        self._rng = rng
        self._budget = LatencyBudget(problem)
        self._target_ms = problem.target_ms if hard_budget and self._budget.is_known else None
        if self._target_ms is not None:
            self._budget.check(self._target_ms, hard=True)

    def sample(self, n_actions: int) -> IntArray:
        """Draw members of the space, uniformly over those that are feasible.

        Where `MAX_TRIES` draws bring nothing feasible, the last draw is repaired; so in a
        space of which little is feasible the draw is not quite uniform.

        Returns:
            Shape ``(n_actions, p)``.
        """
        actions = self._draw(n_actions)
        for _ in range(MAX_TRIES - 1):
            rejected = np.flatnonzero(~self._fits(actions))
            if not len(rejected):
                break
            actions[rejected] = self._draw(len(rejected))
        return self.repair(actions)

    def repair(self, actions: IntArray) -> IntArray:
        """Shrink random positions, one option at a time, until every action is feasible.

        Args:
            actions: Shape ``(k, p)``, within the space's ``nvec``.

        Returns:
            Shape ``(k, p)``; feasible rows are returned as they are.
        """
        repaired = actions.copy()
        slow = np.flatnonzero(~self._fits(repaired))
        while len(slow):
            for row in slow:
                shrinkable = np.flatnonzero(repaired[row])
                repaired[row, self._rng.choice(shrinkable)] -= 1
            slow = slow[~self._fits(repaired[slow])]
        return repaired

    def _draw(self, n_actions: int) -> IntArray:
        members = [self._space.encode(self._space.sample(self._rng)) for _ in range(n_actions)]
        return np.array(members, dtype=np.int64).reshape(n_actions, len(self._space.nvec))

    def _fits(self, actions: IntArray) -> BoolArray:
        if self._target_ms is None:
            return np.ones(len(actions), dtype=bool)
        fits: BoolArray = self._budget.predict(actions) <= self._target_ms
        return fits
