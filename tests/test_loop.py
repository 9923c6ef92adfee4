from __future__ import annotations

import itertools
import math
import signal
import sqlite3
import subprocess
import sys
import time
from dataclasses import dataclass, field, replace

import numpy as np
import pytest

from rlnas.errors import (
    BudgetError,
    DeviceError,
    EvaluationError,
    HistoryError,
    InfeasibleTargetError,
    InvalidSubnetError,
    LatencyTableError,
    RewardError,
)
from rlnas.history import FILE_NAME, History
from rlnas.loop import MAX_FRUITLESS, SearchEnd, search
from rlnas.metrics import Metrics
from rlnas.rewards import LatencyTarget, LinearPenalty
from rlnas.space import LayerConfig, LayerwiseSpace, ModelShape, SubnetConfig, UniformSpace
from rlnas.tabular import additive_task

SPACE = LayerwiseSpace.for_model(ModelShape(2, 4, 8, 8))  # 625 members
TASK = additive_task(SPACE)
SMALL = LayerwiseSpace.for_model(ModelShape(1, 4, 8, 8))  # 25 members


@dataclass(frozen=True)
class RandomBatches:
    """Uniform members, so many at a time."""

    batch_size: int = 8

    def search(self, problem, evaluate, budget, seed):
        rng = np.random.default_rng(seed)
        while True:
            evaluate([problem.space.sample(rng) for _ in range(self.batch_size)])


@dataclass(frozen=True)
class Learner:
    """Proposes neighbours of the best answer so far: what it does depends on what it was told."""

    def search(self, problem, evaluate, budget, seed):
        rng = np.random.default_rng(seed)
        best = evaluate([problem.space.sample(rng)])[0]
        while True:
            parent = np.array(problem.space.encode(best.config))
            children = []
            for _ in range(5):
                child = parent.copy()
                position = rng.integers(len(child))
                child[position] = rng.integers(problem.space.nvec[position])
                children.append(problem.space.decode(child))
            children.append(problem.space.sample(rng))
            best = max(best, *evaluate(children), key=lambda trial: trial.reward)


@dataclass(frozen=True)
class Script:
    """Proposes the batches that it was given, then stops."""

    batches: tuple = ()
    answers: list = field(default_factory=list, repr=False)

    def search(self, problem, evaluate, budget, seed):
        for batch in self.batches:
            self.answers.append(evaluate(list(batch)))


class Counted:
    """An evaluator that remembers its calls."""

    def __init__(self, evaluator=TASK):
        self.calls = []
        self.evaluator = evaluator

    def __call__(self, configs):
        self.calls.append(list(configs))
        return self.evaluator(configs)


def members(*codes, space=SPACE):
    return tuple(space.decode([int(digit) for digit in code]) for code in codes)


def accuracy_of(metrics):
    return metrics.accuracy


def run(controller, evaluator=TASK, reward=accuracy_of, *, space=SPACE, budget=10, **options):
    return search(space, evaluator, reward, controller, budget=budget, **options)


@pytest.mark.parametrize("batch_size", [1, 8, 64])
@pytest.mark.parametrize("budget", [1, 33, 64, 500])
def test_the_budget_is_exact(budget, batch_size):
    evaluator = Counted()
    result = run(RandomBatches(batch_size), evaluator, budget=budget)
    assert len(result.trials) == budget == sum(map(len, evaluator.calls))
    assert [trial.number for trial in result.trials] == list(range(budget))
    assert len({trial.config for trial in result.trials}) == budget
    assert result.stop_reason == f"the budget of {budget} trials is spent"


def test_a_batch_that_fits_the_budget_is_answered_and_the_next_call_ends():
    controller = Script((members("0000", "1111"), members("2222", "3333"), members("0000")))
    result = run(controller, budget=4)
    assert [len(answer) for answer in controller.answers] == [2, 2]
    assert result.stop_reason == "the budget of 4 trials is spent"
    assert len(result.episode_rewards) == 4


