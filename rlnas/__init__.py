"""Reinforcement-learning architecture search over BERT for a measured latency.

The names here load neither torch nor transformers. What needs them lies one level down:
`rlnas.supernet`, `rlnas.evaluation`, `rlnas.calibration`, `rlnas.controllers`, `rlnas.deploy`
and `rlnas.run`.
"""

from __future__ import annotations

from rlnas.errors import RLNASError
from rlnas.history import History, Result
from rlnas.loop import search
from rlnas.metrics import Metrics
from rlnas.rewards import HardBudget, LatencyTarget, LinearPenalty, MnasNetReward
from rlnas.space import (
    ChoiceSpace,
    LayerConfig,
    LayerwiseSpace,
    ModelShape,
    SubnetConfig,
    UniformSpace,
)
from rlnas.task import Split, Task
from rlnas.trial import Trial
from rlnas.workload import Workload

__all__ = [
    "ChoiceSpace",
    "HardBudget",
    "History",
    "LatencyTarget",
    "LayerConfig",
    "LayerwiseSpace",
    "LinearPenalty",
    "Metrics",
    "MnasNetReward",
    "ModelShape",
    "RLNASError",
    "Result",
    "Split",
    "SubnetConfig",
    "Task",
    "Trial",
    "UniformSpace",
    "Workload",
    "search",
]
