"""A worker that only sleeps; a module of its own, so that its many processes do not each load PyTorch."""

from __future__ import annotations

import os
import random
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

SPEEDS = (0.5, 1.5)
"""Bounds of the sleeping workers' speeds."""


class Sleeper:
    """Sleeps for a subnet as long as one took, at a speed of its own.

    Args:
        seconds: Times by row.
    """

    def __init__(self, seconds: Sequence[float]) -> None:
        self._seconds = seconds
        self._speed = random.Random(os.getpid()).uniform(*SPEEDS)

    def prepare(self) -> None:
        """There is nothing to load."""

    def answer(self, rows: Sequence[int]) -> float:
        """Seconds that it has slept."""
        start = time.perf_counter()
        time.sleep(sum(self._seconds[row] for row in rows) / self._speed)
        return time.perf_counter() - start
