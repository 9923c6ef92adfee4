from __future__ import annotations

import json
import math
import random
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from rlnas.controllers.surrogate.knowledge import Knowledge
from rlnas.controllers.surrogate.policy import (
    SETTINGS,
    WEIGHTS,
    PolicySettings,
    PolicyTrainer,
    TargetPolicy,
    TargetRange,
    read_policy,
)
from rlnas.errors import CheckpointError, ControllerError, InfeasibleTargetError, RunFolderError
from rlnas.protocols import Problem
from rlnas.rewards import LatencyTarget, LinearPenalty
from rlnas.space import LayerOptions, LayerwiseSpace
from rlnas.tabular import additive_task
from rlnas.trial import Trial

if TYPE_CHECKING:
    from pathlib import Path

    from rlnas.metrics import Metrics

SPACE = LayerwiseSpace((LayerOptions((0, 1, 2, 3), (0, 1, 2)),) * 3)
TASK = additive_task(SPACE)
PROBLEM = Problem(SPACE, LatencyTarget(target_ms=5.0), TASK.latency, 5.0, 10.0)
SEVERAL = replace(PROBLEM, targets_ms=(3.0, 5.0, 8.0))
UNTARGETED = Problem(SPACE, lambda metrics: metrics.accuracy, TASK.latency)
SETTINGS_QUICK = PolicySettings(n_envs=16, n_true_envs=6, n_epochs=2)


class Judge:
    """Answers proposals, and remembers them."""

    def __init__(self, problem: Problem = PROBLEM, task=TASK) -> None:
        self._problem, self._task = problem, task
        self.batches: list[np.ndarray] = []

    def __call__(self, configs) -> list[Trial]:
        self.batches.append(np.array([SPACE.encode(config) for config in configs]))
        judged = zip(configs, self._task(configs), strict=True)
        return [Trial(i, c, m, float(self._problem.reward(m))) for i, (c, m) in enumerate(judged)]


def make_knowledge(problem: Problem = PROBLEM, task=TASK) -> Knowledge:
    rng = np.random.default_rng(0)
    knowledge = Knowledge(problem, 0.5, seed=0)
    drawn = np.unique(rng.integers(SPACE.nvec, size=(60, len(SPACE.nvec))), axis=0)
    knowledge.learn(Judge(problem, task)([SPACE.decode(action) for action in drawn.tolist()]))
    knowledge.fit()
    return knowledge


def make_trainer(problem: Problem = PROBLEM, seed: int = 0, settings=SETTINGS_QUICK) -> PolicyTrainer:
    return PolicyTrainer(problem, make_knowledge(problem), settings, seed)


def milliseconds(actions) -> np.ndarray:
    return np.array(TASK.latency([SPACE.decode(list(action)) for action in actions]))


@pytest.fixture(scope="module")
def trained() -> TargetPolicy:
    """A policy for any target, trained for a second or two."""
    trainer = make_trainer(SEVERAL, settings=PolicySettings(n_envs=64, n_epochs=4))
    trainer.train(30_000)
    return trainer.policy


@pytest.mark.parametrize(
    ("settings", "shown"),
    [
        ({"n_envs": 1}, "n_envs must be at least 2, but got n_envs=1"),
        ({"n_true_envs": 0}, "n_true_envs must be at least 2, but got n_true_envs=0"),
        ({"own_share": 1.5}, r"own_share must be in \[0, 1\], but got own_share=1\.5"),
        ({"own_share": math.nan}, "own_share=nan"),
    ],
    ids=str,
)
def test_settings_out_of_range_are_named(settings: dict[str, float], shown: str) -> None:
    with pytest.raises(ValueError, match=shown):
        PolicySettings(**settings)


# The targets that it trains on


def test_targets_lie_between_just_above_the_smallest_and_the_full_model() -> None:
    found = TargetRange.of(SEVERAL, make_knowledge())
    assert found.served == (3.0, 5.0, 8.0)
    assert 1.0 < found.low < 1.3
    assert found.high == 10.0


def test_a_target_at_the_floor_or_above_the_full_model_widens_the_range() -> None:
    problem = replace(PROBLEM, targets_ms=(1.0, 12.0))
    found = TargetRange.of(problem, make_knowledge())
    assert (found.low, found.high) == (1.0, 12.0)


