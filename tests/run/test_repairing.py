"""The finalists are judged as they would be delivered: repaired."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from rlnas.history import History
from rlnas.latency import Timing
from rlnas.run.choice import MARGIN, MeasuredTrial
from rlnas.run.folder import RunFolder
from rlnas.run.goals import Goal
from rlnas.run.inputs import prepare_inputs
from rlnas.run.repairing import (
    N_REPAIRED,
    repaired_accuracies,
    settled_accuracies,
    standard_error,
    worth_repairing,
)
from rlnas.run.training import repaired_subnet
from rlnas.scores import score
from rlnas.supernet.inference import predict


@pytest.fixture
def trials(run):
    with History.read(run) as history:
        return history.trials[:4]


def measured(trials, ratios):
    timing = Timing((1.0, 1.0))
    return [MeasuredTrial(trial, timing, ratio) for trial, ratio in zip(trials, ratios, strict=True)]


def goal(target_ratio, accuracies):
    """One whose reward is the accuracy, which is known by the trials' numbers."""
    paths = [Path("best"), Path("steps.json"), Path("delivered.json")]
    return Goal("best", target_ratio, lambda metrics: metrics.accuracy, *paths, expected=accuracies)


def test_what_misses_every_target_is_not_repaired(trials):
    entries = measured(trials, (0.3, 0.6, MARGIN * 0.6, MARGIN * 0.6 + 0.001))
    known = {trial.number: 0.5 for trial in trials}
    assert worth_repairing(entries, [goal(0.4, known), goal(0.6, known)], None) == list(trials[:3])
    assert worth_repairing(entries, [goal(0.1, known)], None) == []
    assert worth_repairing(entries, [goal(0.1, known)], lambda configs: [1.0 for _ in configs]) == []


def test_of_many_the_best_and_those_that_keep_most_importance_are_repaired(run):
    with History.read(run) as history:
        trials = history.trials[:8]
    entries = measured(trials, [0.5] * 8)
    rising = {trial.number: trial.number / 10 for trial in trials}
    assert worth_repairing(entries, [goal(0.6, rising)], None) == list(trials[-N_REPAIRED:])
    falling = {trial.config: -trial.number for trial in trials}

    def kept(configs):
        return [falling[config] for config in configs]

    chosen = worth_repairing(entries, [goal(None, rising)], kept)
    assert chosen == [*trials[:N_REPAIRED], *trials[-N_REPAIRED:]]


def test_the_accuracies_are_those_of_the_repaired_subnets(world, run, trials):
    job = world.job()
    inputs = prepare_inputs(job, RunFolder(run), progress=False)
    found = repaired_accuracies(job, inputs, trials[:2], progress=False)
    assert list(found) == [0, 1]
    for trial in trials[:2]:
        subnet = repaired_subnet(job, inputs.supernet, trial.config, inputs.task)
        predictions = predict(subnet, inputs.supernet.encode(inputs.task.search))
        assert found[trial.number] == score("accuracy", inputs.task.search.labels, predictions)


def test_luck_is_taken_out_as_far_as_noise_explains_it():
    importance = {number: float(number) for number in range(8)}
    line = {number: 0.7 + 0.01 * number for number in range(8)}
    rng = np.random.default_rng(1)
    noisy = {number: value + rng.normal(0, 0.02) for number, value in line.items()}
    settled = settled_accuracies(noisy, importance, noise=0.05)

    def error(values):
        return sum((values[number] - line[number]) ** 2 for number in line)

    assert error(settled) < error(noisy) / 2
    assert max(settled, key=settled.get) == 7
    # What noise cannot explain stays.
    kept = settled_accuracies(noisy, importance, noise=0.001)
    assert all(abs(kept[number] - noisy[number]) < 0.002 for number in noisy)


@pytest.mark.parametrize(
    ("accuracies", "importance"),
    [
        ({0: 0.7, 1: 0.8, 2: 0.6, 3: 0.9}, {0: 1.0, 1: 2.0, 2: 3.0, 3: 4.0}),
        (dict(enumerate((0.7, 0.8, 0.6, 0.9, 0.8))), dict.fromkeys(range(5), 1.0)),
        (dict(enumerate((0.9, 0.8, 0.7, 0.6, 0.5))), {number: float(number) for number in range(5)}),
    ],
    ids=["too few", "equal importance", "importance misleads"],
)
def test_without_a_line_accuracies_stay_as_they_are(accuracies, importance):
    assert settled_accuracies(accuracies, importance, noise=0.1) == accuracies


def test_the_standard_error_is_that_of_a_share():
    assert standard_error({0: 0.4, 1: 0.6}, 100) == pytest.approx(0.05)
    assert standard_error({0: -0.2}, 100) == 0.0  # a Matthews correlation below 0


def test_nothing_to_repair_is_no_accuracy(world, run):
    inputs = prepare_inputs(world.job(), RunFolder(run), progress=False)
    assert repaired_accuracies(replace(world.job(), seed=1), inputs, [], progress=False) == {}


def test_finalists_that_were_not_repaired_lie_on_the_line():
    importance = {number: float(number) for number in range(8)}
    repaired = {number: 0.7 + 0.01 * number for number in range(0, 8, 1) if number not in (3, 6)}
    settled = settled_accuracies(repaired, importance, noise=0.01)
    assert settled == pytest.approx({number: 0.7 + 0.01 * number for number in range(8)})


def test_without_a_line_others_are_as_good_as_the_worst_that_was_repaired():
    repaired = {1: 0.8, 4: 0.7}
    assert settled_accuracies(repaired, dict.fromkeys(range(5), 0.0), noise=0.1) == {
        0: 0.7,
        1: 0.8,
        2: 0.7,
        3: 0.7,
        4: 0.7,
    }
