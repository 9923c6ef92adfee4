from __future__ import annotations

import re

import pytest

from rlnas.errors import RequestError
from rlnas.sagemaker.metrics import BEST_ACCURACY
from rlnas.sagemaker.tuning import TUNABLE, Choice, Range, Tuning


def test_ranges_are_whole_where_their_flags_are():
    assert Range.parse("budget=50:200", {"budget"}) == Range("budget", "50", "200", whole=True)
    assert not Range.parse("target-ratio=0:1", {"budget"}).whole
    assert Range.parse("--learning-rate=1e-5:1e-3:log") == Range("learning-rate", "1e-5", "1e-3", True)
    assert Choice.parse("controller=auto, evolution") == Choice("controller", ("auto", "evolution"))


def test_a_tuning_says_what_is_tried():
    tuning = Tuning(
        ranges=(Range("budget", "50", "200", whole=True), Range("learning-rate", "1e-5", "1e-3", True)),
        choices=(Choice("controller", ("auto", "random")),),
        objective=BEST_ACCURACY,
        strategy="Random",
        max_jobs=20,
        max_parallel=2,
    )
    assert tuning.to_config({"seed": "0"}) == {
        "Strategy": "Random",
        "HyperParameterTuningJobObjective": {"Type": "Maximize", "MetricName": "rlnas:best_accuracy"},
        "ResourceLimits": {"MaxParallelTrainingJobs": 2, "MaxNumberOfTrainingJobs": 20},
        "ParameterRanges": {
            "IntegerParameterRanges": [
                {"Name": "budget", "MinValue": "50", "MaxValue": "200", "ScalingType": "Linear"}
            ],
            "ContinuousParameterRanges": [
                {
                    "Name": "learning-rate",
                    "MinValue": "1e-5",
                    "MaxValue": "1e-3",
                    "ScalingType": "Logarithmic",
                }
            ],
            "CategoricalParameterRanges": [{"Name": "controller", "Values": ["auto", "random"]}],
        },
    }


def test_a_grid_ends_by_itself():
    tuning = Tuning(choices=(Choice("seed", ("0", "1")),), strategy="Grid", max_jobs=5)
    assert tuning.to_config({})["ResourceLimits"] == {"MaxParallelTrainingJobs": 1}


def test_the_final_split_is_no_objective():
    assert {metric.name for metric in TUNABLE} == {"rlnas:best_reward", "rlnas:best_accuracy"}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Range.parse("budget"), "--range budget must be NAME=LOW:HIGH or NAME=LOW:HIGH:log"),
        (lambda: Range.parse("a=x:1"), "--range a=x:1 needs two numbers, e.g. learning-rate=1e-5:1e-3:log"),
        (lambda: Range.parse("a=2:1"), "--range a=2:1 needs a smaller number before a larger one"),
        (lambda: Range.parse("a=nan:1"), "--range a=nan:1 needs a smaller number before a larger one"),
        (lambda: Range.parse("a=1:inf"), "--range a=1:inf needs two finite numbers"),
        (lambda: Range.parse("a=0:1:log"), "--range a=0:1:log needs numbers above 0"),
        (lambda: Choice.parse("a"), "--choice a must be NAME=A,B,..."),
        (lambda: Choice.parse("a=1"), "--choice a=1 needs two values or more, such as"),
        (lambda: Choice.parse("a=1,1"), "--choice a=1,1 names a value twice; drop one"),
        (lambda: Tuning(), "a tuning job needs something to try; give --range or --choice"),
        (
            lambda: Tuning((Range("a", "1", "2"),), (Choice("a", ("1", "2")),)),
            "--range and --choice name a twice; drop one",
        ),
        (
            lambda: Tuning((Range("a", "1", "2"),), max_jobs=0),
            "--max-jobs must be at least 1, but got --max-",
        ),
        (
            lambda: Tuning((Range("a", "1", "2"),), max_parallel=0),
            "--max-parallel must be at least 1, but got --max-parallel=0",
        ),
        (
            lambda: Tuning((Range("a", "1", "2"),), strategy="Grid"),
            "--strategy=Grid tries choices only, but got --range a; write its values as --choice, or",
        ),
        (
            lambda: Tuning((Range("a", "1", "2"),)).to_config({"a": "3"}),
            "a is tried out, and fixed to 3 as well; drop either",
        ),
    ],
)
def test_a_tuning_that_cannot_be_is_refused(make, message):
    with pytest.raises(RequestError, match=f"^{re.escape(message)}"):
        make()
