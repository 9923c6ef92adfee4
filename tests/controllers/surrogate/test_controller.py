from __future__ import annotations

import random
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from rlnas.controllers.random import RandomController
from rlnas.controllers.start import InformedStart
from rlnas.controllers.surrogate import (
    AutoController,
    PolicySettings,
    SurrogateEvolutionController,
    SurrogateKnapsackController,
    SurrogateLocalController,
    SurrogatePPOController,
    SurrogateSettings,
    TargetPolicy,
    WarmStart,
)
from rlnas.controllers.surrogate.policy import PolicyTrainer
from rlnas.controllers.surrogate.proposers import PolicyProposer
from rlnas.errors import CheckpointError, ControllerError, HistoryError, InfeasibleTargetError, RewardError
from rlnas.history import History
from rlnas.loop import search
from rlnas.metrics import Metrics
from rlnas.protocols import Problem
from rlnas.rewards import LatencyTarget, LinearPenalty
from rlnas.space import LayerOptions, LayerwiseSpace, UniformSpace
from rlnas.tabular import additive_task
from rlnas.testing import check_controller

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from rlnas.space import SubnetConfig

SPACE = LayerwiseSpace((LayerOptions((0, 1, 2, 3), (0, 1, 2)),) * 3)  # 1,728 members
TASK = additive_task(SPACE)
REWARD = LatencyTarget(ratio=0.5)

CHEAP = SurrogateSettings(
    start=InformedStart(n_knapsack=4, n_uniform=4, n_random=8),
    batch_size=12,
    gate=0.5,  # what ranks by chance is seldom as good, even of few trials
    pool_size=36,
    steps_per_trial=8,
    final_steps=64,
)
SMALL_POLICY = PolicySettings(n_envs=8, n_true_envs=8, n_epochs=1)

KINDS = (
    SurrogatePPOController,
    SurrogateLocalController,
    SurrogateEvolutionController,
    SurrogateKnapsackController,
    AutoController,
)
every_kind = pytest.mark.parametrize("kind", KINDS)
with_policy = pytest.mark.parametrize("kind", [SurrogatePPOController, AutoController])


def make(kind=SurrogatePPOController, **fields):
    return kind(CHEAP, SMALL_POLICY, **fields)


def run(controller, judge=TASK, reward=REWARD, *, space=SPACE, budget=48, **options):
    if judge is not TASK and space is SPACE:
        options.setdefault("latency", TASK.latency)
    return search(space, judge, reward, controller, budget=budget, **options)


def noise(configs: Sequence[SubnetConfig]) -> list[Metrics]:
    """Accuracies that nothing predicts."""
    return [Metrics(float(np.random.default_rng(SPACE.encode(c)).uniform())) for c in configs]


noisy = additive_task(SPACE, noise=0.1).__call__


@dataclass
class Spy:
    """How often the surrogate was trained on, and plain PPO went on without."""

    explored: int = 0
    trained: list[int] = field(default_factory=list)


@pytest.fixture
def spy(monkeypatch: pytest.MonkeyPatch) -> Spy:
    seen, explore, train = Spy(), PolicyTrainer.explore, PolicyTrainer.train

    def counted_explore(self, evaluate):
        seen.explored += 1
        return explore(self, evaluate)

    def counted_train(self, n_steps, *, explores=True):
        seen.trained.append(n_steps)
        train(self, n_steps, explores=explores)

    monkeypatch.setattr(PolicyTrainer, "explore", counted_explore)
    monkeypatch.setattr(PolicyTrainer, "train", counted_train)
    return seen


# The laws of controllers


@every_kind
def test_it_keeps_the_laws_of_controllers(kind) -> None:
    check_controller(make(kind))


@with_policy
@pytest.mark.parametrize("budget", [1, 2, 41])
def test_budget_is_exact(kind, budget: int) -> None:
    result = run(make(kind), budget=budget)
    assert len(result.trials) == budget
    assert result.stop_reason == f"the budget of {budget} trials is spent"


def test_equal_seeds_give_equal_histories_and_others_do_not() -> None:
    first, again, other = (run(make(), budget=32, seed=seed) for seed in (3, 3, 2**40))
    assert first.trials == again.trials != other.trials
    np.testing.assert_array_equal(first.episode_rewards, again.episode_rewards)