def test_a_batch_beyond_the_budget_is_cut_and_its_known_part_is_booked():
    controller = Script((members("0000"), members("1111", "0000", "2222", "1111", "3333")))
    evaluator = Counted()
    result = run(controller, evaluator, budget=2)
    assert [trial.config for trial in result.trials] == list(members("0000", "1111"))
    assert evaluator.calls == [list(members("0000")), list(members("1111"))]
    assert [len(answer) for answer in controller.answers] == [1]
    first, second = (trial.reward for trial in result.trials)
    np.testing.assert_array_equal(result.episode_rewards, [first, second, first, second])


def test_repeats_are_free_and_answered_in_order():
    evaluator = Counted()
    controller = Script((members("0000", "1111", "0000"), members("1111", "2222")))
    result = run(controller, evaluator)
    assert evaluator.calls == [list(members("0000", "1111")), list(members("2222"))]
    assert [[trial.number for trial in answer] for answer in controller.answers] == [[0, 1, 0], [1, 2]]
    assert len(result.trials) == 3
    assert len(result.episode_rewards) == 5
    assert result.stop_reason == "the controller stopped"


def test_an_exhausted_space_ends_the_search_with_its_size():
    result = run(RandomBatches(), additive_task(SMALL), space=SMALL, budget=500)
    assert len(result.trials) == 25
    assert result.stop_reason == "all 25 subnets of the space are evaluated"


@pytest.mark.parametrize("batch_size", [1, 7])
def test_a_thousand_proposals_without_a_new_subnet_end_the_search(batch_size):
    class Stubborn:
        def search(self, problem, evaluate, budget, seed):
            while True:
                evaluate([problem.space.largest()] * batch_size)

    result = run(Stubborn())
    assert len(result.trials) == 1
    assert 1 + MAX_FRUITLESS <= len(result.episode_rewards) <= MAX_FRUITLESS + batch_size
    assert result.stop_reason == (
        f"the last {len(result.episode_rewards) - 1} proposals brought no new subnet"
    )


def test_a_new_subnet_starts_the_count_of_fruitless_proposals_anew():
    batch = members("0000") * 900
    result = run(Script((batch, members("1111"), batch)))
    assert result.stop_reason == "the controller stopped"


def test_a_controller_that_proposes_nothing_is_ended():
    class Idle:
        def search(self, problem, evaluate, budget, seed):
            while True:
                assert evaluate([]) == []

    assert run(Idle()).stop_reason == "the last 1000 proposals brought no new subnet"


def test_the_end_carries_its_reason():
    assert SearchEnd("enough").reason == "enough"
    assert SearchEnd("enough").answers == ()
    assert str(SearchEnd("enough")) == "enough"


def test_the_same_seed_gives_the_same_history_and_another_one_does_not():
    first, second, other = (run(Learner(), budget=50, seed=seed) for seed in (3, 3, 4))
    assert first.trials == second.trials
    np.testing.assert_array_equal(first.episode_rewards, second.episode_rewards)
    assert first.trials != other.trials


def test_the_batch_is_stored_before_the_controller_sees_it(tmp_path):
    class Looking:
        def search(self, problem, evaluate, budget, seed):
            for batch in (members("0000", "1111"), members("2222")):
                answer = evaluate(batch)
                assert History.read(tmp_path).trials[-len(batch) :] == tuple(answer)

    assert len(run(Looking(), path=tmp_path).trials) == 3


def test_progress_is_told_the_number_of_trials_and_the_best():
    seen = []
    run(
        Script((members("4444"), members("4444"), members("0000"))),
        progress=lambda n_done, best: seen.append((n_done, best.config)),
    )
    largest = SPACE.largest()
    assert seen == [(1, largest), (2, largest)]


def test_a_missing_latency_is_predicted():
    result = run(
        Script((members("0000", "4444"),)),
        lambda configs: [Metrics(0.5, 7.0), Metrics(0.6)],
        latency=TASK.latency,
    )
    assert [trial.metrics.latency_ms for trial in result.trials] == [7.0, pytest.approx(10.0)]


