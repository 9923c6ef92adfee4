"""Random subnets that keep to a latency target, and what subnets are worth at each target."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from rlnas.env import LatencyBudget

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy.typing as npt

    from rlnas.env import BoolArray, FloatArray, IntArray
    from rlnas.protocols import Problem, Reward
    from rlnas.trial import Trial

MAX_TRIES = 32
"""Uniform draws per subnet before one that is too slow is repaired instead."""

MAX_REDRAWS = 16
"""Attempts at an action that was not proposed before; then a repeat is taken, which is free."""


@dataclass(frozen=True, slots=True, eq=False)
class Aim:
    """One of the latency targets that a search serves.

    Attributes:
        target_ms: The target, or None where the problem has none.
        reward: What metrics are worth at this target; None for the reward of the search itself.
    """

    target_ms: float | None
    reward: Reward | None

    def worth(self, trial: Trial) -> float:
        """The reward of a trial at this target."""
        return trial.reward if self.reward is None else float(self.reward(trial.metrics))


def aims_of(problem: Problem) -> tuple[Aim, ...]:
    """What the search is to serve, ascending in target; one aim at least.

    Raises:
        RewardError: If there are several targets, and the reward knows its own only.
    """
    own = problem.target_ms
    aims = (
        Aim(target_ms, None if target_ms == own else problem.reward_for(target_ms))
        for target_ms in problem.served_targets_ms
    )
    return tuple(aims) or (Aim(None, None),)


class FeasibleSampler:
    """Draws and repairs actions, so that no proposal is slower than the target.

    Where there is no target, no known latency or no hard budget, every action is feasible. Where a
    search serves several targets, the bound is the largest of them, unless a call names its own.

    Args:
        problem: The space, what is known about latency, and the targets.
        rng: Where all chance comes from.
        hard_budget: Whether the target is a bound at all.

    Raises:
        InfeasibleTargetError: If even the smallest subnet is slower than a target.
    """

    def __init__(self, problem: Problem, rng: np.random.Generator, hard_budget: bool = True) -> None:
        self._space = problem.space
        self._rng = rng
        self._budget = LatencyBudget(problem)
        targets_ms = problem.served_targets_ms if hard_budget and self._budget.is_known else ()
        for target_ms in targets_ms:
            self._budget.check(target_ms, hard=True)
        self._target_ms = max(targets_ms, default=None)

    def sample(self, n_actions: int, targets_ms: npt.ArrayLike | None = None) -> IntArray:
        """Draw members of the space, uniformly over those that are feasible.

        Where `MAX_TRIES` draws bring nothing feasible, the last draw is repaired; so in a
        space of which little is feasible the draw is not quite uniform.

        Args:
            n_actions: Number of members k.
            targets_ms: Bound of each, a number or shape ``(k,)``.

        Returns:
            Shape ``(k, p)``.
        """
        actions = self._draw(n_actions)
        limits_ms = self._limits_ms(n_actions, targets_ms)
        for _ in range(MAX_TRIES - 1):
            rejected = np.flatnonzero(~self._fits(actions, limits_ms))
            if not len(rejected):
                break
            actions[rejected] = self._draw(len(rejected))
        return self.repair(actions, limits_ms)

    def repair(self, actions: IntArray, targets_ms: npt.ArrayLike | None = None) -> IntArray:
        """Shrink random positions, one option at a time, until every action is feasible.

        Args:
            actions: Shape ``(k, p)``, within the space's ``nvec``.
            targets_ms: Bound of each, a number or shape ``(k,)``.

        Returns:
            Shape ``(k, p)``; feasible rows are returned as they are.
        """
        repaired = actions.copy()
        limits_ms = self._limits_ms(len(actions), targets_ms)
        slow = np.flatnonzero(~self._fits(repaired, limits_ms))
        while len(slow):
            for row in slow:
                shrinkable = np.flatnonzero(repaired[row])
                repaired[row, self._rng.choice(shrinkable)] -= 1
            slow = slow[~self._fits(repaired[slow], limits_ms[slow])]
        return repaired

    def neighbours(
        self, action: IntArray, n_actions: int, targets_ms: npt.ArrayLike | None = None
    ) -> IntArray:
        """Draw one random position of an action anew, in each of k copies, and repair them.

        Args:
            action: Shape ``(p,)``.
            n_actions: Number of copies k.
            targets_ms: Bound of each, a number or shape ``(k,)``.

        Returns:
            Shape ``(k, p)``.
        """
        nvec = np.asarray(self._space.nvec)
        positions = self._rng.integers(len(nvec), size=n_actions)
        copies = np.tile(action, (n_actions, 1))
        copies[np.arange(n_actions), positions] = self._rng.integers(nvec[positions])
        return self.repair(copies, targets_ms)

    def fits(self, actions: IntArray, targets_ms: npt.ArrayLike | None = None) -> BoolArray:
        """Which actions, shape ``(k, p)``, are feasible: shape ``(k,)``."""
        return self._fits(actions, self._limits_ms(len(actions), targets_ms))

    def _limits_ms(self, n_actions: int, targets_ms: npt.ArrayLike | None) -> FloatArray:
        if self._target_ms is None:
            return np.full(n_actions, np.inf)
        limits_ms = np.asarray(self._target_ms if targets_ms is None else targets_ms, dtype=np.float64)
        return np.broadcast_to(limits_ms, n_actions)

    def _draw(self, n_actions: int) -> IntArray:
        members = [self._space.encode(self._space.sample(self._rng)) for _ in range(n_actions)]
        return np.array(members, dtype=np.int64).reshape(n_actions, len(self._space.nvec))

    def _fits(self, actions: IntArray, limits_ms: FloatArray) -> BoolArray:
        if self._target_ms is None or not len(actions):
            return np.ones(len(actions), dtype=bool)
        fits: BoolArray = self._budget.predict(actions) <= limits_ms
        return fits


def draw_unseen(make: Callable[[int], IntArray], n_actions: int, proposed: set[bytes]) -> IntArray:
    """Actions that differ from each other and from `proposed` where a few tries bring such.

    Args:
        make: Gives k actions, shape ``(k, p)``.
        n_actions: Number of actions wanted.
        proposed: What was proposed before; the new actions are added.
    """
    actions = make(n_actions)
    for _ in range(MAX_REDRAWS):
        repeats = _repeats(actions, proposed)
        if not repeats:
            break
        actions[repeats] = make(len(repeats))
    proposed.update(action.tobytes() for action in actions)
    return actions


def _repeats(actions: IntArray, proposed: set[bytes]) -> list[int]:
    seen = set(proposed)
    repeats = []
    for index, action in enumerate(actions):
        if action.tobytes() in seen:
            repeats.append(index)
        seen.add(action.tobytes())
    return repeats
