from __future__ import annotations

from typing import TYPE_CHECKING

import gymnasium
import numpy as np
import pytest
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv

from rlnas.controllers.vec_env import SubnetVecEnv
from rlnas.env import SubnetEnv
from rlnas.errors import InfeasibleTargetError
from rlnas.protocols import Problem
from rlnas.rewards import LatencyTarget
from rlnas.space import LayerOptions, LayerwiseSpace
from rlnas.tabular import additive_task
from rlnas.trial import Trial

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rlnas.space import SubnetConfig

SPACE = LayerwiseSpace((LayerOptions((0, 1, 2), (0, 4, 8, 16)), LayerOptions((1, 2), (0, 16))))
TASK = additive_task(SPACE, seed=3)
N_ENVS, N_POSITIONS = 5, len(SPACE.nvec)


def make_problem(target_ms: float = 5.0) -> Problem:
    return Problem(
        SPACE, LatencyTarget(target_ms=target_ms), TASK.latency, target_ms, 10.0, TASK.importance
    )


def recorder(problem: Problem):
    batches: list[int] = []

    def evaluate(configs: Sequence[SubnetConfig]) -> list[Trial]:
        batches.append(len(configs))
        judged = zip(configs, TASK(configs), strict=True)
        return [
            Trial(i, config, metrics, problem.reward(metrics)) for i, (config, metrics) in enumerate(judged)
        ]

    return evaluate, batches


def make_pair(hard_budget: bool = True) -> tuple[SubnetVecEnv, DummyVecEnv]:
    problem = make_problem()
    evaluate, _ = recorder(problem)
    single = [lambda: SubnetEnv(problem, evaluate, hard_budget)] * N_ENVS
    return SubnetVecEnv(problem, evaluate, N_ENVS, hard_budget), DummyVecEnv(single)


@pytest.fixture
def vec_env() -> SubnetVecEnv:
    return make_pair()[0]


def assert_same_step(got: tuple, expected: tuple) -> None:
    for mine, theirs in zip(got[:3], expected[:3], strict=True):
        np.testing.assert_array_equal(mine, theirs)
        assert mine.dtype == theirs.dtype
    for mine, theirs in zip(got[3], expected[3], strict=True):
        last = mine.pop("terminal_observation", None), theirs.pop("terminal_observation", None)
        np.testing.assert_array_equal(*last)
        mine.pop("episode", None)
        assert mine == theirs


@pytest.mark.parametrize("hard_budget", [True, False], ids=["hard", "soft"])
def test_transitions_are_those_of_single_environments(hard_budget: bool) -> None:
    vec_env, singles = make_pair(hard_budget)
    rng = np.random.default_rng(0)
    np.testing.assert_array_equal(vec_env.reset(), singles.reset())
    for _ in range(6 * N_POSITIONS + 2):
        actions = rng.integers(SPACE.nvec[1], size=N_ENVS)
        assert_same_step(vec_env.step(actions), singles.step(actions))
    assert vec_env.observation_space == singles.observation_space
    assert vec_env.action_space == singles.action_space


def test_options_hold_for_the_next_episodes_only() -> None:
    vec_env, singles = make_pair()
    options = [{"target_ms": 2.0 + index} for index in range(N_ENVS)]
    for env in (vec_env, singles):
        env.set_options(options)
    np.testing.assert_array_equal(vec_env.reset(), singles.reset())
    actions = np.full(N_ENVS, 3)
    for _ in range(2 * N_POSITIONS):
        assert_same_step(vec_env.step(actions), singles.step(actions))
    assert len({tuple(row) for row in vec_env.reset()}) == 1


def test_the_ends_are_evaluated_as_one_batch() -> None:
    problem = make_problem()
    evaluate, batches = recorder(problem)
    vec_env = SubnetVecEnv(problem, evaluate, N_ENVS)
    vec_env.reset()
    for _ in range(3 * N_POSITIONS):
        vec_env.step(np.zeros(N_ENVS, dtype=np.int64))
    assert batches == [N_ENVS] * 3


def test_the_episode_summary_holds_the_true_reward_and_length(vec_env: SubnetVecEnv) -> None:
    vec_env.reset()
    for _ in range(N_POSITIONS - 1):
        assert all("episode" not in info for info in vec_env.step(np.arange(N_ENVS))[3])
    _, rewards, dones, infos = vec_env.step(np.arange(N_ENVS))
    assert dones.all()
    for info, reward in zip(infos, rewards, strict=True):
        exact = make_problem().reward(TASK([info["config"]])[0])
        assert info["episode"] == {"r": exact, "l": N_POSITIONS}
        assert reward == np.float32(exact)


