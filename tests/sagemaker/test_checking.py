from __future__ import annotations

import re
import sys

import botocore.session
import pytest

from rlnas.errors import MissingDependencyError, RequestError
from rlnas.sagemaker import checking
from rlnas.sagemaker.checking import check_request, instance_types

GOOD = {
    "TrainingJobName": "demo-1",
    "RoleArn": "arn:aws:iam::123456789012:role/x",
    "AlgorithmSpecification": {"TrainingImage": "image", "TrainingInputMode": "File"},
    "OutputDataConfig": {"S3OutputPath": "s3://bucket/out"},
    "ResourceConfig": {"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 30},
    "StoppingCondition": {"MaxRuntimeInSeconds": 60},
    "Tags": [{"Key": "größe", "Value": "très petit"}],
}


def test_a_good_request_passes():
    check_request("CreateTrainingJob", GOOD)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"TrainingJobName": "-x"}, "CreateTrainingJob.TrainingJobName='-x' does not match [a-zA-Z0-9](-*"),
        (
            {"TrainingJobName": "x" * 64},
            f"TrainingJobName must have at most 63 characters, but has 64: '{'x' * 59}...",
        ),
        ({"TrainingJobName": 3}, "CreateTrainingJob.TrainingJobName must be a string, but is 3"),
        ({"RoleArn": None}, "CreateTrainingJob.RoleArn must be a string, but is None"),
        ({"Rolearn": 1}, "CreateTrainingJob has no member Rolearn, but got 1; did you mean RoleArn?"),
        ({"OutputDataConfig": {}}, "CreateTrainingJob.OutputDataConfig lacks S3OutputPath"),
        (
            {"ResourceConfig": {"InstanceType": "ml.m5.lrge"}},
            "ResourceConfig.InstanceType='ml.m5.lrge' is not among the choices; did you mean",
        ),
        (
            {"AlgorithmSpecification": {"TrainingInputMode": "Zebra"}},
            "TrainingInputMode='Zebra' is not among the choices; give one of Pipe, File, FastFile",
        ),
        (
            {"ResourceConfig": {"InstanceCount": True}},
            "CreateTrainingJob.ResourceConfig.InstanceCount must be a integer, but is True",
        ),
        (
            {"StoppingCondition": {"MaxRuntimeInSeconds": 0}},
            "CreateTrainingJob.StoppingCondition.MaxRuntimeInSeconds must be at least 1, but is 0",
        ),
        (
            {"StoppingCondition": {"MaxPendingTimeInSeconds": 9_000_000}},
            "MaxPendingTimeInSeconds must be at most 2,419,200, but is 9000000",
        ),
        ({"Tags": [{"Key": "a#b", "Value": ""}]}, "CreateTrainingJob.Tags[0].Key='a#b' does not match"),
        (
            {"HyperParameters": {"a": "x\ny"}},
            "CreateTrainingJob.HyperParameters.a='x\\ny' does not match .*",
        ),
        ({"HyperParameters": {"a" * 257: "1"}}, "a name in CreateTrainingJob.HyperParameters must have at"),
        (
            {"InputDataConfig": []},
            "CreateTrainingJob.InputDataConfig must have at least 1 entries, but has 0",
        ),
    ],
)
def test_what_the_service_would_refuse_is_refused_with_its_value(change, message):
    with pytest.raises(RequestError, match=re.escape(message)) as refusal:
        check_request("CreateTrainingJob", {**GOOD, **change})
    assert str(refusal.value).endswith("; nothing was sent")


def test_a_missing_member_is_named():
    with pytest.raises(RequestError, match="CreateTrainingJob lacks RoleArn"):
        check_request("CreateTrainingJob", {name: GOOD[name] for name in GOOD if name != "RoleArn"})


def test_every_pattern_of_what_we_ask_for_can_be_read():
    service = botocore.session.get_session().get_service_model("sagemaker")
    seen, waiting, n_patterns = set(), [], 0
    for operation in ("CreateTrainingJob", "CreateHyperParameterTuningJob"):
        waiting.append(service.operation_model(operation).input_shape)
    while waiting:
        shape = waiting.pop()
        if shape.name in seen:
            continue
        seen.add(shape.name)
        if "pattern" in shape.metadata:
            checking._python_pattern(shape.metadata["pattern"])
            n_patterns += 1
        waiting += list(getattr(shape, "members", {}).values())
        waiting += [getattr(shape, each) for each in ("member", "key", "value") if hasattr(shape, each)]
    assert n_patterns > 40


def test_machines_that_train_are_known():
    assert {"ml.m5.large", "ml.g5.xlarge"} <= set(instance_types())


def test_without_boto3_the_command_that_installs_it_is_told(monkeypatch):
    checking._service.cache_clear()
    monkeypatch.setitem(sys.modules, "botocore.session", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'rlnas\[sagemaker\]'"):
        instance_types()
