"""What runs in a worker's process: an evaluator of its own, for the shares that it gets."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from rlnas.evaluation.evaluator import SupernetEvaluator
from rlnas.scale.files import unpacked
from rlnas.supernet import Supernet

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    import numpy.typing as npt

    from rlnas.evaluation.cost import EvaluationCost
    from rlnas.evaluation.racing import Racing
    from rlnas.scale.files import Files
    from rlnas.space import SubnetConfig
    from rlnas.task import Task


class SubnetWorker:
    """Answers for subnets of one supernet on the search split of one task.

    Args:
        files: Of the supernet's folder.
        task: Its search split is answered.
        device: ``"cpu"``, or ``"cuda"`` for the GPU that Ray has given.
        precision: As in `SupernetEvaluator`.
        racing: Likewise; the driver decides the races.
        n_threads: Of PyTorch.
    """

    def __init__(
        self,
        files: Files,
        task: Task,
        device: str,
        precision: str,
        racing: Racing | None,
        n_threads: int,
    ) -> None:
        self._made_of = files, task, device, precision, racing, n_threads
        self._judge: SupernetEvaluator | None = None

    def prepare(self) -> None:
        """Load the model; not done when the worker is made, as Ray hides what is raised there.

        Raises:
            RLNASError: One of its kinds, if the model cannot be loaded here.
        """
        self._prepared()

    def answer(
        self, configs: Sequence[SubnetConfig], items: npt.NDArray[np.int64]
    ) -> tuple[npt.NDArray[np.generic], EvaluationCost]:
        """Predictions, shape ``(n_configs, len(items))``, and what they have cost."""
        judge = self._prepared()
        before = judge.cost
        predictions = judge.answers(configs, items)
        return predictions, judge.cost - before

    def _prepared(self) -> SupernetEvaluator:
        if self._judge is None:
            files, task, device, precision, racing, n_threads = self._made_of
            torch.set_num_threads(n_threads)
            with unpacked(files) as folder:
                supernet = Supernet.load(folder, device=device)
            self._judge = SupernetEvaluator(supernet, task, _no_latency, precision=precision, racing=racing)
        return self._judge


def _no_latency(configs: Sequence[SubnetConfig]) -> list[float]:
    """The driver knows the latencies."""
    return [0.0] * len(configs)
