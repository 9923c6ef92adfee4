"""The evaluator of the main job with its work done by the workers of a Ray cluster."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from rlnas.evaluation.evaluator import SupernetEvaluator
from rlnas.evaluation.prefix import block_sizes
from rlnas.scale.cluster import Cluster
from rlnas.scale.crew import Crew
from rlnas.scale.shares import Shares

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from rlnas.evaluation.racing import Racing
    from rlnas.protocols import LatencyModel
    from rlnas.scale.pool import Pool
    from rlnas.space import SubnetConfig
    from rlnas.supernet.supernet import Supernet
    from rlnas.task import Split, Task

SMALLEST_SHARE = 2
"""Subnets that are worth a call."""


class RayEvaluator(SupernetEvaluator):
    """As `SupernetEvaluator`, but workers answer, each for a part of the batch.

    Subnets that begin alike go to one worker. Which worker answers does not matter: answers are those of
    one process, bit for bit where device, versions and numbers of threads are the same, else to rounding.
    Races are decided here, between chunks. Workers are started when there is work.

    Args:
        supernet: The shared weights; on every node they lie once, and its workers read them there.
        task: Its search split is judged on.
        latency: Predicts the latency of configs.
        cluster: Where, and how many; or the workers that this evaluator shares with others.
        split: As in `SupernetEvaluator`.
        precision: As in `SupernetEvaluator`.
        racing: As in `SupernetEvaluator`.
    """

    def __init__(
        self,
        supernet: Supernet,
        task: Task,
        latency: LatencyModel,
        cluster: Cluster | Crew,
        *,
        split: Split | None = None,
        precision: str = "auto",
        racing: Racing | None = None,
    ) -> None:
        super().__init__(supernet, task, latency, split=split, precision=precision, racing=racing)
        self._crew = Crew(cluster) if isinstance(cluster, Cluster) else cluster
        # Workers need no other items.
        seen = replace(task, train=self._split, search=self._split, final=self._split, folds=None)
        self._number = self._crew.join(supernet, self._model, seen, self.precision, racing)

    @property
    def pool(self) -> Pool:
        """The workers."""
        return self._crew.pool

    def close(self) -> None:
        """End the workers, so that others find room; the next call would start them again."""
        self._crew.close()

    @property
    def traversal(self) -> str:
        """How subnets that begin alike share their work here, in words."""
        return f"{self._crew.n_workers} workers, {super().traversal}"

    def answers(
        self, configs: Sequence[SubnetConfig], items: npt.NDArray[np.int64]
    ) -> npt.NDArray[np.generic]:
        """As in `SupernetEvaluator`, by the workers.

        Raises:
            EvaluationError: If predictions are not finite; `config` is the culprit.
            ScaleError: If no worker gets ready, or workers keep dying.
        """
        if not configs:
            return super().answers(configs, items)
        order = sorted(range(len(configs)), key=lambda row: block_sizes(configs[row]))
        shares = Shares(order, self._crew.n_workers, smallest=SMALLEST_SHARE)

        def request(share: tuple[int, ...]) -> tuple[Any, ...]:
            return self._number, [configs[row] for row in share], items

        parts = []
        rows: list[int] = []
        for share, (predictions, cost) in self.pool.answers(shares, request):
            parts.append(predictions)
            rows += share
            self._cost += cost
        answers: npt.NDArray[np.generic] = np.concatenate(parts)[np.argsort(rows)]
        return answers
