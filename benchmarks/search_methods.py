"""The methods that `search_quality` compares, each a controller made by a function without arguments."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, cast

import numpy as np

from rlnas.controllers.evolution import EvolutionController
from rlnas.controllers.knapsack import KnapsackController
from rlnas.controllers.local import LocalSearchController
from rlnas.controllers.optuna import OptunaController
from rlnas.controllers.ppo import PPOController
from rlnas.controllers.random import RandomController
from rlnas.controllers.start import InformedStart
from rlnas.controllers.surrogate import (
    AutoController,
    SurrogateEvolutionController,
    SurrogateKnapsackController,
    SurrogateLocalController,
    SurrogatePPOController,
)

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
    "surrogate-local": SurrogateLocalController,
    "surrogate-evolution": SurrogateEvolutionController,
    "surrogate-knapsack": SurrogateKnapsackController,
}
"""PPO without the surrogate; and the same start, surrogate and batches without PPO."""

SUBJECT = "surrogate-ppo"
"""The method that is compared with every other one."""

SUBJECTS: dict[str, Callable[[], Controller]] = {
    "surrogate-ppo": SurrogatePPOController,
    "auto": AutoController,
}
"""What the library offers beside controls and ablations."""

METHODS: dict[str, Callable[[], Controller]] = {"start": StartOnly, **CONTROLS, **ABLATIONS, **SUBJECTS}

Proposer = Callable[["Controller", "Result", float], "SubnetConfig"]


def _known(controller: Controller, result: Result, target_ms: float) -> SubnetConfig:
    """What seems best after a search with a surrogate, known subnets among it."""
    del result
    return cast("SurrogatePPOController", controller).propose(target_ms)[0]


def _forgotten(controller: Controller, result: Result, target_ms: float) -> SubnetConfig:
    """The greedy proposal of the policy, which has forgotten every trial."""
    del result
    return cast("SurrogatePPOController", controller).propose_from_policy(target_ms)[0]


PROPOSERS: dict[str, dict[str, Proposer]] = {
    "surrogate-ppo": {"policy": _forgotten, "policy+history": _known},
    "auto": {"policy": _forgotten, "policy+history": _known},
    "surrogate-local": {"surrogate+history": _known},
    "surrogate-evolution": {"surrogate+history": _known},
    "surrogate-knapsack": {"surrogate+history": _known},
}
"""By method and variant: what it proposes for a target in ms once its search is done.

The variant ``"policy"`` may not look at the history; the others may.
"""

QUICK = ("start", "random", "evolution", "local+start", "knapsack+start", "nsga2", "ppo", *SUBJECTS)
"""Methods of a quick run."""
