from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from world import SHAPE, make_table

from rlnas.history import History, Result
from rlnas.rewards import LatencyTarget, LinearPenalty
from rlnas.run.folder import RunFolder
from rlnas.run.goals import goals_of
from rlnas.run.inputs import prepare_inputs

FULL_MS = make_table()([SHAPE.full])[0]


@pytest.fixture
def goals(world, run):
    """Makes the goals of a job."""

    def make(**changes):
        job, folder = world.job(**changes), RunFolder(run)
        return goals_of(job, prepare_inputs(job, folder, progress=False), folder)

    return make


def test_a_run_for_one_target_has_one_goal(goals, run):
    (goal,) = goals()
    assert (goal.name, goal.folder) == ("best", run / "best")
    assert goal.target_ratio == pytest.approx(0.75)
    assert goal.reward == LatencyTarget(target_ms=0.75 * FULL_MS)


def test_a_reward_without_a_target_has_a_goal_without_one(goals):
    (goal,) = goals(reward=LinearPenalty())
    assert goal.target_ratio is None
    assert goal.reward == LinearPenalty(reference_ms=FULL_MS)


def test_several_targets_have_places_of_their_own(goals, run):
    first, second = goals(target_ratios=(0.75, 0.5))
    assert (first.name, second.name) == ("0.5", "0.75")
    assert (first.target_ratio, second.target_ratio) == (0.5, 0.75)
    assert first.reward == LatencyTarget(target_ms=0.5 * FULL_MS)
    assert (first.folder, second.folder) == (run / "models" / "0.5", run / "models" / "0.75")
    assert len({first.steps, second.steps, first.delivered, second.delivered}) == 4


def test_what_a_repair_makes_of_a_trial_counts_most(goals, run):
    (goal,) = goals()
    with History.read(run) as history:
        first, second, third = history.trials[:3]
    known = replace(goal, expected={0: 0.25, 1: 0.5}, repaired={1: 0.75})
    for trial, accuracy in ((first, 0.25), (second, 0.75), (third, third.metrics.accuracy)):
        wanted = goal.reward(replace(trial.metrics, accuracy=accuracy))
        assert known.judged(trial).reward == wanted


def test_trials_are_judged_for_the_goal(goals, run):
    goal = goals(target_ratios=(0.5, 0.75))[0]
    with History.read(run) as history:
        trials = history.trials
    result = goal.result(Result(trials, np.zeros(0), "enough"))
    assert [trial.reward for trial in result.trials] == [goal.reward(trial.metrics) for trial in trials]
    assert [replace(trial, reward=0.0) for trial in result.trials] == [
        replace(t, reward=0.0) for t in trials
    ]
    assert result.trials != trials


def test_expected_accuracies_take_the_place_of_those_that_were_seen(goals, run):
    goal = replace(goals(target_ratios=(0.5, 0.75))[0], expected={0: 0.125})
    with History.read(run) as history:
        first, second, *_ = history.trials
    assert goal.judged(first).reward == goal.reward(replace(first.metrics, accuracy=0.125))
    assert goal.judged(first).metrics == first.metrics
    assert goal.judged(second).reward == goal.reward(second.metrics)
