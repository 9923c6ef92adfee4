from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from rlnas.controllers.feasible import FeasibleSampler
from rlnas.controllers.surrogate.knowledge import Knowledge
from rlnas.controllers.surrogate.policy import PolicySettings, PolicyTrainer
from rlnas.controllers.surrogate.proposers import (
    EvolutionProposer,
    KnapsackProposer,
    LocalProposer,
    MixedProposer,
    PolicyProposer,
)
from rlnas.protocols import Problem
from rlnas.rewards import LatencyTarget
from rlnas.space import LayerOptions, LayerwiseSpace
from rlnas.tabular import additive_task
from rlnas.trial import Trial

SPACE = LayerwiseSpace((LayerOptions((0, 1, 2, 3), (0, 1, 2)),) * 3)
EVERYTHING = np.array(list(itertools.product(*(range(n) for n in SPACE.nvec))), dtype=np.int64)
TASK = additive_task(SPACE)
TARGET_MS = 5.0
PROBLEM = Problem(SPACE, LatencyTarget(target_ms=TARGET_MS), TASK.latency, TARGET_MS, 10.0)
UNTARGETED = Problem(SPACE, lambda metrics: metrics.accuracy)

CLIMBING = pytest.mark.parametrize("kind", [LocalProposer, EvolutionProposer])
KINDS = pytest.mark.parametrize("kind", [LocalProposer, EvolutionProposer, KnapsackProposer])
PROBLEMS = pytest.mark.parametrize("problem", [PROBLEM, UNTARGETED], ids=["target", "nothing known"])


class Judge:
    """Answers proposals, and remembers them."""

    def __init__(self, problem: Problem) -> None:
        self._problem = problem
        self.batches: list[np.ndarray] = []

    def __call__(self, configs) -> list[Trial]:
        self.batches.append(np.array([SPACE.encode(config) for config in configs]))
        judged = zip(configs, TASK(configs), strict=True)
        return [Trial(i, c, m, float(self._problem.reward(m))) for i, (c, m) in enumerate(judged)]


def make_knowledge(problem: Problem = PROBLEM, actions: np.ndarray | None = None) -> Knowledge:
    if actions is None:
        actions = np.random.default_rng(0).permutation(EVERYTHING)[:60]
    knowledge = Knowledge(problem, 0.5, seed=0)
    knowledge.learn(Judge(problem)([SPACE.decode(action) for action in actions.tolist()]))
    knowledge.fit()
    return knowledge


def make(kind, problem: Problem = PROBLEM, knowledge: Knowledge | None = None):
    sampler = FeasibleSampler(problem, np.random.default_rng(1))
    return kind(knowledge or make_knowledge(problem), SPACE.nvec, sampler, 12, 3)


def make_policy_proposer(problem: Problem = PROBLEM) -> PolicyProposer:
    settings = PolicySettings(n_envs=8, n_true_envs=6, n_epochs=1)
    knowledge = make_knowledge(problem)
    return PolicyProposer(PolicyTrainer(problem, knowledge, settings, seed=0), knowledge)


def milliseconds(actions: np.ndarray) -> np.ndarray:
    return np.array(TASK.latency([SPACE.decode(action) for action in actions.tolist()]))


@CLIMBING
@pytest.mark.parametrize("target_ms", [3.0, 5.0, 7.5])
def test_the_best_of_the_whole_surrogate_is_found(kind, target_ms: float) -> None:
    knowledge = make_knowledge()
    within = EVERYTHING[milliseconds(EVERYTHING) <= target_ms]
    top = knowledge.rewards(within, np.full(len(within), target_ms)).max()
    proposed = make(kind, knowledge=knowledge).propose(target_ms, 128)
    found = knowledge.rewards(proposed, np.full(len(proposed), target_ms))
    known = knowledge.actions[milliseconds(knowledge.actions) <= target_ms]
    assert found.max() == pytest.approx(top, abs=1e-6)
    assert found.max() > knowledge.rewards(known, np.full(len(known), target_ms)).max()


@CLIMBING
def test_proposals_are_distinct_ordered_and_within_the_target(kind) -> None:
    knowledge = make_knowledge()
    proposed = make(kind, knowledge=knowledge).propose(4.0, 16)
    assert 1 < len(proposed) <= 16
    assert len(np.unique(proposed, axis=0)) == len(proposed)
    assert milliseconds(proposed).max() <= 4.0
    rewards = knowledge.rewards(proposed, np.full(len(proposed), 4.0))
    assert (np.diff(rewards) <= 1e-12).all()


@pytest.mark.parametrize("target_ms", [3.0, 5.0, 7.5])
def test_the_knapsack_lists_all_by_their_main_effects_from_the_best_on(target_ms: float) -> None:
    knowledge = make_knowledge()
    effects = knowledge.main_effects()
    sums = sum(effect[EVERYTHING[:, i]] for i, effect in enumerate(effects))
    expected = np.sort(sums[milliseconds(EVERYTHING) <= target_ms])[::-1]
    proposed = make(KnapsackProposer, knowledge=knowledge).propose(target_ms, 24)
    assert len(np.unique(proposed, axis=0)) == len(proposed) == min(24, len(expected))
    assert milliseconds(proposed).max() <= target_ms
    found = sum(effect[proposed[:, i]] for i, effect in enumerate(effects))
    np.testing.assert_allclose(found, expected[:24], atol=1e-8)


