"""Judging subnets each in its own number format."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from rlnas.errors import InvalidSubnetError
from rlnas.evaluation.cost import EvaluationCost
from rlnas.evaluation.evaluator import SupernetEvaluator
from rlnas.precision_space import checked_precisions

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy.typing as npt

    from rlnas.evaluation.folded import FoldedEvaluator
    from rlnas.metrics import Metrics
    from rlnas.protocols import LatencyModel
    from rlnas.space import SubnetConfig
    from rlnas.supernet.supernet import Supernet
    from rlnas.task import Split, Task

Judge: TypeAlias = "SupernetEvaluator | PrecisionEvaluator | FoldedEvaluator"
"""What judges the subnets of a run."""


class PrecisionEvaluator:
    """Accuracy on a split with the inherited weights, each config in its precision.

    Each precision has a `SupernetEvaluator` and a copy of the weights; all see the same items.

    Args:
        supernet: The shared weights.
        task: Its search split is judged on.
        latency: Predicts the latency of configs, `rlnas.latency.PrecisionTables` for one.
        precisions: Those that configs may have.
        split: Another split than the task's search split.
        make: Gives the evaluator of a precision, called as `SupernetEvaluator`.

    Raises:
        InvalidSpaceError: If there is no precision, or one is unknown or stands there twice.
    """

    def __init__(
        self,
        supernet: Supernet,
        task: Task,
        latency: LatencyModel,
        precisions: Sequence[str],
        *,
        split: Split | None = None,
        make: Callable[..., SupernetEvaluator] = SupernetEvaluator,
    ) -> None:
        self._latency = latency
        self._evaluators = {
            precision: make(supernet, task, latency, split=split, precision=precision)
            for precision in checked_precisions(precisions)
        }
        self._first = next(iter(self._evaluators.values()))

    @property
    def latency(self) -> LatencyModel:
        """Predicts the latencies that the metrics hold."""
        return self._latency

    @property
    def precision(self) -> str:
        """The precisions, in words."""
        return ", ".join(self._evaluators)

    @property
    def importance(self) -> npt.NDArray[np.float64] | None:
        """Importance of the blocks and of the precision, shape ``(2 * layers + 1,)``, or None.

        That of the precision is 0: nothing is lost by the fastest one as far as is known before the
        search, and what it does cost, trials tell.
        """
        blocks = self._first.importance
        return None if blocks is None else np.append(blocks, 0.0)

    @property
    def kept_importance(self) -> Callable[[Sequence[SubnetConfig]], Sequence[float]] | None:
        """As of `SupernetEvaluator`: the same in all precisions."""
        return self._first.kept_importance

    @property
    def cost(self) -> EvaluationCost:
        """Everything that was evaluated so far."""
        return sum((one.cost for one in self._evaluators.values()), EvaluationCost())

    @property
    def traversal(self) -> str:
        """How subnets that begin alike, and have the same precision, share their work here."""
        return f"{self._first.traversal}, each precision by itself"

    def __call__(self, configs: Sequence[SubnetConfig]) -> list[Metrics]:
        """Judge configs.

        Raises:
            InvalidSubnetError: If a config does not fit the supernet, or has no precision or another.
            EvaluationError: If predictions are not finite; `config` is the culprit.
        """
        judged: dict[int, Metrics] = {}
        for evaluator, rows in self._groups(configs):
            judged |= zip(rows, evaluator([configs[row] for row in rows]), strict=True)
        return [judged[row] for row in range(len(configs))]

    def predict(self, configs: Sequence[SubnetConfig]) -> list[npt.NDArray[np.generic]]:
        """Predictions of each config for all items, each of shape ``(n_items,)``: classes or values.

        Raises:
            InvalidSubnetError: If a config does not fit the supernet, or has no precision or another.
            EvaluationError: If predictions are not finite; `config` is the culprit.
        """
        predicted: dict[int, npt.NDArray[np.generic]] = {}
        for evaluator, rows in self._groups(configs):
            predicted |= zip(rows, evaluator.predict([configs[row] for row in rows]), strict=True)
        return [predicted[row] for row in range(len(configs))]

    def close(self) -> None:
        """As of `SupernetEvaluator`."""
        for evaluator in self._evaluators.values():
            evaluator.close()

    def _groups(self, configs: Sequence[SubnetConfig]) -> list[tuple[SupernetEvaluator, list[int]]]:
        """Each evaluator that is asked, and which configs it judges."""
        rows: dict[str, list[int]] = {}
        for row, config in enumerate(configs):
            if config.precision not in self._evaluators:
                raise InvalidSubnetError(
                    f"subnets are judged in {self.precision} here, but got precision={config.precision!r}"
                )
            rows.setdefault(config.precision, []).append(row)
        return [(self._evaluators[precision], found) for precision, found in rows.items()]
