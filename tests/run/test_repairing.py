"""The finalists are judged as they would be delivered: repaired."""

from __future__ import annotations

from dataclasses import replace

import pytest

from rlnas.history import History
from rlnas.latency import Timing
from rlnas.run.choice import MARGIN, MeasuredTrial
from rlnas.run.folder import RunFolder
from rlnas.run.inputs import prepare_inputs
from rlnas.run.repairing import repaired_accuracies, worth_repairing
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


def test_what_misses_every_target_is_not_repaired(trials):
    entries = measured(trials, (0.3, 0.6, MARGIN * 0.6, MARGIN * 0.6 + 0.001))
    assert worth_repairing(entries, [0.4, 0.6]) == list(trials[:3])
    assert worth_repairing(entries, [0.1]) == []


def test_without_a_target_all_are_repaired(trials):
    assert worth_repairing(measured(trials, (0.3, 0.6, 0.9, 1.0)), [None]) == list(trials)


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
