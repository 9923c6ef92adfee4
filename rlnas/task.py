"""A labelled text task: its three parts, its labels and its metric."""

from __future__ import annotations

from dataclasses import dataclass, replace
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
        search: Controllers see accuracies on it; carved from the training data, or with `folds` the same
            items, each answered by weights that were trained without it.
        final: Touched once, by the certificate.
        label_names: Class names in the order of the class indices; empty for regression.
        metric: One of `METRICS`; spearman and pearson are for regression.
        notes: Sentences for reports on how the parts came about, e.g. how many rows were dropped.
        folds: Shape ``(n,)``, the fold in which each item of `train` and `search` is held out, from 0; None
            where the two are apart.

    Raises:
        DataError: If the metric does not suit the labels, there is only one class, or the folds do not fit
            the items.
    """

    name: str
    train: Split
    search: Split
    final: Split
    label_names: tuple[str, ...]
    metric: str = "accuracy"
    notes: tuple[str, ...] = ()
    folds: npt.NDArray[np.int64] | None = None

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
        if self.folds is not None:
            self._check_folds(self.folds)

    def _check_folds(self, folds: npt.NDArray[np.int64]) -> None:
        if not len(folds) == len(self.train) == len(self.search) or self.train.texts != self.search.texts:
            raise DataError(
                f"task {self.name!r} has folds of {len(folds)} items, so train and search must be these "
                f"same items, but they are {len(self.train)} and {len(self.search)} items"
            )
        if len(np.unique(folds)) < 2 or set(folds.tolist()) != set(range(int(folds.max()) + 1)):
            raise DataError(
                f"the folds of task {self.name!r} must be numbered from 0, at least two, none empty, but "
                f"they are {sorted(set(folds.tolist()))}"
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

    @property
    def n_folds(self) -> int:
        """In how many folds items are held out in turn; 0 where a search part is carved."""
        return 0 if self.folds is None else int(self.folds.max()) + 1

    def fold(self, number: int) -> Task:
        """The task in which one fold is the search part and the others are trained on.

        Args:
            number: From 0 on, below `n_folds`.

        Raises:
            DataError: If there is no such fold.
        """
        if self.folds is None or not 0 <= number < self.n_folds:
            raise DataError(f"task {self.name!r} has {self.n_folds} folds, but got number={number}")
        held_out = self.folds == number
        return replace(
            self,
            train=self.train.take(np.flatnonzero(~held_out)),
            search=self.search.take(np.flatnonzero(held_out)),
            folds=None,
        )
