from __future__ import annotations

import json

import pytest

from rlnas.auto.candidates import Candidate
from rlnas.auto.record import Judgement, Look, Record
from rlnas.errors import RunFolderError

LOOKS = (
    Look(Candidate(0, "a", 1e-4, 32), 0, Judgement(0.5, 0.7), 1.0),
    Look(Candidate(1, "b", 2e-4, 16), 0, None, 0.5),
    Look(Candidate(0, "a", 1e-4, 32), 1, Judgement(0.7, 0.6), 1.0),
)


def test_a_record_is_read_as_it_was_written(tmp_path):
    record = Record(tmp_path / "history.json")
    for n_written, look in enumerate(LOOKS, start=1):
        record.append(look)
        assert Record(tmp_path / "history.json").looks == LOOKS[:n_written]
    assert record.at(0) == {0: LOOKS[0], 1: LOOKS[1]}
    assert record.at(2) == {}


def test_a_training_that_failed_has_neither_score_nor_loss():
    assert [(look.score, look.loss) for look in LOOKS[:2]] == [(0.5, 0.7), (None, None)]


def test_better_is_by_score_then_by_loss_then_by_cost_then_by_age():
    def look(number, score, cost, loss=0.7):
        found = None if score is None else Judgement(score, loss)
        return Look(Candidate(number, "a", 1e-4, 32), 0, found, cost)

    ranked = [
        look(3, 0.9, 2.0, loss=9.0),
        look(5, 0.8, 2.0, loss=0.6),
        look(2, 0.8, 0.5),
        look(0, 0.8, 1.0),
        look(1, 0.8, 1.0),
        look(4, None, 0.1),
    ]
    assert sorted(reversed(ranked), key=lambda one: one.order) == ranked


def test_a_record_without_losses_is_refused(tmp_path):
    row = {name: value for name, value in LOOKS[0].to_dict().items() if name != "loss"}
    (tmp_path / "history.json").write_text(json.dumps({"looks": [row]}))
    with pytest.raises(RunFolderError, match=r"history.json' is damaged \('loss'\); put it back, or begin"):
        Record(tmp_path / "history.json")


@pytest.mark.parametrize("text", ['{"looks": [{"rung": 0}]}', "[", '{"looks": [3]}', "{}"])
def test_a_damaged_record_is_named(tmp_path, text):
    path = tmp_path / "history.json"
    path.write_text(text)
    with pytest.raises(
        RunFolderError, match=r"history.json' is damaged.*; put it back, or begin anew in another folder"
    ):
        Record(path)
