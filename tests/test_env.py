from __future__ import annotations

import math
from typing import TYPE_CHECKING

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env as check_env_gymnasium
from hypothesis import given, settings
from hypothesis import strategies as st
from stable_baselines3.common.env_checker import check_env as check_env_sb3

from rlnas.env import ENV_ID, OBSERVATION_LIMIT, EpisodeDynamics, Guide, LatencyBudget, SubnetEnv
from rlnas.errors import InfeasibleTargetError, LatencyTableError, RewardError
from rlnas.metrics import Metrics
from rlnas.protocols import Problem
from rlnas.rewards import LatencyTarget, LinearPenalty
from rlnas.space import LayerOptions, LayerwiseSpace, ModelShape
from rlnas.tabular import additive_task
from rlnas.trial import Trial

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rlnas.space import SubnetConfig

SPACE = LayerwiseSpace(
    (
        LayerOptions((0, 1, 2, 4), (0, 8, 16)),
        LayerOptions((0, 2, 4), (0, 4, 8, 12, 16)),
        LayerOptions((4,), (8, 16)),
    )
)
N_POSITIONS = len(SPACE.nvec)


def additive_ms(configs: Sequence[SubnetConfig]) -> list[float]:
    return [
        sum(
            0.1 + 0.7 * layer.num_attention_heads + 0.3 * layer.intermediate_size for layer in config.layers
        )
        for config in configs
    ]


def tangled_ms(configs: Sequence[SubnetConfig]) -> list[float]:
    """Monotone in every position, but not a sum over positions."""
    return [
        2.0
        + max(layer.num_attention_heads for layer in config.layers)
        * math.sqrt(sum(layer.intermediate_size for layer in config.layers))
        for config in configs
    ]


def jagged_ms(configs: Sequence[SubnetConfig]) -> list[float]:
    """Not even monotone: sizes that are no multiple of 8 run slowly."""
    return [
        ms + 3.0 * sum(layer.intermediate_size % 8 != 0 for layer in config.layers)
        for config, ms in zip(configs, additive_ms(configs), strict=True)
    ]


LATENCIES = {"additive": additive_ms, "tangled": tangled_ms, "jagged": jagged_ms}


def accuracy_of(config: SubnetConfig) -> float:
    return 0.01 * sum(layer.num_attention_heads + layer.intermediate_size for layer in config.layers)


def make_problem(latency=additive_ms, target_ms: float | None = 9.0, **known) -> Problem:
    reward = (lambda metrics: metrics.accuracy) if target_ms is None else LatencyTarget(target_ms=target_ms)
    return Problem(SPACE, reward, latency, target_ms, **known)


def evaluator(problem: Problem):
    def evaluate(configs: Sequence[SubnetConfig]) -> list[Trial]:
        trials = []
        for number, config in enumerate(configs):
            # Where no latency can be predicted, the evaluator still measures one.
            latency_ms = (
                additive_ms([config])[0] if problem.latency is None else problem.latency([config])[0]
            )
            metrics = Metrics(accuracy_of(config), latency_ms)
            trials.append(Trial(number, config, metrics, problem.reward(metrics)))
        return trials

    return evaluate


def make_env(problem: Problem | None = None, hard_budget: bool = True) -> SubnetEnv:
    problem = make_problem() if problem is None else problem
    return SubnetEnv(problem, evaluator(problem), hard_budget)


def play(env: SubnetEnv, actions: Sequence[object], **reset) -> list[tuple]:
    env.reset(**reset)
    return [env.step(action) for action in actions]


VARIANTS = {
    "target": make_problem(reference_ms=20.0, importance=np.array([3.0, 1.0, 0.0, 2.0, 1.0, 1.0])),
    "no target": make_problem(target_ms=None),
    "no latency": make_problem(latency=None, target_ms=9.0),
    "nothing known": make_problem(latency=None, target_ms=None),
    "zero latency": make_problem(latency=lambda configs: [0.0] * len(configs)),
    "zero importance": make_problem(importance=np.zeros(N_POSITIONS)),
}


