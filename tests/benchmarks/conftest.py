"""Fixtures of tiny models, and the way to `small_bench`, to `world` and to `benchmarks`."""

from __future__ import annotations

import sys
from pathlib import Path

# Folders of tests are no packages.
sys.path += [
    *(str(Path(__file__).parents[1] / name) for name in ("supernet", "run")),
    str(Path(__file__).parent),
    str(Path(__file__).parents[2]),
]

from tiny import bert, checkpoints, loaded

__all__ = ["bert", "checkpoints", "loaded"]