def test_what_the_evaluator_brings_reaches_the_controller():
    class Reader:
        def search(self, problem, evaluate, budget, seed):
            self.problem = problem

    reader = Reader()
    run(reader, reward=LatencyTarget(ratio=0.5))
    assert reader.problem.latency(members("0000")) == [1.0]
    assert reader.problem.reference_ms == pytest.approx(10.0)
    assert reader.problem.target_ms == pytest.approx(5.0)
    assert reader.problem.reward == LatencyTarget(target_ms=reader.problem.target_ms)
    np.testing.assert_array_equal(reader.problem.importance, TASK.importance)
    run(reader, latency=lambda configs: [3.0] * len(configs), importance=np.ones(4))
    assert reader.problem.reference_ms == 3.0
    np.testing.assert_array_equal(reader.problem.importance, np.ones(4))
    run(reader, evaluator=TASK.__call__)
    assert reader.problem.latency is None
    assert reader.problem.reference_ms is None
    assert reader.problem.target_ms is None


def test_a_target_in_milliseconds_needs_no_latency_model():
    result = run(
        Script((members("0000"),)),
        lambda configs: [Metrics(0.5, 4.0)],
        LatencyTarget(target_ms=2.0),
    )
    assert result.best.reward == pytest.approx(0.5 - 1.0)


class Reader:
    """Takes note of the problem."""

    def search(self, problem, evaluate, budget, seed):
        self.problem = problem


def test_target_ratios_become_milliseconds_in_ascending_order():
    reader = Reader()
    run(reader, reward=LatencyTarget(ratio=0.5), target_ratios=(0.75, 0.25, 1.5))
    assert reader.problem.targets_ms == pytest.approx((2.5, 7.5, 15.0))
    assert reader.problem.served_targets_ms == reader.problem.targets_ms
    assert reader.problem.target_ms == pytest.approx(5.0)
    run(reader, reward=LatencyTarget(ratio=0.5), target_ratios=np.array([0.25, 0.75]))
    assert reader.problem.targets_ms == pytest.approx((2.5, 7.5))
    run(reader, reward=LatencyTarget(ratio=0.5))
    assert reader.problem.targets_ms == ()


def test_ratios_may_refer_to_another_latency_than_the_largest_subnet_s():
    reader = Reader()
    run(reader, reward=LatencyTarget(ratio=0.5), target_ratios=(0.25, 0.5), reference_ms=16.0)
    assert reader.problem.reference_ms == 16.0
    assert reader.problem.target_ms == pytest.approx(8.0)
    assert reader.problem.targets_ms == pytest.approx((4.0, 8.0))


def test_rewards_of_a_search_for_several_targets_are_those_of_its_own():
    options = {"reward": LatencyTarget(ratio=0.5), "budget": 60}
    one, several = (run(RandomBatches(), **options, target_ratios=ratios) for ratios in ((), (0.2, 0.9)))
    assert several.trials == one.trials
    for target_ms in (2.0, 9.0):
        reward = LatencyTarget(target_ms=target_ms)
        best = several.best_for(reward)
        assert reward(best.metrics) == max(reward(trial.metrics) for trial in several.trials)


@pytest.mark.parametrize(
    ("target_ratios", "shown"),
    [
        ((0.5, 0.0), r"above 0 without repeats, but got \(0\.5, 0\.0\)"),
        ((-0.5,), r"but got \(-0\.5,\)"),
        ((0.5, 0.7, 0.5), r"without repeats, but got \(0\.5, 0\.7, 0\.5\)"),
        ((0.5, math.inf), r"but got \(0\.5, inf\)"),
        ((math.nan,), r"but got \(nan,\)"),
    ],
    ids=["zero", "negative", "repeated", "infinite", "nan"],
)
def test_target_ratios_that_make_no_sense_are_refused(target_ratios, shown):
    with pytest.raises(RewardError, match=shown):
        run(RandomBatches(), reward=LatencyTarget(ratio=0.5), target_ratios=target_ratios)


