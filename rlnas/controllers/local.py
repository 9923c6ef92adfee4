"""Local search: all changes of the best subnet, one position at a time.

At small budgets a strong control: of the methods that White et al. compared it needs least and is
seldom beaten.

References:
    C. White, S. Nolen, Y. Savani. Exploring the loss landscape in neural architecture search.
    UAI 2021.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from rlnas.controllers.feasible import FeasibleSampler, aims_of, draw_unseen

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rlnas.controllers.feasible import Aim
    from rlnas.controllers.start import InformedStart
    from rlnas.env import IntArray
    from rlnas.protocols import Evaluate, Problem
    from rlnas.trial import Trial


@dataclass(frozen=True, slots=True)
class LocalSearchController:
    """Climbs from neighbour to neighbour, and starts anew from where chance leads once at the top.

    The neighbours of a subnet differ from it in one position, by any number of options; where one
    would be slower than the target, other positions shrink, at random, until it fits: so latency
    also moves from one position to another. They are evaluated in random order, a batch at a time,
    and the climb goes on from the best as soon as a batch brings a better one. For several targets
    there is one climb each; they take turns, and what one finds lifts the others too.

    Attributes:
        batch_size: Proposals evaluated at once, at least 1.
        hard_budget: Whether only subnets within the latency target are proposed, where target
            and latency are known.
        start: What to evaluate first; None for a batch of random members.

    Raises:
        ValueError: If `batch_size` is less than 1.
    """

    batch_size: int = 16
    hard_budget: bool = True
    start: InformedStart | None = None

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, but got batch_size={self.batch_size}")

    def search(self, problem: Problem, evaluate: Evaluate, budget: int, seed: int) -> None:
        """Climb until `evaluate` ends the search.

        Args:
            problem: What is known beforehand.
            evaluate: Judges configs; what it raises passes through.
            budget: Not needed: `evaluate` keeps to it.
            seed: Equal seeds give equal proposals; at least 0.

        Raises:
            InfeasibleTargetError: If even the smallest subnet is slower than a target.
        """
        del budget
        rng = np.random.default_rng(seed)
        sampler = FeasibleSampler(problem, rng, self.hard_budget)
        climbs = [_Climb(aim, sampler, rng, np.asarray(problem.space.nvec)) for aim in aims_of(problem)]
        proposed: set[bytes] = set()

        def judge(actions: IntArray) -> None:
            proposed.update(action.tobytes() for action in actions)
            trials = evaluate([problem.space.decode(action) for action in actions.tolist()])
            for climb in climbs:
                climb.take_note(actions, trials)

        if self.start is None:
            judge(draw_unseen(sampler.sample, self.batch_size, proposed))
        else:
            judge(self.start.actions(problem, rng))
        while True:
            for climb in climbs:
                judge(climb.next_batch(self.batch_size, proposed))


class _Climb:
    """The way up for one target: the subnet at hand, and what it is worth."""

    def __init__(
        self, aim: Aim, sampler: FeasibleSampler, rng: np.random.Generator, nvec: IntArray
    ) -> None:
        self._aim = aim
        self._sampler = sampler
        self._rng = rng
        self._nvec = nvec
        self._action = np.zeros_like(nvec)
        self._worth = -np.inf

    def take_note(self, actions: IntArray, trials: Sequence[Trial]) -> None:
        """Go on from the best of a batch if it is better than the subnet at hand."""
        worths = [self._aim.worth(trial) for trial in trials]
        best = int(np.argmax(worths))
        if worths[best] > self._worth:
            self._action, self._worth = actions[best], worths[best]

    def next_batch(self, n_actions: int, proposed: set[bytes]) -> IntArray:
        """Neighbours that were not proposed yet; where there is none, random members to start from."""
        neighbours = self._repaired(self._neighbours())
        unseen = {key: action for action in neighbours if (key := action.tobytes()) not in proposed}
        if unseen:
            return np.stack(list(unseen.values())[:n_actions])
        self._worth = -np.inf
        return draw_unseen(self._sample, n_actions, proposed)

    def _neighbours(self) -> IntArray:
        """All that differ in one position, shape ``(sum(nvec - 1), p)``, in random order."""
        changes = [
            (position, option)
            for position, n_options in enumerate(self._nvec)
            for option in range(n_options)
            if option != self._action[position]
        ]
        neighbours = np.tile(self._action, (len(changes), 1))
        for neighbour, (position, option) in zip(neighbours, changes, strict=True):
            neighbour[position] = option
        return self._rng.permutation(neighbours)

    def _repaired(self, actions: IntArray) -> IntArray:
        return self._sampler.repair(actions, self._aim.target_ms)

    def _sample(self, n_actions: int) -> IntArray:
        return self._sampler.sample(n_actions, self._aim.target_ms)