@pytest.mark.parametrize("problem", VARIANTS.values(), ids=VARIANTS.keys())
@pytest.mark.parametrize("hard_budget", [True, False], ids=["hard", "soft"])
def test_both_checkers_accept_the_environment(problem: Problem, hard_budget: bool) -> None:
    check_env_sb3(make_env(problem, hard_budget))
    registered = gymnasium.make(
        ENV_ID, problem=problem, evaluate=evaluator(problem), hard_budget=hard_budget
    )
    assert isinstance(registered.unwrapped, SubnetEnv)
    check_env_gymnasium(registered.unwrapped)


def test_gymnasium_says_which_arguments_are_missing() -> None:
    with pytest.raises(TypeError, match="'problem' and 'evaluate'"):
        gymnasium.make(ENV_ID)


@pytest.mark.parametrize("latency", LATENCIES.values(), ids=LATENCIES.keys())
@settings(max_examples=60, deadline=None)
@given(
    actions=st.lists(st.integers(0, 4), min_size=N_POSITIONS, max_size=N_POSITIONS),
    tightness=st.floats(0.0, 1.0),
)
def test_no_episode_breaks_a_hard_budget(latency, actions: list[int], tightness: float) -> None:
    floor_ms, ceiling_ms = latency([SPACE.smallest(), SPACE.largest()])
    target_ms = floor_ms + tightness * (ceiling_ms - floor_ms)
    info = play(make_env(make_problem(latency, target_ms)), actions)[-1][4]
    assert latency([info["config"]])[0] <= target_ms


@pytest.mark.parametrize("latency", LATENCIES.values(), ids=LATENCIES.keys())
@settings(max_examples=40, deadline=None)
@given(actions=st.lists(st.integers(0, 4), min_size=N_POSITIONS, max_size=N_POSITIONS))
def test_what_fits_a_budget_exactly_is_not_clipped(latency, actions: list[int]) -> None:
    free = play(make_env(make_problem(latency), hard_budget=False), actions)[-1][4]["config"]
    entries = SPACE.encode(free)
    prefixes = [SPACE.decode([*entries[:i], *[0] * (N_POSITIONS - i)]) for i in range(N_POSITIONS + 1)]
    target_ms = max(latency(prefixes))
    steps = play(make_env(make_problem(latency, target_ms)), actions)
    assert steps[-1][4]["config"] == free
    assert not any(step[4]["clipped"] for step in steps)


def test_an_action_is_clipped_to_the_largest_option_that_fits() -> None:
    # Smallest: 3 * 0.1 + 4 heads * 0.7 + 8 units * 0.3 = 5.5 ms; each unit is 0.3 ms more.
    actions = [0, 4, 0, 0, 0, 0]
    steps = play(make_env(make_problem(target_ms=5.5 + 8 * 0.3 + 0.1)), actions)
    assert [step[4]["clipped"] for step in steps] == [False, True, False, False, False, False]
    assert steps[-1][4]["config"].layers[0].intermediate_size == 8


def test_without_a_hard_budget_nothing_is_clipped() -> None:
    steps = play(make_env(make_problem(target_ms=6.0), hard_budget=False), [4] * N_POSITIONS)
    assert steps[-1][4]["config"] == SPACE.largest()
    assert not any(step[4]["clipped"] for step in steps)


def test_actions_map_in_order_onto_the_options_of_each_position() -> None:
    env = make_env(make_problem(target_ms=None))
    reached = [SPACE.encode(play(env, [action] * N_POSITIONS)[-1][4]["config"]) for action in range(5)]
    for column, n_options in zip(zip(*reached, strict=True), SPACE.nvec, strict=True):
        assert list(column) == sorted(column)
        assert set(column) == set(range(n_options))


ODD_ACTIONS = [-7, 10**6, math.nan, math.inf, -math.inf, np.array([2]), np.float32(1.5), True, 2.9]


@pytest.mark.parametrize("action", ODD_ACTIONS, ids=repr)
def test_any_action_is_survived(action: object) -> None:
    steps = play(make_env(), [action] * N_POSITIONS)
    assert steps[-1][2]
    assert steps[-1][4]["config"] in SPACE


def test_an_action_out_of_range_counts_as_the_nearest() -> None:
    env = make_env(make_problem(target_ms=None))
    assert play(env, [-3] * N_POSITIONS)[-1][4]["config"] == SPACE.smallest()
    assert play(env, [99] * N_POSITIONS)[-1][4]["config"] == SPACE.largest()


