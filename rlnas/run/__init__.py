"""The main job from checkpoint to certified subnet, in one run folder."""

from __future__ import annotations

from rlnas.run.job import Control, DataSource, Job, Schedule, Torchrun
from rlnas.run.pipeline import run_job

__all__ = ["Control", "DataSource", "Job", "Schedule", "Torchrun", "run_job"]
