"""Which texts stand in which: the law that keeps a carved part apart from the rest.

A text *stands in* another when its normal form is a substring of the other's. Normal forms are
case-folded words joined by single spaces, so whatever stands in a text verbatim also stands in it
here, whether it ends at the border of a word or not.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from itertools import accumulate
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    import numpy.typing as npt

_WORD = re.compile(r"\w+")
_KEY_WORDS = 3


def normalise(text: str) -> str:
    """The case-folded words of `text`, joined by single spaces; empty for a text without words.

    If ``a in b`` then ``normalise(a) in normalise(b)``: case folding looks at one character at a
    time, and what joins two words of ``a`` joins the same two words of ``b``.
    """
    return " ".join(_WORD.findall(text.casefold()))


def stands_alone(items: Sequence[tuple[str, ...]]) -> npt.NDArray[np.bool_]:
    """Whether no text of an item stands, as whole words, in a longer text of another item.

    A quick sieve: time and memory grow with the number of words of all items together.

    Args:
        items: Normal forms of the text, or the two texts, of each of n items.

    Returns:
        Shape ``(n,)``. Items with an empty text are False: an empty text stands everywhere.
    """
    owners = _owners(items)
    lengths = _lengths_by_key(owners)
    containers: dict[str, int] = {}  # the only item with a longer text that holds this one, or -1
    # What stands in a contained text stands in its container too, so long texts first spare most work. Not
    # so with pairs: a text and its container may be those of one item, and the text between another's.
    is_single = all(len(item) == 1 for item in items)
    for text in sorted(owners, key=len, reverse=True):
        if is_single and text in containers:
            continue
        owner = owners[text]
        for phrase in _phrases(text, owners, lengths):
            if phrase != text:
                containers[phrase] = owner if containers.get(phrase, owner) == owner else -1
    # Both texts of one pair may stand in each other; that joins nothing.
    return np.array(
        [
            all(text and containers.get(text, index) == index for text in item)
            for index, item in enumerate(items)
        ],
        dtype=np.bool_,
    )


def _owners(items: Sequence[tuple[str, ...]]) -> dict[str, int]:
    """The only item that has the text, or -1 where several have."""
    owners: dict[str, int] = {}
    for index, item in enumerate(items):
        for text in item:
            owners[text] = index if owners.get(text, index) == index else -1
    return owners


def _lengths_by_key(texts: Iterable[str]) -> dict[str, tuple[int, ...]]:
    """By first words, at most three: how many words the texts have that begin so."""
    lengths: dict[str, set[int]] = {}
    for text in texts:
        words = text.split()
        lengths.setdefault(" ".join(words[:_KEY_WORDS]), set()).add(len(words))
    return {key: tuple(sorted(found)) for key, found in lengths.items()}


def _phrases(text: str, texts: dict[str, int], lengths: dict[str, tuple[int, ...]]) -> Iterator[str]:
    """Every member of `texts` that stands in `text` as whole words, `text` itself included."""
    words = text.split()
    n_words = len(words)
    ends = list(accumulate((len(word) + 1 for word in words), initial=0))
    for first in range(n_words):
        start = ends[first]
        for n_key in range(1, min(_KEY_WORDS, n_words - first) + 1):
            for length in lengths.get(text[start : ends[first + n_key] - 1], ()):
                # Texts shorter than the key's full length are found under their own, shorter key.
                if first + length <= n_words and (length == n_key or n_key == _KEY_WORDS):
                    phrase = text[start : ends[first + length] - 1]
                    if phrase in texts:
                        yield phrase


class ContainmentIndex:
    """Finds the texts that a given text stands in.

    Args:
        texts: Normal forms, shape ``(n,)``.
    """

    def __init__(self, texts: Sequence[str]) -> None:
        self._texts = tuple(texts)
        self._joined = "\n".join(self._texts)
        self._starts = list(accumulate((len(text) + 1 for text in self._texts), initial=0))
        self._holders: dict[str, list[int]] = {}
        for index, text in enumerate(self._texts):
            for word in set(text.split()):
                self._holders.setdefault(word, []).append(index)

    def holders(self, text: str) -> Iterator[int]:
        """Indices of the texts that `text` stands in, ascending, its equals included."""
        # The outer words may be parts of longer ones there; the inner words stand as they are.
        inner = text.split()[1:-1]
        if not inner:
            yield from self._scan(text)
            return
        rarest = min((self._holders.get(word, []) for word in inner), key=len)
        for index in rarest:
            if text in self._texts[index]:
                yield index

    def _scan(self, text: str) -> Iterator[int]:
        start = 0
        while start < self._starts[-1]:
            position = self._joined.find(text, start)
            if position < 0:
                return
            index = bisect_right(self._starts, position) - 1
            yield index
            start = self._starts[index + 1]
