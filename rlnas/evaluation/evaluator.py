"""The evaluator of the main job: subnets of one supernet on the search split of one task."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import numpy as np
import torch

from rlnas.evaluation.prefix import predict_batch
from rlnas.metrics import Metrics
from rlnas.scores import score, score_interval
from rlnas.space import PRECISIONS
from rlnas.supernet.encoding import sorted_batches
from rlnas.supernet.optimisation import gains_from_bfloat16

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from rlnas.protocols import LatencyModel
    from rlnas.space import SubnetConfig
    from rlnas.supernet.supernet import Supernet
    from rlnas.task import Split, Task


class SupernetEvaluator:
    """Accuracy on a split with the inherited weights, latency from a model of it.

    The weights are copied once, in the number format of the evaluation; later changes to the
    supernet do not show. Subnets are evaluated by slices, and those that begin alike share the
    work of their common beginning. A config's result does not depend on its batch.

    Args:
        supernet: The shared weights.
        task: Its search split is judged on.
        latency: Predicts the latency of configs.
        split: Another split than the task's search split.
        precision: ``"auto"`` takes bfloat16 where the device gains from it; or one of
            `rlnas.space.PRECISIONS`.
        batch_size: Items per forward pass.

    Raises:
        ValueError: If the precision is unknown.
    """

    def __init__(
        self,
        supernet: Supernet,
        task: Task,
        latency: LatencyModel,
        *,
        split: Split | None = None,
        precision: str = "auto",
        batch_size: int = 32,
    ) -> None:
        self._supernet = supernet
        self._task = task
        self._split = task.search if split is None else split
        self._latency = latency
        if precision == "auto":
            gains = gains_from_bfloat16(supernet.device)
            precision = "bfloat16" if gains else "float32"
        if precision not in PRECISIONS:
            raise ValueError(
                f"precision must be auto or one of {', '.join(PRECISIONS)}, but got precision={precision!r}"
            )
        self.precision = precision
        self._model = copy.deepcopy(supernet.model).to(getattr(torch, precision)).eval()
        self._batches = list(sorted_batches(supernet.encode(self._split), batch_size, supernet.device))

    @property
    def latency(self) -> LatencyModel:
        """Predicts the latencies that the metrics hold."""
        return self._latency

    @property
    def importance(self) -> npt.NDArray[np.float64] | None:
        """Importance of attention and FFN of each layer in turn, shape ``(2 * layers,)``, or None."""
        blocks = self._supernet.block_importance
        return None if blocks is None else blocks.reshape(-1)

    def __call__(self, configs: Sequence[SubnetConfig]) -> list[Metrics]:
        """Judge configs.

        Raises:
            InvalidSubnetError: If a config does not fit the supernet.
            EvaluationError: If predictions are not finite; `config` is the culprit.
        """
        predictions = self.predict(configs)
        latencies = self._latency(configs)
        return [
            self._metrics(config, predicted, float(latency_ms))
            for config, predicted, latency_ms in zip(configs, predictions, latencies, strict=True)
        ]

    def predict(self, configs: Sequence[SubnetConfig]) -> list[npt.NDArray[np.generic]]:
        """Predictions of each config for all items, each of shape ``(n_items,)``.

        Raises:
            InvalidSubnetError: If a config does not fit the supernet.
            EvaluationError: If predictions are not finite; `config` is the culprit.
        """
        for config in configs:
            self._supernet.check(config)
        dtype = np.float32 if self._task.is_regression else np.int64
        table = np.empty((len(configs), len(self._split)), dtype=dtype)
        with torch.inference_mode():
            for batch in self._batches:
                for index, predicted in predict_batch(self._model, configs, batch):
                    table[index, batch.indices] = predicted
        return list(table)

    def _metrics(
        self, config: SubnetConfig, predicted: npt.NDArray[np.generic], latency_ms: float
    ) -> Metrics:
        metric, labels = self._task.metric, self._split.labels
        # Wilson's interval is free; a bootstrap would cost as much as the evaluation itself.
        interval = score_interval(metric, labels, predicted) if metric == "accuracy" else None
        return Metrics(
            accuracy=score(metric, labels, predicted),
            latency_ms=latency_ms,
            n_params=self._supernet.n_params(config),
            n_items=len(self._split),
            accuracy_ci=interval,
        )