def test_target_ratios_need_a_latency_model():
    with pytest.raises(RewardError, match=r"target_ratios=\(0\.3,\) are relative.*latency=\.\.\."):
        run(RandomBatches(), TASK.__call__, LatencyTarget(target_ms=5.0), target_ratios=(0.3,))


@pytest.mark.parametrize("reward", [accuracy_of, LinearPenalty()], ids=["plain", "penalty"])
def test_target_ratios_need_a_reward_that_knows_targets(reward):
    with pytest.raises(RewardError, match=r"serves one target only; to ask for target_ms=3"):
        run(RandomBatches(), reward=reward, target_ratios=(0.3, 0.6))


def test_the_smallest_of_several_targets_has_to_be_reachable():
    with pytest.raises(InfeasibleTargetError, match=r"target_ms=0\.5 cannot be reached"):
        run(RandomBatches(), reward=LatencyTarget(ratio=0.5), target_ratios=(0.6, 0.05))


def test_a_search_for_other_targets_is_not_resumed(tmp_path):
    options = {"reward": LatencyTarget(ratio=0.5), "path": tmp_path}
    first = run(RandomBatches(), **options, target_ratios=(0.3, 0.6))
    again = run(RandomBatches(), **options, target_ratios=(0.6, 0.3), resume=True)
    assert again.trials == first.trials
    for ratios in ((0.3, 0.7), ()):
        with pytest.raises(HistoryError, match="targets_ms"):
            run(RandomBatches(), **options, target_ratios=ratios, resume=True)


def test_importance_kept_comes_from_the_evaluator_unless_it_is_given():
    class Weighing:
        def kept_importance(self, configs):
            return [7.0] * len(configs)

        def __call__(self, configs):
            return TASK(configs)

    reader = Reader()
    run(reader, Weighing())
    assert reader.problem.kept_importance(members("0000")) == [7.0]
    run(reader, Weighing(), kept_importance=lambda configs: [1.0] * len(configs))
    assert reader.problem.kept_importance(members("0000")) == [1.0]
    run(reader)
    assert reader.problem.kept_importance is None


@pytest.mark.parametrize("reward", [LatencyTarget(ratio=0.5), LinearPenalty()], ids=["ratio", "linear"])
def test_a_relative_reward_needs_a_latency_model(reward):
    with pytest.raises(RewardError, match=r"is relative to the full model's latency.*latency=\.\.\."):
        run(RandomBatches(), TASK.__call__, reward)


def test_an_unreachable_target_says_what_the_floor_is():
    message = (
        r"target_ms=0.5 cannot be reached: the smallest subnet of this space takes 1 ms, "
        r"0.100 of the full model's 10 ms"
    )
    with pytest.raises(InfeasibleTargetError, match=message):
        run(RandomBatches(), reward=LatencyTarget(ratio=0.05))


def test_the_floor_itself_can_be_reached():
    floor_ms = TASK.predict([SPACE.smallest()])[0]
    assert len(run(Script((members("0000"),)), reward=LatencyTarget(target_ms=floor_ms)).trials) == 1


@pytest.mark.parametrize("budget", [0, -3])
def test_a_budget_of_nothing_is_refused(budget):
    with pytest.raises(BudgetError, match=f"budget must be at least 1 trial, but got budget={budget}"):
        run(RandomBatches(), budget=budget)


@pytest.mark.parametrize(
    ("stranger", "name"),
    [(SubnetConfig((LayerConfig(3, 5),) * 2), "3h5 3h5"), ("a text", "a text"), ([1], r"\[1\]")],
    ids=["config", "text", "unhashable"],
)
def test_a_proposal_outside_the_space_is_refused(stranger, name):
    with pytest.raises(InvalidSubnetError, match=f"proposed a subnet outside the space: {name}"):
        run(Script(((stranger,),)))


