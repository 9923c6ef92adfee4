"""Carving a part from a split so that no text of the one stands in, or contains, a text of the other.

Some training sets are phrase-level: of sst2's rows, 90 % stand verbatim inside another row, so a
random part of them says nothing about unseen text. Parts are therefore carved from the texts that
stand in no other text, and rows that stand in a carved text leave the rest.

Which items are carved follows from a hash of their texts and the seed, so the order of the rows
does not matter.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b
from typing import TYPE_CHECKING

import numpy as np

from rlnas.data.containment import ContainmentIndex, normalise, stands_alone
from rlnas.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import numpy.typing as npt

    from rlnas.task import Split

MIN_ITEMS = 200
MAX_ITEMS = 2000
DEFAULT_SHARE = 0.15
N_STRATA = 10
_CARVABLE = "their text must stand in no other text, and some item of their class must be left"


@dataclass(frozen=True, slots=True)
class PartSize:
    """How many items to carve.

    Attributes:
        n_items: That many; or None.
        fraction: That share of all rows, in (0, 1), if `n_items` is None; or None.
        default_share: Otherwise that share of the texts that stand in no other text, at least
            `MIN_ITEMS` and at most `MAX_ITEMS`, but not more than a third of them.
    """

    n_items: int | None = None
    fraction: float | None = None
    default_share: float = DEFAULT_SHARE

    @property
    def is_given(self) -> bool:
        """Whether a certain size was asked for, so that fewer items will not do."""
        return self.n_items is not None or self.fraction is not None

    def of(self, n_rows: int, n_eligible: int) -> int:
        """The number of items to carve from `n_rows` rows of which `n_eligible` may be carved."""
        if self.n_items is not None:
            return self.n_items
        if self.fraction is not None:
            return max(1, round(self.fraction * n_rows))
        wanted = max(MIN_ITEMS, round(self.default_share * n_eligible))
        return min(wanted, MAX_ITEMS, n_eligible // 3)


@dataclass(frozen=True, slots=True, eq=False)
class Carve:
    """A split in two parts that share no text.

    Attributes:
        part: What was carved.
        rest: What is left, in its old order.
        n_dropped: Rows in neither: their text stands in, or contains, a text of `part`.
    """

    part: Split
    rest: Split
    n_dropped: int


def carve(split: Split, size: PartSize, *, name: str, seed: int, n_classes: int) -> Carve:
    """Carve a part from a split, stratified by class (by deciles of the label in regression).

    Args:
        split: Rows to carve from.
        size: How many items.
        name: Name of the part.
        seed: Equal seeds give equal parts.
        n_classes: Number of classes, 0 for regression.

    Raises:
        DataError: If the split has too few texts that stand in no other text.
    """
    items = normal_items(split)
    strata = strata_of(split.labels, n_classes)
    # The only item of a class stays behind: what was never trained cannot be judged.
    is_eligible = stands_alone(items)
    if n_classes:
        is_eligible &= np.bincount(strata)[strata] > 1
    eligible = np.flatnonzero(is_eligible)
    n_wanted = size.of(len(split), len(eligible))
    if not 1 <= n_wanted <= len(eligible) or n_wanted >= len(split):
        raise _too_few(split, size, n_wanted, len(eligible))
    chosen = _choose(items, eligible, strata, n_wanted, seed)
    if len(chosen) == 0 or (size.is_given and len(chosen) < n_wanted):
        raise _too_few(split, size, n_wanted, len(chosen))
    kept = _apart_from(items, chosen)
    if len(kept) == 0:
        raise _too_few(split, size, n_wanted, len(chosen))
    n_dropped = len(split) - len(chosen) - len(kept)
    return Carve(split.take(chosen, name), split.take(kept), n_dropped)


def without_items_of(split: Split, other: Split) -> tuple[Split, int]:
    """The split without the items that `other` has too (same words), and how many those were.

    Raises:
        DataError: If nothing is left.
    """
    known = set(normal_items(other))
    kept = [index for index, item in enumerate(normal_items(split)) if item not in known]
    if not kept:
        raise DataError(
            f"all {len(split)} items of the {split.name} split stand in the {other.name} split too; "
            "give a split of its own for the final figures"
        )
    return split.take(kept), len(split) - len(kept)


def subsample(split: Split, n_items: int, *, seed: int, n_classes: int) -> Split:
    """At most `n_items` of the split, stratified, in their old order."""
    if n_items >= len(split):
        return split
    order = by_priority(normal_items(split), np.arange(len(split)), f"{seed} train")
    strata = strata_of(split.labels, n_classes)
    quota = quotas(np.bincount(strata), n_items)
    chosen = [order[strata[order] == stratum][:count] for stratum, count in enumerate(quota)]
    return split.take(np.sort(np.concatenate(chosen)))


def normal_items(split: Split) -> list[tuple[str, ...]]:
    """Normal forms of the text, or the two texts, of each item."""
    texts = [normalise(text) for text in split.texts]
    if split.text_pairs is None:
        return [(text,) for text in texts]
    return list(zip(texts, map(normalise, split.text_pairs), strict=True))


def _choose(
    items: Sequence[tuple[str, ...]],
    eligible: npt.NDArray[np.int64],
    strata: npt.NDArray[np.int64],
    n_wanted: int,
    seed: int,
) -> npt.NDArray[np.int64]:
    """Up to `n_wanted` of the eligible items, none of whose texts stands in another item's longer text."""
    texts, owners = _text_table(items)
    index = ContainmentIndex(texts)

    def is_free(item: int) -> bool:
        return not any(
            texts[holder] != text and owners[holder] != {item}
            for text in items[item]
            for holder in index.holders(text)
        )

    order = by_priority(items, eligible, f"{seed} part")
    chosen: list[int] = []
    passed_over: list[int] = []
    for stratum, quota in enumerate(quotas(np.bincount(strata[eligible]), n_wanted)):
        candidates = iter(order[strata[order] == stratum].tolist())
        chosen += _first(filter(is_free, candidates), quota)
        passed_over += candidates
    # A stratum with too few free texts leaves its places to the others.
    rest = by_priority(items, np.array(passed_over, dtype=np.int64), f"{seed} part")
    chosen += _first(filter(is_free, rest.tolist()), n_wanted - len(chosen))
    return np.array(sorted(chosen), dtype=np.int64)


