"""From the wishes of a user to a job that runs: what to upload, what to ask for, and then doing so."""

from __future__ import annotations

import os
import re
import secrets
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlnas.data.load import PYDOCS
from rlnas.errors import RequestError
from rlnas.sagemaker.hyperparameters import CHANNEL, CODE_DIGEST, HOSTS_KEY
from rlnas.sagemaker.packing import pack_code
from rlnas.sagemaker.requests import Machines, TrainingJob, check_name, training_request, tuning_request
from rlnas.sagemaker.service import answered
from rlnas.sagemaker.starting import CODE_CHANNEL
from rlnas.sagemaker.storage import Place, digest_of_files, files_below, keys, upload

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping
    from datetime import datetime

    from botocore.client import BaseClient

    from rlnas.sagemaker.tuning import Tuning

LOCAL_FLAGS = ("task", "model", "latency-table", "warm-start", "from-run")
"""Flags of a search that may name something on this machine, which then goes along."""

_BUSY = ("InProgress", "Stopping")
_LONGEST_NAME, _LONGEST_TUNING_NAME = 47, 20
"""What the service's limits leave beside the time that is added."""


@dataclass(frozen=True, slots=True)
class Wishes:
    """What a user wants to run.

    Attributes:
        name: Of the run: jobs with the same name and bucket go on with each other's checkpoints.
        place: Where everything of all runs lies in S3.
        image: See `TrainingJob`.
        role: See `TrainingJob`.
        machines: What the job runs on.
        hyperparameters: Arguments of the search; paths of this machine among them are uploaded.
        channels: Input that lies in S3 already, by the name that ``channel:NAME`` refers to.
        modules: Python files and folders that go along with the code.
        with_code: Whether this package goes along; without, the image's own code runs.
        tags: See `TrainingJob`.
        resume: Whether to go on with the checkpoints that lie there.
    """

    name: str
    place: Place
    image: str
    role: str
    machines: Machines
    hyperparameters: Mapping[str, str]
    channels: Mapping[str, Place]
    modules: tuple[Path, ...]
    with_code: bool
    tags: Mapping[str, str]
    resume: bool

    @property
    def run(self) -> Place:
        """Where this run's files lie."""
        return self.place / self.name


@dataclass(frozen=True, slots=True)
class Prepared:
    """A request that has been checked, and what has to be uploaded before it is sent.

    Attributes:
        name: Of the job.
        operation: Method of the client that sends it.
        request: Its members.
        uploads: Files and folders, and where they go.
        checkpoints: Where the job's checkpoints go.
        run: Name of the run that the job works on, alone; None for a tuning job.
        resume: Whether that run may be there.
    """

    name: str
    operation: str
    request: Mapping[str, Any]
    uploads: tuple[tuple[Path, Place], ...]
    checkpoints: Place
    run: str | None
    resume: bool


def prepare(wishes: Wishes, folder: Path, now: datetime, tuning: Tuning | None = None) -> Prepared:
    """Make and check the request; nothing is sent.

    Args:
        wishes: What to run.
        folder: For the packed code; has to be there until `submit` has uploaded it.
        now: Becomes part of the job's name.
        tuning: What to try out, for a tuning job; None for a training job.

    Raises:
        RequestError: If something cannot be, or SageMaker would refuse it.
    """
    check_name(wishes.name, _LONGEST_NAME if tuning is None else _LONGEST_TUNING_NAME)
    if tuning is not None and wishes.resume:
        raise RequestError("a tuning job cannot go on with an earlier one; leave --resume out")
    inputs = _inputs_of(wishes, folder)
    _check_channels(inputs.hyperparameters.items(), inputs.channels)
    if tuning is not None:
        _check_choices(tuning, inputs.channels)
    _check_code(inputs)
    name = f"{wishes.name}-{now:%Y%m%d-%H%M%S}" if tuning is None else f"{wishes.name}-{now:%m%d-%H%M%S}"
    job = TrainingJob(
        name=name,
        image=wishes.image,
        role=wishes.role,
        machines=wishes.machines,
        hyperparameters=inputs.hyperparameters,
        channels=inputs.channels,
        output=wishes.run / "output",
        checkpoints=wishes.run / ("checkpoints" if tuning is None else f"tuning/{name}"),
        tags=wishes.tags,
    )
    if tuning is None:
        operation, request = "create_training_job", training_request(job)
    else:
        operation, request = "create_hyper_parameter_tuning_job", tuning_request(job, tuning)
    return Prepared(
        name=job.name,
        operation=operation,
        request=request,
        uploads=tuple(inputs.uploads),
        checkpoints=job.checkpoints,
        run=wishes.name if tuning is None else None,
        resume=wishes.resume,
    )