@pytest.mark.parametrize(
    ("answers", "message"),
    [
        ([], "gave 0 metrics for 1 subnets"),
        ([Metrics(0.5), Metrics(0.5)], "gave 2 metrics for 1 subnets"),
        ([0.5], "must give a Metrics per subnet, but gave 0.5 for - -"),
        ([Metrics(math.nan)], "gave accuracy=nan and latency_ms=nan for - -"),
        ([Metrics(0.5, math.inf)], "gave accuracy=0.5 and latency_ms=inf for - -"),
    ],
    ids=["too few", "too many", "type", "nan", "inf"],
)
def test_an_unsound_answer_of_the_evaluator_is_refused(answers, message):
    with pytest.raises(EvaluationError, match=message) as caught:
        run(Script((members("0000"),)), lambda configs: answers)
    assert caught.value.config == (SPACE.smallest() if "- -" in message else None)


@pytest.mark.parametrize("value", [math.nan, -math.inf, "much", None])
def test_a_reward_that_is_no_finite_number_is_refused(value):
    with pytest.raises(RewardError, match=rf"must be a finite number, but .* gave {value!r} for Metrics"):
        run(RandomBatches(), reward=lambda metrics: value)


def test_a_reward_that_fails_is_named_with_its_fault():
    def careless(metrics):
        return metrics.acuracy

    with pytest.raises(RewardError, match=r"the reward .*careless failed with AttributeError: .*'acuracy'"):
        run(RandomBatches(), reward=careless)


def test_an_error_that_a_reward_raises_on_purpose_is_left_as_it_is():
    def strict(metrics):
        raise DeviceError("no power meter")

    with pytest.raises(DeviceError, match=r"^no power meter$"):
        run(RandomBatches(), reward=strict)


@pytest.mark.parametrize(
    ("predicted", "message"),
    [
        ([1.0], "one number per subnet, but gave 1 for 2"),
        ([math.nan, 1.0], "gave nan"),
        ([1.0, -1.0], "gave -1.0"),
    ],
    ids=["too few", "nan", "negative"],
)
def test_an_unsound_latency_model_is_refused(predicted, message):
    with pytest.raises(LatencyTableError, match=message):
        run(RandomBatches(), latency=lambda configs: predicted)


def test_importance_of_another_shape_is_refused():
    with pytest.raises(ValueError, match=r"importance must have shape \(4,\), but got \(3,\)"):
        run(RandomBatches(), importance=np.ones(3))


# Resuming


class FaultError(Exception):
    """Stands for whatever breaks a run."""


def broken_after(n_calls):
    calls = itertools.count()

    def evaluate(configs):
        if next(calls) >= n_calls:
            raise FaultError
        return TASK(configs)

    return evaluate


@pytest.mark.parametrize("controller", [RandomBatches(), Learner()], ids=["random", "learner"])
@pytest.mark.parametrize("n_calls", [0, 1, 4])
def test_a_resumed_search_ends_like_an_unbroken_one(tmp_path, controller, n_calls):
    unbroken = run(controller, budget=40, path=tmp_path / "unbroken")
    with pytest.raises(FaultError):
        run(controller, broken_after(n_calls), budget=40, path=tmp_path / "broken")
    n_stored = len(History.read(tmp_path / "broken").trials)
    assert (n_stored == 0) == (n_calls == 0)
    evaluator = Counted()
    resumed = run(controller, evaluator, budget=40, path=tmp_path / "broken", resume=True)
    assert resumed.trials == unbroken.trials
    np.testing.assert_array_equal(resumed.episode_rewards, unbroken.episode_rewards)
    assert resumed.stop_reason == unbroken.stop_reason
    assert rows(tmp_path / "broken") == rows(tmp_path / "unbroken")
    assert sum(map(len, evaluator.calls)) == 40 - n_stored


def test_a_finished_search_is_resumed_without_any_evaluation(tmp_path):
    first = run(Learner(), budget=30, path=tmp_path)
    evaluator = Counted()
    again = run(Learner(), evaluator, budget=30, path=tmp_path, resume=True)
    assert evaluator.calls == []
    assert again.trials == first.trials


def test_the_budget_may_grow(tmp_path):
    run(RandomBatches(), budget=33, path=tmp_path)
    grown = run(RandomBatches(), budget=50, path=tmp_path, resume=True)
    assert grown.trials == run(RandomBatches(), budget=50).trials == History.read(tmp_path).trials


