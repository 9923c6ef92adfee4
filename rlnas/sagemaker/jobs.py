"""Jobs that are there: how they are, what they say, their end, and what they have made."""

from __future__ import annotations

import os
import tarfile
import tempfile
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlnas.errors import CloudError, RunFolderError
from rlnas.sagemaker.checkpoints import FILES, SNAPSHOT, Snapshot, read_snapshots, restore
from rlnas.sagemaker.service import answered, is_absent
from rlnas.sagemaker.storage import Place, download, keys
from rlnas.sagemaker.tuned import best_of, tuning_lines

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from botocore.client import BaseClient

LOG_GROUP = "/aws/sagemaker/TrainingJobs"
ATTEMPTS = 20
"""Snapshots that are tried, each the latest one that is there, until one could be copied whole."""


def describe(sagemaker: BaseClient, job: str) -> tuple[str, Mapping[str, Any]]:
    """What the service says of a job.

    Returns:
        ``"training"`` or ``"tuning"``, and its answer.

    Raises:
        CloudError: If there is no such job, or the service refuses or cannot be reached.
    """
    try:
        with answered(f"look up the job {job}"):
            return "training", sagemaker.describe_training_job(TrainingJobName=job)
    except CloudError as error:
        if not is_absent(error) or len(job) > 32:  # which no tuning job's name may be
            raise
    with answered(f"look up the job {job}"):
        return "tuning", sagemaker.describe_hyper_parameter_tuning_job(HyperParameterTuningJobName=job)


def status_lines(sagemaker: BaseClient, job: str) -> list[str]:
    """How a job is, line by line.

    Raises:
        CloudError: As for `describe`.
    """
    kind, found = describe(sagemaker, job)
    return tuning_lines(sagemaker, job, found) if kind == "tuning" else _training_lines(job, found)


def stop(sagemaker: BaseClient, job: str) -> None:
    """Ask a job to end; it saves what it has.

    Raises:
        CloudError: As for `describe`.
    """
    kind, _ = describe(sagemaker, job)
    with answered(f"stop the job {job}"):
        if kind == "tuning":
            sagemaker.stop_hyper_parameter_tuning_job(HyperParameterTuningJobName=job)
        else:
            sagemaker.stop_training_job(TrainingJobName=job)


def log_lines(sagemaker: BaseClient, logs: BaseClient, job: str) -> Iterator[str]:
    """What the hosts of a training job have written, with their names where there are several.

    Args:
        sagemaker: Client of the service.
        logs: Client of CloudWatch's logs.
        job: A training job, or a tuning job, which stands for its best training job so far.

    Raises:
        CloudError: If there is no such job or no log yet, no training job of a tuning job has been
            completed yet, or a service refuses or cannot be reached.
    """
    job, _ = _training_job(sagemaker, job)
    with answered(f"read the log of the job {job}"):
        pages = logs.get_paginator("filter_log_events").paginate(
            logGroupName=LOG_GROUP, logStreamNamePrefix=f"{job}/"
        )
        found = [event for page in pages for event in page["events"]]
    events = [event for event in found if event["logStreamName"].startswith(f"{job}/")]
    if not events:
        raise CloudError(f"the job {job} has written nothing yet; a container takes minutes to start")
    hosts = {event["logStreamName"] for event in events}
    for event in events:
        host = event["logStreamName"].partition("/")[2].rpartition("-")[0]
        yield f"{host}: {event['message']}" if len(hosts) > 1 else event["message"]


