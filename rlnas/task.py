"""A labelled text task: its three parts, its labels and its metric."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from rlnas.errors import DataError

if TYPE_CHECKING:
    import numpy.typing as npt

METRICS = ("accuracy", "f1", "matthews", "spearman", "pearson")
REGRESSION_METRICS = ("spearman", "pearson")


@dataclass(frozen=True, slots=True, eq=False)
class Split:
    """Labelled texts.

    Attributes:
        name: Where the items come from, e.g. ``"train"`` or ``"test"``; every figure names it.
        texts: First (or only) text of each of the n items.
        text_pairs: Second text of each item, or None for single-text tasks.
        labels: Shape ``(n,)``; class indices (int64) or values to predict (float32).
    """

    name: str
    texts: tuple[str, ...]
    text_pairs: tuple[str, ...] | None
    labels: npt.NDArray[np.generic]

    def __post_init__(self) -> None:
        n_items = len(self.texts)
        if n_items == 0:
            raise DataError(f"the {self.name} split is empty; it needs at least one item")
        if len(self.labels) != n_items:
            raise DataError(f"the {self.name} split has {n_items} texts but {len(self.labels)} labels")
        if self.text_pairs is not None and len(self.text_pairs) != n_items:
            raise DataError(
                f"the {self.name} split has {n_items} texts but {len(self.text_pairs)} second texts"
            )

    def __len__(self) -> int:
        return len(self.texts)

    def take(self, indices: npt.ArrayLike, name: str | None = None) -> Split:
        """The items at `indices`, in that order.

        Args:
            indices: Shape ``(k,)``, integers in [0, n).
            name: Name of the new split; by default this one's.
        """
        chosen = np.asarray(indices, dtype=np.int64)
        pairs = self.text_pairs
        return Split(
            name=self.name if name is None else name,
            texts=tuple(self.texts[i] for i in chosen),
            text_pairs=None if pairs is None else tuple(pairs[i] for i in chosen),
            labels=self.labels[chosen],
        )


@dataclass(frozen=True, slots=True, eq=False)
class Task:
    """Data with its parts and its metric.

    Attributes:
        name: For reports, e.g. ``"glue/sst2"``.
        train: Weights and importance are learnt from it.
        search: Controllers see accuracies on it; carved from the training data.
        final: Touched once, by the certificate.
        label_names: Class names in the order of the class indices; empty for regression.
        metric: One of `METRICS`; spearman and pearson are for regression.
        notes: Sentences for reports on how the parts came about, e.g. how many rows were dropped.

    Raises:
        DataError: If the metric does not suit the labels, or there is only one class.
    """

    name: str
    train: Split
    search: Split
    final: Split
    label_names: tuple[str, ...]
    metric: str = "accuracy"
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.metric not in METRICS:
            raise DataError(f"metric must be one of {', '.join(METRICS)}, but got metric={self.metric!r}")
        if self.is_regression != (self.metric in REGRESSION_METRICS):
            kind = "regression" if self.is_regression else "classification"
            raise DataError(f"metric={self.metric!r} does not suit a {kind} task")
        if len(self.label_names) == 1:
            raise DataError(
                f"task {self.name!r} has one class only, {self.label_names[0]!r}; "
                "classification needs at least two"
            )
        if self.metric in ("f1", "matthews") and len(self.label_names) != 2:
            raise DataError(
                f"metric={self.metric!r} is for two classes, but task {self.name!r} "
                f"has {len(self.label_names)}; use metric='accuracy'"
            )

    @property
    def is_regression(self) -> bool:
        """Whether the labels are numbers to predict rather than classes."""
        return not self.label_names

    @property
    def is_pair(self) -> bool:
        """Whether each item is a pair of texts."""
        return self.train.text_pairs is not None

    @property
    def num_labels(self) -> int:
        """Width of the model's output: the number of classes, or 1 for regression."""
        return max(1, len(self.label_names))
