"""What to ask SageMaker for: training jobs and tuning jobs."""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from rlnas.errors import RequestError
from rlnas.sagemaker.checking import check_request, instance_types
from rlnas.sagemaker.hyperparameters import check_hyperparameters, check_no_secret
from rlnas.sagemaker.metrics import METRICS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rlnas.sagemaker.storage import Place
    from rlnas.sagemaker.tuning import Tuning

MAX_RUN_SECONDS = 28 * 24 * 3600
"""The longest that SageMaker lets a training job run."""

_ROLE = re.compile(r"arn:aws[a-z-]*:iam::\d{12}:role/[\w+=,.@/-]+", re.ASCII)
_NAME = re.compile(r"[a-zA-Z0-9](-*[a-zA-Z0-9])*")
_IMAGE = re.compile(r"[\w.-]+(:\d+)?(/[\w.-]+)*(:[\w.-]+|@sha256:[0-9a-f]{64})?", re.ASCII)
_SUBNET, _GROUP = re.compile(r"subnet-[0-9a-f]+"), re.compile(r"sg-[0-9a-f]+")


@dataclass(frozen=True, slots=True)
class Machines:
    """What a job runs on, and for how long.

    Attributes:
        instance_type: E.g. ``"ml.g5.xlarge"``.
        count: Instances; the first one searches.
        volume_gb: Size of each one's disk.
        max_run_s: Seconds after which the job is stopped.
        max_wait_s: With spot instances: seconds after which the job is stopped, waiting included. None for
            instances that stay.
        subnets: Of the VPC that the instances are put into; none for no VPC.
        security_groups: Likewise.
        isolated: Whether the containers reach no network but each other: then no hub, only channels.

    Raises:
        RequestError: If a value cannot be, or does not go with another one.
    """

    instance_type: str
    count: int = 1
    volume_gb: int = 30
    max_run_s: int = 24 * 3600
    max_wait_s: int | None = None
    subnets: tuple[str, ...] = ()
    security_groups: tuple[str, ...] = ()
    isolated: bool = False

    def __post_init__(self) -> None:
        known = instance_types()
        if self.instance_type not in known:
            close = difflib.get_close_matches(self.instance_type, known, n=1)
            hint = f"; did you mean {close[0]}?" if close else ", such as ml.g5.xlarge"
            raise RequestError(
                f"--instance-type={self.instance_type} is no kind of machine that trains{hint}"
            )
        for flag, value, least in (
            ("--instance-count", self.count, 1),
            ("--volume-gb", self.volume_gb, 1),
            ("--max-run", self.max_run_s, 1),
        ):
            if value < least:
                raise RequestError(f"{flag} must be at least {least}, but got {flag}={value}")
        if self.max_run_s > MAX_RUN_SECONDS:
            raise RequestError(
                f"--max-run={self.max_run_s} is longer than the {MAX_RUN_SECONDS} seconds (28 days) that a "
                "training job may take; launch it again with --resume when it has ended"
            )
        if self.max_wait_s is not None and self.max_wait_s < self.max_run_s:
            raise RequestError(
                f"--max-wait={self.max_wait_s} is less than --max-run={self.max_run_s}, which it includes; "
                "raise it, or lower the other one"
            )
        self._check_network()

    def _check_network(self) -> None:
        if bool(self.subnets) != bool(self.security_groups):
            there, lacking = (
                ("--subnet", "--security-group")
                if self.subnets
                else (
                    "--security-group",
                    "--subnet",
                )
            )
            raise RequestError(f"{there} needs {lacking} too: a VPC is named by both")
        for flag, names, pattern, example in (
            ("--subnet", self.subnets, _SUBNET, "subnet-0123456789abcdef0"),
            ("--security-group", self.security_groups, _GROUP, "sg-0123456789abcdef0"),
        ):
            for name in names:
                if not pattern.fullmatch(name):
                    raise RequestError(f"{flag}={name} is none; it has a form such as {example}")