def _first(candidates: Iterator[int], count: int) -> list[int]:
    """The first `count` candidates; unlike islice it asks for no more than it returns."""
    return [candidate for _, candidate in zip(range(count), candidates, strict=False)]


def _apart_from(items: Sequence[tuple[str, ...]], chosen: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Items that are not chosen and none of whose texts stands in a chosen item's text.

    The other direction needs no search: a chosen text stands in no longer text of another item.
    """
    index = ContainmentIndex(sorted({text for item in chosen for text in items[item]}))
    is_chosen = np.zeros(len(items), dtype=np.bool_)
    is_chosen[chosen] = True
    kept = [
        item
        for item in np.flatnonzero(~is_chosen).tolist()
        if all(next(index.holders(text), None) is None for text in items[item])
    ]
    return np.array(kept, dtype=np.int64)


def _text_table(items: Sequence[tuple[str, ...]]) -> tuple[list[str], list[set[int]]]:
    """The distinct texts, and the items that have each."""
    owners: dict[str, set[int]] = {}
    for index, item in enumerate(items):
        for text in item:
            owners.setdefault(text, set()).add(index)
    return list(owners), list(owners.values())


def by_priority(
    items: Sequence[tuple[str, ...]], indices: npt.NDArray[np.int64], salt: str
) -> npt.NDArray[np.int64]:
    """The indices in an order that looks random but depends on nothing except texts and salt."""
    digests = [
        blake2b("\n".join((salt, *items[index])).encode("utf-8", "surrogatepass"), digest_size=8).digest()
        for index in indices.tolist()
    ]
    return indices[sorted(range(len(digests)), key=digests.__getitem__)]


def quotas(counts: npt.NDArray[np.int64], n_wanted: int) -> list[int]:
    """Places of each stratum: proportional, largest remainders first, `n_wanted` together."""
    shares = counts * (n_wanted / counts.sum())
    quotas = np.floor(shares).astype(np.int64)
    rounded_up = np.argsort(quotas - shares, kind="stable")[: n_wanted - int(quotas.sum())]
    quotas[rounded_up] += 1
    return [int(quota) for quota in quotas]


def strata_of(labels: npt.NDArray[np.generic], n_classes: int) -> npt.NDArray[np.int64]:
    """The class of each item, or the decile of its value where `n_classes` is 0."""
    if n_classes:
        return labels.astype(np.int64)
    values = labels.astype(np.float64)
    edges = np.quantile(values, np.linspace(0, 1, N_STRATA + 1)[1:-1])
    return np.searchsorted(edges, values).astype(np.int64)


def _too_few(split: Split, size: PartSize, n_wanted: int, n_eligible: int) -> DataError:
    if size.is_given:
        by_share = size.n_items is None
        asked = f"search_fraction={size.fraction}" if by_share else f"search_items={size.n_items}"
        return DataError(
            f"{asked} asks for {n_wanted} of the {len(split)} {split.name} items, but only {n_eligible} "
            f"can be carved: {_CARVABLE}; ask for fewer"
        )
    return DataError(
        f"no part can be carved from the {len(split)} items of the {split.name} split, because only "
        f"{n_eligible} qualify: {_CARVABLE}; give more items"
    )
