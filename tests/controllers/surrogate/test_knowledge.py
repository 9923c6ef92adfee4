from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import pytest

from rlnas.controllers.surrogate.knowledge import MIN_FITTED, Knowledge, expected_rewards, item_noise
from rlnas.errors import ControllerError, RewardError
from rlnas.metrics import Metrics
from rlnas.protocols import Problem
from rlnas.rewards import LatencyTarget, LinearPenalty
from rlnas.space import LayerOptions, LayerwiseSpace
from rlnas.tabular import additive_task
from rlnas.trial import Trial

SPACE = LayerwiseSpace((LayerOptions((0, 1, 2, 3), (0, 1, 2)),) * 3)
TASK = additive_task(SPACE)
PROBLEM = Problem(SPACE, LatencyTarget(target_ms=5.0), TASK.latency, 5.0, 10.0)


def draw(n: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    distinct = np.unique(rng.integers(SPACE.nvec, size=(4 * n, len(SPACE.nvec))), axis=0)
    return rng.permutation(distinct)[:n]


def judged(actions: np.ndarray, problem: Problem = PROBLEM, task=TASK) -> list[Trial]:
    configs = [SPACE.decode(action.tolist()) for action in actions]
    rows = enumerate(zip(configs, task(configs), strict=True))
    return [Trial(i, config, metrics, float(problem.reward(metrics))) for i, (config, metrics) in rows]


def make_knowledge(n: int = 60, problem: Problem = PROBLEM, task=TASK, gate: float = 0.5) -> Knowledge:
    knowledge = Knowledge(problem, gate, seed=0)
    knowledge.learn(judged(draw(n), problem, task))
    knowledge.fit()
    return knowledge


def noise(configs) -> list[Metrics]:
    return [Metrics(float(np.random.default_rng(SPACE.encode(c)).normal()), 5.0) for c in configs]


def test_it_remembers_each_subnet_once_and_in_order() -> None:
    knowledge = Knowledge(PROBLEM, 0.5, seed=0)
    assert len(knowledge) == 0
    assert knowledge.actions.shape == (0, len(SPACE.nvec))
    actions = draw(12)
    trials = judged(actions)
    knowledge.learn(trials[:8])
    knowledge.learn([replace(trials[3], number=99), *trials[5:]])
    assert knowledge.trials == trials
    np.testing.assert_array_equal(knowledge.actions, actions)
    assert len(knowledge) == 12
    assert knowledge.is_known(actions[11])
    assert not knowledge.is_known(draw(13)[12])
    assert knowledge.space is SPACE


def test_too_few_trials_are_not_fitted() -> None:
    assert make_knowledge(MIN_FITTED - 1).ensemble is None
    assert not make_knowledge(MIN_FITTED - 1, gate=-1.0).is_trusted
    assert make_knowledge(MIN_FITTED).ensemble is not None


def test_nothing_is_predicted_before_something_was_fitted() -> None:
    blank = Knowledge(PROBLEM, 0.5, seed=0)
    with pytest.raises(ControllerError, match="nothing can be predicted before a fit; call fit first"):
        blank.predict(draw(3))
    with pytest.raises(ControllerError, match="nothing is expected of trials before a fit; call fit first"):
        blank.expected()


def test_of_nothing_nothing_is_predicted() -> None:
    nothing = np.zeros((0, len(SPACE.nvec)), dtype=np.int64)
    assert make_knowledge().rewards(nothing, np.zeros(0)).shape == (0,)


def trial_of(correct: np.ndarray, number: int = 0) -> Trial:
    metrics = Metrics(correct.mean(), n_items=len(correct), correct=np.packbits(correct).tobytes())
    return Trial(number, SPACE.smallest(), metrics, 0.0)


def test_noise_is_what_items_that_tell_subnets_apart_bring() -> None:
    rng = np.random.default_rng(0)
    hard = rng.random(1000) < 0.2  # all subnets fail there, which makes no difference between them
    trials = [trial_of(~hard & (rng.random(1000) >= 0.1)) for _ in range(40)]
    observed = np.var([trial.metrics.accuracy for trial in trials])
    assert item_noise(trials) == pytest.approx(0.8 * 0.1 * 0.9 / 1000, rel=0.05)
    assert item_noise(trials) == pytest.approx(observed, rel=0.5)
    alike = [trial_of(~hard) for _ in range(3)]
    assert item_noise(alike) == 0.0


def test_noise_without_single_answers_is_binomial_or_not_known() -> None:
    metrics = Metrics(0.8, n_items=400)
    assert item_noise([Trial(0, SPACE.smallest(), metrics, 0.0)]) == pytest.approx(0.8 * 0.2 / 400)
    assert item_noise([Trial(0, SPACE.smallest(), Metrics(0.8), 0.0)]) is None
    assert item_noise([Trial(0, SPACE.smallest(), Metrics(0.8, n_items=9, raced_out=True), 0.0)]) is None


def test_without_noise_what_was_seen_is_what_is_expected() -> None:
    knowledge = Knowledge(PROBLEM, 0.0, seed=0)
    alike = np.ones(64, dtype=bool)
    trials = [
        replace(trial, metrics=replace(trial.metrics, n_items=64, correct=np.packbits(alike).tobytes()))
        for trial in judged(draw(40))
    ]
    knowledge.learn(trials)
    knowledge.fit()
    seen = [trial.metrics.accuracy for trial in knowledge.trials]
    np.testing.assert_allclose(knowledge.expected(), seen)


def test_it_is_trusted_where_it_ranks_well_and_not_on_noise() -> None:
    assert make_knowledge().is_trusted
    assert not make_knowledge(task=noise).is_trusted
    assert make_knowledge(task=noise, gate=-1.0).is_trusted


@pytest.mark.parametrize("target_ms", [3.0, 5.0, 8.0])
def test_rewards_follow_from_the_predicted_accuracy_and_the_exact_latency(target_ms: float) -> None:
    knowledge, actions = make_knowledge(), draw(40, seed=7)
    mean, std = knowledge.predict(actions)
    latencies = TASK.latency([SPACE.decode(action) for action in actions.tolist()])
    reward = LatencyTarget(target_ms=target_ms)
    for optimism in (0.0, 2.0):
        found = knowledge.rewards(actions, np.full(40, target_ms), optimism)
        values = mean + optimism * std
        expected = [reward(Metrics(a, ms)) for a, ms in zip(values, latencies, strict=True)]
        np.testing.assert_allclose(found, expected, rtol=1e-9)
    truth = [reward(trial.metrics) for trial in judged(actions)]
    np.testing.assert_allclose(knowledge.rewards(actions, np.full(40, target_ms)), truth, atol=0.12)


def test_each_action_is_asked_for_at_its_own_target() -> None:
    knowledge, actions = make_knowledge(), np.repeat(np.array([SPACE.nvec]) - 1, 3, axis=0)
    low, high, own = knowledge.rewards(actions, np.array([2.0, 9.0, math.nan]))
    assert low < own < high


def test_what_is_imagined_has_the_problems_own_reward_and_no_number() -> None:
    knowledge, actions = make_knowledge(), draw(20, seed=7)
    configs = [SPACE.decode(action) for action in actions.tolist()]
    imagined = knowledge.imagine(configs, actions)
    assert [trial.config for trial in imagined] == configs
    assert {trial.number for trial in imagined} == {-1}
    rewards = [trial.reward for trial in imagined]
    np.testing.assert_allclose(rewards, knowledge.rewards(actions, np.full(20, 5.0)))
    assert rewards == [PROBLEM.reward(trial.metrics) for trial in imagined]


def extra_task(configs) -> list[Metrics]:
    """Accuracy is noise; a further value is what matters."""
    return [
        replace(metrics, extra={"power": judged_metrics.accuracy})
        for metrics, judged_metrics in zip(noise(configs), TASK(configs), strict=True)
    ]


def power(metrics: Metrics) -> float:
    return 3.0 * metrics.extra["power"] - 1.0


def test_a_reward_that_looks_at_something_else_is_modelled_itself() -> None:
    knowledge = make_knowledge(problem=Problem(SPACE, power, TASK.latency), task=extra_task)
    assert knowledge.models_reward
    assert knowledge.is_trusted
    actions = draw(40, seed=7)
    truth = [power(metrics) for metrics in extra_task([SPACE.decode(a) for a in actions.tolist()])]
    predicted = knowledge.rewards(actions, np.full(40, math.nan))
    assert np.corrcoef(predicted, truth)[0, 1] > 0.9
    np.testing.assert_array_equal(predicted, knowledge.rewards(actions, np.full(40, 3.0)))
    imagined = knowledge.imagine([SPACE.decode(a) for a in actions.tolist()], actions)
    np.testing.assert_array_equal([trial.reward for trial in imagined], predicted)


@pytest.mark.parametrize(
    "reward", [LatencyTarget(target_ms=5.0), LinearPenalty(reference_ms=10.0)], ids=["target", "penalty"]
)
def test_without_a_latency_model_a_reward_of_latency_is_modelled_itself(reward) -> None:
    problem = Problem(SPACE, reward, target_ms=getattr(reward, "target_ms", None))
    knowledge = make_knowledge(problem=problem)
    assert knowledge.models_reward
    assert np.isfinite(knowledge.rewards(draw(9, seed=7), np.full(9, 5.0))).all()


@pytest.mark.parametrize(
    ("reward", "latency"),
    [(LatencyTarget(target_ms=5.0), TASK.latency), (lambda metrics: metrics.accuracy, None)],
    ids=["known", "not needed"],
)
def test_else_the_accuracy_is_modelled(reward, latency) -> None:
    assert not make_knowledge(problem=Problem(SPACE, reward, latency)).models_reward


def test_the_best_so_far_is_that_within_the_target() -> None:
    knowledge = make_knowledge()
    targets = np.array([2.5, 5.0, 9.0])
    latencies = knowledge.budget.predict(knowledge.actions)
    best = knowledge.best_rewards(targets)
    for found, target_ms in zip(best, targets, strict=True):
        within = knowledge.actions[latencies <= target_ms]
        assert found == knowledge.rewards(within, np.full(len(within), target_ms)).max()
    assert best[0] < best[1] < best[2]


def test_where_nothing_is_within_a_target_the_fastest_counts() -> None:
    knowledge = make_knowledge()
    row = np.argmin(knowledge.budget.predict(knowledge.actions))
    found = knowledge.best_rewards(np.array([0.5]))
    np.testing.assert_array_equal(found, knowledge.rewards(knowledge.actions[[row]], np.array([0.5])))


@dataclass(frozen=True)
class Noisy:
    """The additive task as a small validation set would see it."""

    noise: float

    def __call__(self, configs) -> list[Metrics]:
        judged = additive_task(SPACE, noise=self.noise)(configs)
        return [replace(metrics, n_items=round(0.25 / self.noise**2)) for metrics in judged]


def test_the_luck_of_the_items_is_averaged_out() -> None:
    trials = judged(draw(80), task=Noisy(0.06))
    truth = np.array([trial.reward for trial in judged(draw(80))])
    observed = np.array([trial.reward for trial in trials])
    expected = expected_rewards(PROBLEM, trials)
    assert np.mean((expected - truth) ** 2) < 0.6 * np.mean((observed - truth) ** 2)


def test_what_was_seen_stands_where_nobody_knows_how_noisy_it_is() -> None:
    knowledge = make_knowledge(task=additive_task(SPACE, noise=0.06))
    seen = [trial.metrics.accuracy for trial in knowledge.trials]
    np.testing.assert_array_equal(knowledge.expected(), seen)


def test_the_most_lucky_trial_flatters_less_once_it_is_expected() -> None:
    trials = judged(draw(80), task=Noisy(0.15))
    truth = np.array([trial.reward for trial in judged(draw(80))])
    observed = np.array([trial.reward for trial in trials])
    expected = expected_rewards(PROBLEM, trials)
    assert expected.max() - truth[expected.argmax()] < 0.5 * (observed.max() - truth[observed.argmax()])


def test_expected_rewards_are_of_the_target_asked_for() -> None:
    trials = judged(draw(60))
    truth = [LatencyTarget(target_ms=3.0)(trial.metrics) for trial in trials]
    np.testing.assert_allclose(expected_rewards(PROBLEM, trials, target_ms=3.0), truth)


@pytest.mark.parametrize(("n", "task"), [(MIN_FITTED - 1, TASK), (40, noise)], ids=["few", "noise"])
def test_where_there_is_nothing_to_learn_the_trials_own_rewards_are_given(n: int, task) -> None:
    trials = judged(draw(n, seed=2), task=task)
    own = [trial.reward for trial in trials]
    np.testing.assert_array_equal(expected_rewards(PROBLEM, trials), own)
    shifted = [LatencyTarget(target_ms=3.0)(trial.metrics) for trial in trials]
    np.testing.assert_array_equal(expected_rewards(PROBLEM, trials, target_ms=3.0), shifted)


@pytest.mark.parametrize("n", [5, 40])
def test_a_reward_without_targets_is_not_expected_at_one(n: int) -> None:
    problem = Problem(SPACE, lambda metrics: metrics.accuracy, TASK.latency)
    assert len(expected_rewards(problem, judged(draw(n), problem))) == n
    with pytest.raises(RewardError, match=r"target_ms=3\.0"):
        expected_rewards(problem, judged(draw(n), problem), target_ms=3.0)


def test_main_effects_are_what_options_add_where_accuracies_add_up() -> None:
    effects = make_knowledge(300).main_effects()
    assert [len(effect) for effect in effects] == list(SPACE.nvec)
    for effect, part in zip(effects, TASK.accuracy_parts, strict=True):
        assert effect[0] == 0.0
        np.testing.assert_allclose(effect, part, atol=0.04)


def test_main_effects_are_those_around_good_subnets() -> None:
    """A block whose worth depends on another one counts as it does where that one is there."""

    def tangled(configs) -> list[Metrics]:
        actions = np.array([SPACE.encode(config) for config in configs])
        return [Metrics(float(a[0] + a[0] * (a[1] == 2)), 5.0) for a in actions]

    problem = Problem(SPACE, lambda metrics: metrics.accuracy)
    effects = make_knowledge(300, problem, tangled).main_effects()
    assert effects[0][3] > 4.0  # 3 on its own, 6 beside the other one, which good subnets have
    assert max(np.abs(effect).max() for effect in effects[2:]) < 0.5
