from __future__ import annotations

import csv
import importlib.util
import random
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from stable_baselines3 import PPO

from rlnas.controllers.ppo import PPOController
from rlnas.controllers.random import RandomController
from rlnas.history import History
from rlnas.loop import search
from rlnas.metrics import Metrics
from rlnas.rewards import LatencyTarget, LinearPenalty
from rlnas.space import LayerOptions, LayerwiseSpace
from rlnas.tabular import additive_task
from rlnas.testing import check_controller

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from rlnas.space import SubnetConfig

SMALL = LayerwiseSpace((LayerOptions((0, 1, 2, 3), (0, 1, 2)),) * 3)
REWARD = LatencyTarget(ratio=0.5)
QUICK = PPOController(n_envs=8, n_epochs=2)


def test_the_last_episodes_come_close_to_the_known_optimum() -> None:
    seed = 5  # the settings were tuned on others
    space = LayerwiseSpace((LayerOptions((0, 1, 2, 3), (0, 1, 2, 3)),) * 3)
    task = additive_task(space, seed=seed)
    _, optimum = task.optimum(REWARD)
    learnt = search(space, task, REWARD, PPOController(), budget=500, seed=seed)
    drawn = search(space, task, REWARD, RandomController(), budget=500, seed=seed)
    assert learnt.episode_rewards[-64:].mean() > optimum - 0.02
    assert drawn.episode_rewards[-64:].mean() < optimum - 0.1


@pytest.mark.parametrize("budget", [1, 33, 64, 500])
def test_budget_is_exact(budget: int) -> None:
    space = LayerwiseSpace((LayerOptions((0, 1, 2, 3, 4), (0, 1, 2, 3, 4)),) * 12)
    controller = PPOController(n_epochs=2)
    result = search(space, additive_task(space), REWARD, controller, budget=budget)
    assert len(result.trials) == budget
    assert result.stop_reason == f"the budget of {budget} trials is spent"


def test_a_policy_that_has_made_up_its_mind_ends_the_search_with_a_sentence() -> None:
    controller = PPOController(learning_rate=0.02, ent_coef=0.0, n_epochs=5)
    result = search(SMALL, additive_task(SMALL), REWARD, controller, budget=500)
    assert 16 <= len(result.trials) < 500
    assert "brought no new subnet" in result.stop_reason


def test_equal_seeds_give_equal_searches_and_others_do_not() -> None:
    first, again, other = (
        search(SMALL, additive_task(SMALL), REWARD, QUICK, budget=50, seed=seed) for seed in (3, 3, 2**40)
    )
    assert first.trials == again.trials != other.trials
    np.testing.assert_array_equal(first.episode_rewards, again.episode_rewards)


def test_the_first_episodes_are_almost_uniform() -> None:
    space = LayerwiseSpace((LayerOptions((0, 1, 2, 3), (0, 1, 2, 3)),) * 6)
    controller = PPOController(n_envs=256)
    result = search(space, additive_task(space), LinearPenalty(), controller, budget=256)
    actions = np.array([space.encode(trial.config) for trial in result.trials])
    shares = np.stack([np.bincount(column, minlength=4) for column in actions.T]) / len(actions)
    assert np.abs(shares - 0.25).max() < 0.15


def test_a_hard_budget_holds_from_the_first_trial_on() -> None:
    task = additive_task(SMALL)
    hard = search(SMALL, task, LatencyTarget(ratio=0.3), QUICK, budget=30)
    soft = search(SMALL, task, LatencyTarget(ratio=0.3), PPOController(hard_budget=False), budget=30)
    assert max(trial.metrics.latency_ms for trial in hard.trials) <= 3.0
    assert max(trial.metrics.latency_ms for trial in soft.trials) > 3.0


class PowerCutError(Exception):
    pass


@pytest.mark.parametrize("n_answered", [0, 1, 5])
def test_a_search_broken_off_and_resumed_ends_like_an_unbroken_one(tmp_path: Path, n_answered: int) -> None:
    task = additive_task(SMALL)
    calls = 0

    def draw_and_judge(configs: Sequence[SubnetConfig]) -> list[Metrics]:
        torch.rand(3), np.random.rand(3), random.random()  # an evaluator may draw what it likes
        return task(configs)

    def fail_midway(configs: Sequence[SubnetConfig]) -> list[Metrics]:
        nonlocal calls
        calls += 1
        if calls > n_answered:
            raise PowerCutError
        return draw_and_judge(configs)

    options = {"budget": 50, "seed": 5, "latency": task.latency}
    unbroken = search(SMALL, draw_and_judge, REWARD, QUICK, path=tmp_path / "unbroken", **options)
    with pytest.raises(PowerCutError):
        search(SMALL, fail_midway, REWARD, QUICK, path=tmp_path / "broken", **options)
    with History.read(tmp_path / "broken") as stored:
        assert 0 <= len(stored.trials) < 50
    resumed = search(SMALL, draw_and_judge, REWARD, QUICK, path=tmp_path / "broken", resume=True, **options)
    assert resumed.trials == unbroken.trials
    np.testing.assert_array_equal(resumed.episode_rewards, unbroken.episode_rewards)


