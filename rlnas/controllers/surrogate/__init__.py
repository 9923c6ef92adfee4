"""Controllers that learn a light model of the accuracy between true evaluations."""

from rlnas.controllers.surrogate.controller import (
    AutoController,
    SurrogateEvolutionController,
    SurrogateKnapsackController,
    SurrogateLocalController,
    SurrogatePPOController,
    SurrogateSettings,
)
from rlnas.controllers.surrogate.knowledge import expected_accuracies, expected_rewards
from rlnas.controllers.surrogate.policy import PolicySettings, TargetPolicy
from rlnas.controllers.surrogate.warm_start import WarmStart

__all__ = [
    "AutoController",
    "PolicySettings",
    "SurrogateEvolutionController",
    "SurrogateKnapsackController",
    "SurrogateLocalController",
    "SurrogatePPOController",
    "SurrogateSettings",
    "TargetPolicy",
    "WarmStart",
    "expected_accuracies",
    "expected_rewards",
]
