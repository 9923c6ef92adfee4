"""Fixtures of tiny models."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "supernet"))  # folders of tests are no packages

from tiny import bert, checkpoints, loaded

__all__ = ["bert", "checkpoints", "loaded"]