def fetch(sagemaker: BaseClient, s3: BaseClient, job: str, out: Path) -> str:
    """Bring a run back: its whole folder from the checkpoints, or else the model alone.

    A job that still runs has checkpoints too.

    Args:
        sagemaker: Client of the service.
        s3: Client of S3.
        job: A training job, or a tuning job, which stands for its best training job so far.
        out: Folder to make.

    Returns:
        A sentence that says what it is.

    Raises:
        RunFolderError: If the folder is there already, or the checkpoints are damaged.
        CloudError: If the job has made nothing yet, no training job of a tuning job has been completed yet,
            or a service refuses.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise RunFolderError(f"{str(out)!r} is there already; give another folder (--out)")
    name, found = _training_job(sagemaker, job)
    told = _fetch_run(s3, name, found, out)
    return told if name == job else f"{name}, the best so far: {told}"


def _training_job(sagemaker: BaseClient, job: str) -> tuple[str, Mapping[str, Any]]:
    """A training job as it is: the named one, or the best of a tuning job."""
    kind, found = describe(sagemaker, job)
    if kind == "training":
        return job, found
    best = best_of(job, found)
    with answered(f"look up the job {best}"):
        return best, sagemaker.describe_training_job(TrainingJobName=best)


def _fetch_run(s3: BaseClient, job: str, found: Mapping[str, Any], out: Path) -> str:
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=".fetch-") as folder:
        place = _checkpoints(job, found)
        if place is not None:
            _copy_latest(s3, place, Path(folder))
            snapshot = restore(Path(folder), out)
            if snapshot is not None:
                return f"the run as of {snapshot.name}, {len(snapshot.files)} files"
        return _fetch_model(s3, job, found, Path(folder), out)


def _checkpoints(job: str, found: Mapping[str, Any]) -> Place | None:
    uri = found.get("CheckpointConfig", {}).get("S3Uri")
    if uri is None:
        return None
    place = Place.parse(uri)
    return place / job if found.get("TuningJobArn") else place


def _copy_latest(s3: BaseClient, place: Place, folder: Path) -> None:
    """Copy the latest whole snapshot, if there is one, and what others that went meanwhile have left."""
    tried: set[str] = set()
    for _ in range(ATTEMPTS):
        listed = {key.rpartition("/")[2]: key for key in keys(s3, place)}
        latest = max((name for name in listed.keys() - tried if SNAPSHOT.fullmatch(name)), default=None)
        if latest is None:
            return
        tried.add(latest)
        if not download(s3, place.bucket, listed[latest], folder / latest):
            continue
        snapshot = next((one for one in read_snapshots(folder) if one.name == latest), None)
        if snapshot is not None and _has_contents(s3, place.bucket, listed[latest], snapshot, folder):
            return
    raise CloudError(
        f"none of {ATTEMPTS} snapshots in {place.uri} could be copied whole before it went; stop the job "
        "first, or come from a faster network"
    )


def _has_contents(s3: BaseClient, bucket: str, key: str, snapshot: Snapshot, folder: Path) -> bool:
    """Copy what a snapshot lists and is not here yet; False once something is missing."""
    beside = key.removesuffix(snapshot.name)
    for digest in {stored.digest for stored in snapshot.files.values()}:
        path = folder / FILES / digest
        if not path.is_file() and not download(s3, bucket, f"{beside}{FILES}/{digest}", path):
            return False
    return True


def _fetch_model(s3: BaseClient, job: str, found: Mapping[str, Any], folder: Path, out: Path) -> str:
    uri = found.get("ModelArtifacts", {}).get("S3ModelArtifacts")
    status = found["TrainingJobStatus"]
    if uri is None or status in ("InProgress", "Stopping"):
        raise CloudError(f"the job {job} ({status}) has left no checkpoint yet; look again later")
    place, archive = Place.parse(uri), folder / "model.tar.gz"
    with answered(f"read {uri}"):
        s3.download_file(place.bucket, place.key, str(archive))
    try:
        with tarfile.open(archive) as packed:
            packed.extractall(folder / "model", filter="data")
        os.replace(folder / "model", out)  # whole or not at all
    except (tarfile.TarError, zlib.error, EOFError, OSError) as error:
        raise CloudError(f"cannot unpack {uri}: {error}") from error
    return "the model alone: there are no checkpoints"


def _training_lines(job: str, found: Mapping[str, Any]) -> list[str]:
    lines = [f"{job}: {found['TrainingJobStatus']}, {found.get('SecondaryStatus', 'no details')}"]
    if transitions := found.get("SecondaryStatusTransitions"):
        lines.append(f"last message: {transitions[-1].get('StatusMessage', '')}")
    if reason := found.get("FailureReason"):
        lines.append(f"failed: {reason}")
    if seconds := found.get("TrainingTimeInSeconds"):
        billed = found.get("BillableTimeInSeconds", seconds)
        lines.append(f"seconds: {seconds} of training, {billed} of them on the bill")
    lines += [f"{one['MetricName']}: {one['Value']:g}" for one in found.get("FinalMetricDataList", ())]
    if uri := found.get("CheckpointConfig", {}).get("S3Uri"):
        lines.append(f"checkpoints: {uri}")
    if found["TrainingJobStatus"] == "Completed":
        lines.append(f"model: {found['ModelArtifacts']['S3ModelArtifacts']}")
    return lines
