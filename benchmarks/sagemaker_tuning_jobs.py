"""Tuning jobs of the stand-in: settings drawn at random, training jobs that try them, and the best one.

The strategy is random whatever the request names, but for a grid. The objective is the last value that a
job has printed. The best job is one that has completed; a job that was stopped has a value and is not it.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import random
import threading
import time
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from benchmarks.sagemaker_stand_in import Job, StandIn

POLL_SECONDS = 0.05
PAGE = 10
OWN_HYPERPARAMETER = "_tuning_objective_metric"
_COUNTED = {"Failed": "NonRetryableError", "Stopping": "InProgress"}
_STATES = ("Completed", "InProgress", "RetryableError", "NonRetryableError", "Stopped")


def settings(config: Mapping[str, Any], rng: random.Random) -> Iterator[dict[str, str]]:
    """What the jobs of a tuning job try, in order: a grid ends, random draws do not."""
    ranges = config["ParameterRanges"]
    categories = {one["Name"]: one["Values"] for one in ranges.get("CategoricalParameterRanges", ())}
    if config["Strategy"] == "Grid":
        for values in itertools.product(*categories.values()):
            yield dict(zip(categories, values, strict=True))
        return
    while True:
        drawn = {one["Name"]: str(draw_whole(one, rng)) for one in ranges.get("IntegerParameterRanges", ())}
        drawn |= {one["Name"]: str(draw(one, rng)) for one in ranges.get("ContinuousParameterRanges", ())}
        yield drawn | {name: rng.choice(values) for name, values in categories.items()}


def draw(numbers: Mapping[str, str], rng: random.Random) -> float:
    """A number of a range, by its scaling."""
    low, high = float(numbers["MinValue"]), float(numbers["MaxValue"])
    scaling = numbers.get("ScalingType", "Auto")
    if scaling == "Logarithmic":
        found = math.exp(rng.uniform(math.log(low), math.log(high)))
    elif scaling == "ReverseLogarithmic":
        found = 1 - math.exp(rng.uniform(math.log(1 - high), math.log(1 - low)))
    else:
        found = rng.uniform(low, high)
    return min(max(found, low), high)


def draw_whole(numbers: Mapping[str, str], rng: random.Random) -> int:
    """A whole number of a range; each of a linear one is as likely as the others."""
    low, high = int(numbers["MinValue"]), int(numbers["MaxValue"])
    if numbers.get("ScalingType") in (None, "Auto", "Linear"):
        return rng.randint(low, high)
    return round(draw(numbers, rng))


@dataclass(frozen=True)
class Try:
    """A training job of a tuning job, and the settings that it alone has."""

    job: Job
    settings: Mapping[str, str]


class TuningJob:
    """One tuning job, which begins at once.

    Args:
        request: That creates it.
        service: Where its training jobs run.
        rng: Of its draws.
    """

    def __init__(self, request: dict[str, Any], service: StandIn, rng: random.Random) -> None:
        self.request, self.status, self.tries = request, "InProgress", list[Try]()
        self.name = str(request["HyperParameterTuningJobName"])
        self.arn = f"arn:aws:sagemaker:eu-west-1:123456789012:hyper-parameter-tuning-job/{self.name}"
        self._config = request["HyperParameterTuningJobConfig"]
        self._objective = self._config["HyperParameterTuningJobObjective"]
        self._service, self._rng, self._lock = service, rng, threading.Lock()
        self._thread = threading.Thread(target=self._attend, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Begin no more jobs, and stop those that run."""
        with self._lock:
            if self.status != "InProgress":
                raise ValueError(f"the tuning job {self.name} is {self.status}")
            self.status = "Stopping"
        for job in self._running():
            with contextlib.suppress(ValueError):  # it has ended meanwhile
                self._service.answer("StopTrainingJob", {"TrainingJobName": job.name})

    def wait(self, seconds: float = 300.0) -> None:
        """Until all of its jobs have ended."""
        self._thread.join(seconds)
        if self._thread.is_alive():
            states = {one.job.name: one.job.status for one in self.tries}
            raise TimeoutError(f"{self.name} is still {self.status} after {seconds:g} s: {states}")

    def describe(self) -> dict[str, Any]:
        """As the service does."""
        states = Counter(_COUNTED.get(one.job.status, one.job.status) for one in self.tries)
        found = Counter(self._objective_status(one.job) for one in self.tries)
        answer: dict[str, Any] = {
            "HyperParameterTuningJobName": self.name,
            "HyperParameterTuningJobArn": self.arn,
            "HyperParameterTuningJobConfig": self._config,
            "TrainingJobDefinition": self.request["TrainingJobDefinition"],
            "HyperParameterTuningJobStatus": self.status,
            "CreationTime": 0,
            "TrainingJobStatusCounters": {name: states[name] for name in _STATES},
            "ObjectiveStatusCounters": {name: found[name] for name in ("Succeeded", "Pending", "Failed")},
        }
        done = [
            one for one in self.tries if one.job.status == "Completed" and self._value(one.job) is not None
        ]
        if done:
            sign = 1 if self._objective["Type"] == "Maximize" else -1
            answer["BestTrainingJob"] = self._summary(
                max(done, key=lambda one: sign * self._value(one.job))
            )
        elif self.status == "Failed":
            answer["FailureReason"] = "No training job has completed with a value of the objective metric."
        return answer

    def page(self, first: int, count: int) -> dict[str, Any]:
        """Some of its training jobs, by name, which is the order in which they began."""
        tries = sorted(self.tries, key=lambda one: one.job.name)
        found = {"TrainingJobSummaries": list(map(self._summary, tries[first : first + count]))}
        return {**found, "NextToken": str(first + count)} if first + count < len(tries) else found

    def _attend(self) -> None:
        """Keep as many jobs at work as may be, until all have been tried or it is stopped."""
        limits = self._config["ResourceLimits"]
        waiting = itertools.islice(settings(self._config, self._rng), limits.get("MaxNumberOfTrainingJobs"))
        while True:
            if len(self._running()) < limits["MaxParallelTrainingJobs"]:
                with self._lock:
                    tried = next(waiting, None) if self.status == "InProgress" else None
                    if tried is None:
                        break
                    self._begin(tried)
            time.sleep(POLL_SECONDS)
        while self._running():
            time.sleep(POLL_SECONDS)
        with self._lock:
            completed = any(one.job.status == "Completed" for one in self.tries)
            ended = "Completed" if completed else "Failed"
            self.status = "Stopped" if self.status == "Stopping" else ended

    def _begin(self, tried: Mapping[str, str]) -> None:
        definition = dict(self.request["TrainingJobDefinition"])
        fixed = definition.pop("StaticHyperParameters", {})
        own = {OWN_HYPERPARAMETER: self._objective["MetricName"]}
        request = {
            **definition,
            "TrainingJobName": f"{self.name}-{len(self.tries) + 1:03d}-{self._rng.getrandbits(32):08x}",
            "HyperParameters": {**own, **fixed, **tried},
        }
        self.tries.append(Try(self._service.create(request, tuning_arn=self.arn), tried))

    def _running(self) -> list[Job]:
        return [one.job for one in self.tries if one.job.status in ("InProgress", "Stopping")]

    def _value(self, job: Job) -> float | None:
        return job.metrics().get(self._objective["MetricName"])

    def _objective_status(self, job: Job) -> str:
        if job.status in ("InProgress", "Stopping"):
            return "Pending"
        return "Failed" if self._value(job) is None else "Succeeded"

    def _summary(self, one: Try) -> dict[str, Any]:
        job, value = one.job, self._value(one.job)
        summary: dict[str, Any] = {
            "TrainingJobName": job.name,
            "TrainingJobArn": job.arn,
            "CreationTime": 0,
            "TrainingJobStatus": job.status,
            "TunedHyperParameters": one.settings,
            "ObjectiveStatus": self._objective_status(job),
        }
        if summary["ObjectiveStatus"] == "Succeeded":
            summary["FinalHyperParameterTuningJobObjectiveMetric"] = {**self._objective, "Value": value}
        return summary if job.failure is None else {**summary, "FailureReason": job.failure}


class TuningJobs(dict[str, TuningJob]):
    """All tuning jobs by name, and what the service answers about them.

    Args:
        service: Where training jobs run.
        seed: Of all draws.
    """

    def __init__(self, service: StandIn, seed: int) -> None:
        super().__init__()
        self._service, self._seed = service, seed

    def answer(self, operation: str, request: dict[str, Any]) -> dict[str, Any]:
        """Raises `LookupError` or `ValueError` where the service refuses."""
        name = request["HyperParameterTuningJobName"]
        if operation == "CreateHyperParameterTuningJob":
            if name in self:
                raise ValueError(f"the tuning job {name} is there already")
            self[name] = TuningJob(request, self._service, random.Random(self._seed))
            return {"HyperParameterTuningJobArn": self[name].arn}
        if operation == "DescribeHyperParameterTuningJob":
            return self[name].describe()
        if operation == "StopHyperParameterTuningJob":
            self[name].stop()
            return {}
        if operation == "ListTrainingJobsForHyperParameterTuningJob":
            return self[name].page(int(request.get("NextToken", 0)), request.get("MaxResults", PAGE))
        raise ValueError(f"the stand-in knows no {operation}")
