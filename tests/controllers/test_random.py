from __future__ import annotations

import numpy as np
import pytest

from rlnas.controllers.random import RandomController
from rlnas.loop import search
from rlnas.rewards import LatencyTarget, LinearPenalty
from rlnas.space import LayerOptions, LayerwiseSpace
from rlnas.tabular import additive_task
from rlnas.testing import check_controller

SPACE = LayerwiseSpace((LayerOptions((0, 1, 2, 3), (0, 1, 2, 3)),) * 3)
TASK = additive_task(SPACE, seed=1)


def configs_of(controller: RandomController, **options) -> list:
    result = search(SPACE, TASK, LinearPenalty(), controller, **options)
    return [trial.config for trial in result.trials]


@pytest.mark.parametrize("budget", [1, 33, 64, 500])
def test_budget_is_exact(budget: int) -> None:
    assert len(configs_of(RandomController(), budget=budget)) == budget


def test_equal_seeds_give_equal_histories_and_others_do_not() -> None:
    first, again, other = (configs_of(RandomController(), budget=50, seed=seed) for seed in (4, 4, 5))
    assert first == again != other


def test_proposals_are_uniform_over_the_space() -> None:
    actions = np.array([SPACE.encode(config) for config in configs_of(RandomController(), budget=2000)])
    shares = np.stack([np.bincount(column, minlength=4) for column in actions.T]) / len(actions)
    assert np.abs(shares - 0.25).max() < 0.05


def test_a_hard_budget_holds_and_a_soft_one_does_not_bind() -> None:
    reward = LatencyTarget(ratio=0.3)
    hard = search(SPACE, TASK, reward, RandomController(), budget=100)
    soft = search(SPACE, TASK, reward, RandomController(hard_budget=False), budget=100)
    assert max(trial.metrics.latency_ms for trial in hard.trials) <= 3.0
    assert max(trial.metrics.latency_ms for trial in soft.trials) > 3.0


def test_several_targets_bound_proposals_in_turn() -> None:
    result = search(
        SPACE, TASK, LatencyTarget(ratio=0.3), RandomController(), budget=100, target_ratios=(0.3, 0.8)
    )
    latencies = np.array([trial.metrics.latency_ms for trial in result.trials])
    assert latencies.max() <= 8.0
    assert 45 <= (latencies <= 3.0).sum() < 60


def test_batches_have_the_size_that_was_asked_for() -> None:
    sizes: list[int] = []

    def evaluate(configs):
        sizes.append(len(configs))
        return TASK(configs)

    search(SPACE, evaluate, LinearPenalty(reference_ms=10.0), RandomController(batch_size=5), budget=20)
    assert sizes[0] == 5


def test_a_batch_has_at_least_one_proposal() -> None:
    with pytest.raises(ValueError, match="batch_size=0"):
        RandomController(batch_size=0)


def test_it_keeps_the_laws_of_controllers() -> None:
    check_controller(RandomController())
