"""The evaluator of the main job with its work done by the workers of a Ray cluster."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rlnas.evaluation.evaluator import SupernetEvaluator
from rlnas.evaluation.prefix import block_sizes
from rlnas.scale.files import packed
from rlnas.scale.pool import Pool, connect
from rlnas.scale.shares import Shares
from rlnas.scale.worker import SubnetWorker

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from rlnas.evaluation.racing import Racing
    from rlnas.protocols import LatencyModel
    from rlnas.scale.cluster import Cluster
    from rlnas.space import SubnetConfig
    from rlnas.supernet.supernet import Supernet
    from rlnas.task import Task

SMALLEST_SHARE = 2
"""Subnets that are worth a call."""


class RayEvaluator(SupernetEvaluator):
    """As `SupernetEvaluator`, but workers answer, each for a part of the batch.

    Subnets that begin alike go to one worker. Which worker answers does not matter: answers are those of
    one process, bit for bit where device, versions and numbers of threads are the same, else to rounding.
    Races are decided here, between chunks. Workers are started when there is work.

    Args:
        supernet: The shared weights; every worker loads a copy.
        task: Its search split is judged on.
        latency: Predicts the latency of configs.
        cluster: Where, and how many.
        precision: As in `SupernetEvaluator`.
        racing: As in `SupernetEvaluator`.
    """

    def __init__(
        self,
        supernet: Supernet,
        task: Task,
        latency: LatencyModel,
        cluster: Cluster,
        *,
        precision: str = "auto",
        racing: Racing | None = None,
    ) -> None:
        super().__init__(supernet, task, latency, precision=precision, racing=racing)
        ray, needs = connect(cluster.address), cluster.needs
        device = "cuda" if needs.n_gpus else "cpu"
        with tempfile.TemporaryDirectory(prefix="rlnas-") as folder:
            supernet.save(Path(folder))
            files = ray.put(packed(Path(folder)))
        # Workers need no other items.
        seen = ray.put(replace(task, train=task.search, final=task.search))
        arguments = (files, seen, device, self.precision, racing, needs.n_cpus)
        self.pool = Pool(ray, SubnetWorker, arguments, cluster.n_workers, needs)

    def close(self) -> None:
        """End the workers, so that others find room; the next call would start them again."""
        self.pool.close()

    @property
    def traversal(self) -> str:
        """How subnets that begin alike share their work here, in words."""
        return f"{self.pool.n_workers} workers, {super().traversal}"

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
        shares = Shares(order, self.pool.n_workers, smallest=SMALLEST_SHARE)

        def request(share: tuple[int, ...]) -> tuple[Any, ...]:
            return [configs[row] for row in share], items

        parts = []
        rows: list[int] = []
        for share, (predictions, cost) in self.pool.answers(shares, request):
            parts.append(predictions)
            rows += share
            self._cost += cost
        answers: npt.NDArray[np.generic] = np.concatenate(parts)[np.argsort(rows)]
        return answers
