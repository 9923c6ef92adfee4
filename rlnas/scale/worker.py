"""What runs in a worker's process: evaluators of its own, for the shares that it gets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from rlnas.evaluation.evaluator import SupernetEvaluator

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    import numpy.typing as npt

    from rlnas.evaluation.cost import EvaluationCost
    from rlnas.evaluation.racing import Racing
    from rlnas.space import SubnetConfig
    from rlnas.supernet.arrays import SupernetArrays
    from rlnas.task import Task


@dataclass(frozen=True, slots=True)
class Judging:
    """What one evaluator of a worker is made of.

    Attributes:
        weights: Which of the supernets it judges subnets of.
        task: Its search split is answered.
        precision: As in `SupernetEvaluator`.
        racing: Likewise; the driver decides the races.
    """

    weights: int
    task: Task
    precision: str
    racing: Racing | None


class SubnetWorker:
    """Answers for subnets of some supernets, each on the search split of a task.

    Args:
        device: ``"cpu"``, or ``"cuda"`` for the GPU that Ray has given.
        n_threads: Of PyTorch.
        judgings: The evaluators, which answers are asked of by number.
        weights: The supernets; on a CPU they are read where they lie.
    """

    def __init__(
        self, device: str, n_threads: int, judgings: Sequence[Judging], *weights: SupernetArrays
    ) -> None:
        self._made_of = device, n_threads, judgings, weights
        self._judges: list[SupernetEvaluator] = []

    def prepare(self) -> None:
        """Make the evaluators; not done when the worker is made, as Ray hides what is raised there.

        Raises:
            RLNASError: One of its kinds, if subnets cannot be judged here.
        """
        if self._judges:
            return
        device, n_threads, judgings, weights = self._made_of
        torch.set_num_threads(n_threads)
        supernets = [arrays.supernet(device) for arrays in weights]
        self._judges = [
            SupernetEvaluator(
                supernets[judging.weights],
                judging.task,
                _no_latency,
                precision=judging.precision,
                racing=judging.racing,
                copies=False,
            )
            for judging in judgings
        ]

    def answer(
        self, number: int, configs: Sequence[SubnetConfig], items: npt.NDArray[np.int64]
    ) -> tuple[npt.NDArray[np.generic], EvaluationCost]:
        """Predictions of an evaluator, shape ``(n_configs, len(items))``, and what they have cost."""
        self.prepare()
        judge = self._judges[number]
        before = judge.cost
        predictions = judge.answers(configs, items)
        return predictions, judge.cost - before


def _no_latency(configs: Sequence[SubnetConfig]) -> list[float]:
    """The driver knows the latencies."""
    return [0.0] * len(configs)
