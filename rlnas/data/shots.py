"""The few labelled items that a user has: a stratified sample of the rows beside the final split."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from rlnas.data.containment import stands_alone
from rlnas.data.splits import by_priority, normal_items, quotas, strata_of
from rlnas.errors import DataError

if TYPE_CHECKING:
    import numpy.typing as npt

    from rlnas.task import Split

LEAST_PER_CLASS = 2
"""One to learn from while the other is held out."""


def draw_shots(split: Split, n_items: int, *, seed: int, label_names: tuple[str, ...]) -> Split:
    """A number of items, stratified by class (by deciles of the label in regression), in their old order.

    Every class gets at least two. Whole texts come first: a row whose text stands in another row is
    drawn only where the others of its class do not suffice.

    Args:
        split: Rows to draw from.
        n_items: How many.
        seed: Equal seeds draw equal items.
        label_names: Names of the classes; empty for regression.

    Raises:
        DataError: If these are fewer than two of a class, or more than there are.
    """
    least = LEAST_PER_CLASS * max(1, len(label_names))
    if n_items < least:
        what = f"the {len(label_names)} classes" if label_names else "the values"
        raise DataError(f"shots={n_items} is too few for {what}: ask for at least {least}")
    if n_items > len(split):
        raise DataError(
            f"shots={n_items} asks for more labelled items than the {len(split):,} that there are beside "
            f"the final split; ask for at most {len(split):,}, or leave it out to take all"
        )
    items, strata = normal_items(split), strata_of(split.labels, len(label_names))
    order = by_priority(items, np.arange(len(split)), f"{seed} shots")
    order = order[np.argsort(~stands_alone(items)[order], kind="stable")]
    places = _places(strata, n_items, label_names)
    chosen = [order[strata[order] == stratum][:count] for stratum, count in enumerate(places)]
    return split.take(np.sort(np.concatenate(chosen)))


def _places(strata: npt.NDArray[np.int64], n_items: int, names: tuple[str, ...]) -> list[int]:
    """Items of each stratum, in proportion, but two of each class at least."""
    counts = np.bincount(strata, minlength=len(names))
    if not names:
        return quotas(counts, n_items)
    rare = np.flatnonzero(counts < LEAST_PER_CLASS)
    if len(rare):
        raise DataError(
            f"the class {names[rare[0]]!r} has {counts[rare[0]]} labelled items, but with shots={n_items} "
            f"every class needs at least {LEAST_PER_CLASS}; give more of them, or remove the class"
        )
    places = quotas(counts, n_items)
    for short in (index for index, count in enumerate(places) if count < LEAST_PER_CLASS):
        for _ in range(LEAST_PER_CLASS - places[short]):
            places[int(np.argmax(places))] -= 1
            places[short] += 1
    return places
