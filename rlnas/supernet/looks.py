"""Looks at a model on items that it is not trained on, to keep good weights and to stop in time.

The best of several looks is often so by luck, and a rate that falls to zero makes the last weights the best
ones as a rule. So a later look is taken for an earlier one unless it is worse beyond noise.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from rlnas.supernet.inference import predict

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeAlias

    import numpy.typing as npt
    from torch import Tensor

    from rlnas.supernet.encoding import EncodedSplit
    from rlnas.supernet.modeling_subnet import SubnetModel

    Metric: TypeAlias = Callable[[npt.NDArray[np.generic], npt.NDArray[np.generic]], float]


def share_right(labels: npt.NDArray[np.generic], predictions: npt.NDArray[np.generic]) -> float:
    """Accuracy, in [0, 1]."""
    return float(np.mean(labels == predictions))


N_RESAMPLES = 200
"""Bootstrap samples of the items from which the noise of a difference is told."""


def difference_error(
    metric: Metric,
    labels: npt.NDArray[np.generic],
    one: npt.NDArray[np.generic],
    other: npt.NDArray[np.generic],
) -> float:
    """Standard error of the difference of a metric between two models' predictions for the same items.

    From a bootstrap over the items; 0 where all predictions are the same.
    """
    if np.array_equal(one, other):
        return 0.0
    rng = np.random.default_rng(0)
    differences = []
    for _ in range(N_RESAMPLES):
        chosen = rng.integers(len(labels), size=len(labels))
        differences.append(metric(labels[chosen], one[chosen]) - metric(labels[chosen], other[chosen]))
    return float(np.std(differences))


class Looks:
    """A `rlnas.supernet.optimisation.Watch` that judges a model before its training and in each pass.

    Args:
        model: What is trained.
        encoded: At least one item, none of them a training item.
        metric: From labels and predictions to a number; higher is better.
        patience: Looks without gain after which the training is over, at least 1; None for no such end,
            and then the last weights count.
        per_epoch: Looks in each pass, evenly spread, at least 1.

    Attributes:
        accuracies: What each look found; the first one is that before the first step.
        best: Number of the best look, the first of equal ones; -1 before the first.
        kept: Number of the look whose weights are kept: the last one that is at most one standard error of
            their difference worse than the best one; without a patience the last. -1 before the first.
    """

    def __init__(
        self,
        model: SubnetModel,
        encoded: EncodedSplit,
        metric: Metric = share_right,
        *,
        patience: int | None = None,
        per_epoch: int = 1,
    ) -> None:
        self._model, self._encoded, self._metric = model, encoded, metric
        self._patience, self._per_epoch = patience, per_epoch
        self._weights: dict[str, Tensor] = {}
        self.accuracies: list[float] = []
        self._best_predictions: npt.NDArray[np.generic] = np.empty(0)
        self.best = self.kept = -1

    @property
    def is_over(self) -> bool:
        """Whether so many looks in a row have brought nothing better."""
        return self._patience is not None and len(self.accuracies) - 1 - self.best >= self._patience

    def after(self, n_done: int, n_batches: int) -> None:
        """Judge the model, if a look is due.

        Raises:
            EvaluationError: If its predictions are not finite.
        """
        before, now = ((n * self._per_epoch) // n_batches for n in (n_done - 1, n_done))
        if now == before:
            return
        predictions = predict(self._model, self._encoded, name="the model in training")
        self.accuracies.append(self._metric(self._encoded.labels, predictions))
        look = len(self.accuracies) - 1
        found, best = self.accuracies[look], self.accuracies[self.best]
        if self.best < 0 or found > best or (math.isnan(best) and not math.isnan(found)):
            self.best, self._best_predictions = look, predictions
        if self._patience is None:
            self.kept = look
            return
        noise = difference_error(self._metric, self._encoded.labels, self._best_predictions, predictions)
        if self.kept < 0 or found >= self.accuracies[self.best] - noise:
            self.kept = look
            self._weights = {
                name: weight.detach().clone() for name, weight in self._model.state_dict().items()
            }

    def restore_kept(self) -> None:
        """Give the model the weights of the look that is kept; nothing without a patience."""
        if self._weights:
            self._model.load_state_dict(self._weights)

    def state_dict(self) -> dict[str, Any]:
        """What the looks found, and the weights that are kept."""
        return {
            "accuracies": list(self.accuracies),
            "best": self.best,
            "kept": self.kept,
            "best_predictions": torch.from_numpy(self._best_predictions),
            "weights": dict(self._weights),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Inverse of `state_dict`."""
        self.accuracies = list(state["accuracies"])
        self.best, self.kept = int(state["best"]), int(state["kept"])
        self._best_predictions = state["best_predictions"].numpy()
        device = self._model.device
        self._weights = {name: weight.to(device) for name, weight in state["weights"].items()}
