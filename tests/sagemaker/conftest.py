"""A tiny world, S3 in memory, and a stand-in for the service that runs jobs as processes."""

from __future__ import annotations

import sys
from pathlib import Path

import boto3
import pytest
from moto import mock_aws

# Folders of tests are no packages; the stand-in lies with the benchmark that uses it too.
sys.path += [
    *(str(Path(__file__).parents[1] / name) for name in ("sagemaker", "run")),
    str(Path(__file__).parents[2]),
]

from deep_world import BUCKET, make_deep_world

from benchmarks.sagemaker_stand_in import StandIn


@pytest.fixture(scope="session")
def world(tmp_path_factory):
    return make_deep_world(tmp_path_factory.mktemp("world"))


@pytest.fixture
def aws(monkeypatch):
    """AWS without a network: S3 in memory, no files of whoever runs the tests."""
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL", "AWS_REGION"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-1")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nowhere/config")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nowhere/credentials")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with mock_aws():
        boto3.client("s3").create_bucket(
            Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": "eu-west-1"}
        )
        yield


@pytest.fixture
def service(aws, tmp_path, monkeypatch):
    """The stand-in, which boto3 takes for SageMaker."""
    with StandIn(tmp_path / "sagemaker") as service:
        monkeypatch.setenv("AWS_ENDPOINT_URL_SAGEMAKER", service.endpoint)
        yield service


@pytest.fixture
def node(monkeypatch):
    """Stands in the place of Ray's processes: what it was made of, and what became of it."""
    told = []

    class Node:
        ready = True

        def __init__(self, *arguments):
            told.append(arguments)

        def is_ready(self, _seconds=0.0):
            if isinstance(self.ready, Exception):
                raise self.ready
            return self.ready

        def close(self):
            told.append("closed")

    for user in ("helping", "leading"):
        monkeypatch.setattr(f"rlnas.sagemaker.{user}.Node", Node)
    return told
