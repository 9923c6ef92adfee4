"""Fixtures of tiny models, and the way to `small_bench` and to `world`."""

from __future__ import annotations

import sys
from pathlib import Path

# Folders of tests are no packages.
sys.path += [
    *(str(Path(__file__).parents[1] / name) for name in ("supernet", "run")),
    str(Path(__file__).parent),
]

from tiny import bert, checkpoints, loaded

__all__ = ["bert", "checkpoints", "loaded"]
