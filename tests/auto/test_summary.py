from __future__ import annotations

import pytest

from rlnas.auto.candidates import Candidate
from rlnas.auto.compute import SearchCost
from rlnas.auto.entrants import Entrant
from rlnas.auto.plan import Plan
from rlnas.auto.record import Judgement, Look
from rlnas.auto.summary import Choice, notes_of
from rlnas.run.folder import read_json
from rlnas.space import ModelShape

pytest.importorskip("optuna")


def test_the_winner_names_its_arm():
    shape = ModelShape(1, 4, 64, 32)
    entrants = tuple(Entrant(name, shape, 1.0, 0.1, 1.0, 0.1) for name in ("a", "b"))
    look = Look(Candidate(1, "b", 1e-4, 32), 0, Judgement(0.5, 0.7), 1.0)
    choice = Choice(Plan((1,), 2), entrants, (look,), look, SearchCost(0.0, 0.0, 0.0, 0.0))
    assert choice.entrant is entrants[1]


def test_rungs_that_told_little_are_noted():
    def look(number, rung, score):
        return Look(Candidate(number, "a", 1e-4, 32), rung, Judgement(score, 0.7 + number), 1.0)

    firsts, lasts = (
        (look(number, 0, 0.0) for number in range(6)),
        (look(number, 1, 0.5) for number in range(3)),
    )
    looks = (*firsts, *lasts)
    choice = Choice(Plan((1, 2), 6), (), looks, looks[-1], SearchCost(0.0, 0.0, 0.0, 0.0))
    (note,) = notes_of(choice)
    assert note.startswith("after 1 pass 6 of 6 trials had the same score")


def test_every_trial_has_its_scores_as_far_as_it_came(finished):
    told = read_json(finished / "summary.json")["auto"]
    assert [trial["trial"] for trial in told["trials"]] == list(range(6))
    assert sorted(len(trial["scores"]) for trial in told["trials"]) == [1, 1, 1, 2, 2, 2]
    for trial in told["trials"]:
        assert len(trial["losses"]) == len(trial["scores"])
    chosen = next(trial for trial in told["trials"] if trial["trial"] == told["chosen"]["trial"])
    assert (chosen["scores"][-1], chosen["losses"][-1]) == (told["chosen"]["score"], told["chosen"]["loss"])
    assert [arm["arm"] for arm in told["arms"]] == ["tiny", "tiny:mean", "half"]
    assert [arm["n_layers"] for arm in told["arms"]] == [2, 2, 1]
    assert all(arm["is_reachable"] for arm in told["arms"])