@pytest.mark.parametrize("judge", [TASK, noise], ids=["trusted", "not trusted"])
@with_policy
def test_the_callers_randomness_and_threads_are_left_alone(kind, judge) -> None:
    seen: list[tuple] = []

    def draw() -> tuple:
        return random.random(), float(np.random.rand()), float(torch.rand(()))

    def judge_and_draw(configs: Sequence[SubnetConfig]) -> list[Metrics]:
        seen.append((*draw(), torch.get_num_threads()))
        return judge(configs)

    def seed_all() -> None:
        random.seed(1)
        np.random.seed(2)
        torch.manual_seed(3)

    controller = make(kind)
    n_threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        seed_all()
        run(controller, judge_and_draw, budget=33)
        after = draw()
        controller.propose(4.0, 3)
        later = draw()
        seed_all()
        assert len(seen) > 2
        assert seen == [(*draw(), 2) for _ in seen]
        assert (after, later) == (draw(), draw())
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(n_threads)


class PowerCutError(Exception):
    pass


@pytest.mark.parametrize(
    ("kind", "n_answered", "judge"),
    [
        *((SurrogatePPOController, n_answered, TASK) for n_answered in (0, 1, 3)),
        (SurrogatePPOController, 3, noise),
        (SurrogateEvolutionController, 2, TASK),
        (AutoController, 3, TASK),
    ],
)
def test_a_search_broken_off_and_resumed_ends_like_an_unbroken_one(
    tmp_path: Path, kind, n_answered: int, judge
) -> None:
    calls = 0

    def draw_and_judge(configs: Sequence[SubnetConfig]) -> list[Metrics]:
        torch.rand(3), np.random.rand(3), random.random()  # an evaluator may draw what it likes
        return judge(configs)

    def fail_midway(configs: Sequence[SubnetConfig]) -> list[Metrics]:
        nonlocal calls
        calls += 1
        if calls > n_answered:
            raise PowerCutError
        return draw_and_judge(configs)

    targets = {"target_ratios": (0.3, 0.6), "seed": 5, "budget": 40}
    unbroken = run(make(kind), draw_and_judge, path=tmp_path / "unbroken", **targets)
    with pytest.raises(PowerCutError):
        run(make(kind), fail_midway, path=tmp_path / "broken", **targets)
    with History.read(tmp_path / "broken") as stored:
        assert 0 <= len(stored.trials) < 40
    resumed = run(make(kind), draw_and_judge, path=tmp_path / "broken", resume=True, **targets)
    assert resumed.trials == unbroken.trials
    np.testing.assert_array_equal(resumed.episode_rewards, unbroken.episode_rewards)


def test_where_the_policy_goes_is_no_setting_of_the_search_and_a_warm_start_is(tmp_path: Path) -> None:
    assert repr(make(save_path=tmp_path)) == repr(make())
    warm = make(warm_start=WarmStart.of(run(make()).trials))
    assert "WarmStart(digest=" in repr(warm)
    assert repr(warm) != repr(make())
    assert repr(make()).startswith("SurrogatePPOController(settings=SurrogateSettings(")


@pytest.mark.parametrize(
    ("settings", "shown"),
    [
        ({"batch_size": 0}, "batch_size must be at least 1, but got batch_size=0"),
        ({"pool_size": 0}, "pool_size=0"),
        ({"steps_per_trial": -1}, "steps_per_trial must be at least 0, but got steps_per_trial=-1"),
        ({"final_steps": -1}, "final_steps=-1"),
        ({"gate": 1.5}, r"gate must be in \[-1, 1\], but got gate=1\.5"),
    ],
    ids=str,
)
def test_settings_out_of_range_are_named(settings: dict[str, float], shown: str) -> None:
    with pytest.raises(ValueError, match=shown):
        SurrogateSettings(**settings)


# Targets


@pytest.mark.parametrize("judge", [TASK, noise], ids=["trusted", "not trusted"])
@every_kind
def test_every_proposal_keeps_to_the_target(kind, judge) -> None:
    result = run(make(kind), judge, budget=64)
    assert 4.0 < max(trial.metrics.latency_ms for trial in result.trials) <= 5.0


@pytest.mark.parametrize("judge", [TASK, noise], ids=["trusted", "not trusted"])
@with_policy
def test_of_several_targets_the_largest_is_kept_to(kind, judge) -> None:
    result = run(make(kind), judge, budget=64, target_ratios=(0.3, 0.45, 0.6))
    assert 5.0 < max(trial.metrics.latency_ms for trial in result.trials) <= 6.0