def test_a_budget_below_what_is_stored_is_refused(tmp_path):
    run(RandomBatches(), budget=33, path=tmp_path)
    with pytest.raises(HistoryError, match="already holds 33 trials, more than budget=10; resume with"):
        run(RandomBatches(), budget=10, path=tmp_path, resume=True)


def test_an_interrupt_by_the_user_passes_and_leaves_the_history_open_to_the_next(tmp_path):
    def interrupted(configs):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(RandomBatches(), interrupted, path=tmp_path)
    assert len(run(RandomBatches(), path=tmp_path).trials) == 10


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"seed": 1}, "seed=0, but this search has seed=1"),
        ({"reward": LatencyTarget(ratio=0.6)}, r"reward=LatencyTarget\(ratio=None, target_ms=5"),
        ({"controller": RandomBatches(4)}, r"controller=RandomBatches\(batch_size=8\), but this"),
        ({"space": SMALL, "evaluator": additive_task(SMALL)}, r"space=LayerwiseSpace\(nvec=\(5, 5, 5, 5\)"),
        ({"settings": {"task": "rte"}}, "task=sst2, but this search has task=rte"),
    ],
    ids=["seed", "reward", "controller", "space", "user"],
)
def test_resuming_another_search_is_refused(tmp_path, changed, message):
    same = {
        "controller": RandomBatches(),
        "reward": LatencyTarget(ratio=0.5),
        "settings": {"task": "sst2"},
        "path": tmp_path,
    }
    run(**same)
    with pytest.raises(HistoryError, match=message):
        run(**{**same, **changed}, resume=True)


def test_settings_may_not_hide_what_the_search_records():
    with pytest.raises(HistoryError, match="settings may not hold 'seed'"):
        run(RandomBatches(), settings={"seed": "3"})


def test_functions_are_recorded_without_their_address(tmp_path):
    run(RandomBatches(), path=tmp_path)
    assert History.read(tmp_path).settings["reward"] == "<function accuracy_of>"


def test_a_controller_that_proposes_otherwise_than_stored_is_refused(tmp_path):
    class Moody:
        def __repr__(self):
            return "Moody()"

        def __init__(self, *codes):
            self.codes = codes

        def search(self, problem, evaluate, budget, seed):
            evaluate(members(*self.codes))

    run(Moody("0000", "4444"), path=tmp_path)
    with pytest.raises(HistoryError, match=r"does not fit .* trial 0 is - -, but it proposed 4h8 4h8"):
        run(Moody("4444", "0000"), path=tmp_path, resume=True)
    with pytest.raises(
        HistoryError, match=r"ended after 1 trials where 2 are stored; start in a new folder"
    ):
        run(Moody("0000"), path=tmp_path, resume=True)


def test_a_reward_that_changed_behind_its_name_is_refused(tmp_path):
    scale = 1.0

    def reward(metrics):
        return scale * metrics.accuracy

    run(Script((members("4444"),)), reward=reward, path=tmp_path)
    scale = 2.0
    with pytest.raises(HistoryError, match=r"reward of trial 0 is stored as 0\.[89]\d*, but is 1\.[78]"):
        run(Script((members("4444"),)), reward=reward, path=tmp_path, resume=True)


# Races


class Racing:
    """Judges on 100 items; what lies below the best before its batch leaves after 10.

    It is strict: it refuses to be told of trials that do not follow what it knows. An estimate is
    far too high, so that its reward is the highest of all.
    """

    def __init__(self, n_calls=None):
        self.best = 0.5
        self.n_known = 0
        self.n_left = n_calls
        self.recalled = []

    def recall(self, trials):
        assert trials
        assert [trial.number for trial in trials] == list(range(self.n_known, self.n_known + len(trials)))
        self.recalled += trials
        self._learn([trial.metrics for trial in trials])

    def __call__(self, configs):
        if self.n_left is not None:
            if self.n_left == 0:
                raise FaultError
            self.n_left -= 1
        answers = [
            replace(metrics, accuracy=2.0 + metrics.accuracy, n_items=10, raced_out=True)
            if metrics.accuracy < self.best
            else replace(metrics, n_items=100)
            for metrics in TASK(configs)
        ]
        self._learn(answers)
        return answers

    def _learn(self, answers):
        self.n_known += len(answers)
        self.best = max([self.best, *(m.accuracy for m in answers if not m.raced_out)])


