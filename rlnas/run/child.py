"""What a process of a run gets from the one that starts it: the training part of the job, and its end."""

from __future__ import annotations

import os
import sys
import threading
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rlnas.controllers.random import RandomController
from rlnas.rewards import LinearPenalty
from rlnas.run.job import Job, Schedule
from rlnas.workload import Workload

if TYPE_CHECKING:
    from collections.abc import Mapping


def describe_training(job: Job) -> dict[str, Any]:
    """The settings of a job that its trainings depend on, as plain values for JSON."""
    return {
        "model": str(job.model),
        "device": job.device,
        "seed": job.seed,
        "pooling": job.pooling,
        "trust_remote_code": job.trust_remote_code,
        "from_run": job.from_run,
        "workload": asdict(job.workload),
        "precisions": job.precisions,
        "schedule": asdict(job.schedule),
    }


def training_job(values: Mapping[str, Any]) -> Job:
    """Inverse of `describe_training`: a job that trains alike; it is not to be searched with."""
    settings = {
        **values,
        "workload": Workload(**values["workload"]),
        "schedule": Schedule(**values["schedule"]),
        "precisions": tuple(values["precisions"]),
    }
    return Job(reward=LinearPenalty(), controller=RandomController(), **settings)


def end_with_parent() -> None:
    """End this process when the one behind its standard input does, however that ends."""
    threading.Thread(target=_exit_behind_input, daemon=True).start()


def _exit_behind_input() -> None:
    sys.stdin.read()
    os._exit(1)