def test_the_callers_randomness_and_threads_are_left_alone() -> None:
    task = additive_task(SMALL)
    seen: list[tuple] = []

    def draw() -> tuple:
        return random.random(), float(np.random.rand()), float(torch.rand(()))

    def judge(configs: Sequence[SubnetConfig]) -> list[Metrics]:
        seen.append((*draw(), torch.get_num_threads()))
        return task(configs)

    def seed_all() -> None:
        random.seed(1)
        np.random.seed(2)
        torch.manual_seed(3)

    n_threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        seed_all()
        search(SMALL, judge, REWARD, QUICK, budget=30, latency=task.latency)
        after = draw()
        seed_all()
        assert seen == [(*draw(), 2) for _ in seen]
        assert after == draw()
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(n_threads)


def test_an_error_of_the_evaluator_restores_the_callers_randomness_too() -> None:
    def fail(configs: Sequence[SubnetConfig]) -> list[Metrics]:
        raise PowerCutError

    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    with pytest.raises(PowerCutError):
        search(SMALL, fail, LinearPenalty(reference_ms=10.0), QUICK, budget=30)
    torch.testing.assert_close(torch.rand(4), expected, rtol=0, atol=0)


def test_the_policy_is_saved_in_sb3s_own_form(tmp_path: Path) -> None:
    file = tmp_path / "new" / "controller.zip"
    search(SMALL, additive_task(SMALL), REWARD, PPOController(n_envs=8, save_path=file), budget=20)
    action, _ = PPO.load(file, device="cpu").predict(np.zeros(2 * len(SMALL.nvec) + 5, dtype=np.float32))
    assert 0 <= action < 4


def test_the_policy_is_saved_when_the_evaluator_fails(tmp_path: Path) -> None:
    def fail(configs: Sequence[SubnetConfig]) -> list[Metrics]:
        raise PowerCutError

    file = tmp_path / "controller.zip"
    controller = PPOController(save_path=file)
    with pytest.raises(PowerCutError):
        search(SMALL, fail, LinearPenalty(reference_ms=10.0), controller, budget=20)
    assert PPO.load(file, device="cpu").num_timesteps > 0


def test_the_log_holds_the_mean_episode_reward(tmp_path: Path) -> None:
    controller = PPOController(n_envs=8, n_epochs=1, log_dir=tmp_path)
    result = search(SMALL, additive_task(SMALL), REWARD, controller, budget=30)
    with (tmp_path / "progress.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert float(rows[0]["rollout/ep_rew_mean"]) == pytest.approx(result.episode_rewards[:8].mean())
    assert float(rows[0]["rollout/ep_len_mean"]) == len(SMALL.nvec)
    assert any(path.name.startswith("events.out.tfevents") for path in tmp_path.iterdir()) == (
        importlib.util.find_spec("tensorboard") is not None
    )


def test_without_tensorboard_the_log_is_the_csv_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    controller = PPOController(n_envs=8, n_epochs=1, log_dir=tmp_path)
    search(SMALL, additive_task(SMALL), REWARD, controller, budget=10)
    assert [path.name for path in tmp_path.iterdir()] == ["progress.csv"]


def test_nothing_is_written_or_printed_unless_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    search(SMALL, additive_task(SMALL), REWARD, QUICK, budget=10)
    assert not list(tmp_path.iterdir())
    assert capsys.readouterr() == ("", "")


def test_where_files_go_is_no_setting_of_the_search(tmp_path: Path) -> None:
    assert repr(PPOController(save_path=tmp_path, log_dir=tmp_path)) == repr(PPOController())


@pytest.mark.parametrize(
    ("settings", "shown"),
    [
        ({"n_envs": 1}, "n_envs=1"),
        ({"n_minibatches": 0}, "n_minibatches=0"),
        ({"n_envs": 16, "n_minibatches": 3}, "n_envs=16.*n_minibatches=3"),
    ],
    ids=str,
)
def test_settings_out_of_range_are_named(settings: dict[str, int], shown: str) -> None:
    with pytest.raises(ValueError, match=shown):
        PPOController(**settings)


def test_rewards_that_are_all_equal_are_survived() -> None:
    def indifferent(configs: Sequence[SubnetConfig]) -> list[Metrics]:
        return [Metrics(accuracy=0.1) for _ in configs]

    result = search(SMALL, indifferent, lambda metrics: metrics.accuracy, QUICK, budget=60)
    assert len(result.trials) == 60


def test_the_unit_and_origin_of_a_reward_do_not_matter() -> None:
    task = additive_task(SMALL)
    searches = [
        search(SMALL, task, reward, QUICK, budget=60)
        for reward in (lambda metrics: metrics.accuracy, lambda metrics: 1024.0 * metrics.accuracy - 512.0)
    ]
    first, second = ([trial.config for trial in result.trials] for result in searches)
    assert first[:40] == second[:40]


def test_it_keeps_the_laws_of_controllers() -> None:
    check_controller(QUICK)


def test_a_finished_search_goes_on_with_a_larger_budget(tmp_path: Path) -> None:
    task = additive_task(SMALL)
    first = search(SMALL, task, REWARD, QUICK, budget=30, seed=1, path=tmp_path)
    more = search(SMALL, task, REWARD, QUICK, budget=40, seed=1, path=tmp_path, resume=True)
    assert more.trials[: len(first.trials)] == first.trials
    assert len(first.trials) == 30
    assert len(more.trials) > 30
