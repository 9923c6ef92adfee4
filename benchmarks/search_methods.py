"""The methods that `search_quality` compares, each a controller made by a function without arguments."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from rlnas.controllers.evolution import EvolutionController
from rlnas.controllers.knapsack import KnapsackController
from rlnas.controllers.local import LocalSearchController
from rlnas.controllers.optuna import OptunaController
from rlnas.controllers.ppo import PPOController
from rlnas.controllers.random import RandomController
from rlnas.controllers.start import InformedStart

if TYPE_CHECKING:
    from rlnas.history import Result
    from rlnas.protocols import Controller, Evaluate, Problem
    from rlnas.space import SubnetConfig


@dataclass(frozen=True, slots=True)
class StartOnly:
    """Evaluates the informed start and no more: what every ``+start`` has before it searches."""

    start: InformedStart = field(default_factory=InformedStart)

    def search(self, problem: Problem, evaluate: Evaluate, budget: int, seed: int) -> None:
        """Evaluate the start.

        Args:
            problem: What is known beforehand.
            evaluate: Judges configs.
            budget: Largest number of subnets.
            seed: Of the random ones.
        """
        actions = self.start.actions(problem, np.random.default_rng(seed), budget)
        evaluate([problem.space.decode(action) for action in actions.tolist()])


@dataclass(frozen=True, slots=True)
class StartThenRandom:
    """The informed start, then random subnets."""

    start: InformedStart = field(default_factory=InformedStart)

    def search(self, problem: Problem, evaluate: Evaluate, budget: int, seed: int) -> None:
        """Evaluate the start and go on at random.

        Args:
            problem: What is known beforehand.
            evaluate: Judges configs.
            budget: Number of trials.
            seed: Of all chance.
        """
        StartOnly(self.start).search(problem, evaluate, budget, seed)
        RandomController().search(problem, evaluate, budget, seed)


CONTROLS: dict[str, Callable[[], Controller]] = {
    "random": RandomController,
    "random+start": StartThenRandom,
    "local": LocalSearchController,
    "local+start": lambda: LocalSearchController(start=InformedStart()),
    "evolution": EvolutionController,
    "evolution+start": lambda: EvolutionController(start=InformedStart()),
    "nsga2": lambda: OptunaController("nsga2"),
    "nsga2+start": lambda: OptunaController("nsga2", start=InformedStart()),
    "tpe": OptunaController,
    "tpe+start": lambda: OptunaController(start=InformedStart()),
    "knapsack": KnapsackController,
    "knapsack+start": lambda: KnapsackController(start=InformedStart()),
}
"""What a search that learns has to beat; the start alone is a row, but no rival, as it cannot go on."""

ABLATIONS: dict[str, Callable[[], Controller]] = {
    "ppo": PPOController,
}
"""PPO without the surrogate, and the surrogate without PPO."""

SUBJECT = "surrogate-ppo"
"""The method that is compared with every other one."""

SUBJECTS: dict[str, Callable[[], Controller]] = {}

METHODS: dict[str, Callable[[], Controller]] = {"start": StartOnly, **CONTROLS, **ABLATIONS, **SUBJECTS}

Proposer = Callable[["Controller", "Result", float], "SubnetConfig"]

PROPOSERS: dict[str, dict[str, Proposer]] = {}
"""By method and variant: what it proposes for a target in ms once its search is done.

Variants are ``"policy"``, which may not look at the history, and ``"policy+history"``.
"""

QUICK = ("start", "random", "evolution", "local+start", "knapsack+start", "nsga2", "ppo", *SUBJECTS)
"""Methods of a quick run."""
