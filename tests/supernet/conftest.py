"""Fixtures of tiny models."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parent))  # folders of tests are no packages

from tiny import bert, checkpoints, family, loaded, supernet

__all__ = ["bert", "checkpoints", "family", "loaded", "supernet"]
