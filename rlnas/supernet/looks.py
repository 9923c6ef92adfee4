"""Looks at a model on items that it is not trained on, to keep its best weights and to stop in time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

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


class Looks:
    """A `rlnas.supernet.optimisation.Watch` that judges a model before its training and in each pass.

    Args:
        model: What is trained.
        encoded: At least one item, none of them a training item.
        metric: From labels and predictions to a number; higher is better.
        patience: Looks without gain after which the training is over, at least 1; None for no such end,
            and then no weights are kept.
        per_epoch: Looks in each pass, evenly spread, at least 1.

    Attributes:
        accuracies: What each look found; the first one is that before the first step.
        best: Number of the best look, the first of equal ones; -1 before the first.
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
        self.best = -1

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
        if self.best < 0 or self.accuracies[-1] > self.accuracies[self.best]:
            self.best = len(self.accuracies) - 1
            if self._patience is not None:
                self._weights = {
                    name: weight.detach().clone() for name, weight in self._model.state_dict().items()
                }

    def restore_best(self) -> None:
        """Give the model the weights of its best look; nothing without a patience."""
        if self._weights:
            self._model.load_state_dict(self._weights)

    def state_dict(self) -> dict[str, Any]:
        """What the looks found, and the best weights."""
        return {"accuracies": list(self.accuracies), "best": self.best, "weights": dict(self._weights)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Inverse of `state_dict`."""
        self.accuracies, self.best = list(state["accuracies"]), int(state["best"])
        device = self._model.device
        self._weights = {name: weight.to(device) for name, weight in state["weights"].items()}