def test_the_reward_comes_with_the_last_step_only() -> None:
    problem = make_problem()
    steps = play(make_env(problem), [1] * N_POSITIONS)
    observation, reward, _, truncated, info = steps[-1]
    assert [step[1] for step in steps[:-1]] == [0.0] * (N_POSITIONS - 1)
    assert [step[2] for step in steps] == [False] * (N_POSITIONS - 1) + [True]
    assert reward == evaluator(problem)([info["config"]])[0].reward
    assert not truncated
    assert info["accuracy"] == accuracy_of(info["config"])
    assert info["latency_ms"] == additive_ms([info["config"]])[0]
    assert not observation[:N_POSITIONS].any()


def test_an_episode_that_is_over_stays_over() -> None:
    env = make_env()
    last = play(env, [1] * N_POSITIONS)[-1]
    observation, reward, terminated, truncated, _ = env.step(3)
    np.testing.assert_array_equal(observation, last[0])
    assert (reward, terminated, truncated) == (0.0, True, False)


def test_the_observation_says_what_the_table_says() -> None:
    importance = np.array([3.0, 1.0, 0.0, 2.0, 1.0, 1.0])
    env = make_env(make_problem(target_ms=9.0, reference_ms=20.0, importance=importance))
    env.reset()
    env.step(1)  # of 4 options for 5 actions: option 0, no head
    observation = env.step(2)[0]  # of 3 options: option 1, 8 units of 0.3 ms
    position, decided, scalars = np.split(observation, [N_POSITIONS, 2 * N_POSITIONS])
    np.testing.assert_array_equal(position, np.eye(N_POSITIONS)[2])
    np.testing.assert_allclose(decided, [1 / 4, 2 / 3, 0, 0, 0, 0], rtol=1e-6)
    spent_ms, finish_ms = 2.4, 5.5 + 2.4
    expected = [spent_ms / 9, (9 - finish_ms) / 9, finish_ms / 9, 9 / 20, 0.0 / 3]
    np.testing.assert_allclose(scalars, expected, rtol=1e-5, atol=1e-6)


def test_without_a_reference_latencies_refer_to_the_largest_subnet() -> None:
    target_ms, largest_ms = 9.0, additive_ms([SPACE.largest()])[0]
    observation, _ = make_env(make_problem(target_ms=target_ms)).reset()
    assert observation[-2] == pytest.approx(target_ms / largest_ms)


@pytest.mark.parametrize("problem", VARIANTS.values(), ids=VARIANTS.keys())
def test_observations_stay_within_their_space(problem: Problem) -> None:
    env = make_env(problem, hard_budget=False)
    rng = np.random.default_rng(0)
    for _ in range(20):
        for step in play(env, rng.integers(5, size=N_POSITIONS)):
            assert env.observation_space.contains(step[0])


def test_extreme_latencies_are_limited() -> None:
    env = make_env(make_problem(lambda configs: [1e9 * x for x in additive_ms(configs)], 1e-3), False)
    last = play(env, [4] * N_POSITIONS)[-1][0]
    assert last.max() == OBSERVATION_LIMIT
    assert last.min() == -OBSERVATION_LIMIT


def test_the_target_of_an_episode_can_be_chosen() -> None:
    env, target_ms = make_env(make_problem(target_ms=9.0)), 7.0
    steps = play(env, [4] * N_POSITIONS, options={"target_ms": target_ms})
    assert steps[-1][4]["latency_ms"] <= target_ms
    finish, left = steps[-1][0][-3], steps[-1][0][-4]
    assert finish + left == pytest.approx(1.0)
    again = play(env, [4] * N_POSITIONS)  # back to the problem's own
    assert target_ms < again[-1][4]["latency_ms"] <= 9.0


def test_another_target_is_rewarded_under_that_target() -> None:
    problem = make_problem(target_ms=6.0)
    _, reward, _, _, info = play(
        make_env(problem, hard_budget=False), [4] * N_POSITIONS, options={"target_ms": 12.0}
    )[-1]
    metrics = Metrics(info["accuracy"], info["latency_ms"])
    assert reward == LatencyTarget(target_ms=12.0)(metrics)
    assert reward != problem.reward(metrics)


def test_a_reward_without_targets_refuses_one() -> None:
    env = make_env(make_problem(target_ms=None))
    with pytest.raises(RewardError, match=r"target_ms=8\.0"):
        env.reset(options={"target_ms": 8.0})


