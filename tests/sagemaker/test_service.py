from __future__ import annotations

import sys

import boto3
import pytest
from botocore.exceptions import ClientError, EndpointConnectionError

from rlnas.errors import CloudError, MissingDependencyError
from rlnas.sagemaker.service import answered, connect, is_absent


def refusal(code, message="no"):
    return ClientError({"Error": {"Code": code, "Message": message}}, "Operation")


def test_a_client_is_made_for_a_region(aws):
    assert connect("sagemaker").meta.region_name == "eu-west-1"
    assert connect("s3", "us-east-2").meta.region_name == "us-east-2"


def test_without_boto3_the_command_that_installs_it_is_told(monkeypatch):
    monkeypatch.setitem(sys.modules, "boto3", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'rlnas\[sagemaker\]'"):
        connect("s3")


def test_without_a_region_one_is_asked_for(aws, monkeypatch):
    monkeypatch.delenv("AWS_DEFAULT_REGION")
    with pytest.raises(CloudError, match=r"no AWS region is configured; name one \(--region\)"):
        connect("sagemaker")


def test_a_profile_that_is_not_there_is_named(aws, monkeypatch):
    monkeypatch.setenv("AWS_PROFILE", "absent")
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)
    with pytest.raises(CloudError, match=r"cannot connect to s3: .*absent"):
        connect("s3")


def test_a_refusal_says_what_was_asked_and_why_not():
    with (
        pytest.raises(CloudError, match=r"^cannot stop the job x: AccessDenied: not for you$") as error,
        answered("stop the job x"),
    ):
        raise refusal("AccessDenied", "not for you")
    assert not is_absent(error.value)


def test_a_service_that_cannot_be_reached_is_named():
    with pytest.raises(CloudError, match=r"cannot ask: Could not connect to the endpoint"), answered("ask"):
        raise EndpointConnectionError(endpoint_url="http://127.0.0.1:1")


def test_missing_credentials_are_named(monkeypatch):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nowhere")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nowhere")
    client = boto3.session.Session().client("sagemaker", "eu-west-1", endpoint_url="http://127.0.0.1:1")
    with (
        pytest.raises(CloudError, match=r"cannot look: there are no AWS credentials; conf"),
        answered("look"),
    ):
        client.list_training_jobs()


@pytest.mark.parametrize(
    ("code", "message", "absent"),
    [
        ("404", "", True),
        ("NoSuchKey", "", True),
        ("ResourceNotFound", "", True),  # as the description of SageMaker has it
        ("ValidationException", "Requested resource not found.", True),
        ("ValidationException", "a name is too long", False),
    ],
)
def test_what_is_absent_is_told_from_what_is_refused(code, message, absent):
    with pytest.raises(CloudError) as error, answered("look"):
        raise refusal(code, message)
    assert is_absent(error.value) is absent