def test_a_share_of_the_targets_is_drawn_from_those_served() -> None:
    found, rng = TargetRange.of(SEVERAL, make_knowledge()), np.random.default_rng(0)
    assert set(found.draw(60, 1.0, rng)) == {3.0, 5.0, 8.0}
    others = found.draw(400, 0.0, rng)
    assert not set(others) & {3.0, 5.0, 8.0}
    assert found.low <= min(others) < 1.5
    assert 9.5 < max(others) <= found.high
    mixed = found.draw(400, 0.5, rng)
    assert 0.4 < np.mean([target in (3.0, 5.0, 8.0) for target in mixed]) < 0.6


@dataclass(frozen=True)
class FixedTarget:
    target_ms: float

    def __call__(self, metrics: Metrics) -> float:
        return metrics.accuracy - max(0.0, metrics.latency_ms - self.target_ms)


@pytest.mark.parametrize(
    "problem",
    [
        Problem(SPACE, FixedTarget(5.0), TASK.latency, 5.0, 10.0),
        Problem(SPACE, LatencyTarget(target_ms=5.0), None, 5.0),
    ],
    ids=["a reward of one target", "unknown latencies"],
)
def test_where_there_is_one_target_it_is_the_only_one(problem: Problem) -> None:
    found = TargetRange.of(problem, make_knowledge(problem))
    assert set(found.draw(20, 0.5, np.random.default_rng(0))) == {5.0}


def test_without_a_target_none_is_drawn() -> None:
    found = TargetRange.of(UNTARGETED, make_knowledge(UNTARGETED))
    assert found.draw(3, 0.5, np.random.default_rng(0)) == [None] * 3
    knowledge = make_knowledge(UNTARGETED)
    best = knowledge.best_rewards(np.array([math.nan]))[0]
    np.testing.assert_array_equal(found.reached(knowledge)(np.full(4, math.nan)), np.full(4, best))


def test_what_is_reached_is_what_the_history_has_at_each_target() -> None:
    knowledge = make_knowledge()
    reached = TargetRange.of(SEVERAL, knowledge).reached(knowledge)
    served = np.array([3.0, 5.0, 8.0])
    np.testing.assert_allclose(reached(served), knowledge.best_rewards(served))
    between = reached(np.array([2.0, 4.0, 6.5, 9.0]))
    assert (np.diff(between) > 0).all()


# Proposals


def test_each_episode_keeps_to_its_own_target() -> None:
    targets = np.repeat([1.5, 3.0, 5.0, 9.0], 16)
    actions = make_trainer().policy.sample(list(targets))
    assert actions.shape == (64, len(SPACE.nvec))
    assert (milliseconds(actions) <= targets).all()
    assert milliseconds(actions[48:]).max() > 5.0


def test_an_episode_without_a_target_has_the_problems_own_or_none() -> None:
    assert 4.0 < milliseconds(make_trainer().policy.sample([math.nan] * 128)).max() <= 5.0
    assert milliseconds(make_trainer(UNTARGETED).policy.sample([math.nan] * 128)).max() > 6.0


def test_one_policy_answers_small_and_large_targets_differently(trained: TargetPolicy) -> None:
    targets = [1.5, 2.5, 4.0, 6.0, 8.0, 9.5]
    configs = [trained.propose(target_ms)[0] for target_ms in targets]
    latencies = np.array(TASK.latency(configs))
    assert len(set(configs)) == len(targets)
    assert (latencies <= targets).all()
    accuracies = [metrics.accuracy for metrics in TASK(configs)]
    assert accuracies[-1] > accuracies[0] + 0.2


@pytest.mark.parametrize("target_ms", [2.5, 3.0, 4.0, 6.5, 8.0])
def test_what_it_proposes_is_better_than_what_chance_finds(trained: TargetPolicy, target_ms: float) -> None:
    reward = LatencyTarget(target_ms=target_ms)
    untrained = make_trainer(SEVERAL).policy.sample([target_ms] * 200)
    by_chance = [reward(m) for m in TASK([SPACE.decode(a) for a in untrained.tolist()])]
    found = reward(TASK(trained.propose(target_ms))[0])
    assert found > np.quantile(by_chance, 0.95)
    _, optimum = TASK.optimum(reward)
    assert found > optimum - 0.08