@with_policy
def test_several_targets_each_get_their_part_of_one_search(kind) -> None:
    result = run(make(kind), budget=64, target_ratios=(0.25, 0.4, 0.7))
    latencies = np.array([trial.metrics.latency_ms for trial in result.trials])
    assert min((latencies <= 2.5).sum(), (latencies > 4.0).sum()) >= 12
    for target_ms in (2.5, 4.0, 7.0):
        reward = LatencyTarget(target_ms=target_ms)
        _, optimum = TASK.optimum(reward)
        assert reward(result.best_for(reward).metrics) > optimum - 0.06


def test_the_smallest_member_slower_than_a_target_is_an_error_before_anything_is_judged() -> None:
    problem = Problem(SPACE, LatencyTarget(target_ms=0.5), TASK.latency, 0.5, 10.0)
    with pytest.raises(InfeasibleTargetError, match=r"target_ms=0\.5"):
        make().search(problem, lambda configs: pytest.fail("nothing is judged"), 10, 0)


# The gate


@with_policy
def test_an_ensemble_that_knows_nothing_is_not_trusted_and_plain_ppo_goes_on(spy: Spy, kind) -> None:
    result = run(make(kind), noise, budget=64)
    assert spy.explored >= 4
    assert spy.trained == []
    assert len(result.trials) == 64


@with_policy
def test_an_ensemble_that_ranks_well_is_trained_on(spy: Spy, kind) -> None:
    run(make(kind), budget=64)
    assert spy.explored == 0
    assert spy.trained[-1] == CHEAP.final_steps
    assert len(spy.trained) > 4
    assert set(spy.trained[:-1]) == {CHEAP.steps_per_trial * CHEAP.batch_size}


@pytest.mark.parametrize(("gate", "judge", "is_trusted"), [(0.999, noisy, False), (-1.0, noise, True)])
def test_the_gate_decides(spy: Spy, gate: float, judge, is_trusted: bool) -> None:
    run(SurrogatePPOController(replace(CHEAP, gate=gate), SMALL_POLICY), judge)
    assert (len(spy.trained) > 0) == is_trusted
    assert (spy.explored > 0) != is_trusted


