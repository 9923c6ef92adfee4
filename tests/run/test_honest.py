"""The best of a search without its luck, by the rewards of the run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from rlnas.controllers.evolution import EvolutionController
from rlnas.controllers.random import RandomController
from rlnas.controllers.start import InformedStart
from rlnas.history import Result
from rlnas.metrics import Metrics
from rlnas.rewards import HardBudget, LatencyTarget
from rlnas.run.goals import Goal
from rlnas.run.honest import describe_honesty
from rlnas.run.searching import Searched
from rlnas.space import LayerConfig, SubnetConfig
from rlnas.task import Split, Task
from rlnas.trial import Trial

N_ITEMS = 100
SPLIT = Split("search", tuple(f"text {i}" for i in range(N_ITEMS)), None, np.arange(N_ITEMS) % 2)
TASK = Task("made-up", SPLIT, SPLIT, SPLIT, ("no", "yes"))


def goal_for(target_ms, reward=LatencyTarget):
    return Goal("best", target_ms / 4, reward(target_ms=target_ms), Path(), Path(), Path())


def trial(number, accuracy, latency_ms=1.0, **more):
    right = np.random.default_rng(number).uniform(size=N_ITEMS) < accuracy
    metrics = Metrics(
        right.mean(), latency_ms, n_items=N_ITEMS, correct=np.packbits(right).tobytes(), **more
    )
    return Trial(number, SubnetConfig((LayerConfig(1, number + 1),)), metrics, right.mean())


def searched(*trials, n_first=2):
    return Searched(Result(trials, np.zeros(0), "the budget is spent"), n_first)


def told(found, *goals, controller=None):
    return describe_honesty(TASK, goals or (goal_for(2.0),), controller or RandomController(), found)


def test_the_best_within_the_target_is_what_counts():
    found = told(searched(trial(0, 0.6), trial(1, 0.7), trial(2, 0.95, 3.0)), goal_for(2.0), goal_for(4.0))
    within, beyond = found["goals"]
    assert (within["target_ratio"], beyond["target_ratio"]) == (0.5, 1.0)
    assert within["seen_accuracy"] < 0.85 < beyond["seen_accuracy"]
    assert within["honest_ci"][0] <= within["honest_accuracy"] <= within["honest_ci"][1]
    known = {name: found[name] for name in ("split", "n_items", "n_candidates", "n_folds")}
    assert known == {"split": "search", "n_items": N_ITEMS, "n_candidates": 3, "n_folds": 0}


def test_any_reward_may_decide():
    (entry,) = told(searched(trial(0, 0.6), trial(1, 0.95, 3.0)), goal_for(2.0, HardBudget))["goals"]
    assert entry["seen_accuracy"] == trial(0, 0.6).metrics.accuracy


def test_only_an_informed_start_is_compared_with():
    found = searched(trial(0, 0.5), trial(1, 0.5), trial(2, 0.95))
    assert told(found)["goals"][0]["gain_ci"] is None
    (entry,) = told(found, controller=EvolutionController(start=InformedStart()))["goals"]
    assert entry["gain_points"] == pytest.approx(45, abs=15)
    assert entry["gain_ci"][0] > 0


def test_without_single_answers_nothing_is_known():
    bare = Trial(0, SubnetConfig((LayerConfig(1, 1),)), Metrics(0.5, 1.0, n_items=N_ITEMS), 0.5)
    assert told(searched(bare, trial(1, 0.9))) is None
    raced = [trial(0, 0.6), trial(1, 0.7, raced_out=True)]
    assert told(searched(*raced))["n_candidates"] == 1
    assert told(searched(raced[1])) is None
