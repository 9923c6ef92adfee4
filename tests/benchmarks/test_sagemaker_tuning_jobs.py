"""Tuning jobs of the stand-in, over training jobs that end when they are told to."""

from __future__ import annotations

import itertools
import random
import re
import time
from types import SimpleNamespace

import pytest

from benchmarks.sagemaker_tuning_jobs import TuningJobs, settings

DEFINITION = {
    "StaticHyperParameters": {"budget": "3"},
    "CheckpointConfig": {"S3Uri": "s3://searches/demo/"},
}
SEEDS = {
    "IntegerParameterRanges": [{"Name": "seed", "MinValue": "0", "MaxValue": "3", "ScalingType": "Linear"}]
}


def config(ranges=SEEDS, strategy="Random", parallel=2, goal="Maximize", **limits):
    return {
        "Strategy": strategy,
        "HyperParameterTuningJobObjective": {"Type": goal, "MetricName": "reward"},
        "ResourceLimits": {"MaxParallelTrainingJobs": parallel, **limits},
        "ParameterRanges": ranges,
    }


def drawn(ranges, count=200):
    return list(itertools.islice(settings(config(ranges), random.Random(0)), count))


def numbers(kind, scaling, low, high):
    return {kind: [{"Name": "x", "MinValue": low, "MaxValue": high, "ScalingType": scaling}]}


def test_whole_numbers_are_drawn_up_to_both_bounds():
    assert {one["seed"] for one in drawn(SEEDS)} == {"0", "1", "2", "3"}
    tens = [int(one["x"]) for one in drawn(numbers("IntegerParameterRanges", "Logarithmic", "1", "1000"))]
    assert 1 <= min(tens) < max(tens) <= 1000
    assert 60 < sum(value < 32 for value in tens) < 140


@pytest.mark.parametrize(
    ("scaling", "low", "high", "middle"),
    [
        ("Linear", "0", "10", 5.0),
        ("Auto", "0", "10", 5.0),
        ("Logarithmic", "1e-6", "1e-2", 1e-4),
        ("ReverseLogarithmic", "0.0", "0.9999", 0.99),
    ],
)
def test_numbers_are_drawn_by_their_scaling(scaling, low, high, middle):
    values = [float(one["x"]) for one in drawn(numbers("ContinuousParameterRanges", scaling, low, high))]
    assert all(float(low) <= value <= float(high) for value in values)
    assert 60 < sum(value < middle for value in values) < 140


def test_a_grid_tries_all_combinations_once():
    ranges = {
        "CategoricalParameterRanges": [
            {"Name": "a", "Values": ["1", "2"]},
            {"Name": "b", "Values": ["x", "y"]},
        ]
    }
    found = list(settings(config(ranges, "Grid"), random.Random(0)))
    assert found == [{"a": a, "b": b} for a in "12" for b in "xy"]


class Service:
    """Training jobs that end when they are told to."""

    def __init__(self):
        self.requests, self.jobs = [], []

    def create(self, request, tuning_arn):
        assert tuning_arn.endswith("/demo")
        self.requests.append(request)
        name = request["TrainingJobName"]
        job = SimpleNamespace(name=name, arn=f"arn/{name}", status="InProgress", failure=None, log=[])
        job.metrics = lambda: {"reward": job.log[-1]} if job.log else {}
        self.jobs.append(job)
        return job

    def answer(self, operation, request):
        assert operation == "StopTrainingJob"
        (job,) = [job for job in self.jobs if job.name == request["TrainingJobName"]]
        job.status = "Stopped"

    def end(self, number, status, *values):
        """Once it has begun."""
        wait_for(lambda: len(self.jobs) >= number)
        job = self.jobs[number - 1]
        job.log += values
        job.status = status


def wait_for(condition):
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.fixture
def service():
    return Service()


@pytest.fixture
def tuning_jobs(service):
    return TuningJobs(service, seed=0)


def create(tuning_jobs, **what):
    request = {
        "HyperParameterTuningJobName": "demo",
        "HyperParameterTuningJobConfig": config(**what),
        "TrainingJobDefinition": DEFINITION,
    }
    assert tuning_jobs.answer("CreateHyperParameterTuningJob", request)
    return tuning_jobs["demo"]