def test_what_is_raced_out_counts_in_the_budget_and_is_answered_but_never_the_best():
    seen = []
    result = run(
        RandomBatches(), Racing(), budget=60, progress=lambda n_done, best: seen.append((n_done, best))
    )
    assert len(result.trials) == len(result.episode_rewards) == 60
    complete = [trial for trial in result.trials if not trial.metrics.raced_out]
    assert 1 < len(complete) < 60
    assert result.n_raced_out == 60 - len(complete)
    assert max(result.trials, key=lambda trial: trial.reward).metrics.raced_out
    assert result.best == max(complete, key=lambda trial: trial.reward) == seen[-1][1]
    assert set(result.pareto_front) <= set(complete)
    assert result.pareto_front[-1] == result.best  # the reward is the accuracy
    assert not any(best.metrics.raced_out for _, best in seen)


def test_progress_waits_for_a_trial_that_was_judged_fully():
    seen = []
    run(
        Script((members("0000"), members("1000"), members("4444"), members("0001"))),
        Racing(),
        progress=lambda n_done, best: seen.append((n_done, best.number)),
    )
    assert seen == [(3, 2), (4, 2)]


@pytest.mark.parametrize("controller", [RandomBatches(), Learner()], ids=["random", "learner"])
@pytest.mark.parametrize("n_calls", [0, 1, 4])
def test_a_resumed_race_recalls_what_is_stored_and_ends_like_an_unbroken_one(tmp_path, controller, n_calls):
    unbroken_race = Racing()
    unbroken = run(controller, unbroken_race, budget=40, path=tmp_path / "unbroken")
    assert unbroken_race.recalled == []
    assert 0 < unbroken.n_raced_out < 40
    with pytest.raises(FaultError):
        run(controller, Racing(n_calls), budget=40, path=tmp_path / "broken")
    stored = History.read(tmp_path / "broken").trials
    evaluator = Racing()
    resumed = run(controller, evaluator, budget=40, path=tmp_path / "broken", resume=True)
    assert evaluator.recalled == list(stored)
    assert evaluator.n_known == 40
    assert resumed.trials == unbroken.trials
    assert resumed.best == unbroken.best
    assert rows(tmp_path / "broken") == rows(tmp_path / "unbroken")


def test_an_evaluator_recalls_the_stored_part_of_a_batch_before_it_judges_the_rest(tmp_path):
    order = []

    class Noting(Racing):
        def recall(self, trials):
            order.append(("recall", [trial.number for trial in trials]))

        def __call__(self, configs):
            order.append(("judge", len(configs)))
            return super().__call__(configs)

    run(RandomBatches(4), Racing(), budget=6, path=tmp_path)
    run(RandomBatches(4), Noting(), budget=12, path=tmp_path, resume=True)
    assert order == [("recall", [0, 1, 2, 3]), ("recall", [4, 5]), ("judge", 2), ("judge", 4)]


def test_what_does_not_fit_is_not_recalled(tmp_path):
    class Moody(Script):
        def __repr__(self):
            return "Moody()"

    run(Moody((members("4444"),)), Racing(), path=tmp_path)
    evaluator = Racing()
    with pytest.raises(HistoryError, match="trial 0 is 4h8 4h8, but it proposed - -"):
        run(Moody((members("0000"),)), evaluator, path=tmp_path, resume=True)
    assert evaluator.recalled == []


# Killing for real