def test_an_unreachable_target_is_refused() -> None:
    problem = make_problem(target_ms=0.5)
    with pytest.raises(InfeasibleTargetError, match=r"target_ms=0\.5"):
        SubnetVecEnv(problem, recorder(problem)[0], N_ENVS)


def test_attributes_belong_to_the_whole(vec_env: SubnetVecEnv) -> None:
    assert vec_env.get_attr("num_envs") == [N_ENVS] * N_ENVS
    assert vec_env.get_attr("num_envs", indices=[0, 2]) == [N_ENVS] * 2
    vec_env.set_attr("note", "set", indices=0)
    assert vec_env.get_attr("note", indices=1) == ["set"]
    assert vec_env.has_attr("render_mode")
    assert not vec_env.has_attr("absent")


def test_there_are_no_single_environments(vec_env: SubnetVecEnv) -> None:
    with pytest.raises(AttributeError, match="'action_masks'"):
        vec_env.env_method("action_masks")
    assert vec_env.env_is_wrapped(Monitor) == [False] * N_ENVS
    assert vec_env.env_is_wrapped(gymnasium.Wrapper, indices=0) == [False]
    assert list(vec_env.get_images()) == [None] * N_ENVS


def test_seeding_gives_a_seed_per_episode_and_changes_nothing(vec_env: SubnetVecEnv) -> None:
    before = vec_env.reset()
    assert vec_env.seed(7) == [7 + index for index in range(N_ENVS)]
    np.testing.assert_array_equal(vec_env.reset(), before)
    vec_env.close()


def test_targets_are_drawn_for_every_new_round_of_episodes() -> None:
    problem = make_problem()
    evaluate, _ = recorder(problem)
    drawn = [[2.0, 3.0, None, 7.0, 9.0], [4.0] * N_ENVS, [6.0] * N_ENVS]
    asked: list[int] = []

    def draw(n: int) -> list[float | None]:
        asked.append(n)
        return drawn[len(asked) - 1]

    vec_env = SubnetVecEnv(problem, evaluate, N_ENVS, draw_targets=draw)
    for targets in ([2.0, 3.0, 5.0, 7.0, 9.0], [4.0] * N_ENVS):  # None is the problem's own
        if len(asked) == 0:
            vec_env.reset()
        for _ in range(N_POSITIONS):
            _, rewards, dones, infos = vec_env.step(np.full(N_ENVS, 3))
        assert dones.all()
        np.testing.assert_array_equal(vec_env.ended_targets_ms, targets)
        for info, target_ms, reward in zip(infos, targets, rewards, strict=True):
            assert info["latency_ms"] <= target_ms
            metrics = TASK([info["config"]])[0]
            assert reward == np.float32(LatencyTarget(target_ms=target_ms)(metrics))
    assert asked == [N_ENVS] * 3


def test_options_of_a_reset_go_before_what_is_drawn() -> None:
    problem = make_problem()
    vec_env = SubnetVecEnv(problem, recorder(problem)[0], N_ENVS, draw_targets=lambda n: [4.0] * n)
    vec_env.set_options([{"target_ms": 8.0}, *[{}] * (N_ENVS - 1)])
    vec_env.reset()
    for _ in range(N_POSITIONS):
        vec_env.step(np.full(N_ENVS, 3))
    np.testing.assert_array_equal(vec_env.ended_targets_ms, [8.0] + [4.0] * (N_ENVS - 1))


def test_without_a_target_the_ended_targets_are_not_a_number() -> None:
    problem = Problem(SPACE, lambda metrics: metrics.accuracy, TASK.latency)
    vec_env = SubnetVecEnv(problem, recorder(problem)[0], N_ENVS)
    vec_env.reset()
    for _ in range(N_POSITIONS):
        vec_env.step(np.zeros(N_ENVS, dtype=np.int64))
    assert np.isnan(vec_env.ended_targets_ms).all()


def test_summed_latencies_give_the_same_episodes() -> None:
    problem = make_problem()
    exact, summed = (
        SubnetVecEnv(problem, recorder(problem)[0], N_ENVS, add_up=add_up) for add_up in (False, True)
    )
    rng = np.random.default_rng(0)
    np.testing.assert_allclose(exact.reset(), summed.reset(), rtol=1e-6)
    for _ in range(4 * N_POSITIONS):
        actions = rng.integers(SPACE.nvec[1], size=N_ENVS)
        first, second = exact.step(actions), summed.step(actions)
        np.testing.assert_allclose(first[0], second[0], rtol=1e-5, atol=1e-6)
        np.testing.assert_array_equal(exact.actions, summed.actions)
    assert exact.n_positions == N_POSITIONS
    assert exact.actions.shape == (N_ENVS, N_POSITIONS)