def test_jobs_are_asked_for_as_the_service_does(tuning_jobs, service):
    tuning = create(tuning_jobs, parallel=1, MaxNumberOfTrainingJobs=1)
    service.end(1, "Completed", 0.5)
    tuning.wait()
    (request,) = service.requests
    assert re.fullmatch(r"demo-001-[0-9a-f]{8}", request["TrainingJobName"])
    assert request["CheckpointConfig"] == DEFINITION["CheckpointConfig"]
    seed = tuning.tries[0].settings["seed"]
    assert request["HyperParameters"] == {"_tuning_objective_metric": "reward", "budget": "3", "seed": seed}


@pytest.mark.parametrize(("goal", "best"), [("Maximize", 3), ("Minimize", 2)])
def test_the_best_is_the_completed_one_with_the_best_last_value(tuning_jobs, service, goal, best):
    tuning = create(tuning_jobs, parallel=5, goal=goal, MaxNumberOfTrainingJobs=5)
    service.end(1, "Stopped", 9.0)
    service.end(2, "Completed", 0.9, 0.1)
    service.end(3, "Completed", 0.2, 0.3)
    service.end(4, "Failed")
    service.end(5, "Completed")
    tuning.wait()
    found = tuning_jobs.answer("DescribeHyperParameterTuningJob", {"HyperParameterTuningJobName": "demo"})
    assert found["HyperParameterTuningJobStatus"] == "Completed"
    assert found["BestTrainingJob"]["TrainingJobName"] == service.jobs[best - 1].name
    assert found["ObjectiveStatusCounters"] == {"Succeeded": 3, "Pending": 0, "Failed": 2}
    counted = {name: count for name, count in found["TrainingJobStatusCounters"].items() if count}
    assert counted == {"Completed": 3, "NonRetryableError": 1, "Stopped": 1}


def test_no_more_jobs_run_at_a_time_than_may(tuning_jobs, service):
    tuning = create(tuning_jobs, parallel=2, MaxNumberOfTrainingJobs=4)
    for number in range(1, 5):
        wait_for(lambda number=number: len(service.jobs) >= number)
        assert sum(job.status == "InProgress" for job in service.jobs) <= 2
        service.end(number, "Completed", 1.0)
    tuning.wait()
    assert len(service.jobs) == 4


def test_jobs_are_listed_page_by_page(tuning_jobs, service):
    tuning = create(tuning_jobs, parallel=12, MaxNumberOfTrainingJobs=12)
    for number in range(1, 13):
        service.end(number, "Completed", 1.0)
    tuning.wait()
    ask = {"HyperParameterTuningJobName": "demo"}
    first = tuning_jobs.answer("ListTrainingJobsForHyperParameterTuningJob", ask)
    ask["NextToken"] = first["NextToken"]
    second = tuning_jobs.answer("ListTrainingJobsForHyperParameterTuningJob", ask)
    assert "NextToken" not in second
    names = [one["TrainingJobName"] for page in (first, second) for one in page["TrainingJobSummaries"]]
    assert names == [job.name for job in service.jobs]


def test_a_stop_ends_those_that_run_and_begins_no_more(tuning_jobs, service):
    tuning = create(tuning_jobs, parallel=1, MaxNumberOfTrainingJobs=3)
    wait_for(lambda: service.jobs)
    tuning_jobs.answer("StopHyperParameterTuningJob", {"HyperParameterTuningJobName": "demo"})
    tuning.wait()
    assert (tuning.status, [job.status for job in service.jobs]) == ("Stopped", ["Stopped"])
    with pytest.raises(ValueError, match="the tuning job demo is Stopped"):
        tuning.stop()


def test_a_tuning_job_of_which_nothing_came_has_failed(tuning_jobs, service):
    tuning = create(tuning_jobs, parallel=1, MaxNumberOfTrainingJobs=1)
    service.end(1, "Failed")
    tuning.wait()
    assert tuning.describe()["FailureReason"].startswith("No training job has completed with a value")


def test_a_name_is_taken_once_and_an_unknown_one_is_not_found(tuning_jobs, service):
    create(tuning_jobs, parallel=1, MaxNumberOfTrainingJobs=1)
    service.end(1, "Completed", 1.0)
    with pytest.raises(ValueError, match="the tuning job demo is there already"):
        create(tuning_jobs)
    with pytest.raises(LookupError):
        tuning_jobs.answer("DescribeHyperParameterTuningJob", {"HyperParameterTuningJobName": "absent"})