def test_where_plain_ppo_finds_nothing_new_random_subnets_are_judged(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    smallest = [SPACE.smallest()] * 8
    monkeypatch.setattr(PolicyProposer, "explore", lambda self, evaluate: evaluate(smallest))
    settings = replace(CHEAP, gate=0.999)
    assert len(run(SurrogatePPOController(settings, SMALL_POLICY), noise).trials) == 48


@pytest.mark.parametrize("kind", [SurrogateLocalController, SurrogateEvolutionController])
def test_controls_go_on_with_mutants_below_the_gate(spy: Spy, kind) -> None:
    assert len(run(make(kind), noise).trials) == 48
    assert (spy.explored, spy.trained) == (0, [])


# What it finds


@every_kind
def test_it_finds_what_is_almost_the_optimum_from_a_start_that_knows_nothing(kind) -> None:
    begun, found = [], []
    for seed in range(4):
        controller = kind(replace(CHEAP, start=InformedStart(0, 0, 16)), SMALL_POLICY)
        result = run(controller, lambda configs: TASK(configs), budget=64, seed=seed)
        begun.append(max(trial.reward for trial in result.trials[:18]))
        found.append(result.best.reward)
    assert np.mean(begun) + 0.01 < np.mean(found)
    assert np.mean(found) > TASK.optimum(REWARD)[1] - 0.02


def test_the_start_takes_at_most_half_of_the_budget_and_is_that_of_the_settings() -> None:
    result = run(make(), budget=16)
    batches: list[int] = []

    def counted(configs: Sequence[SubnetConfig]) -> list[Metrics]:
        batches.append(len(configs))
        return TASK(configs)

    run(make(), counted, budget=16)
    assert batches[0] == 8
    problem = Problem(SPACE, LatencyTarget(target_ms=5.0), TASK.latency, 5.0, 10.0, TASK.importance)
    start = CHEAP.start.actions(problem, np.random.default_rng(0), 2)
    assert [trial.config for trial in result.trials[:2]] == [SPACE.decode(a) for a in start.tolist()]


# Plugs of other kinds


@pytest.mark.parametrize("kind", [SurrogatePPOController, SurrogateEvolutionController])
@pytest.mark.parametrize("reward", [LatencyTarget(target_ms=5.0), LinearPenalty(reference_ms=10.0)])
def test_latencies_that_are_only_measured_are_learnt_with_the_reward(kind, reward) -> None:
    controller = make(kind)
    result = search(SPACE, lambda configs: TASK(configs), reward, controller, budget=48)
    assert len(result.trials) == 48
    assert controller._search.knowledge.models_reward
    assert result.best.reward > 0.6


def test_another_target_is_out_of_reach_where_the_reward_itself_is_modelled() -> None:
    controller = make()
    search(SPACE, lambda configs: TASK(configs), LatencyTarget(target_ms=5.0), controller, budget=48)
    assert len(controller.propose(5.0)) == 1
    with pytest.raises(ControllerError, match=r"propose\(8\) asks for another target than 5\.0"):
        controller.propose(8.0)


def test_what_left_a_race_is_never_proposed_again() -> None:
    def flattering(configs: Sequence[SubnetConfig]) -> list[Metrics]:
        judged = TASK(configs)
        return [
            replace(m, accuracy=min(1.0, m.accuracy + 0.3), raced_out=True) if i % 2 else m
            for i, m in enumerate(judged)
        ]

    controller = make(SurrogateLocalController)
    result = run(controller, flattering)
    out = {trial.config for trial in result.trials if trial.metrics.raced_out}
    assert len(out) > 10
    assert not out & set(controller.propose(5.0, 16))


def test_the_last_answers_are_learnt_also_where_they_are_fewer_than_were_asked_for(tmp_path: Path) -> None:
    controller = make(SurrogateLocalController)
    run(controller, budget=40, path=tmp_path)
    controller = make(SurrogateLocalController)
    result = run(controller, budget=55, path=tmp_path, resume=True)
    assert len(result.trials) == len(controller._search.knowledge) == 55


def test_it_trains_once_when_the_budget_is_spent(spy: Spy) -> None:
    run(make(), budget=48)
    batches = CHEAP.steps_per_trial * CHEAP.batch_size
    assert spy.trained[-1] == CHEAP.final_steps
    assert spy.trained[:-1] == [batches] * (len(spy.trained) - 1)
    assert len(spy.trained) == 1 + -(-(48 - 18) // CHEAP.batch_size)


def test_a_reward_without_targets_has_nothing_to_propose_for_one() -> None:
    controller = make()
    run(controller, reward=LinearPenalty())
    with pytest.raises(RewardError, match=r"serves one target only; to ask for target_ms=5"):
        controller.propose(5.0)


@pytest.mark.parametrize("kind", [SurrogatePPOController, SurrogateLocalController])
@pytest.mark.parametrize(
    "reward", [LinearPenalty(), lambda metrics: metrics.accuracy], ids=["penalty", "plain"]
)
def test_rewards_without_a_target_are_served(kind, reward) -> None:
    result = run(make(kind), reward=reward)
    assert result.best.reward > TASK.optimum(reward)[1] - 0.04


def powerful(metrics: Metrics) -> float:
    return metrics.extra["power"]


def in_disguise(configs: Sequence[SubnetConfig]) -> list[Metrics]:
    """The accuracy is noise, what counts stands elsewhere."""
    pairs = zip(noise(configs), TASK(configs), strict=True)
    return [replace(metrics, extra={"power": true.accuracy}) for metrics, true in pairs]


@with_policy
def test_a_reward_of_something_else_is_learnt_as_it_is(spy: Spy, kind) -> None:
    controller = make(kind)
    result = run(controller, in_disguise, powerful, budget=64)
    assert controller._search.knowledge.models_reward
    assert spy.trained
    assert result.best.reward > 0.85  # of 0.9


@with_policy
def test_a_space_whose_positions_are_no_layers(kind) -> None:
    space = UniformSpace(12, tuple(range(1, 13)), (1, 2, 4), (4, 8, 16))
    result = run(make(kind), additive_task(space), LinearPenalty(), space=space, budget=40)
    assert len(result.trials) == 40


@every_kind
def test_a_space_of_eight_members_is_exhausted(kind) -> None:
    space = LayerwiseSpace((LayerOptions((0, 1), (0, 1)), LayerOptions((1,), (0, 1))))
    result = run(make(kind), additive_task(space), LinearPenalty(), space=space)
    assert result.stop_reason == "all 8 subnets of the space are evaluated"


@every_kind
def test_where_all_that_fits_is_known_it_ends_with_a_sentence(kind) -> None:
    space = LayerwiseSpace((LayerOptions((0, 1, 2), (1,)),) * 3)  # 27 members, 10 of them within the target
    controller = kind(replace(CHEAP, batch_size=64), replace(SMALL_POLICY, n_true_envs=64))
    result = run(controller, additive_task(space), space=space)
    assert len(result.trials) == 10
    assert "brought no new subnet" in result.stop_reason


@with_policy
def test_answers_that_are_all_equal_are_survived(kind) -> None:
    result = run(make(kind), lambda configs: [Metrics(0.5) for _ in configs])
    assert len(result.trials) == 48


@with_policy
def test_what_is_raced_out_teaches_and_counts_but_is_never_the_best(kind) -> None:
    def race(configs: Sequence[SubnetConfig]) -> list[Metrics]:
        judged = TASK(configs)
        middle = float(np.median([metrics.accuracy for metrics in judged]))
        return [replace(m, raced_out=m.accuracy < middle, n_items=10) for m in judged]

    controller = make(kind)
    result = run(controller, race, budget=64)
    assert len(result.trials) == 64
    assert 0 < result.n_raced_out < 64
    assert not result.best.metrics.raced_out
    assert result.best.reward > TASK.optimum(REWARD)[1] - 0.04
    assert len(controller._search.knowledge) == 64


# Proposals afterwards


@every_kind
def test_before_a_search_there_is_nothing_to_propose(kind) -> None:
    with pytest.raises(ControllerError, match=r"propose\(4\) needs a search of at least 10 trials"):
        make(kind).propose(4.0)
    controller = make(kind)
    run(controller, budget=9)
    with pytest.raises(ControllerError, match=r"propose\(4\) needs a search of at least 10 trials"):
        controller.propose(4.0)
    with pytest.raises(
        ControllerError, match=f"{kind.__name__} has trained no policy; search with ppo or auto"
    ):
        make(kind).propose_from_policy(4.0)


@pytest.mark.parametrize("kind", [SurrogateLocalController, SurrogateEvolutionController])
def test_controls_have_no_policy_to_ask_or_to_save(tmp_path: Path, kind) -> None:
    controller = make(kind, save_path=tmp_path / "policy")
    run(controller)
    assert not (tmp_path / "policy").exists()
    with pytest.raises(ControllerError, match="has trained no policy"):
        controller.propose_from_policy(4.0)


@pytest.mark.parametrize("kind", [SurrogatePPOController, SurrogateEvolutionController])
def test_one_search_answers_other_targets_from_what_it_has_learnt(kind) -> None:
    controller = make(kind)
    run(controller, budget=64, target_ratios=(0.3, 0.5, 0.7))
    chosen = {}
    for target_ms in (2.2, 3.6, 4.4, 6.3):  # none of them was searched for
        reward = LatencyTarget(target_ms=target_ms)
        (config,) = controller.propose(target_ms)
        (metrics,) = TASK([config])
        assert metrics.latency_ms <= target_ms
        assert reward(metrics) > TASK.optimum(reward)[1] - 0.08
        chosen[target_ms] = config
    assert len(set(chosen.values())) == 4


@with_policy
def test_proposals_are_distinct_best_first_and_a_target_that_cannot_be_met_is_refused(kind) -> None:
    controller = make(kind)
    run(controller)
    proposed = controller.propose(4.0, 6)
    assert len(set(proposed)) == 6
    actions = np.array([SPACE.encode(config) for config in proposed])
    rewards = controller._search.knowledge.rewards(actions, np.full(6, 4.0))
    assert (np.diff(rewards) <= 0).all()
    with pytest.raises(InfeasibleTargetError, match=r"target_ms=0\.5 cannot be met"):
        controller.propose(0.5)


@with_policy
def test_the_policy_alone_and_the_saved_one_propose_the_same(tmp_path: Path, kind) -> None:
    controller = make(kind, save_path=tmp_path / "new" / "policy")
    run(controller, target_ratios=(0.3, 0.7))
    problem = controller._search.problem
    loaded = TargetPolicy.load(tmp_path / "new" / "policy", problem)
    for target_ms in (2.5, 4.0, 6.0):
        alone = controller.propose_from_policy(target_ms, 4)
        assert alone == loaded.propose(target_ms, 4)
        assert max(TASK.latency(alone)) <= target_ms
    with pytest.raises(InfeasibleTargetError, match=r"target_ms=0\.5"):
        controller.propose_from_policy(0.5)
    assert {file.suffix for file in (tmp_path / "new" / "policy").iterdir()} == {".json", ".safetensors"}


@with_policy
def test_the_policy_is_saved_when_the_evaluator_fails(tmp_path: Path, kind) -> None:
    def fail(configs: Sequence[SubnetConfig]) -> list[Metrics]:
        raise PowerCutError

    with pytest.raises(PowerCutError):
        run(make(kind, save_path=tmp_path / "policy"), fail)
    problem = Problem(SPACE, LatencyTarget(target_ms=5.0), TASK.latency, 5.0, 10.0)
    assert TargetPolicy.load(tmp_path / "policy", problem).propose(5.0)[0] in SPACE


def test_nothing_is_written_or_printed_unless_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    run(make(AutoController))
    assert not list(tmp_path.iterdir())
    assert capsys.readouterr() == ("", "")


# Warm starts


@pytest.fixture
def earlier(tmp_path: Path) -> Path:
    """A run on a task of the same kind, with its policy."""
    folder = tmp_path / "earlier"
    controller = SurrogatePPOController(CHEAP, SMALL_POLICY, save_path=folder / "policy")
    run(controller, path=folder)
    return folder


def shifted(configs: Sequence[SubnetConfig]) -> list[Metrics]:
    """Another task, on which the same blocks matter."""
    return [replace(metrics, accuracy=0.3 + 0.5 * metrics.accuracy) for metrics in TASK(configs)]


@pytest.mark.parametrize("kind", [SurrogatePPOController, SurrogateLocalController])
def test_a_warm_start_evaluates_the_best_earlier_subnets_first(earlier: Path, kind) -> None:
    start = WarmStart.read(earlier)
    result = run(make(kind, warm_start=start), shifted)
    problem = Problem(SPACE, LatencyTarget(target_ms=5.0), TASK.latency, 5.0, 10.0)
    best = [SPACE.decode(action) for action in start.best_actions(problem, 16).tolist()]
    assert [trial.config for trial in result.trials[:16]] == best
    assert len(result.trials) == 48


def test_a_warm_start_is_ahead_after_a_few_trials() -> None:
    drawn = run(RandomController(), budget=300).trials
    warm, cold = (run(make(warm_start=s), shifted, budget=40) for s in (WarmStart.of(drawn), None))
    assert max(t.reward for t in warm.trials[:20]) > max(t.reward for t in cold.trials[:20])


def test_an_earlier_policy_goes_on_learning(earlier: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[Path] = []
    monkeypatch.setattr(PolicyTrainer, "start_from", lambda self, folder: started.append(folder))
    run(make(AutoController, warm_start=WarmStart.read(earlier)), shifted, budget=12)
    run(make(warm_start=replace(WarmStart.read(earlier), policy=None)), shifted, budget=12)
    run(make(SurrogateLocalController, warm_start=WarmStart.read(earlier)), shifted, budget=12)
    assert started == [earlier / "policy"]


def test_a_warm_search_is_repeated_and_resumed_by_an_equal_start(earlier: Path, tmp_path: Path) -> None:
    start = WarmStart.read(earlier)
    first = run(make(warm_start=start), shifted, path=tmp_path / "run", budget=30)
    again = run(
        make(warm_start=WarmStart.read(earlier)), shifted, path=tmp_path / "run", resume=True, budget=30
    )
    assert again.trials == first.trials
    other = WarmStart.of(start.trials[1:], start.policy)
    with pytest.raises(HistoryError, match="controller"):
        run(make(warm_start=other), shifted, path=tmp_path / "run", resume=True, budget=30)


def test_a_warm_start_from_another_space_is_refused(earlier: Path) -> None:
    other = LayerwiseSpace((LayerOptions((0, 2), (0, 8)),) * 3)
    with pytest.raises(HistoryError, match="only 2 of the warm start's 48 subnets belong to this"):
        run(make(warm_start=WarmStart.read(earlier)), additive_task(other), space=other)


def test_a_damaged_policy_of_an_earlier_run_is_named(earlier: Path) -> None:
    (earlier / "policy" / "policy.safetensors").write_bytes(b"")
    with pytest.raises(CheckpointError, match="is damaged"):
        run(make(warm_start=WarmStart.read(earlier)), shifted)


@pytest.mark.parametrize("budget", [32, 41, 47])
def test_a_search_knows_all_that_it_has_paid_for(budget: int) -> None:
    controller = make()
    result = run(controller, budget=budget)
    assert controller._search.knowledge.trials == list(result.trials)
