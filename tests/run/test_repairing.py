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
    Repaired,
    best_beyond_noise,
    repaired_finalists,
    worth_repairing,
)
from rlnas.run.training import repaired_subnet
from rlnas.scores import score
from rlnas.supernet.inference import predict
from rlnas.task import Split


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
    found = repaired_finalists(job, inputs, trials[:2], progress=False)
    assert list(found) == [0, 1]
    for trial in trials[:2]:
        subnet = repaired_subnet(job, inputs.supernet, trial.config, inputs.task)
        predictions = predict(subnet, inputs.supernet.encode(inputs.task.search))
        assert np.array_equal(found[trial.number].predictions, predictions)
        assert found[trial.number].accuracy == score("accuracy", inputs.task.search.labels, predictions)


def judged(trials, accuracies, n_items=200):
    """Repaired trials, each with wrong answers to items of its own."""
    labels = np.zeros(n_items, dtype=np.int64)
    rng = np.random.default_rng(0)
    found = {}
    for trial, accuracy in zip(trials, accuracies, strict=True):
        predictions = (rng.permutation(n_items) >= round(accuracy * n_items)).astype(np.int64)
        found[trial.number] = Repaired(predictions, accuracy)
    entries = [
        MeasuredTrial(replace(trial, reward=accuracy), Timing((1.0, 1.0)), 0.5)
        for trial, accuracy in zip(trials, accuracies, strict=True)
    ]
    return entries, found, Named(labels)


class Named:
    """What is asked of a task."""

    metric = "accuracy"

    def __init__(self, labels):
        self.search = replace(tiny_split(len(labels)), labels=labels)


def tiny_split(n):
    return Split("search", ("a text",) * n, None, np.zeros(n, dtype=np.int64))


def falling_importance(trials):
    order = {trial.config: -position for position, trial in enumerate(trials)}
    return lambda configs: [order[config] for config in configs]


def test_the_most_important_one_is_taken_unless_another_is_better_beyond_noise(trials):
    kept = falling_importance(trials)
    # They differ in some 60 of 200 answers, so 2 more right ones are luck, 20 are not.
    entries, found, task = judged(trials, (0.80, 0.81, 0.79, 0.805))
    assert best_beyond_noise(entries, found, kept, task) is entries[0]
    entries, found, task = judged(trials, (0.80, 0.81, 0.79, 0.90))
    assert best_beyond_noise(entries, found, kept, task) is entries[3]
    # A later one has to beat the one that has taken the place.
    entries, found, task = judged(trials, (0.80, 0.90, 0.79, 0.905))
    assert best_beyond_noise(entries, found, kept, task) is entries[1]


def test_without_importance_the_highest_reward_is_taken(trials):
    entries, found, task = judged(trials, (0.80, 0.79, 0.805, 0.70))
    assert best_beyond_noise(entries, found, None, task) is entries[2]


def test_those_that_were_not_repaired_are_passed_over_unless_all_were_not(trials):
    entries, found, task = judged(trials, (0.80, 0.99, 0.79, 0.98))
    some = {number: found[number] for number in (entries[0].trial.number, entries[2].trial.number)}
    for kept in (falling_importance(trials), None):
        assert best_beyond_noise(entries, some, kept, task) is entries[0]
        assert best_beyond_noise(entries, {}, kept, task) is entries[1]


def test_what_lies_well_below_a_target_is_repaired_too(run):
    with History.read(run) as history:
        trials = history.trials[:8]
    entries = measured(trials, [0.59] * 6 + [0.55, 0.5])
    rising = {trial.number: -trial.number / 10 for trial in trials}
    assert worth_repairing(entries, [goal(0.6, rising)], None) == [*trials[:N_REPAIRED], trials[6]]


def test_nothing_to_repair_is_no_finalist(world, run):
    inputs = prepare_inputs(world.job(), RunFolder(run), progress=False)
    assert repaired_finalists(replace(world.job(), seed=1), inputs, [], progress=False) == {}
