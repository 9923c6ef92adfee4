"""The subnets of earlier batches that new ones have to beat."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from rlnas.evaluation.racing import Champions
from rlnas.pareto import is_pareto_optimal

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from rlnas.metrics import Metrics
    from rlnas.trial import Trial


class ChampionBook:
    """Keeps the Pareto front of all fully judged subnets, with their answers.

    Args:
        n_items: Of the split.
    """

    def __init__(self, n_items: int) -> None:
        self._n_items = n_items
        self._front: list[Metrics] = []
        self.n_judged = 0

    def __len__(self) -> int:
        return len(self._front)

    @property
    def champions(self) -> Champions:
        """The front, as a race wants it."""
        latency_ms = np.array([metrics.latency_ms for metrics in self._front], dtype=np.float64)
        correct = np.zeros((len(self._front), self._n_items), dtype=bool)
        for row, metrics in enumerate(self._front):
            bits = np.frombuffer(metrics.correct or b"", dtype=np.uint8)
            correct[row] = np.unpackbits(bits, count=self._n_items)
        return Champions(latency_ms, correct)

    def note(self, judged: Sequence[Metrics]) -> None:
        """Enter a batch, raced-out subnets included."""
        self.n_judged += len(judged)
        self._front += [metrics for metrics in judged if self._is_complete(metrics)]
        costs = [(metrics.latency_ms, -metrics.accuracy) for metrics in self._front]
        kept = is_pareto_optimal(np.array(costs).reshape(-1, 2))
        self._front = [metrics for metrics, is_kept in zip(self._front, kept, strict=True) if is_kept]

    def recall(self, trials: Iterable[Trial]) -> None:
        """Enter trials that were judged in an earlier process."""
        self.note([trial.metrics for trial in trials])

    def _is_complete(self, metrics: Metrics) -> bool:
        return metrics.correct is not None and not metrics.raced_out and metrics.n_items == self._n_items