def test_the_knapsack_repairs_what_turns_out_slower_where_latencies_do_not_add_up() -> None:
    def latency(configs):
        return [ms * (1.5 if ms < 5.0 else 1.0) for ms in TASK.latency(configs)]

    problem = Problem(SPACE, LatencyTarget(target_ms=TARGET_MS), latency, TARGET_MS, 10.0)
    proposed = make(KnapsackProposer, problem).propose(TARGET_MS, 64)
    assert len(proposed) == 64
    assert max(latency([SPACE.decode(action) for action in proposed.tolist()])) <= TARGET_MS


@KINDS
def test_without_a_target_the_most_accurate_is_found(kind) -> None:
    proposed = make(kind, UNTARGETED).propose(math.nan, 64)
    (metrics,) = TASK([SPACE.decode(proposed[0].tolist())])
    assert metrics.accuracy > 0.89  # of 0.9


@KINDS
def test_where_no_known_subnet_is_within_the_target_it_starts_from_the_smallest(kind) -> None:
    slow = EVERYTHING[milliseconds(EVERYTHING) > 6.0][::20]
    proposed = make(kind, knowledge=make_knowledge(actions=slow)).propose(2.0, 8)
    assert len(proposed)
    assert milliseconds(proposed).max() <= 2.0


@KINDS
def test_at_the_latency_of_the_smallest_there_is_nothing_else(kind) -> None:
    floor_ms = milliseconds(EVERYTHING[:1])[0]
    np.testing.assert_array_equal(make(kind).propose(floor_ms + 1e-6, 8), EVERYTHING[:1])


@KINDS
@PROBLEMS
def test_without_a_surrogate_mutants_of_the_best_are_judged(kind, problem: Problem) -> None:
    knowledge, judge = make_knowledge(problem), Judge(problem)
    trials = make(kind, problem, knowledge).explore(judge)
    (children,) = judge.batches
    assert len(trials) == len(children) == 12
    best = sorted(knowledge.trials, key=lambda trial: -trial.reward)[:8]
    parents = np.array([SPACE.encode(trial.config) for trial in best])
    distances = (children[:, None] != parents[None]).sum(axis=2).min(axis=1)
    assert distances.max() > 0
    assert np.mean(distances) < 3
    if problem is PROBLEM:
        assert milliseconds(children).max() <= TARGET_MS


@KINDS
def test_there_is_nothing_to_train(kind) -> None:
    first, second = make(kind), make(kind)
    first.train(1000)
    np.testing.assert_array_equal(first.propose(5.0, 8), second.propose(5.0, 8))


@PROBLEMS
def test_the_policy_proposes_the_best_of_what_it_draws(problem: Problem) -> None:
    proposer, knowledge = make_policy_proposer(problem), make_knowledge(problem)
    target_ms = math.nan if problem is UNTARGETED else 4.0
    first, second = (proposer.propose(target_ms, 9) for _ in range(2))
    assert len(np.unique(first, axis=0)) == len(first) == len(second) == 9
    assert not np.array_equal(first, second)
    rewards = knowledge.rewards(first, np.full(9, target_ms))
    assert (np.diff(rewards) <= 1e-12).all()
    everything = proposer.propose(target_ms, 400)
    assert rewards.mean() > knowledge.rewards(everything, np.full(len(everything), target_ms)).mean()
    if problem is PROBLEM:
        assert milliseconds(everything).max() <= 4.0


def test_the_policy_proposes_nothing_that_was_judged(monkeypatch: pytest.MonkeyPatch) -> None:
    proposer = make_policy_proposer()
    known = {action.tobytes() for action in make_knowledge().actions}
    proposed = proposer.propose(TARGET_MS, 400)
    assert len(proposed)
    assert not known & {action.tobytes() for action in proposed}
    monkeypatch.setattr(Knowledge, "is_known", lambda self, action: True)
    assert proposer.propose(TARGET_MS, 400).shape == (0, len(SPACE.nvec))


def test_training_is_the_policys() -> None:
    proposer = make_policy_proposer()
    state = {
        name: weights.clone()
        for name, weights in proposer._trainer.policy.model.policy.state_dict().items()
    }
    proposer.train(1)
    trained = proposer._trainer.policy.model.policy.state_dict()
    assert any(not weights.equal(trained[name]) for name, weights in state.items())


def test_a_mixture_pools_proposals_and_explores_like_the_first_of_it() -> None:
    parts = [make_policy_proposer(), make(LocalProposer), make(EvolutionProposer)]
    mixed = MixedProposer(parts)
    mixed.train(1)
    proposed = mixed.propose(5.0, 8)
    np.testing.assert_array_equal(proposed[-16:-8], make(LocalProposer).propose(5.0, 8))
    assert 16 < len(proposed) <= 24
    judge = Judge(PROBLEM)
    assert len(mixed.explore(judge)) == 6  # the rollout of the policy, no batch of mutants
    assert len(judge.batches) == 1


@KINDS
def test_as_long_as_no_trial_is_new_the_same_is_proposed(kind) -> None:
    proposer = make(kind)
    first = proposer.propose(5.0, 20)
    proposer.propose(3.0, 20)
    assert np.array_equal(first, proposer.propose(5.0, 20))
