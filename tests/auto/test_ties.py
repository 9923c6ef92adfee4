from __future__ import annotations

import pytest

from rlnas.auto.candidates import Candidate
from rlnas.auto.record import Judgement, Look
from rlnas.auto.ties import note_on_ties


def looks(*scores):
    """Of one rung; None for a training that failed."""
    found = [None if score is None else Judgement(score, 0.6) for score in scores]
    return [Look(Candidate(number, "a", 1e-4, 32), 0, one, 1.0) for number, one in enumerate(found)]


def test_most_trials_of_one_score_are_told_of():
    assert note_on_ties(looks(0.0, 0.0, 0.3, 0.0, 0.1), {0, 2}, 1) == (
        "after 1 pass 3 of 5 trials had the same score, 0.000: their losses chose among them, which tell "
        "little so early; later rungs (--rungs) or more training items tell more"
    )
    assert note_on_ties(looks(0.5, 0.5, 0.5), [1], 2).startswith("after 2 passes 3 of 3 trials had")


@pytest.mark.parametrize(
    ("scores", "kept"),
    [
        ((0.5, 0.5), {0}),  # two may be equal by chance
        ((0.5, 0.5, 0.5, 0.1, 0.2, 0.3), {0, 1, 3}),  # no more than half
        ((0.0, 0.0, 0.0, 0.3, 0.4), {3, 4}),  # the score told who is to go on
        ((0.5, 0.5, 0.5, 0.1), {0, 1, 2}),
        ((None, None, None, 0.5), {3}),
        ((None, None, None), ()),
        ((0.1, 0.2, 0.3, 0.4), {2, 3}),
    ],
)
def test_of_what_the_scores_chose_nothing_is_said(scores, kept):
    assert note_on_ties(looks(*scores), kept, 1) is None