def test_proposals_are_distinct_and_the_greedy_one_comes_first(trained: TargetPolicy) -> None:
    many = trained.propose(5.0, 6)
    assert 1 < len(many) <= 6
    assert len(set(many)) == len(many)
    assert many[:1] == trained.propose(5.0) == trained.propose(5.0, 1)
    assert trained.propose(5.0, 3) == many[:3]
    assert max(TASK.latency(many)) <= 5.0


def test_proposals_do_not_depend_on_what_the_caller_draws_and_leave_it_alone(trained: TargetPolicy) -> None:
    torch.manual_seed(1)
    first = trained.propose(5.0, 6)
    numbers = float(torch.rand(())), random.random(), float(np.random.rand())
    torch.manual_seed(2)
    assert trained.propose(5.0, 6) == first
    torch.manual_seed(1)
    assert float(torch.rand(())) == numbers[0]


def test_a_target_below_the_smallest_subnet_is_refused(trained: TargetPolicy) -> None:
    with pytest.raises(InfeasibleTargetError, match=r"target_ms=0\.5 cannot be met.*takes 1 ms"):
        trained.propose(0.5)


# Saving and loading


def test_a_saved_policy_proposes_the_same(trained: TargetPolicy, tmp_path: Path) -> None:
    trained.save(tmp_path / "run" / "policy")
    loaded = TargetPolicy.load(tmp_path / "run" / "policy", SEVERAL)
    for target_ms in (1.5, 3.0, 4.4, 9.0):
        assert loaded.propose(target_ms, 8) == trained.propose(target_ms, 8)


def test_a_saved_policy_is_safetensors_and_json_alone(tmp_path: Path) -> None:
    make_trainer().policy.save(tmp_path)
    assert (
        {file.name for file in tmp_path.iterdir()}
        == {"policy.safetensors", "policy.json"}
        == {WEIGHTS, SETTINGS}
    )
    assert json.loads((tmp_path / SETTINGS).read_text()) == {
        "nvec": list(SPACE.nvec),
        "hidden_sizes": [64, 64],
        "knows_targets": [1],
    }
    assert not (tmp_path / WEIGHTS).read_bytes().startswith((b"PK", b"\x80"))  # no zip, no pickle


def test_loading_leaves_the_callers_generators_alone(tmp_path: Path) -> None:
    make_trainer().policy.save(tmp_path)
    torch.manual_seed(1)
    expected = torch.rand(4)
    torch.manual_seed(1)
    random_state = random.getstate()
    TargetPolicy.load(tmp_path, PROBLEM)
    torch.testing.assert_close(torch.rand(4), expected, rtol=0, atol=0)
    assert random.getstate() == random_state


def test_other_sizes_of_hidden_layers_are_loaded(tmp_path: Path) -> None:
    trainer = make_trainer(settings=PolicySettings(n_envs=4, hidden_sizes=(16,)))
    trainer.policy.save(tmp_path)
    assert TargetPolicy.load(tmp_path, PROBLEM).propose(5.0) == trainer.policy.propose(5.0)


@pytest.mark.parametrize("missing", [WEIGHTS, SETTINGS])
def test_a_missing_file_is_named(tmp_path: Path, missing: str) -> None:
    make_trainer().policy.save(tmp_path)
    (tmp_path / missing).unlink()
    with pytest.raises(CheckpointError, match=f"holds no policy: {missing} is missing"):
        TargetPolicy.load(tmp_path, PROBLEM)


@pytest.mark.parametrize(
    ("file", "content"),
    [
        (WEIGHTS, b""),
        (WEIGHTS, b"\xff" * 100),
        (SETTINGS, b"no json"),
        (SETTINGS, b"{}"),
        (SETTINGS, b'{"nvec": 3, "hidden_sizes": [64]}'),
        (SETTINGS, b'{"nvec": [4, 3], "hidden_sizes": ["a"]}'),
    ],
    ids=["empty weights", "garbled weights", "no json", "no sizes", "a number", "a text"],
)
def test_a_damaged_file_is_named_with_the_way_out(tmp_path: Path, file: str, content: bytes) -> None:
    make_trainer().policy.save(tmp_path)
    (tmp_path / file).write_bytes(content)
    with pytest.raises(CheckpointError, match=r"the policy in .* is damaged: .*; search again"):
        read_policy(tmp_path)