def test_a_target_below_the_floor_is_refused_with_the_floor() -> None:
    with pytest.raises(InfeasibleTargetError, match=r"target_ms=5 cannot be met.*takes 5\.5 ms"):
        make_env(make_problem(target_ms=5.0))
    with pytest.raises(InfeasibleTargetError, match=r"target_ms=5 cannot be met.*takes 5\.5 ms"):
        make_env().reset(options={"target_ms": 5.0})


def test_a_soft_target_may_be_below_the_floor() -> None:
    assert play(make_env(make_problem(target_ms=5.0), hard_budget=False), [0] * N_POSITIONS)[-1][2]


@pytest.mark.parametrize("target_ms", [0.0, -1.0, math.nan, math.inf])
def test_a_target_must_be_a_positive_number(target_ms: float) -> None:
    with pytest.raises(InfeasibleTargetError, match=f"target_ms={target_ms}"):
        make_env(hard_budget=False).reset(options={"target_ms": target_ms})


@pytest.mark.parametrize(
    ("latency", "shown"),
    [
        (lambda configs: [1.0], r"here 2, but got \[1\.\]"),
        (lambda configs: [math.nan] * len(configs), r"here 2, but got \[nan nan\]"),
    ],
    ids=["too few", "not a number"],
)
def test_a_broken_latency_model_is_named(latency, shown: str) -> None:
    with pytest.raises(LatencyTableError, match=shown):
        make_env(make_problem(latency))


def test_unknown_latencies_are_not_a_number() -> None:
    budget = LatencyBudget(make_problem(latency=None))
    assert not budget.is_known
    assert np.isnan(budget.predict(np.zeros((3, N_POSITIONS), dtype=np.int64))).all()
    assert math.isnan(budget.floor_ms)


def test_episodes_in_lockstep_do_not_touch_each_other() -> None:
    problem = make_problem(tangled_ms, 20.0)
    rng = np.random.default_rng(0)
    actions = rng.integers(5, size=(N_POSITIONS, 8))
    many = EpisodeDynamics(problem, 8)
    clipped = np.array([many.step(row) for row in actions])
    for column in range(8):
        one = EpisodeDynamics(problem)
        assert [bool(one.step(action)[0]) for action in actions[:, column]] == list(clipped[:, column])
        assert one.configs() == [many.configs()[column]]
    assert clipped.any()


def test_the_latency_model_is_asked_once_per_step_and_never_twice_about_a_subnet() -> None:
    calls: list[int] = []

    def counting(configs: Sequence[SubnetConfig]) -> list[float]:
        calls.append(len(set(configs)))
        return additive_ms(configs)

    dynamics = EpisodeDynamics(make_problem(counting, 100.0), 3)
    n_to_decide = sum(n_options > 1 for n_options in SPACE.nvec)
    for expected in ([2] * n_to_decide, []):  # the second time it is all known
        calls.clear()
        dynamics.reset()
        for _ in SPACE.nvec:
            dynamics.step([4, 4, 3])
        assert calls == expected


def test_a_guide_shows_worth_and_cost_of_the_options_at_hand():
    space = LayerwiseSpace.for_model(ModelShape(2, 4, 16, 8), (0, 4), (0, 8, 16))

    def latency(configs):
        return [1 + sum(x.num_attention_heads + x.intermediate_size / 8 for x in c.layers) for c in configs]

    problem = Problem(
        space=space, reward=LatencyTarget(target_ms=6.0), latency=latency, target_ms=6.0, reference_ms=13.0
    )
    guide = Guide(problem)
    assert guide.cost_ms.tolist() == [[0.0, 0.0, 4.0], [0.0, 1.0, 2.0]] * 2
    guide.learn([np.array([0.0, 3.0]), np.array([0.0, 1.0, 2.0]), np.array([0.0, 3.0]), np.zeros(3)])
    dynamics = EpisodeDynamics(problem, 2, guide=guide)
    plain = EpisodeDynamics(problem, 2)
    seen = dynamics.observe()
    assert seen.shape == (2, plain.observation_size + guide.n_values)
    assert np.array_equal(seen[:, : plain.observation_size], plain.observe())
    left_ms = 6.0 - 1.0
    # On average a position is worth 2; later ones are worth 5 of 8; all options cost 4 + 2 + 4 + 2.
    first = [0.0, 0.0, 1.5, 5 / 8, 0.0, 0.0, 4 / left_ms, 12 / left_ms]
    assert seen[0, plain.observation_size :].tolist() == pytest.approx(first)
    dynamics.step([2, 0])
    later = dynamics.observe()[:, plain.observation_size :]
    assert later[0, 4:].tolist() == pytest.approx([0.0, 1 / 1.0, 2 / 1.0, 8 / 1.0])
    assert later[1, 4:].tolist() == pytest.approx([0.0, 1 / left_ms, 2 / left_ms, 8 / left_ms])
    for _ in range(3):
        dynamics.step([0, 0])
    assert dynamics.is_over
    assert not dynamics.observe()[:, plain.observation_size :].any()