def submit(prepared: Prepared, sagemaker: BaseClient, s3: BaseClient) -> None:
    """Upload what a job needs and create it.

    Args:
        prepared: What to upload and to ask for.
        sagemaker: Client of the service.
        s3: Client of S3.

    Raises:
        RequestError: If another job works on the run, or the run is there and is not to be gone on with.
        CloudError: If a service refuses or cannot be reached.
    """
    if prepared.run is not None:
        _check_idle(prepared.run, prepared.checkpoints, sagemaker)
        if not prepared.resume and keys(s3, prepared.checkpoints):
            raise RequestError(
                f"{prepared.checkpoints.uri} already holds a run; go on with it (--resume), or give "
                "another name (--name)"
            )
    for source, place in prepared.uploads:
        upload(s3, source, place)
    with answered(f"create the job {prepared.name}"):
        getattr(sagemaker, prepared.operation)(**prepared.request)


@dataclass(slots=True)
class _Inputs:
    """What a job is given, while it is put together."""

    hyperparameters: dict[str, str]
    channels: dict[str, Place]
    uploads: list[tuple[Path, Place]] = field(default_factory=list)

    def add(self, name: str, source: Path, place: Place) -> None:
        """Let something of this machine go along as a channel."""
        if name in self.channels:
            raise RequestError(
                f"--channel {name}={self.channels[name].uri} has the name that rlnas gives to what it "
                "uploads; choose another one"
            )
        self.channels[name] = place
        self.uploads.append((source, place))


def _inputs_of(wishes: Wishes, folder: Path) -> _Inputs:
    """Arguments and channels; what lies on this machine goes below digests of its content."""
    inputs = _Inputs(dict(wishes.hyperparameters), dict(wishes.channels))
    for flag in LOCAL_FLAGS:
        value = inputs.hyperparameters.get(flag, "")
        source = Path(value).expanduser()
        if value not in ("", PYDOCS) and os.path.exists(source):  # no error where a name is too long
            _check_source(flag, source)
            inputs.add(flag, source, wishes.run / "data" / flag / digest_of_files(source))
            file = f"/{source.name}" if source.is_file() else ""
            inputs.hyperparameters[flag] = f"{CHANNEL}{flag}{file}"
    if wishes.with_code:
        pack = pack_code(folder, wishes.modules)
        inputs.add(CODE_CHANNEL, pack.path, wishes.run / "code" / pack.digest[:16])
        inputs.hyperparameters[CODE_DIGEST] = pack.digest
    elif wishes.modules:
        raise RequestError(f"--module={wishes.modules[0]} goes along with the code; drop --code image")
    if wishes.machines.count > 1:
        inputs.hyperparameters[HOSTS_KEY] = secrets.token_hex(16)
    return inputs


def _check_source(flag: str, source: Path) -> None:
    if next(files_below(source), None) is None:
        raise RequestError(
            f"--{flag}={source} is a folder here without files, which would go along empty; name another"
        )


def _check_code(inputs: _Inputs) -> None:
    """Refuse code from S3: whoever can write there could run anything with the job's role."""
    model = inputs.hyperparameters.get("model", "")
    if "trust-remote-code" in inputs.hyperparameters and model.startswith(CHANNEL):
        raise RequestError(
            f"--trust-remote-code would run code that lies in S3 with --model={model}, whatever it is; "
            "drop it, or name a model of the hub"
        )


def _check_idle(name: str, checkpoints: Place, sagemaker: BaseClient) -> None:
    """Refuse a second writer of the same checkpoints; another bucket may hold a run of the same name."""
    for job in _busy_jobs(name, sagemaker):
        with answered(f"look up the job {job}"):
            found = sagemaker.describe_training_job(TrainingJobName=job)
        if found.get("CheckpointConfig", {}).get("S3Uri", "").rstrip("/") == checkpoints.uri:
            raise RequestError(
                f"the job {job} still works on the run {name}; stop it first "
                f"(rlnas sagemaker stop {job}), or give another name (--name)"
            )


def _busy_jobs(name: str, sagemaker: BaseClient) -> Iterator[str]:
    """Jobs of runs of this name that have not ended."""
    own = re.compile(rf"{re.escape(name)}-\d{{8}}-\d{{6}}")
    for status in _BUSY:
        with answered("list training jobs"):
            pages = sagemaker.get_paginator("list_training_jobs").paginate(
                NameContains=name, StatusEquals=status
            )
            jobs = [job["TrainingJobName"] for page in pages for job in page["TrainingJobSummaries"]]
        yield from filter(own.fullmatch, jobs)


def _check_choices(tuning: Tuning, channels: Collection[str]) -> None:
    """Refuse values that no job of a tuning job would find: what is tried out does not go along."""
    values = [(choice.name, value) for choice in tuning.choices for value in choice.values]
    _check_channels(values, channels)
    for name, value in values:
        if name in LOCAL_FLAGS and value != PYDOCS and os.path.exists(Path(value).expanduser()):
            raise RequestError(
                f"--choice {name}={value} is on this machine, and what is tried out does not go along; put "
                f"it into S3 (--channel data=s3://bucket/path --choice {name}=channel:data/...)"
            )


def _check_channels(values: Iterable[tuple[str, str]], channels: Collection[str]) -> None:
    for name, value in values:
        channel = value.removeprefix(CHANNEL).partition("/")[0]
        if value.startswith(CHANNEL) and channel not in channels:
            raise RequestError(
                f"--{name}={value} names a channel that is not there; add --channel {channel}=s3://bucket/path"
            )
