"""The finalists are judged as they would be delivered: repaired."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from rlnas.history import History
from rlnas.latency import Timing
from rlnas.run.choice import MARGIN, MeasuredTrial
from rlnas.run.folder import RunFolder
from rlnas.run.goals import Goal
from rlnas.run.inputs import prepare_inputs
from rlnas.run.repairing import N_REPAIRED, repaired_accuracies, worth_repairing
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


def test_nothing_to_repair_is_no_accuracy(world, run):
    inputs = prepare_inputs(world.job(), RunFolder(run), progress=False)
    assert repaired_accuracies(replace(world.job(), seed=1), inputs, [], progress=False) == {}
