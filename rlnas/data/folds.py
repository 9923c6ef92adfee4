"""Folds: every item is held out once, and no fold holds out a text that stands in another fold's.

A carved part takes items from the training for good, which few can spare. In folds every item serves
both, though never at once. Items that share a text, or of which one's text stands in the other's, go
together; texts of one or two words count only where they are equal, since they stand in many.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from rlnas.data.containment import ContainmentIndex
from rlnas.data.splits import DEFAULT_SHARE, MIN_ITEMS, by_priority, normal_items, strata_of
from rlnas.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from rlnas.task import Split

USUAL_FOLDS = 5
FEW_ITEMS = round(MIN_ITEMS / DEFAULT_SHARE)
"""With fewer, the smallest useful search part is more than its usual share of them."""

TELLING_WORDS = 3
"""Words from which on a text that stands in another one gives it away."""

OUT_OF_FOLD = "out-of-fold"
"""Name of the split of all labelled items, each answered by a model that has not seen it."""


def assign_folds(
    split: Split, n_folds: int, *, seed: int, label_names: tuple[str, ...]
) -> npt.NDArray[np.int64]:
    """The fold that holds out each item, shape ``(n,)``, stratified by class or deciles of the values.

    Args:
        split: All labelled items.
        n_folds: At least 2.
        seed: Equal seeds give equal folds.
        label_names: Names of the classes; empty for regression.

    Raises:
        DataError: If the items are too few or hang together too closely for so many folds, or all of a
            class fall into one.
    """
    if n_folds < 2:
        raise DataError(f"folds must be at least 2, or 0 to carve a search split, but got folds={n_folds}")
    if n_folds > len(split):
        raise DataError(
            f"folds={n_folds} is more than the {len(split)} labelled items; ask for at most {len(split)}"
        )
    items, strata = normal_items(split), strata_of(split.labels, len(label_names))
    folds = np.full(len(split), -1, dtype=np.int64)
    counts = np.zeros((n_folds, int(strata.max()) + 1), dtype=np.int64)
    for group in _groups(items, by_priority(items, np.arange(len(split)), f"{seed} folds")):
        stratum = int(np.bincount(strata[group]).argmax())
        fold = min(range(n_folds), key=lambda k: (counts[k, stratum], counts[k].sum(), k))
        folds[group] = fold
        np.add.at(counts[fold], strata[group], 1)
    if not counts.any(axis=1).all():
        raise DataError(
            f"the {len(split)} labelled items share so many texts that they cannot be parted in "
            f"folds={n_folds}; ask for fewer, or for a carved search split (folds=0)"
        )
    for stratum, name in enumerate(label_names):
        if np.count_nonzero(counts[:, stratum]) == 1:
            raise DataError(
                f"all {counts[:, stratum].sum()} items of class {name!r} fall into one fold, so that none "
                "would be left to train on; give more of them, remove the class, or carve a search split "
                "(folds=0)"
            )
    return folds


def _groups(items: Sequence[tuple[str, ...]], order: npt.NDArray[np.int64]) -> list[npt.NDArray[np.int64]]:
    """Items that have to stay together, the largest groups first, else in the order given."""
    owner_of: dict[str, int] = {}
    parent = list(range(len(items)))

    def root(item: int) -> int:
        while parent[item] != item:
            parent[item] = parent[parent[item]]
            item = parent[item]
        return item

    for index, item in enumerate(items):
        for text in item:
            parent[root(index)] = root(owner_of.setdefault(text, index))
    texts = list(owner_of)
    index_of = ContainmentIndex(texts)
    for text, owner in owner_of.items():
        if len(text.split()) >= TELLING_WORDS:
            for holder in index_of.holders(text):
                parent[root(owner_of[texts[holder]])] = root(owner)
    members: dict[int, list[int]] = {}
    for index in order.tolist():
        members.setdefault(root(index), []).append(index)
    return [np.array(group) for group in sorted(members.values(), key=len, reverse=True)]