@pytest.mark.parametrize("name", ["nvec", "hidden_sizes", "knows_targets"])
def test_what_the_settings_lack_is_named(tmp_path: Path, name: str) -> None:
    make_trainer().policy.save(tmp_path)
    settings = json.loads((tmp_path / SETTINGS).read_text())
    del settings[name]
    (tmp_path / SETTINGS).write_text(json.dumps(settings))
    with pytest.raises(CheckpointError, match=f"is damaged: policy.json lacks '{name}'; search again"):
        read_policy(tmp_path)


def test_a_policy_of_another_space_is_refused(tmp_path: Path) -> None:
    make_trainer().policy.save(tmp_path)
    other = LayerwiseSpace((LayerOptions((0, 3), (0, 2)),) * 3)
    task = additive_task(other)
    with pytest.raises(CheckpointError, match=r"nvec=\(4, 3, 4, 3, 4, 3\), not \(2, 2, 2, 2, 2, 2\)"):
        TargetPolicy.load(tmp_path, Problem(other, PROBLEM.reward, task.latency, 5.0))
    problem = Problem(other, PROBLEM.reward, task.latency, 5.0)
    trainer = PolicyTrainer(problem, Knowledge(problem, 0.5, seed=0), SETTINGS_QUICK, 0)
    with pytest.raises(CheckpointError, match=r"nvec=\(4, 3, 4, 3, 4, 3\), not \(2, 2, 2, 2, 2, 2\)"):
        trainer.start_from(tmp_path)


@pytest.mark.parametrize("size", [-3, 0, 5000])
def test_layers_of_no_sensible_size_are_refused(tmp_path: Path, size: int) -> None:
    make_trainer().policy.save(tmp_path)
    sizes = {"nvec": SPACE.nvec, "hidden_sizes": [size], "knows_targets": [1]}
    (tmp_path / SETTINGS).write_text(json.dumps(sizes))
    with pytest.raises(CheckpointError, match=rf"hidden_sizes must be in \[1, 4096\], but got \({size},\)"):
        read_policy(tmp_path)


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunFolderError, match=r"cannot write the policy into '.*file/policy'"):
        make_trainer().policy.save(tmp_path / "file" / "policy")


def test_a_policy_that_knows_one_target_only_says_so(tmp_path: Path) -> None:
    one = Problem(SPACE, LinearPenalty(reference_ms=10.0), TASK.latency)
    trainer = make_trainer(one)
    trainer.train(1)
    trainer.policy.save(tmp_path)
    for policy in (trainer.policy, TargetPolicy.load(tmp_path, one)):
        with pytest.raises(ControllerError, match="cannot be asked for target_ms=4: its search"):
            policy.propose(4.0)


def test_weights_that_do_not_fit_their_sizes_are_refused(tmp_path: Path) -> None:
    make_trainer().policy.save(tmp_path)
    sizes = {"nvec": SPACE.nvec, "hidden_sizes": [8], "knows_targets": [1]}
    (tmp_path / SETTINGS).write_text(json.dumps(sizes))
    with pytest.raises(CheckpointError, match=r"does not fit this space: .*search anew without it"):
        TargetPolicy.load(tmp_path, PROBLEM)


# Training


def test_training_raises_the_predicted_rewards_at_every_target(trained: TargetPolicy) -> None:
    knowledge = make_knowledge(SEVERAL)
    targets = np.repeat([3.0, 5.0, 8.0], 64)
    with_policy, without = (
        knowledge.rewards(policy.sample(list(targets)), targets).reshape(3, 64).mean(axis=1)
        for policy in (trained, make_trainer(SEVERAL).policy)
    )
    assert (with_policy > without + 0.05).all()


def test_training_for_no_step_changes_nothing() -> None:
    trainer = make_trainer()
    before = {name: weights.clone() for name, weights in trainer.policy.model.policy.state_dict().items()}
    trainer.train(0)
    after = trainer.policy.model.policy.state_dict()
    assert all(weights.equal(after[name]) for name, weights in before.items())


