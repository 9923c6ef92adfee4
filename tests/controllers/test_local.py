from __future__ import annotations

import numpy as np
import pytest

from rlnas.controllers.local import LocalSearchController
from rlnas.controllers.random import RandomController
from rlnas.controllers.start import InformedStart
from rlnas.loop import search
from rlnas.rewards import HardBudget, LatencyTarget, LinearPenalty
from rlnas.space import LayerOptions, LayerwiseSpace
from rlnas.tabular import additive_task
from rlnas.testing import check_controller

SPACE = LayerwiseSpace((LayerOptions((0, 1, 2, 3, 4), (0, 1, 2, 3, 4)),) * 4)
REWARD = LatencyTarget(ratio=0.5)
TASK = additive_task(SPACE, seed=2)
VARIANTS = {"plain": LocalSearchController(), "informed": LocalSearchController(start=InformedStart())}
BOTH = pytest.mark.parametrize("controller", VARIANTS.values(), ids=VARIANTS.keys())


@BOTH
@pytest.mark.parametrize("budget", [1, 33, 500])
def test_budget_is_exact(controller, budget):
    assert len(search(SPACE, TASK, REWARD, controller, budget=budget).trials) == budget


@BOTH
def test_equal_seeds_give_equal_histories_and_others_do_not(controller):
    first, again, other = (
        search(SPACE, TASK, REWARD, controller, budget=100, seed=seed).trials for seed in (7, 7, 8)
    )
    assert first == again != other


@pytest.mark.parametrize("seed", range(3))
def test_it_finds_better_subnets_than_random_search(seed):
    climbed = search(SPACE, TASK, REWARD, LocalSearchController(), budget=150, seed=seed)
    random = search(SPACE, TASK, REWARD, RandomController(), budget=150, seed=seed)
    assert climbed.best.reward > random.best.reward


def test_without_a_target_the_top_of_a_task_that_adds_up_is_reached():
    reward = LinearPenalty(weight=0.0)
    best = search(SPACE, TASK, reward, LocalSearchController(), budget=150).best
    assert best.reward == pytest.approx(0.9)


def test_what_is_climbed_to_is_one_change_away_until_all_neighbours_are_known():
    space = LayerwiseSpace((LayerOptions((0, 1, 2), (0, 1, 2)),) * 3)
    batches: list[np.ndarray] = []

    def evaluate(configs):
        batches.append(np.array([space.encode(config) for config in configs]))
        return additive_task(space)(configs)

    controller = LocalSearchController(batch_size=4)
    search(space, evaluate, lambda metrics: -metrics.accuracy, controller, budget=200)
    reached = next(i for i, batch in enumerate(batches) if (batch == 0).all(axis=1).any())  # the best
    changes = [int((batch != 0).sum(axis=1).max()) for batch in batches[reached + 1 :]]
    first_restart = next(i for i, most in enumerate(changes) if most > 1)
    judged = np.concatenate(batches[: reached + 1 + first_restart])
    assert first_restart >= 1
    assert len(np.unique(judged[(judged != 0).sum(axis=1) == 1], axis=0)) == 12  # all its neighbours


def test_a_hard_budget_holds_and_a_soft_one_does_not_bind():
    hard = search(SPACE, TASK, REWARD, LocalSearchController(), budget=200)
    soft = search(SPACE, TASK, REWARD, LocalSearchController(hard_budget=False), budget=200)
    assert max(trial.metrics.latency_ms for trial in hard.trials) <= 5.0
    assert max(trial.metrics.latency_ms for trial in soft.trials) > 5.0


def test_proposals_repeat_only_where_little_is_left():
    result = search(SPACE, TASK, REWARD, LocalSearchController(), budget=400)
    assert len(result.episode_rewards) <= 404


def test_a_small_space_is_searched_to_its_end():
    space = LayerwiseSpace((LayerOptions((0, 1, 2), (0, 1, 2)),))
    result = search(
        space, additive_task(space), LatencyTarget(ratio=1.0), LocalSearchController(), budget=99
    )
    assert len(result.trials) == 9
    assert "all 9 subnets" in result.stop_reason


@BOTH
def test_one_search_serves_several_targets(controller):
    ratios = (0.25, 0.5, 0.75)
    result = search(SPACE, TASK, HardBudget(ratio=0.5), controller, budget=300, target_ratios=ratios)
    random = search(
        SPACE, TASK, HardBudget(ratio=0.5), RandomController(), budget=300, target_ratios=ratios
    )
    assert max(trial.metrics.latency_ms for trial in result.trials) <= 7.5
    for ratio in ratios:
        reward = HardBudget(target_ms=10.0 * ratio)
        assert reward(result.best_for(reward).metrics) > reward(random.best_for(reward).metrics)


def test_a_batch_has_at_least_one_proposal():
    with pytest.raises(ValueError, match="batch_size=0"):
        LocalSearchController(batch_size=0)


@BOTH
def test_it_keeps_the_laws_of_controllers(controller):
    check_controller(controller)
