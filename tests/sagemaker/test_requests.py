from __future__ import annotations

import re

import pytest

from rlnas.errors import RequestError
from rlnas.sagemaker.requests import Machines, TrainingJob, check_name, training_request, tuning_request
from rlnas.sagemaker.storage import Place
from rlnas.sagemaker.tuning import Choice, Range, Tuning

MACHINES = Machines("ml.g5.xlarge")


def job(**changes):
    return TrainingJob(
        **{
            "name": "demo-20260102-030405",
            "image": "123456789012.dkr.ecr.eu-west-1.amazonaws.com/rlnas:1",
            "role": "arn:aws:iam::123456789012:role/service-role/rlnas",
            "machines": MACHINES,
            "hyperparameters": {"budget": "3"},
            "channels": {"task": Place("bucket", "run/data")},
            "output": Place("bucket", "run/output"),
            "checkpoints": Place("bucket", "run/checkpoints"),
            **changes,
        }
    )


def test_a_training_request_says_it_all():
    machines = Machines(
        "ml.g5.xlarge",
        count=2,
        volume_gb=50,
        max_run_s=3600,
        max_wait_s=7200,
        subnets=("subnet-0a", "subnet-0b"),
        security_groups=("sg-01",),
        isolated=True,
    )
    request = training_request(job(machines=machines, tags={"team": "search"}))
    metrics = request["AlgorithmSpecification"].pop("MetricDefinitions")
    assert {metric["Name"] for metric in metrics} >= {"rlnas:best_reward", "rlnas:accuracy"}
    assert request == {
        "TrainingJobName": "demo-20260102-030405",
        "HyperParameters": {"budget": "3"},
        "AlgorithmSpecification": {
            "TrainingImage": "123456789012.dkr.ecr.eu-west-1.amazonaws.com/rlnas:1",
            "TrainingInputMode": "File",
        },
        "RoleArn": "arn:aws:iam::123456789012:role/service-role/rlnas",
        "InputDataConfig": [
            {
                "ChannelName": "task",
                "InputMode": "File",
                "DataSource": {
                    "S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": "s3://bucket/run/data/"}
                },
            }
        ],
        "OutputDataConfig": {"S3OutputPath": "s3://bucket/run/output"},
        "ResourceConfig": {"InstanceType": "ml.g5.xlarge", "InstanceCount": 2, "VolumeSizeInGB": 50},
        "StoppingCondition": {"MaxRuntimeInSeconds": 3600, "MaxWaitTimeInSeconds": 7200},
        "CheckpointConfig": {"S3Uri": "s3://bucket/run/checkpoints/"},
        "EnableManagedSpotTraining": True,
        "EnableNetworkIsolation": True,
        "VpcConfig": {"Subnets": ["subnet-0a", "subnet-0b"], "SecurityGroupIds": ["sg-01"]},
        "Tags": [{"Key": "team", "Value": "search"}],
    }


def test_what_is_not_asked_for_is_not_in_the_request():
    request = training_request(job(channels={}))
    assert not {"VpcConfig", "Tags", "InputDataConfig"} & set(request)
    assert request["StoppingCondition"] == {"MaxRuntimeInSeconds": 86400}
    assert request["EnableManagedSpotTraining"] is False


def test_a_secret_is_not_tried_out_either():
    tuning = Tuning(choices=(Choice("task", ("sst2", "AKIA" + "ABCDEFGH" * 2)),))
    with pytest.raises(RequestError, match=r"^task looks like an AWS access key, and everyone who may"):
        tuning_request(job(name="demo-0102-030405"), tuning)


def test_a_tuning_request_has_the_same_definition():
    tuning = Tuning(ranges=(Range("learning-rate", "1e-5", "1e-3", logarithmic=True),), max_jobs=6)
    request = tuning_request(job(name="demo-0102-030405", tags={"a": "b"}), tuning)
    training = training_request(job())
    definition = request["TrainingJobDefinition"]
    assert definition.pop("StaticHyperParameters") == training.pop("HyperParameters")
    assert training.pop("TrainingJobName")
    assert definition == training
    assert request["HyperParameterTuningJobConfig"]["ResourceLimits"] == {
        "MaxNumberOfTrainingJobs": 6,
        "MaxParallelTrainingJobs": 1,
    }
    assert request["Tags"] == [{"Key": "a", "Value": "b"}]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"instance_type": "g5.xlarge"},
            "--instance-type=g5.xlarge is no kind of machine that trains; did yo",
        ),
        (
            {"instance_type": "x"},
            "--instance-type=x is no kind of machine that trains, such as ml.g5.xlarge",
        ),
        ({"count": 0}, "--instance-count must be at least 1, but got --instance-count=0"),
        ({"volume_gb": 0}, "--volume-gb must be at least 1, but got --volume-gb=0"),
        ({"max_run_s": 0}, "--max-run must be at least 1, but got --max-run=0"),
        (
            {"max_run_s": 2419201},
            "--max-run=2419201 is longer than the 2419200 seconds (28 days) that a trai",
        ),
        (
            {"max_wait_s": 60},
            "--max-wait=60 is less than --max-run=86400, which it includes; raise it, or lo",
        ),
        ({"subnets": ("subnet-1",)}, "--subnet needs --security-group too: a VPC is named by both"),
        ({"security_groups": ("sg-1",)}, "--security-group needs --subnet too: a VPC is named by both"),
        (
            {"subnets": ("vpc-1",), "security_groups": ("sg-1",)},
            "--subnet=vpc-1 is none; it has a form such as subnet-0123456789abcdef0",
        ),
        (
            {"subnets": ("subnet-1",), "security_groups": ("default",)},
            "--security-group=default is none; it has a form such as sg-0123456789abcdef0",
        ),
    ],
)
def test_machines_that_cannot_be_are_refused(change, message):
    with pytest.raises(RequestError, match=f"^{re.escape(message)}"):
        Machines(**{"instance_type": "ml.g5.xlarge", **change})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"role": "rlnas"},
            "--role=rlnas is no ARN of a role; its form is arn:aws:iam::123456789012:role/name",
        ),
        ({"role": "arn:aws:iam::12:role/x"}, "--role=arn:aws:iam::12:role/x is no ARN of a role"),
        (
            {"image": "https://x/y"},
            "--image=https://x/y is no address of an image; it has the form 1234567890",
        ),
        ({"tags": {"aws:x": "y"}}, "--tag=aws:x=y begins with aws:, which is AWS's own; rename it"),
        ({"tags": {"secret": "y"}}, "the tag secret looks like a secret, by its name"),
        ({"hyperparameters": {"a": "x" * 2501}}, "a hyper-parameter has 2500 characters at most"),
    ],
)
def test_jobs_that_cannot_be_are_refused(change, message):
    with pytest.raises(RequestError, match=f"^{re.escape(message)}"):
        job(**change)


@pytest.mark.parametrize(
    "image", ["rlnas", "rlnas:1", "host:5000/a/b:tag", f"1.dkr.ecr.eu.amazonaws.com/r@sha256:{'0' * 64}"]
)
def test_addresses_of_images_are_known(image):
    assert training_request(job(image=image))["AlgorithmSpecification"]["TrainingImage"] == image


@pytest.mark.parametrize("name", ["", "-a", "a-", "a_b", "x" * 48])
def test_a_name_that_no_job_can_have_is_refused(name):
    message = f"--name={name!r} must be 1 to 47 letters, digits and hyphens between these; the time of the"
    with pytest.raises(RequestError, match=f"^{re.escape(message)}"):
        check_name(name, 47)
    check_name("x" * 47, 47)
