"""Tuning jobs that are there: which settings their training jobs have, what came of them, and the best."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rlnas.errors import CloudError
from rlnas.sagemaker.service import answered

if TYPE_CHECKING:
    from collections.abc import Mapping

    from botocore.client import BaseClient


def tuning_lines(sagemaker: BaseClient, job: str, found: Mapping[str, Any]) -> list[str]:
    """How a tuning job is, line by line: itself, each of its training jobs, and the best of them.

    Args:
        sagemaker: Client of the service.
        job: Name of the tuning job.
        found: What the service says of it.

    Raises:
        CloudError: If the service refuses or cannot be reached.
    """
    counts = {name: count for name, count in found.get("TrainingJobStatusCounters", {}).items() if count}
    told = ", ".join(f"{name} {count}" for name, count in sorted(counts.items()))
    lines = [f"{job}: {found['HyperParameterTuningJobStatus']}", f"training jobs: {told or 'none yet'}"]
    lines += [f"{one['TrainingJobName']}: {_told(one)}" for one in _training_jobs(sagemaker, job)]
    if best := found.get("BestTrainingJob"):
        lines.append(f"best: {best['TrainingJobName']}, {_told(best)}")
    if reason := found.get("FailureReason"):
        lines.append(f"failed: {reason}")
    return lines


def best_of(job: str, found: Mapping[str, Any]) -> str:
    """Name of the training job of a tuning job that is the best one so far.

    Args:
        job: Name of the tuning job.
        found: What the service says of it.

    Raises:
        CloudError: If none has been completed yet.
    """
    best = found.get("BestTrainingJob", {}).get("TrainingJobName")
    if best is None:
        raise CloudError(
            f"no training job of {job} has been completed yet; name one of them "
            f"(rlnas sagemaker status {job} lists them), or come back later"
        )
    return str(best)


def _training_jobs(sagemaker: BaseClient, job: str) -> list[Mapping[str, Any]]:
    with answered(f"list the training jobs of {job}"):
        pages = sagemaker.get_paginator("list_training_jobs_for_hyper_parameter_tuning_job").paginate(
            HyperParameterTuningJobName=job
        )
        return [one for page in pages for one in page["TrainingJobSummaries"]]


def _told(one: Mapping[str, Any]) -> str:
    """Status, value and settings of a training job."""
    value = one.get("FinalHyperParameterTuningJobObjectiveMetric")
    settings = " ".join(f"--{name}={text}" for name, text in sorted(one["TunedHyperParameters"].items()))
    told = f"{one['TrainingJobStatus']}, "
    told += f"{value['MetricName']} {value['Value']:g} with {settings}" if value else f"with {settings}"
    return f"{told}; {reason}" if (reason := one.get("FailureReason")) else told
