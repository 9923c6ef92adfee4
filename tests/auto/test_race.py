from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlnas.auto.compute import ArmCost
from rlnas.auto.plan import Plan
from rlnas.auto.race import race
from rlnas.auto.record import Record
from rlnas.errors import EvaluationError, TrainingError

pytest.importorskip("optuna")

RATES = {"a": 1e-4, "b": 1e-4, "c": 2e-4}
COSTS = {"a": ArmCost(1.0, 0.1), "b": ArmCost(0.5, 0.05), "c": ArmCost(1.0, 0.1)}


class Kill(BaseException):
    """What no handler expects."""


class Told:
    """Scores from a function of trial and rung; remembers what it was asked, and may be killed."""

    def __init__(self, worth, n_left=None):
        self.worth, self.n_left = worth, n_left
        self.asked, self.kept = [], set()

    def score(self, candidate, rung):
        if self.n_left is not None and len(self.asked) >= self.n_left:
            raise Kill
        if rung:
            assert candidate.number in self.kept
        self.asked.append((candidate.number, rung))
        self.kept.add(candidate.number)
        return self.worth(candidate, rung)

    def drop(self, candidate):
        self.kept.discard(candidate.number)


def run(worth, plan, record=None, n_left=None, kept=()):
    learner = Told(worth, n_left)
    learner.kept |= set(kept)
    record = Record() if record is None else record
    return race(plan, RATES, COSTS, learner, record, 0), learner, record


def by_number(candidate, rung):
    return 0.1 * (candidate.number % 7) + rung


def test_the_better_half_goes_on_and_the_best_wins():
    winner, learner, record = run(by_number, Plan((1, 2, 4), 6))
    assert [number for number, rung in learner.asked if rung == 0] == list(range(6))
    assert [number for number, rung in learner.asked if rung == 1] == [3, 4, 5]
    assert [number for number, rung in learner.asked if rung == 2] == [5]
    assert winner.candidate.number == 5
    assert winner.score == pytest.approx(2.5)
    assert learner.kept == {5}
    assert sum(look.cost for look in record.looks) <= Plan((1, 2, 4), 6).at_most(list(COSTS.values()))


def test_of_equal_trials_the_cheaper_ones_go_on_and_then_the_earlier():
    winner, learner, _ = run(lambda *_: 0.5, Plan((1, 2), 6))
    assert [number for number, rung in learner.asked if rung == 1] == [0, 1, 4]  # 1 and 4 are of b
    assert winner.candidate.number == 1


@settings(max_examples=15)
@given(st.integers(0, 13), st.integers(2, 8))
def test_a_race_that_is_killed_goes_on_as_if_it_had_not_been(tmp_path_factory, n_left, n_trials):
    plan = Plan((1, 2, 4), n_trials)
    whole, _, unbroken = run(by_number, plan)
    path = tmp_path_factory.mktemp("race") / "history.json"
    kept = set()
    for allowed in (n_left, None):
        try:
            winner, _, record = run(by_number, plan, Record(path), allowed, kept)
        except Kill:
            kept = set(range(n_trials))  # weights lie there; some may be dropped again
            continue
        assert winner == whole
        assert record.looks == unbroken.looks
        return


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