def test_a_guide_begins_with_the_importance_that_options_keep():
    task = additive_task(LayerwiseSpace.for_model(ModelShape(2, 4, 16, 8)))
    parts = task.accuracy_parts

    def kept(configs):
        return [sum(p[e] for p, e in zip(parts, task.space.encode(c), strict=True)) for c in configs]

    problem = Problem(space=task.space, reward=LinearPenalty(), kept_importance=kept)
    assert Guide(problem).worth == pytest.approx(np.stack(parts))
    assert not Guide(problem).cost_ms.any()


@pytest.mark.parametrize("latency", [additive_ms, jagged_ms], ids=["additive", "jagged"])
def test_latencies_that_add_up_are_summed_and_the_same_but_for_rounding(latency) -> None:
    exact, summed = (LatencyBudget(make_problem(latency)) for _ in range(2))
    assert not summed.adds_up
    summed.add_up()
    assert summed.adds_up
    rng = np.random.default_rng(0)
    actions = rng.integers(SPACE.nvec, size=(100, N_POSITIONS))
    np.testing.assert_allclose(summed.predict(actions), exact.predict(actions), rtol=1e-12)
    assert (summed.floor_ms, summed.reference_ms) == (exact.floor_ms, exact.reference_ms)


def test_summed_latencies_ask_the_model_no_more() -> None:
    calls: list[int] = []

    def counting(configs: Sequence[SubnetConfig]) -> list[float]:
        calls.append(len(configs))
        return additive_ms(configs)

    dynamics = EpisodeDynamics(make_problem(counting), 3, add_up=True)
    calls.clear()
    for _ in range(2):
        dynamics.reset()
        for _ in SPACE.nvec:
            dynamics.step([4, 4, 3])
    assert calls == []
    assert max(additive_ms(dynamics.configs())) <= 9.0


def test_latencies_that_do_not_add_up_are_asked_for_as_before() -> None:
    budget = LatencyBudget(make_problem(tangled_ms, 30.0))
    budget.add_up()
    assert not budget.adds_up
    actions = np.random.default_rng(0).integers(SPACE.nvec, size=(20, N_POSITIONS))
    expected = tangled_ms([SPACE.decode(action) for action in actions.tolist()])
    np.testing.assert_array_equal(budget.predict(actions), expected)


def test_nothing_known_adds_up_to_nothing() -> None:
    budget = LatencyBudget(make_problem(latency=None))
    budget.add_up()
    assert not budget.adds_up
    assert np.isnan(budget.predict(np.zeros((3, N_POSITIONS), dtype=np.int64))).all()


def test_episodes_have_targets_and_rewards_of_their_own() -> None:
    problem = make_problem(target_ms=9.0)
    dynamics = EpisodeDynamics(problem, 3, add_up=True)
    dynamics.reset([7.0, None, 12.0])
    np.testing.assert_array_equal(dynamics.targets_ms, [7.0, 9.0, 12.0])
    for _ in SPACE.nvec:
        dynamics.step([4, 4, 4])
    trials, rewards = dynamics.score(evaluator(problem))
    assert all(t.metrics.latency_ms <= ms for t, ms in zip(trials, (7.0, 9.0, 12.0), strict=True))
    expected = [
        LatencyTarget(target_ms=ms)(t.metrics) for t, ms in zip(trials, (7.0, 9.0, 12.0), strict=True)
    ]
    np.testing.assert_array_equal(rewards, expected)
    assert dynamics.actions.shape == (3, N_POSITIONS)
    dynamics.reset()
    np.testing.assert_array_equal(dynamics.targets_ms, [9.0] * 3)
