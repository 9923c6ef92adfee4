"""Parting a batch among workers of unequal speed: large shares first, ever smaller ones towards the end.

References:
    C. D. Polychronopoulos, D. J. Kuck. Guided self-scheduling: a practical scheduling scheme for parallel
    supercomputers. IEEE Transactions on Computers C-36, 1987.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

PARTS_LEFT = 2
"""A share is what is left, over so many times the workers: a slow one cannot hold up the end for long."""


class Shares:
    """The work of one batch that nobody has taken yet.

    Neighbours in the order given stay together as far as possible, so that subnets that begin alike are
    computed by one worker.

    Args:
        order: Rows of the batch, those that belong together side by side.
        n_workers: Workers that there may be, at least 1.
        smallest: Rows that are worth a call, at least 1.

    Raises:
        ValueError: If `n_workers` or `smallest` is less than 1.
    """

    def __init__(self, order: Sequence[int], n_workers: int, *, smallest: int = 1) -> None:
        for name, value in (("n_workers", n_workers), ("smallest", smallest)):
            if value < 1:
                raise ValueError(f"{name} must be at least 1, but got {name}={value}")
        self._left = deque(order)
        self._returned: deque[tuple[int, ...]] = deque()
        self._n_workers, self._smallest = n_workers, smallest

    def __bool__(self) -> bool:
        return bool(self._left or self._returned)

    def take(self) -> tuple[int, ...]:
        """The next share; what was given back comes first.

        Raises:
            IndexError: If nothing is left.
        """
        if self._returned:
            return self._returned.popleft()
        if not self._left:
            raise IndexError("nothing is left to share")
        size = max(self._smallest, len(self._left) // (PARTS_LEFT * self._n_workers))
        return tuple(self._left.popleft() for _ in range(min(size, len(self._left))))

    def give_back(self, share: tuple[int, ...]) -> None:
        """Put back the share of a worker that has died."""
        self._returned.append(share)
