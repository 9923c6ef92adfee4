"""The choice of a checkpoint and how it is trained, before the search for its architecture; one budget."""

from __future__ import annotations

from rlnas.auto.arms import Arm, parse_arm
from rlnas.auto.job import AutoJob
from rlnas.auto.pipeline import run_auto

__all__ = ["Arm", "AutoJob", "parse_arm", "run_auto"]
