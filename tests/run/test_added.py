from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest

from rlnas.controllers.evolution import EvolutionController
from rlnas.controllers.random import RandomController
from rlnas.controllers.start import InformedStart
from rlnas.history import Result
from rlnas.metrics import Metrics
from rlnas.rewards import LatencyTarget, MnasNetReward
from rlnas.run.added import USUAL_START, describe_added, has_start
from rlnas.run.goals import Goal
from rlnas.run.searching import Searched
from rlnas.scores import difference_interval
from rlnas.space import LayerConfig, SubnetConfig
from rlnas.task import Split, Task
from rlnas.trial import Trial

N_ITEMS = 200
LABELS = np.arange(N_ITEMS) % 2


def make_task(metric="accuracy"):
    split = Split("search", tuple(f"text {i}" for i in range(N_ITEMS)), None, LABELS)
    return Task("made-up", split, split, split, ("no", "yes"), metric)


def goal_for(target_ms=2.0, ratio=0.5):
    return Goal("best", ratio, LatencyTarget(target_ms=target_ms), Path(), Path(), Path())


def predictions_with(n_right):
    """Right for the first ones."""
    return np.where(np.arange(N_ITEMS) < n_right, LABELS, 1 - LABELS)


def trial(number, n_right, latency_ms=1.0, *, bits=True, raced_out=False):
    correct = np.packbits(np.arange(N_ITEMS) < n_right).tobytes()
    metrics = Metrics(
        n_right / N_ITEMS,
        latency_ms,
        n_items=N_ITEMS,
        raced_out=raced_out,
        correct=correct if bits else None,
    )
    return Trial(number, SubnetConfig((LayerConfig(1, number + 1),)), metrics, n_right / N_ITEMS)


def result_of(*trials):
    return Result(trials, np.zeros(0), "the budget is spent")


def never(configs):
    raise AssertionError("the bits that were kept are enough")


@dataclass(frozen=True)
class Begins:
    """A controller with an informed start of its own."""

    start: InformedStart = field(default_factory=InformedStart)


def added(*trials, controls=None, controller=None, predict=never, goals=None, n_first=1, task=None):
    return describe_added(
        task or make_task(),
        predict,
        goals or [goal_for()],
        controller or Begins(),
        Searched(result_of(*trials), n_first),
        controls or {},
    )


def test_the_winner_is_compared_with_the_best_of_the_start_item_by_item():
    values = added(trial(0, 100), trial(1, 110), trial(2, 150), n_first=2)
    assert (values["split"], values["n_items"], values["n_start"]) == ("search", N_ITEMS, 2)
    assert values["informed_start"] is True
    (entry,) = values["comparisons"]
    assert entry["target_ratio"] == 0.5
    assert (entry["winner"]["trial"], entry["winner"]["accuracy"]) == (2, 0.75)
    start = entry["start"]
    assert start["trial"] == 1
    assert start["difference_points"] == pytest.approx(20.0)
    low, high = difference_interval("accuracy", LABELS, predictions_with(110), predictions_with(150))
    assert start["difference_ci"] == pytest.approx([100 * low, 100 * high])
    assert start["is_better"] is True
    assert entry["control"] is None


def test_a_difference_that_chance_explains_is_nothing():
    start = added(trial(0, 149), trial(1, 150))["comparisons"][0]["start"]
    assert start["difference_points"] == pytest.approx(0.5)
    assert start["difference_ci"][0] <= 0 < start["difference_ci"][1]
    assert start["is_better"] is False


def test_a_winner_of_the_start_adds_exactly_nothing():
    start = added(trial(0, 150), trial(1, 100))["comparisons"][0]["start"]
    assert (start["trial"], start["difference_points"], start["difference_ci"]) == (0, 0.0, [0.0, 0.0])
    assert start["is_better"] is False


def test_the_best_control_is_what_counts():
    controls = {"random": result_of(trial(0, 120)), "evolution": result_of(trial(0, 90), trial(1, 140))}
    values = added(trial(0, 100), trial(5, 150), controls=controls)
    assert values["controls"] == {"random": 1, "evolution": 2}
    control = values["comparisons"][0]["control"]
    assert (control["name"], control["trial"], control["accuracy"]) == ("evolution", 1, 0.7)
    assert control["difference_points"] == pytest.approx(5.0)