KILLED_PROGRAM = """
import sys, time
from pathlib import Path
from dataclasses import dataclass
import numpy as np
from rlnas.loop import search
from rlnas.rewards import LatencyTarget
from rlnas.space import LayerwiseSpace, ModelShape
from rlnas.tabular import additive_task

@dataclass(frozen=True)
class Hill:
    def search(self, problem, evaluate, budget, seed):
        rng = np.random.default_rng(seed)
        best = evaluate([problem.space.sample(rng)])[0]
        while True:
            batch = [best.config] + [problem.space.sample(rng) for _ in range(4)]
            best = max(best, *evaluate(batch), key=lambda trial: trial.reward)

space = LayerwiseSpace.for_model(ModelShape(2, 4, 8, 8))
task = additive_task(space)
delay = float(sys.argv[2])

def evaluator(configs):
    time.sleep(delay)
    print(*(config.to_json() for config in configs), sep=chr(10), flush=True)
    return task(configs)

result = search(space, evaluator, LatencyTarget(ratio=0.5), Hill(), budget=300, seed=5,
                path=Path(sys.argv[1]), resume=True, latency=task.latency)
"""


def rows(folder):
    connection = sqlite3.connect(folder / FILE_NAME)
    try:
        return connection.execute("SELECT * FROM trials ORDER BY number").fetchall()
    finally:
        connection.close()


def start(folder, delay):
    command = [sys.executable, "-c", KILLED_PROGRAM, str(folder), str(delay)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def test_a_search_killed_at_ten_moments_ends_like_an_unbroken_one(tmp_path):
    unbroken, killed = tmp_path / "unbroken", tmp_path / "killed"
    with start(unbroken, 0.0) as process:
        process.communicate(timeout=30)
    assert process.returncode == 0

    rng = np.random.default_rng(0)
    n_stored = []
    for _ in range(10):
        with start(killed, 0.004) as process:
            process.stdout.readline()  # it has judged its first new batch, but perhaps not stored it
            time.sleep(float(rng.uniform(0.0, 0.04)))
            process.send_signal(signal.SIGKILL)
            process.communicate()
        assert process.returncode == -signal.SIGKILL
        n_stored.append(len(History.read(killed).trials))
        assert rows(killed) == rows(unbroken)[: n_stored[-1]]

    assert n_stored == sorted(n_stored)
    assert 0 < n_stored[-1] < 300
    with start(killed, 0.0) as process:
        judged, _ = process.communicate(timeout=30)
    assert process.returncode == 0
    assert rows(killed) == rows(unbroken)
    assert len(rows(killed)) == 300
    assert len(judged.splitlines()) == 300 - n_stored[-1], "a stored trial was judged again"


def test_importance_of_other_positions_is_left_out_of_the_problem():
    space = UniformSpace(3, (1, 2, 3), (2, 4), (8, 16))
    seen = []

    class Evaluator:
        latency = staticmethod(lambda configs: [float(len(config.layers)) for config in configs])
        importance = np.ones(6)

        def __call__(self, configs):
            return [Metrics(0.5) for _ in configs]

    class Looker:
        def search(self, problem, evaluate, budget, seed):
            seen.append(problem.importance)
            evaluate([problem.space.smallest()])

    search(space, Evaluator(), lambda metrics: metrics.accuracy, Looker(), budget=1)
    assert seen == [None]


def test_a_controller_is_told_the_budget_that_the_search_was_begun_with(tmp_path):
    task = additive_task(LayerwiseSpace.for_model(ModelShape(2, 4, 16, 8)))
    told = []

    class Counter:
        def __repr__(self):
            return "Counter()"

        def search(self, problem, evaluate, budget, seed):
            told.append(budget)
            rng = np.random.default_rng(seed)
            while True:
                evaluate([problem.space.sample(rng)])

    reward = LinearPenalty()
    search(task.space, task, reward, Counter(), budget=5, path=tmp_path)
    more = search(task.space, task, reward, Counter(), budget=9, path=tmp_path, resume=True)
    search(task.space, task, reward, Counter(), budget=12, path=tmp_path, resume=True)
    assert told == [5, 5, 5]
    assert len(more.trials) == 9