def test_entropy_counts_for_more_while_a_search_hears_of_nothing_new(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    trainer = make_trainer()

    def weighings(is_known: bool, n: int) -> list[float]:
        monkeypatch.setattr(Knowledge, "is_known", lambda self, action: is_known)
        found = []
        for _ in range(n):
            trainer.train(0)
            found.append(trainer.policy.model.ent_coef * len(SPACE.nvec) / SETTINGS_QUICK.ent_coef)
        return found

    assert weighings(True, 6) == pytest.approx([2, 4, 8, 16, 16, 16])
    trainer.train(0, explores=False)
    assert trainer.policy.model.ent_coef == pytest.approx(SETTINGS_QUICK.ent_coef / len(SPACE.nvec))
    assert weighings(False, 5) == pytest.approx([8, 4, 2, 1, 1])


def test_a_started_policy_is_the_saved_one(trained: TargetPolicy, tmp_path: Path) -> None:
    trained.save(tmp_path)
    trainer = make_trainer(SEVERAL, seed=9)
    assert trainer.policy.propose(3.3, 4) != trained.propose(3.3, 4)
    trainer.start_from(tmp_path)
    assert trainer.policy.propose(3.3, 4) == trained.propose(3.3, 4)


def test_a_policy_of_another_size_is_no_start(tmp_path: Path) -> None:
    make_trainer(settings=PolicySettings(hidden_sizes=(8,))).policy.save(tmp_path)
    with pytest.raises(CheckpointError, match="does not fit this space"):
        make_trainer().start_from(tmp_path)
    with pytest.raises(CheckpointError, match=r"holds no policy: policy\.json is missing"):
        make_trainer().start_from(tmp_path / "absent")


@pytest.mark.parametrize(
    "problem",
    [PROBLEM, replace(PROBLEM, targets_ms=(3.0, 6.0)), UNTARGETED],
    ids=["one", "several", "none"],
)
def test_exploring_is_one_update_on_one_true_rollout_within_the_targets(problem: Problem) -> None:
    trainer, judge = make_trainer(problem), Judge(problem)
    before = {name: weights.clone() for name, weights in trainer.policy.model.policy.state_dict().items()}
    for n_batches in (1, 2):
        trials = trainer.explore(judge)
        assert [len(batch) for batch in judge.batches] == [6] * n_batches
        assert [SPACE.encode(trial.config) for trial in trials] == [
            tuple(a) for a in judge.batches[-1].tolist()
        ]
    after = trainer.policy.model.policy.state_dict()
    assert any(not weights.equal(after[name]) for name, weights in before.items())
    if problem is not UNTARGETED:
        for _ in range(6):
            trainer.explore(judge)
        assert milliseconds(np.concatenate(judge.batches)).max() <= max(problem.served_targets_ms)


def strict(metrics: Metrics) -> float:
    if math.isnan(metrics.latency_ms):
        raise ValueError("no latency")
    return metrics.accuracy + metrics.extra.get("power", 0.0)


@dataclass(frozen=True)
class Powerful:
    target_ms: float

    def at(self, target_ms: float) -> Powerful:
        return Powerful(target_ms)

    def __call__(self, metrics: Metrics) -> float:
        return strict(metrics) - max(0.0, metrics.latency_ms / self.target_ms - 1.0)


def test_a_reward_that_turns_out_to_look_elsewhere_is_trained_on_from_then_on() -> None:
    problem = Problem(SPACE, Powerful(5.0), TASK.latency, 5.0, 10.0, targets_ms=(3.0, 8.0))
    knowledge = make_knowledge(problem)
    trainer = PolicyTrainer(problem, knowledge, SETTINGS_QUICK, seed=0)
    trainer.train(500)
    assert not knowledge.models_reward

    def powered(configs) -> list[Metrics]:
        return [replace(metrics, extra={"power": 0.1}) for metrics in TASK(configs)]

    knowledge.learn(Judge(problem, powered)([SPACE.largest()]))
    knowledge.fit()
    assert knowledge.models_reward
    trainer.train(500)
    assert milliseconds(trainer.policy.sample([4.0] * 8)).max() <= 4.0
