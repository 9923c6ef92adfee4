from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlnas.auto.compute import ArmCost
from rlnas.auto.plan import Plan
from rlnas.auto.race import race
from rlnas.auto.record import Judgement, Record
from rlnas.errors import EvaluationError, TrainingError

pytest.importorskip("optuna")

RATES = {"a": 1e-4, "b": 1e-4, "c": 2e-4}
COSTS = {"a": ArmCost(1.0, 0.1), "b": ArmCost(0.5, 0.05), "c": ArmCost(1.0, 0.1)}


class Kill(BaseException):
    """What no handler expects."""


class Told:
    """Scores from a function of trial and rung; remembers what it was asked, and may be killed.

    `passes` are those that each look took: from where the trial was kept, else from the start.
    """

    def __init__(self, worth, rungs, n_left=None):
        self.worth, self.rungs, self.n_left = worth, (0, *rungs), n_left
        self.asked, self.kept, self.passes = [], {}, []

    def judge(self, candidate, rung):
        if self.n_left is not None and len(self.asked) >= self.n_left:
            raise Kill
        self.asked.append((candidate.number, rung))
        self.passes.append(self.rungs[rung + 1] - self.rungs[self.kept.get(candidate.number, 0)])
        self.kept[candidate.number] = rung + 1
        return Judgement(self.worth(candidate, rung), 0.7)

    def drop(self, candidate):
        self.kept.pop(candidate.number, None)


def run(worth, plan, record=None, n_left=None):
    learner = Told(worth, plan.rungs, n_left)
    record = Record() if record is None else record
    return race(plan, RATES, COSTS, learner, record, 0), learner, record


def by_number(candidate, rung):
    return 0.1 * (candidate.number % 7) + rung


def test_the_better_half_goes_on_and_the_best_wins():
    winner, learner, record = run(by_number, Plan((1, 2, 5), 6))
    assert [number for number, rung in learner.asked if rung == 0] == list(range(6))
    assert [number for number, rung in learner.asked if rung == 1] == [3, 4, 5]
    assert [number for number, rung in learner.asked if rung == 2] == [5]
    assert winner.candidate.number == 5
    assert winner.score == pytest.approx(2.5)
    assert set(learner.kept) == {5}
    assert learner.passes == [1] * 6 + [1] * 3 + [3]
    assert sum(look.cost for look in record.looks) <= Plan((1, 2, 5), 6).at_most(list(COSTS.values()))


def test_of_equal_trials_the_cheaper_ones_go_on_and_then_the_earlier():
    winner, learner, _ = run(lambda *_: 0.5, Plan((1, 2), 6))
    assert [number for number, rung in learner.asked if rung == 1] == [0, 1, 4]  # 1 and 4 are of b
    assert winner.candidate.number == 1


def test_a_rung_at_which_the_scores_choose_nobody_is_told_of(caplog):
    run(lambda candidate, rung: 0.0 if rung == 0 else by_number(candidate, rung), Plan((1, 2, 5), 6))
    (said,) = caplog.messages
    assert said.startswith("after 1 pass 6 of 6 trials had the same score, 0.000: their losses chose among")


FAILURES = st.lists(st.integers(0, 3), min_size=8, max_size=8)
"""Of each trial: at which rung it fails; at none for 3."""


def failing(fails_at):
    def worth(candidate, rung):
        if fails_at[candidate.number] == rung:
            raise TrainingError("the loss became nan")
        return by_number(candidate, rung)

    return worth


@settings(max_examples=40)
@given(FAILURES, st.integers(2, 8))
def test_the_best_of_those_that_come_to_the_end_wins_whoever_fails(fails_at, n_trials):
    plan = Plan((1, 2, 5), n_trials)
    if 3 not in fails_at[:n_trials]:
        with pytest.raises(
            TrainingError, match=f"all {n_trials} trials failed in training; check the labels"
        ):
            run(failing(fails_at), plan)
        return
    winner, learner, record = run(failing(fails_at), plan)
    ends = [look for look in record.looks if look.rung == 2]
    assert winner == min(ends, key=lambda look: look.order)
    assert winner.score is not None
    assert len({(look.candidate.number, look.rung) for look in record.looks}) == len(record.looks)
    for look, passes in zip(record.looks, learner.passes, strict=True):
        assert look.cost == COSTS[look.candidate.arm].look(passes)


@settings(max_examples=40)
@given(FAILURES, st.integers(2, 8), st.integers(0, 20))
def test_a_race_that_is_killed_goes_on_as_if_it_had_not_been(tmp_path_factory, fails_at, n_trials, n_left):
    fails_at[n_left % n_trials] = 3
    plan, worth = Plan((1, 2, 5), n_trials), failing(fails_at)
    whole, _, unbroken = run(worth, plan)
    path = tmp_path_factory.mktemp("race") / "history.json"
    with suppress(Kill):
        run(worth, plan, Record(path), n_left)
    winner, _, record = run(worth, plan, Record(path))
    assert winner == whole
    assert record.looks == unbroken.looks


def test_where_all_of_a_rung_fail_the_next_best_goes_on_from_the_start_in_their_place():
    fails_at = [3, 3, 0, 1, 1, 1]  # 4, 5 and 3 go on, and fail; 2 has failed before
    winner, learner, record = run(failing(fails_at), Plan((1, 2, 5), 6))
    assert learner.asked[6:] == [(3, 1), (4, 1), (5, 1), (1, 1), (1, 2)]
    assert learner.passes[6:] == [1, 1, 1, 2, 3]
    assert winner.candidate.number == 1
    assert set(learner.kept) == {1}
    assert [look.score for look in record.at(1).values()] == [None, None, None, pytest.approx(1.1)]


def test_where_the_last_ones_fail_the_furthest_go_on_before_the_others():
    def worth(candidate, rung):
        return failing([3, 3, 3, 2, 2, 2])(candidate, rung) - 2 * rung  # worse from rung to rung

    winner, learner, _ = run(worth, Plan((1, 2, 5), 6))
    assert learner.asked[9:] == [(5, 2), (4, 2), (3, 2), (2, 1), (2, 2)]
    assert learner.passes[9:] == [3, 5, 5, 2, 3]
    assert winner.candidate.number == 2


def test_nothing_that_is_on_record_is_done_again(tmp_path):
    plan = Plan((1, 2), 4)
    run(by_number, plan, Record(tmp_path / "history.json"))
    _, learner, _ = run(by_number, plan, Record(tmp_path / "history.json"))
    assert learner.asked == []


@pytest.mark.parametrize(
    "error", [TrainingError("the loss became nan"), EvaluationError("no finite answer")]
)
def test_a_trial_that_fails_loses(error):
    def worth(candidate, rung):
        if candidate.number in (1, 5):
            raise error
        return by_number(candidate, rung)

    winner, learner, record = run(worth, Plan((1, 2), 6))
    assert winner.candidate.number == 4
    assert [look.score for look in record.at(0).values()].count(None) == 2
    assert not {1, 5} & {number for number, rung in learner.asked if rung == 1}


def test_a_choice_among_failures_is_refused():
    def worth(candidate, rung):
        raise TrainingError("the loss became nan")

    with pytest.raises(
        TrainingError, match="all 3 trials failed in training; check the labels, or name other"
    ):
        run(worth, Plan((1, 2), 3))
