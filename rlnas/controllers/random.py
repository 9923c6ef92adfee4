"""Random search: the row that every other method has to beat."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import cycle, islice
from typing import TYPE_CHECKING

import numpy as np

from rlnas.controllers.feasible import FeasibleSampler

if TYPE_CHECKING:
    from rlnas.protocols import Evaluate, Problem


@dataclass(frozen=True, slots=True)
class RandomController:
    """Proposes members of the space, drawn uniformly and without memory.

    Where a search serves several targets, each in turn bounds a proposal.

    Attributes:
        batch_size: Proposals evaluated at once, at least 1.
        hard_budget: Whether only subnets within the latency target are proposed (see
            `rlnas.controllers.feasible`), where target and latency are known.

    Raises:
        ValueError: If `batch_size` is less than 1.
    """

    batch_size: int = 16
    hard_budget: bool = True

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, but got batch_size={self.batch_size}")

    def search(self, problem: Problem, evaluate: Evaluate, budget: int, seed: int) -> None:
        """Propose random members until `evaluate` ends the search.

        Args:
            problem: What is known beforehand.
            evaluate: Judges configs; what it raises passes through.
            budget: Not needed: `evaluate` keeps to it.
            seed: Equal seeds give equal proposals; at least 0.

        Raises:
            InfeasibleTargetError: If even the smallest subnet is slower than a target.
        """
        del budget
        sampler = FeasibleSampler(problem, np.random.default_rng(seed), self.hard_budget)
        in_turn = cycle(problem.served_targets_ms or (np.inf,))
        while True:
            targets_ms = list(islice(in_turn, self.batch_size))
            actions = sampler.sample(self.batch_size, targets_ms)
            evaluate([problem.space.decode(action) for action in actions.tolist()])
