"""Evolution with survival by reward, or by age (Real et al. 2019, https://arxiv.org/abs/1802.01548)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from rlnas.controllers.feasible import FeasibleSampler, aims_of, draw_unseen

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rlnas.controllers.start import InformedStart
    from rlnas.env import IntArray
    from rlnas.protocols import Evaluate, Problem


@dataclass(frozen=True, slots=True, eq=False)
class _Member:
    action: IntArray
    rewards: tuple[float, ...]  # one for each target that the search serves


@dataclass(frozen=True, slots=True)
class EvolutionController:
    """A population that starts at random and breeds by tournament, crossover and mutation.

    A child that would be slower than the latency target is repaired: random positions shrink,
    one option at a time, until it fits (the environment clips in a similar way).

    Where a search serves several targets, each child is bred for one of them, drawn at random: its
    parents win their tournaments by the reward at that target, and it is repaired to it. The best
    for each target in turn survive.

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
        start: What the first population begins with, filled up at random; None for chance alone.

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
    start: InformedStart | None = None

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
            InfeasibleTargetError: If even the smallest subnet is slower than a target.
        """
        del budget
        rng = np.random.default_rng(seed)
        sampler = FeasibleSampler(problem, rng, self.hard_budget)
        nvec = np.asarray(problem.space.nvec)
        aims = aims_of(problem)
        targets_ms = np.array([aim.target_ms for aim in aims], dtype=np.float64)
        proposed: set[bytes] = set()
        population: list[_Member] = []

        def breed(n_children: int) -> IntArray:
            # Without a choice nothing is drawn.
            bred_for = rng.integers(len(aims), size=n_children) if len(aims) > 1 else [0] * n_children
            children = [self._child(population, int(aim), nvec, rng) for aim in bred_for]
            return sampler.repair(np.stack(children), targets_ms[bred_for])

        actions = self._first(problem, sampler, rng, proposed)
        while True:
            trials = evaluate([problem.space.decode(action) for action in actions.tolist()])
            children = [
                _Member(action, tuple(aim.worth(trial) for aim in aims))
                for action, trial in zip(actions, trials, strict=True)
            ]
            population[:] = self._survivors([*population, *children])
            actions = draw_unseen(breed, self.children_per_generation, proposed)

    def _first(
        self, problem: Problem, sampler: FeasibleSampler, rng: np.random.Generator, proposed: set[bytes]
    ) -> IntArray:
        """The first population, shape ``(population_size, p)``."""
        if self.start is None:
            return draw_unseen(sampler.sample, self.population_size, proposed)
        informed = self.start.actions(problem, rng, self.population_size)
        proposed.update(action.tobytes() for action in informed)
        n_left = self.population_size - len(informed)
        return np.concatenate([informed, draw_unseen(sampler.sample, n_left, proposed)])

    def _child(
        self, population: Sequence[_Member], aim: int, nvec: IntArray, rng: np.random.Generator
    ) -> IntArray:
        child: IntArray = self._parent(population, aim, rng).copy()
        if rng.random() < self.crossover_rate:
            from_other = rng.random(len(nvec)) < 0.5
            child[from_other] = self._parent(population, aim, rng)[from_other]
        mutated = rng.random(len(nvec)) < self.mutation_rate
        child[mutated] = rng.integers(nvec[mutated])
        return child

    def _parent(self, population: Sequence[_Member], aim: int, rng: np.random.Generator) -> IntArray:
        drawn = rng.integers(len(population), size=self.tournament_size)
        winner = max((population[int(i)] for i in drawn), key=lambda member: member.rewards[aim])
        return winner.action

    def _survivors(self, members: Sequence[_Member]) -> list[_Member]:
        """The youngest, or the best for each target in turn (the older of equal ones).

        `members` ascend in birth.
        """
        if self.ageing:
            return list(members[-self.population_size :])
        distinct = list({member.action.tobytes(): member for member in members}.values())
        rankings = [_ranked(distinct, aim) for aim in range(len(distinct[0].rewards))]
        in_turn = {
            member.action.tobytes(): member for rank in zip(*rankings, strict=True) for member in rank
        }
        return list(in_turn.values())[: self.population_size]


def _ranked(members: Sequence[_Member], aim: int) -> list[_Member]:
    """The best for a target first, the older of equal ones before the younger."""
    return sorted(members, key=lambda member: -member.rewards[aim])
