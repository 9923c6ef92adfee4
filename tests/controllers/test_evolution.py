from __future__ import annotations

import numpy as np
import pytest

from rlnas.controllers.evolution import EvolutionController
from rlnas.controllers.random import RandomController
from rlnas.controllers.start import InformedStart
from rlnas.loop import search
from rlnas.metrics import Metrics
from rlnas.protocols import Problem
from rlnas.rewards import HardBudget, LatencyTarget
from rlnas.space import LayerOptions, LayerwiseSpace
from rlnas.tabular import additive_task
from rlnas.testing import check_controller

SPACE = LayerwiseSpace((LayerOptions((0, 1, 2, 3, 4), (0, 1, 2, 3, 4)),) * 4)
REWARD = LatencyTarget(ratio=0.5)
TASK = additive_task(SPACE, seed=2)
VARIANTS = {"reward": EvolutionController(), "ageing": EvolutionController(ageing=True)}
BOTH = pytest.mark.parametrize("controller", VARIANTS.values(), ids=VARIANTS.keys())


@BOTH
@pytest.mark.parametrize("budget", [1, 33, 64, 500])
def test_budget_is_exact(controller: EvolutionController, budget: int) -> None:
    assert len(search(SPACE, TASK, REWARD, controller, budget=budget).trials) == budget


@BOTH
def test_equal_seeds_give_equal_histories_and_others_do_not(controller: EvolutionController) -> None:
    first, again, other = (
        search(SPACE, TASK, REWARD, controller, budget=100, seed=seed).trials for seed in (7, 7, 8)
    )
    assert first == again != other


@BOTH
@pytest.mark.parametrize("seed", range(3))
def test_it_finds_better_subnets_than_random_search(controller: EvolutionController, seed: int) -> None:
    evolved = search(SPACE, TASK, REWARD, controller, budget=400, seed=seed)
    random = search(SPACE, TASK, REWARD, RandomController(), budget=400, seed=seed)
    assert evolved.best.reward > random.best.reward
    assert evolved.episode_rewards[-64:].mean() > random.episode_rewards[-64:].mean() + 0.05


@BOTH
def test_a_hard_budget_holds_for_every_generation(controller: EvolutionController) -> None:
    trials = search(SPACE, TASK, REWARD, controller, budget=200).trials
    assert max(trial.metrics.latency_ms for trial in trials) <= 5.0


def test_a_soft_budget_does_not_bind() -> None:
    trials = search(SPACE, TASK, REWARD, EvolutionController(hard_budget=False), budget=100).trials
    assert max(trial.metrics.latency_ms for trial in trials) > 5.0


@BOTH
def test_proposals_repeat_only_where_little_is_left(controller: EvolutionController) -> None:
    result = search(SPACE, TASK, REWARD, controller, budget=400)
    assert len(result.episode_rewards) <= 404


def test_a_space_smaller_than_the_population_is_searched_to_its_end() -> None:
    space = LayerwiseSpace((LayerOptions((0, 1, 2), (0, 1, 2)),))
    task = additive_task(space)
    controller = EvolutionController(mutation_rate=0.5)
    result = search(space, task, LatencyTarget(ratio=1.0), controller, budget=100)
    assert len(result.trials) == 9
    assert "all 9 subnets" in result.stop_reason


def generations(controller: EvolutionController, rewards: list[float], n_batches: int) -> list[list]:
    """Batches of new subnets that a controller proposes; the first one born earns rewards[0], and so on."""
    batches: list[list] = []
    births = iter(rewards)

    def evaluate(configs):
        batches.append(list(configs))
        return [Metrics(next(births)) for _ in configs]

    search(SPACE, evaluate, lambda metrics: metrics.accuracy, controller, budget=n_batches * 4)
    return batches


def test_without_ageing_the_best_live_on_and_with_ageing_the_oldest_die() -> None:
    # The first generation earns most; without ageing, all others remain its children.
    rewards = [10.0, 9.0, 8.0, 7.0] + [0.0] * 200
    settings = {
        "population_size": 4,
        "children_per_generation": 4,
        "mutation_rate": 0.1,
        "crossover_rate": 0.0,
    }
    mean_distance = {}
    for ageing in (False, True):
        distances = []
        for generation in generations(EvolutionController(ageing=ageing, **settings), rewards, 20)[10:]:
            first = generations(EvolutionController(ageing=ageing, **settings), rewards, 1)[0]
            ancestors = np.array([SPACE.encode(config) for config in first])
            children = np.array([SPACE.encode(config) for config in generation])
            distances += [(ancestors != child).sum(axis=1).min() for child in children]
        mean_distance[ageing] = np.mean(distances)
    assert mean_distance[False] < 2.5
    assert mean_distance[True] > mean_distance[False] + 1.0


def test_crossover_takes_each_position_from_a_parent() -> None:
    controller = EvolutionController(
        population_size=2,
        children_per_generation=1,
        mutation_rate=0.0,
        crossover_rate=1.0,
        tournament_size=1,
    )
    batches: list[list] = []

    def evaluate(configs):
        batches.append(list(configs))
        return [Metrics(0.5) for _ in configs]

    search(SPACE, evaluate, lambda metrics: metrics.accuracy, controller, budget=3)
    first, second = (np.array(SPACE.encode(config)) for config in batches[0])
    child = np.array(SPACE.encode(batches[1][0]))
    assert ((child == first) | (child == second)).all()
    assert (child != first).any()
    assert (child != second).any()


@BOTH
def test_one_search_serves_several_targets(controller: EvolutionController) -> None:
    ratios = (0.25, 0.5, 0.75)
    result, random = (
        search(SPACE, TASK, HardBudget(ratio=0.5), each, budget=400, target_ratios=ratios)
        for each in (controller, RandomController())
    )
    assert max(trial.metrics.latency_ms for trial in result.trials) <= 7.5
    for ratio in ratios:
        reward = HardBudget(target_ms=10.0 * ratio)
        assert reward(result.best_for(reward).metrics) > reward(random.best_for(reward).metrics)


def test_a_target_more_is_worth_a_tournament_of_its_own() -> None:
    ratios = (0.2, 0.8)
    result = search(
        SPACE, TASK, HardBudget(ratio=0.8), EvolutionController(), budget=200, target_ratios=ratios
    )
    children = result.trials[32:]
    small = [trial for trial in children if trial.metrics.latency_ms <= 2.0]
    assert 0.3 < len(small) / len(children) < 0.8


def test_an_informed_start_is_the_first_population_and_chance_fills_it_up() -> None:
    start = InformedStart(n_random=2)
    controller = EvolutionController(start=start)
    result = search(SPACE, TASK, REWARD, controller, budget=100, seed=4)
    problem = Problem(SPACE, REWARD, TASK.latency, 5.0, 10.0, TASK.importance)
    first = [*map(tuple, start.actions(problem, np.random.default_rng(4), 32))]
    proposed = [SPACE.encode(trial.config) for trial in result.trials]
    assert proposed[: len(first)] == first
    assert 10 < len(first) < 32
    assert len(set(proposed)) == 100


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("population_size", 1),
        ("children_per_generation", 0),
        ("tournament_size", 0),
        ("mutation_rate", -0.1),
        ("crossover_rate", 1.5),
    ],
)
def test_settings_out_of_range_are_named(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"{name}={value}"):
        EvolutionController(**{name: value})


@BOTH
def test_it_keeps_the_laws_of_controllers(controller: EvolutionController) -> None:
    check_controller(controller)


def test_it_keeps_them_with_an_informed_start() -> None:
    check_controller(EvolutionController(start=InformedStart()))