def test_a_control_that_is_better_shows_as_a_loss():
    control = added(trial(0, 100), controls={"random": result_of(trial(1, 150))})["comparisons"][0][
        "control"
    ]
    assert control["difference_points"] == pytest.approx(-25.0)
    assert control["difference_ci"][1] < 0
    assert control["is_better"] is False


def test_every_target_has_its_own_winner_and_rivals():
    goals = [goal_for(1.0, 0.25), goal_for(4.0, 1.0)]
    trials = (trial(0, 90, 1.0), trial(1, 120, 4.0), trial(2, 110, 1.0), trial(3, 160, 4.0))
    first, second = added(*trials, goals=goals, n_first=2)["comparisons"]
    assert (first["target_ratio"], second["target_ratio"]) == (0.25, 1.0)
    assert (first["winner"]["trial"], first["start"]["trial"]) == (2, 0)
    assert (second["winner"]["trial"], second["start"]["trial"]) == (3, 1)


def test_what_was_raced_out_neither_wins_nor_is_won_against():
    gone = trial(1, 199, raced_out=True)
    values = added(gone, trial(0, 100), controls={"random": result_of(gone)}, n_first=1)
    entry = values["comparisons"][0]
    assert entry["winner"]["trial"] == 0
    assert entry["start"] is entry["control"] is None
    assert added(gone)["comparisons"][0]["winner"] is None


@pytest.mark.parametrize(("metric", "bits"), [("accuracy", False), ("f1", True)])
def test_subnets_are_asked_again_where_bits_do_not_say(metric, bits):
    trials = (trial(0, 100, bits=bits), trial(1, 150, bits=bits))
    asked = []

    def predict(configs):
        asked.append(list(configs))
        return [predictions_with(100), predictions_with(150)]

    start = added(*trials, predict=predict, task=make_task(metric))["comparisons"][0]["start"]
    assert asked == [[trials[0].config, trials[1].config]]
    low, high = difference_interval(metric, LABELS, predictions_with(100), predictions_with(150))
    assert start["difference_ci"] == pytest.approx([100 * low, 100 * high])


def test_without_a_target_accuracy_alone_decides_nothing():
    start = added(trial(0, 100), trial(1, 150), goals=[goal_for(ratio=None)])["comparisons"][0]["start"]
    assert start["is_better"] is None


@pytest.mark.parametrize(
    "reward", [MnasNetReward(target_ms=2.0, exponent=-0.02), LatencyTarget(target_ms=2.0, absolute=True)]
)
def test_where_latency_counts_within_the_target_too_accuracy_alone_decides_nothing(reward):
    goal = replace(goal_for(), reward=reward)
    trials = trial(0, 150, latency_ms=0.2), trial(1, 170, latency_ms=2.0)
    (entry,) = added(*trials, goals=[goal])["comparisons"]
    assert entry["start"]["trial"] != entry["winner"]["trial"]
    assert entry["start"]["is_better"] is None
    (entry,) = added(*trials)["comparisons"]
    assert entry["start"]["is_better"] is True


def test_a_controller_without_a_start_is_compared_with_its_first_trials():
    trials = [trial(number, 100 + number) for number in range(USUAL_START + 4)]
    values = added(*trials, controller=RandomController(), n_first=5)
    assert (values["n_start"], values["informed_start"]) == (USUAL_START, False)
    assert values["comparisons"][0]["start"]["trial"] == USUAL_START - 1
    assert added(*trials[:3], controller=RandomController())["n_start"] == 3


def test_starts_are_recognised():
    @dataclass(frozen=True)
    class Settled:
        settings: Begins = field(default_factory=Begins)
        warm_start: object = None

    assert not has_start(RandomController())
    assert not has_start(EvolutionController())
    assert has_start(EvolutionController(start=InformedStart()))
    assert has_start(Settled())
    assert not has_start(replace(Settled(), warm_start="an earlier run"))