@dataclass(frozen=True, slots=True)
class TrainingJob:
    """One training job.

    Attributes:
        name: Of the job, which no other one of the account and region may have had.
        image: Address of the container image, with an executable ``train`` on its path.
        role: ARN of the role that the job has.
        machines: What it runs on.
        hyperparameters: See `rlnas.sagemaker.hyperparameters`.
        channels: Where the content of each input channel lies.
        output: Where artefacts go.
        checkpoints: Where checkpoints go, and come from.
        tags: For bills and permissions.

    Raises:
        RequestError: If a value cannot be, or looks like a credential.
    """

    name: str
    image: str
    role: str
    machines: Machines
    hyperparameters: Mapping[str, str]
    channels: Mapping[str, Place]
    output: Place
    checkpoints: Place
    tags: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not _ROLE.fullmatch(self.role):
            raise RequestError(
                f"--role={self.role} is no ARN of a role; its form is arn:aws:iam::123456789012:role/name"
            )
        if not _IMAGE.fullmatch(self.image):
            raise RequestError(
                f"--image={self.image} is no address of an image; it has the form "
                "123456789012.dkr.ecr.eu-west-1.amazonaws.com/rlnas:tag"
            )
        check_hyperparameters(self.hyperparameters)
        for key, value in self.tags.items():
            if key.lower().startswith("aws:"):
                raise RequestError(f"--tag={key}={value} begins with aws:, which is AWS's own; rename it")
            check_no_secret(f"the tag {key}", value, key)


def check_name(name: str, longest: int) -> None:
    """Refuse a name that no job can have.

    Args:
        name: Of a run, to which the time of the launch is added.
        longest: Characters that it may have.

    Raises:
        RequestError: If it is one.
    """
    if not _NAME.fullmatch(name) or len(name) > longest:
        raise RequestError(
            f"--name={name!r} must be 1 to {longest} letters, digits and hyphens between these; "
            "the time of the launch is added to it"
        )


def training_request(job: TrainingJob) -> dict[str, Any]:
    """The request that creates a training job, checked.

    Raises:
        RequestError: If SageMaker would refuse it.
    """
    request: dict[str, Any] = {
        "TrainingJobName": job.name,
        "HyperParameters": dict(job.hyperparameters),
        **_definition(job),
    }
    if job.tags:
        request["Tags"] = _tags(job.tags)
    check_request("CreateTrainingJob", request)
    return request


def tuning_request(job: TrainingJob, tuning: Tuning) -> dict[str, Any]:
    """The request that creates a tuning job, whose training jobs are like this one, checked.

    Args:
        job: Its name is that of the tuning job.
        tuning: What is tried out.

    Raises:
        RequestError: If SageMaker would refuse it, or a value that is tried out looks like a credential.
    """
    for choice in tuning.choices:
        for value in choice.values:
            check_hyperparameters({choice.name: value})
    request: dict[str, Any] = {
        "HyperParameterTuningJobName": job.name,
        "HyperParameterTuningJobConfig": tuning.to_config(job.hyperparameters),
        "TrainingJobDefinition": {"StaticHyperParameters": dict(job.hyperparameters), **_definition(job)},
    }
    if job.tags:
        request["Tags"] = _tags(job.tags)
    check_request("CreateHyperParameterTuningJob", request)
    return request


def _definition(job: TrainingJob) -> dict[str, Any]:
    """What both kinds of jobs say of a training job.

    Places have a slash at their end, as the service may take all keys that begin like them: ``data`` would
    bring ``data2`` along.
    """
    machines = job.machines
    stopping = {"MaxRuntimeInSeconds": machines.max_run_s}
    if machines.max_wait_s is not None:
        stopping["MaxWaitTimeInSeconds"] = machines.max_wait_s
    definition: dict[str, Any] = {
        "AlgorithmSpecification": {
            "TrainingImage": job.image,
            "TrainingInputMode": "File",
            "MetricDefinitions": [metric.definition for metric in METRICS],
        },
        "RoleArn": job.role,
        "OutputDataConfig": {"S3OutputPath": job.output.uri},
        "ResourceConfig": {
            "InstanceType": machines.instance_type,
            "InstanceCount": machines.count,
            "VolumeSizeInGB": machines.volume_gb,
        },
        "StoppingCondition": stopping,
        "CheckpointConfig": {"S3Uri": f"{job.checkpoints.uri}/"},
        "EnableManagedSpotTraining": machines.max_wait_s is not None,
        "EnableNetworkIsolation": machines.isolated,
    }
    if job.channels:
        definition["InputDataConfig"] = [_channel(name, place) for name, place in job.channels.items()]
    if machines.subnets:
        definition["VpcConfig"] = {
            "Subnets": list(machines.subnets),
            "SecurityGroupIds": list(machines.security_groups),
        }
    return definition


def _channel(name: str, place: Place) -> dict[str, Any]:
    source = {"S3DataType": "S3Prefix", "S3Uri": f"{place.uri}/"}
    return {"ChannelName": name, "DataSource": {"S3DataSource": source}, "InputMode": "File"}


def _tags(tags: Mapping[str, str]) -> list[dict[str, str]]:
    return [{"Key": key, "Value": value} for key, value in tags.items()]
