"""Items laid end to end, so that not one token of padding is computed.

A pack is a row of tokens. Everything but attention and pooling treats tokens one by one and does not
care where an item ends; attention and pooling work on runs of items of equal length, which are views
of the row, or hand the ends of the items to a kernel that skips across them.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import torch

if TYPE_CHECKING:
    import numpy.typing as npt
    from torch import Tensor

    from rlnas.supernet.encoding import EncodedSplit

Integers = "npt.NDArray[np.int64]"


@dataclass(frozen=True, slots=True)
class Run:
    """Neighbouring items of one length.

    Attributes:
        start: First token in the pack.
        n_items: Number of items.
        length: Tokens of each.
    """

    start: int
    n_items: int
    length: int

    @property
    def tokens(self) -> slice:
        """Where they lie in the pack."""
        return slice(self.start, self.start + self.n_items * self.length)


@dataclass(frozen=True, slots=True, eq=False)
class Layout:
    """Where the items of a pack begin and end.

    Attributes:
        runs: All items, in their order.
        ends: Token at which each item begins, and the number of tokens: shape ``(n_items + 1,)``,
            int32 on the device.
        n_tokens: Tokens of the pack.
    """

    runs: tuple[Run, ...]
    ends: Tensor
    n_tokens: int

    @property
    def longest(self) -> int:
        """Tokens of the longest item."""
        return max(run.length for run in self.runs)

    @property
    def n_pairs(self) -> int:
        """Pairs of tokens that attend to each other: the sum of squared lengths."""
        return sum(run.n_items * run.length**2 for run in self.runs)

    def repeated(self, times: int) -> Layout:
        """The layout of this many such packs, one after the other."""
        starts = [copy * self.n_tokens for copy in range(times)]
        runs = tuple(Run(start + r.start, r.n_items, r.length) for start in starts for r in self.runs)
        ends = [self.ends[:1], *(start + self.ends[1:] for start in starts)]
        return Layout(runs, torch.cat(ends), times * self.n_tokens)


@dataclass(frozen=True, slots=True, eq=False)
class Pack:
    """Items without padding.

    Attributes:
        input_ids: Tokens of one item after the other, shape ``(n_tokens,)``.
        token_type_ids: As `input_ids`, or None.
        layout: Where each item begins and ends.
        indices: Which items of the split these are, shape ``(n_items,)``.
    """

    input_ids: Tensor
    token_type_ids: Tensor | None
    layout: Layout
    indices: Tensor


def pack_items(
    encoded: EncodedSplit, chosen: npt.NDArray[np.int64], max_tokens: int, device: torch.device
) -> list[Pack]:
    """Lay items out in order of length; the same items always give the same packs.

    Args:
        encoded: Tokens of all items of a split.
        chosen: Indices of the items to pack, shape ``(k,)``.
        max_tokens: Tokens of a pack at most; an item that is longer is a pack by itself.
        device: Where the tokens are put.
    """
    lengths = encoded.lengths[chosen]
    by_length = np.lexsort((chosen, lengths))
    return [
        _pack(encoded, chosen[by_length[part]], lengths[by_length[part]], device)
        for part in _parts(lengths[by_length], max_tokens)
    ]


def _parts(lengths: npt.NDArray[np.int64], max_tokens: int) -> list[slice]:
    """As few cuts as can be, none of more than `max_tokens` but for single items, the largest least.

    So the parts are of nearly equal size, and no small rest is left.
    """
    ends = np.concatenate([[0], np.cumsum(lengths)])
    parts = _filled(ends, max_tokens)
    low, high = 1, max_tokens  # the least that does not need more parts
    while low < high:
        middle = (low + high) // 2
        tried = _filled(ends, middle, most=len(parts))
        low, high = (middle + 1, high) if len(tried) > len(parts) else (low, middle)
    return _filled(ends, high)


def _filled(ends: npt.NDArray[np.int64], n_tokens: int, most: int | None = None) -> list[slice]:
    """Parts filled up one after the other; given up when there are more than `most`."""
    parts: list[slice] = []
    start = 0
    while start < len(ends) - 1 and (most is None or len(parts) <= most):
        stop = int(np.searchsorted(ends, ends[start] + n_tokens, side="right")) - 1
        parts.append(slice(start, max(stop, start + 1)))
        start = parts[-1].stop
    return parts


def _pack(
    encoded: EncodedSplit,
    items: npt.NDArray[np.int64],
    lengths: npt.NDArray[np.int64],
    device: torch.device,
) -> Pack:
    ends = np.concatenate([[0], np.cumsum(lengths)])
    changes = [0, *(np.flatnonzero(np.diff(lengths)) + 1), len(items)]
    runs = tuple(Run(int(ends[a]), int(b - a), int(lengths[a])) for a, b in pairwise(changes))
    types = encoded.token_type_ids

    def put(values: npt.NDArray[np.generic]) -> Tensor:
        return torch.from_numpy(values).to(device)

    return Pack(
        input_ids=put(np.concatenate([encoded.input_ids[item] for item in items])),
        token_type_ids=None if types is None else put(np.concatenate([types[item] for item in items])),
        layout=Layout(runs, put(ends.astype(np.int32)), int(ends[-1])),
        indices=put(items),
    )
