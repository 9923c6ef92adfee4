from __future__ import annotations

import boto3
import pytest
from botocore.stub import Stubber

from rlnas.errors import CloudError
from rlnas.sagemaker.tuned import best_of, tuning_lines

ARN = "arn:aws:sagemaker:eu-west-1:123456789012:training-job/x"
OPERATION = "list_training_jobs_for_hyper_parameter_tuning_job"
ASKED = {"HyperParameterTuningJobName": "demo"}
COUNTERS = {"Completed": 1, "InProgress": 1, "RetryableError": 0, "NonRetryableError": 1, "Stopped": 0}


def training_job(name, status, **more):
    settings = {"learning-rate": "1e-4", "controller": "ppo"}
    known = {
        "TrainingJobName": name,
        "TrainingJobArn": ARN,
        "CreationTime": 0,
        "TunedHyperParameters": settings,
    }
    return {**known, "TrainingJobStatus": status, **more}


def objective(value):
    return {
        "FinalHyperParameterTuningJobObjectiveMetric": {"MetricName": "rlnas:best_reward", "Value": value}
    }


DONE = training_job("demo-001", "Completed", **objective(0.71))
RUNNING = training_job("demo-002", "InProgress")
FAILED = training_job("demo-003", "Failed", FailureReason="AlgorithmError: no task")


@pytest.fixture
def stub(aws):
    """A client whose answers are checked against the service's description."""
    client = boto3.client("sagemaker")
    with Stubber(client) as stub:
        yield stub
        stub.assert_no_pending_responses()


def test_each_training_job_of_all_pages_is_shown_with_settings_and_value(stub):
    stub.add_response(OPERATION, {"TrainingJobSummaries": [DONE, RUNNING], "NextToken": "2"}, ASKED)
    stub.add_response(OPERATION, {"TrainingJobSummaries": [FAILED]}, {**ASKED, "NextToken": "2"})
    found = {
        "HyperParameterTuningJobStatus": "InProgress",
        "TrainingJobStatusCounters": COUNTERS,
        "BestTrainingJob": DONE,
        "FailureReason": "too many failures",
    }
    assert tuning_lines(stub.client, "demo", found) == [
        "demo: InProgress",
        "training jobs: Completed 1, InProgress 1, NonRetryableError 1",
        "demo-001: Completed, rlnas:best_reward 0.71 with --controller=ppo --learning-rate=1e-4",
        "demo-002: InProgress, with --controller=ppo --learning-rate=1e-4",
        "demo-003: Failed, with --controller=ppo --learning-rate=1e-4; AlgorithmError: no task",
        "best: demo-001, Completed, rlnas:best_reward 0.71 with --controller=ppo --learning-rate=1e-4",
        "failed: too many failures",
    ]
    assert best_of("demo", found) == "demo-001"


def test_a_tuning_job_that_has_just_begun_has_none(stub):
    stub.add_response(OPERATION, {"TrainingJobSummaries": []}, ASKED)
    found = {
        "HyperParameterTuningJobStatus": "InProgress",
        "TrainingJobStatusCounters": dict.fromkeys(COUNTERS, 0),
    }
    assert tuning_lines(stub.client, "demo", found) == ["demo: InProgress", "training jobs: none yet"]
    with pytest.raises(
        CloudError,
        match=r"^no training job of demo has been completed yet; name one of them \(rlnas sagemaker status "
        r"demo lists them\), or come back later$",
    ):
        best_of("demo", found)


def test_a_list_that_is_refused_is_an_error_of_ours(stub):
    stub.add_client_error(OPERATION, "AccessDenied", "not you")
    with pytest.raises(CloudError, match=r"^cannot list the training jobs of demo: AccessDenied: not you"):
        tuning_lines(stub.client, "demo", {"HyperParameterTuningJobStatus": "InProgress"})
