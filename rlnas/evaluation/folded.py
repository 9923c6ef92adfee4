"""Judging subnets where there are few items: each item by weights that were trained without it."""

from __future__ import annotations

from dataclasses import replace
from functools import reduce
from operator import add
from typing import TYPE_CHECKING

import numpy as np

from rlnas.evaluation.evaluator import SupernetEvaluator
from rlnas.metrics import Metrics
from rlnas.scores import score, wilson_interval

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy.typing as npt

    from rlnas.evaluation.cost import EvaluationCost
    from rlnas.protocols import LatencyModel
    from rlnas.space import SubnetConfig
    from rlnas.supernet.supernet import Supernet
    from rlnas.task import Task


class FoldedEvaluator:
    """Accuracy on all labelled items, out of fold, with the weights of one supernet for each fold.

    A config means the same sizes in every fold. Which heads and units these are follows the order that
    the fold's own supernet has learnt, as the order of the one that is delivered follows all items: what
    is judged is the whole recipe, and no label of a held-out item has a part in it.

    Args:
        supernet: Trained on all items. Its importance is what controllers may know; it judges nothing.
        folds: Supernets of the same shape, each trained on the task of its fold (`Task.fold`).
        task: With folds.
        latency: Predicts the latency of configs.
        precision: As in `SupernetEvaluator`.
        make: Gives the evaluator of a fold, called as `SupernetEvaluator`.

    Raises:
        ValueError: If the task has no folds, or another number of them than there are supernets.
    """

    def __init__(
        self,
        supernet: Supernet,
        folds: Sequence[Supernet],
        task: Task,
        latency: LatencyModel,
        *,
        precision: str = "auto",
        make: Callable[..., SupernetEvaluator] = SupernetEvaluator,
    ) -> None:
        if task.folds is None or task.n_folds != len(folds):
            raise ValueError(
                f"there must be a supernet for each fold, but the task {task.name!r} has {task.n_folds} "
                f"folds and {len(folds)} supernets were given"
            )
        self._supernet = supernet
        self._task = task
        self._latency = latency
        self._judges = [
            make(fold, task.fold(number), latency, precision=precision) for number, fold in enumerate(folds)
        ]
        self._items = [np.flatnonzero(task.folds == number) for number in range(len(folds))]

    @property
    def latency(self) -> LatencyModel:
        """Predicts the latencies that the metrics hold."""
        return self._latency

    @property
    def importance(self) -> npt.NDArray[np.float64] | None:
        """Importance of attention and FFN of each layer in turn, shape ``(2 * layers,)``, or None."""
        blocks = self._supernet.block_importance
        return None if blocks is None else blocks.reshape(-1)

    @property
    def kept_importance(self) -> Callable[[Sequence[SubnetConfig]], Sequence[float]] | None:
        """Says how much of the importance of heads and units configs keep; None where it is not known."""
        importance = self._supernet.importance
        return None if importance is None else importance.kept

    @property
    def precision(self) -> str:
        """The number format of the evaluation."""
        return self._judges[0].precision

    @property
    def traversal(self) -> str:
        """How subnets that begin alike share their work here, in words."""
        return f"{len(self._judges)} folds, {self._judges[0].traversal}"

    @property
    def cost(self) -> EvaluationCost:
        """Everything that was evaluated so far; a subnet counts once for all folds."""
        total = reduce(add, (judge.cost for judge in self._judges))
        return replace(total, n_configs=self._judges[0].cost.n_configs)

    def __call__(self, configs: Sequence[SubnetConfig]) -> list[Metrics]:
        """Judge configs on all items, in the order of the task's search split.

        Raises:
            InvalidSubnetError: If a config does not fit the supernets.
            EvaluationError: If predictions are not finite; `config` is the culprit.
        """
        return [
            self._metrics(config, predicted, float(latency_ms))
            for config, predicted, latency_ms in zip(
                configs, self.predict(configs), self._latency(configs), strict=True
            )
        ]

    def predict(self, configs: Sequence[SubnetConfig]) -> list[npt.NDArray[np.generic]]:
        """Predictions of each config for all items, each of shape ``(n_items,)``: classes or values.

        Raises:
            InvalidSubnetError: If a config does not fit the supernets.
            EvaluationError: If predictions are not finite; `config` is the culprit.
        """
        return pooled([judge.predict(configs) for judge in self._judges], self._items)

    def close(self) -> None:
        """As of `SupernetEvaluator`."""
        for judge in self._judges:
            judge.close()

    def _metrics(
        self, config: SubnetConfig, predicted: npt.NDArray[np.generic], latency_ms: float
    ) -> Metrics:
        metric, labels = self._task.metric, self._task.search.labels
        metrics = Metrics(
            accuracy=score(metric, labels, predicted),
            latency_ms=latency_ms,
            n_params=self._supernet.n_params(config),
            n_items=len(labels),
        )
        if metric != "accuracy":
            return metrics
        correct = predicted == labels
        return replace(
            metrics,
            accuracy_ci=wilson_interval(int(correct.sum()), len(labels)),
            correct=np.packbits(correct).tobytes(),
        )


def pooled(
    parts: Sequence[Sequence[npt.NDArray[np.generic]]], items: Sequence[npt.NDArray[np.int64]]
) -> list[npt.NDArray[np.generic]]:
    """Predictions of the folds put together in the order of the items.

    Args:
        parts: Of each fold, the predictions of each config for the items that the fold holds out.
        items: Of each fold, the numbers of these items.

    Returns:
        Of each config, shape ``(n_items,)``.
    """
    order = np.argsort(np.concatenate(items))
    return [np.concatenate(of_config)[order] for of_config in zip(*parts, strict=True)]
