"""Evolution with survival by reward, or by age (Real et al. 2019, https://arxiv.org/abs/1802.01548)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from rlnas.controllers.feasible import FeasibleSampler

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rlnas.env import IntArray
    from rlnas.protocols import Evaluate, Problem

MAX_TRIES = 16
"""Attempts at a child that was not proposed before; then a repeat is taken, which is free."""


@dataclass(frozen=True, slots=True, eq=False)
class _Member:
    action: IntArray
    reward: float


@dataclass(frozen=True, slots=True)
class EvolutionController:
    """A population that starts at random and breeds by tournament, crossover and mutation.

    A child that would be slower than the latency target is repaired: random positions shrink,
    one option at a time, until it fits (the environment clips in a similar way).

    Attributes:
        population_size: Members that survive a generation, at least 2.
        children_per_generation: Children bred and evaluated at once, at least 1.
        mutation_rate: Probability that a position of a child is drawn anew, in [0, 1].
        crossover_rate: Probability that a child has two parents, each position coming from
            either with equal chance, in [0, 1]; else it starts as a copy of one.
        tournament_size: Members drawn for each parent, of which the best is taken, at least 1.
        ageing: Whether the oldest die, rather than those of lowest reward.
        hard_budget: Whether only subnets within the latency target are proposed, where target
            and latency are known.

    Raises:
        ValueError: If an attribute is out of range.
    """

    population_size: int = 32
    children_per_generation: int = 16
    mutation_rate: float = 0.1
    crossover_rate: float = 0.5
    tournament_size: int = 4
    ageing: bool = False
    hard_budget: bool = True

    def __post_init__(self) -> None:
        least = {"population_size": 2, "children_per_generation": 1, "tournament_size": 1}
        for name, lowest in least.items():
            value = getattr(self, name)
            if value < lowest:
                raise ValueError(f"{name} must be at least {lowest}, but got {name}={value}")
        for name in ("mutation_rate", "crossover_rate"):
            rate = getattr(self, name)
            if not 0.0 <= rate <= 1.0:
                raise ValueError(f"{name} must be in [0, 1], but got {name}={rate}")

    def search(self, problem: Problem, evaluate: Evaluate, budget: int, seed: int) -> None:
        """Breed generation after generation until `evaluate` ends the search.

        Args:
            problem: What is known beforehand.
            evaluate: Judges configs; what it raises passes through.
            budget: Not needed: `evaluate` keeps to it.
            seed: Equal seeds give equal proposals; at least 0.

        Raises:
            InfeasibleTargetError: If even the smallest subnet is slower than the target.
        """
        del budget
        rng = np.random.default_rng(seed)
        sampler = FeasibleSampler(problem, rng, self.hard_budget)
        nvec = np.asarray(problem.space.nvec)
        proposed: set[bytes] = set()
        population: list[_Member] = []

        def breed(n_children: int) -> IntArray:
            return sampler.repair(np.stack([self._child(population, nvec, rng) for _ in range(n_children)]))

        actions = _unseen(sampler.sample, self.population_size, proposed)
        while True:
            trials = evaluate([problem.space.decode(action) for action in actions.tolist()])
            children = [_Member(a, trial.reward) for a, trial in zip(actions, trials, strict=True)]
            population[:] = self._survivors([*population, *children])
            actions = _unseen(breed, self.children_per_generation, proposed)

    def _child(self, population: Sequence[_Member], nvec: IntArray, rng: np.random.Generator) -> IntArray:
        child: IntArray = self._parent(population, rng).copy()
        if rng.random() < self.crossover_rate:
            from_other = rng.random(len(nvec)) < 0.5
            child[from_other] = self._parent(population, rng)[from_other]
        mutated = rng.random(len(nvec)) < self.mutation_rate
        child[mutated] = rng.integers(nvec[mutated])
        return child

    def _parent(self, population: Sequence[_Member], rng: np.random.Generator) -> IntArray:
        drawn = rng.integers(len(population), size=self.tournament_size)
        winner = max((population[int(i)] for i in drawn), key=lambda member: member.reward)
        return winner.action

    def _survivors(self, members: Sequence[_Member]) -> list[_Member]:
        """The youngest, or the best (the older of equal ones); `members` ascend in birth."""
        if self.ageing:
            return list(members[-self.population_size :])
        distinct = {member.action.tobytes(): member for member in members}.values()
        return sorted(distinct, key=lambda member: -member.reward)[: self.population_size]


def _unseen(make: Callable[[int], IntArray], n_actions: int, proposed: set[bytes]) -> IntArray:
    """Actions that differ from each other and from `proposed` where a few tries bring such.

    Args:
        make: Gives k actions, shape ``(k, p)``.
        n_actions: Number of actions wanted.
        proposed: What was proposed before; the new actions are added.
    """
    actions = make(n_actions)
    for _ in range(MAX_TRIES):
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
