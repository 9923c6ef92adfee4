from __future__ import annotations

import importlib.util

import numpy as np
import pytest

from rlnas.controllers.optuna import OptunaController
from rlnas.controllers.random import RandomController
from rlnas.controllers.start import InformedStart
from rlnas.errors import ControllerError, MissingDependencyError
from rlnas.loop import search
from rlnas.metrics import Metrics
from rlnas.protocols import Problem
from rlnas.rewards import HardBudget, LatencyTarget
from rlnas.space import LayerOptions, LayerwiseSpace
from rlnas.tabular import additive_task
from rlnas.testing import check_controller

optuna = pytest.importorskip("optuna")

SPACE = LayerwiseSpace((LayerOptions((0, 1, 2, 3), (0, 1, 2, 3)),) * 3)
REWARD = LatencyTarget(ratio=0.5)
TASK = additive_task(SPACE, seed=2)
VARIANTS = {
    "tpe": OptunaController(),
    "nsga2": OptunaController("nsga2"),
    "tpe informed": OptunaController(start=InformedStart()),
    "nsga2 informed": OptunaController("nsga2", start=InformedStart()),
}
EACH = pytest.mark.parametrize("controller", VARIANTS.values(), ids=VARIANTS.keys())
PLAIN = pytest.mark.parametrize("controller", [VARIANTS["tpe"], VARIANTS["nsga2"]], ids=["tpe", "nsga2"])


@PLAIN
@pytest.mark.parametrize("budget", [1, 33, 150])
def test_budget_is_exact(controller, budget):
    assert len(search(SPACE, TASK, REWARD, controller, budget=budget).trials) == budget


@EACH
def test_equal_seeds_give_equal_histories_and_others_do_not(controller):
    first, again, other = (
        search(SPACE, TASK, REWARD, controller, budget=60, seed=seed).trials for seed in (7, 7, 2**33)
    )
    assert first == again != other


@PLAIN
def test_it_finds_better_subnets_than_random_search(controller):
    def best(of, seed):
        return search(SPACE, TASK, REWARD, of, budget=100, seed=seed).best.reward

    gains = [best(controller, seed) - best(RandomController(), seed) for seed in range(3)]
    assert np.mean(gains) > 0.005


@PLAIN
def test_a_hard_budget_holds_and_a_soft_one_does_not_bind(controller):
    soft = OptunaController(controller.sampler, hard_budget=False)
    latencies = [
        max(trial.metrics.latency_ms for trial in search(SPACE, TASK, REWARD, each, budget=60).trials)
        for each in (controller, soft)
    ]
    assert latencies[0] <= 5.0 < latencies[1]


@PLAIN
def test_proposals_repeat_only_where_little_is_left(controller):
    result = search(SPACE, TASK, REWARD, controller, budget=150)
    assert len(result.episode_rewards) <= 165


@PLAIN
def test_a_small_space_is_searched_until_nothing_is_new(controller):
    space = LayerwiseSpace((LayerOptions((0, 1), (0, 1)),))
    result = search(space, additive_task(space), LatencyTarget(ratio=1.0), controller, budget=99)
    assert len(result.trials) == 4
    assert "all 4 subnets" in result.stop_reason


@EACH
def test_one_search_serves_several_targets(controller):
    ratios = (0.3, 0.5, 0.75)
    result = search(SPACE, TASK, HardBudget(ratio=0.5), controller, budget=120, target_ratios=ratios)
    assert max(trial.metrics.latency_ms for trial in result.trials) <= 7.5
    for ratio in ratios:
        _, optimum = TASK.optimum(HardBudget(ratio=ratio))
        reward = HardBudget(target_ms=10.0 * ratio)
        assert optimum - 0.12 < reward(result.best_for(reward).metrics) <= optimum + 1e-9


@pytest.mark.parametrize("sampler", ["tpe", "nsga2"])
def test_an_informed_start_comes_first(sampler):
    start = InformedStart(n_random=3)
    result = search(SPACE, TASK, REWARD, OptunaController(sampler, start=start), budget=40)
    problem = Problem(SPACE, REWARD, TASK.latency, 5.0, 10.0, TASK.importance)
    first = start.actions(problem, np.random.default_rng(0))[:-3]  # the last three are random
    assert [SPACE.encode(trial.config) for trial in result.trials[: len(first)]] == [*map(tuple, first)]


def test_a_front_needs_latencies():
    with pytest.raises(
        ControllerError, match=r"trial 0 has latency_ms=nan; give search\(\) latency=\.\.\."
    ):
        search(
            SPACE,
            lambda configs: [Metrics(0.5)] * len(configs),
            lambda metrics: metrics.accuracy,
            OptunaController("nsga2"),
            budget=9,
        )


def test_optuna_prints_as_much_after_a_search_as_before(capfd):
    before = optuna.logging.get_verbosity()
    search(SPACE, TASK, REWARD, OptunaController(start=InformedStart()), budget=40)
    assert optuna.logging.get_verbosity() == before
    assert capfd.readouterr() == ("", "")


def test_an_absent_package_is_named_with_the_command_that_installs_it(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "optuna" else name)
    message = (
        r"OptunaController\(sampler='nsga2'\) needs optuna; install with: pip install 'rlnas\[optuna\]'"
    )
    with pytest.raises(MissingDependencyError, match=message):
        OptunaController("nsga2")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"sampler": "cmaes"}, "sampler must be one of tpe, nsga2, but got 'cmaes'"),
        ({"batch_size": 0}, "batch_size must be at least 1, but got batch_size=0"),
        ({"population_size": 1}, "population_size must be at least 2, but got population_size=1"),
    ],
)
def test_settings_out_of_range_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        OptunaController(**settings)


@EACH
def test_it_keeps_the_laws_of_controllers(controller):
    check_controller(controller)
