from __future__ import annotations

import re

import pytest

from rlnas.metrics import Metrics
from rlnas.sagemaker.metrics import (
    ACCURACY,
    BEST_ACCURACY,
    BEST_REWARD,
    LATENCY_RATIO,
    METRICS,
    TRIALS,
    final_line,
    search_line,
)
from rlnas.space import LayerConfig, SubnetConfig
from rlnas.trial import Trial


def trial(number, reward, **metrics):
    config = SubnetConfig((LayerConfig(number + 1, 4),))
    return Trial(number, config, Metrics(**{"accuracy": 0.5, "latency_ms": 1.0, **metrics}), reward)


def found(metric, line):
    match = re.search(metric.regex, line)
    return float(match[1])


@pytest.mark.parametrize("reward", [0.75, -3.25, 1e-7, -2.5e-9, 0.0, 123456.0])
def test_the_service_finds_what_a_search_says(reward):
    line = search_line([trial(0, reward - 1e-9), trial(1, reward, accuracy=0.625)])
    assert found(BEST_REWARD, line) == pytest.approx(reward)
    assert found(BEST_ACCURACY, line) == 0.625
    assert found(TRIALS, line) == 2


def test_a_race_without_a_winner_yet_says_nothing():
    assert search_line([]) is None


@pytest.mark.parametrize("several", [False, True])
def test_the_service_finds_what_was_delivered(several):
    model = {"best": {"accuracy": 0.75}, "latency_ratio": 0.5}
    less = {"best": {"accuracy": 0.5}, "latency_ratio": 0.25}
    line = final_line({"targets": [less, model]} if several else model)
    assert (found(ACCURACY, line), found(LATENCY_RATIO, line)) == (0.75, 0.5)


def test_nothing_is_tuned_on_the_final_split():
    assert [metric.name for metric in METRICS if metric.tunable] == [
        "rlnas:best_reward",
        "rlnas:best_accuracy",
    ]
    assert BEST_REWARD.definition == {"Name": "rlnas:best_reward", "Regex": BEST_REWARD.regex}
