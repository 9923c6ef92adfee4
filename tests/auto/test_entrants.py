from __future__ import annotations

from dataclasses import replace

import pytest
from world import HIDDEN, NUM_LAYERS, SHAPE

from rlnas.auto import Arm
from rlnas.auto.entrants import Entrant, meet, reachable, read_entrants
from rlnas.data import load_task
from rlnas.errors import CheckpointError, InfeasibleTargetError, RunFolderError
from rlnas.run.training import usual_learning_rate


def entrant(name, smallest):
    return Entrant(name, SHAPE, 1.0, 0.1, 1.0, smallest)


def test_arms_are_counted_and_timed_once(make_auto, world, brief, tmp_path, monkeypatch):
    task = load_task(world.data, search_items=32)
    met = meet(make_auto(), task, tmp_path / "entrants.json")
    assert [one.name for one in met] == ["tiny", "tiny:mean", "half"]
    assert [one.train for one in met] == pytest.approx([1.0, 1.0, 0.5])
    assert met[0].judge == pytest.approx(met[1].judge) == pytest.approx(2 * met[2].judge)
    assert met[0].judge == pytest.approx(len(task.search) / len(task.train) / 3, rel=0.1)
    assert met[0].latency_ratio == 1.0
    assert all(0 < one.smallest_ratio < 2 for one in met)
    assert met[0].learning_rate == usual_learning_rate(HIDDEN)
    monkeypatch.setattr("rlnas.auto.entrants.load", lambda *_: pytest.fail("it is known already"))
    assert meet(make_auto(), task, tmp_path / "entrants.json") == met


def test_a_model_by_another_name_is_refused(make_auto, world, brief, tmp_path):
    model, task = str(world.model), load_task(world.data, search_items=32)
    arms = (Arm(model), Arm(model, "mean"), Arm(model, "cls", NUM_LAYERS))
    name = f"{world.model.parent.name}/{world.model.name}"
    message = f"'{name}:cls:first=2' is the same model as '{name}'; drop one"
    with pytest.raises(CheckpointError, match=message):
        meet(make_auto(arms=arms), task, tmp_path / "entrants.json")
    assert not (tmp_path / "entrants.json").exists()


def test_each_arm_is_told_of():
    half = replace(entrant("half", 0.1), train=0.5, latency_ratio=0.62)
    assert half.sentence("tiny") == (
        "half: 2 layers; beside tiny a training pass costs 0.5, latency is 0.62, that of the smallest "
        "subnet 0.1"
    )


def test_what_cannot_be_fast_enough_is_left_out(caplog):
    entrants = [entrant("a", 0.1), entrant("b", 0.4)]
    assert reachable(entrants, 0.4) == tuple(entrants)
    assert reachable(entrants, 0.3) == (entrants[0],)
    assert (
        "b is left out: its smallest subnet takes 0.4 of the latency of a, not 0.3 or less" in caplog.text
    )


def test_a_target_below_all_is_refused():
    message = (
        r"the target of 0.05 of the latency of a cannot be reached: the smallest subnet of b takes 0.1 "
        "of it, those of the others no less; ask for more"
    )
    with pytest.raises(InfeasibleTargetError, match=message):
        reachable([entrant("a", 0.2), entrant("b", 0.1)], 0.05)


@pytest.mark.parametrize("text", ['{"entrants": [{"name": "a"}]}', "{}"])
def test_a_damaged_file_is_named(tmp_path, text):
    path = tmp_path / "entrants.json"
    path.write_text(text)
    with pytest.raises(RunFolderError, match=r"entrants.json' is damaged \(.*\); put it back, or begin"):
        read_entrants(path)


def test_plain_values_hold_everything():
    values = replace(entrant("a", 0.1)).to_dict()
    assert values["shape"]["hidden_size"] == HIDDEN
    assert Entrant(**{**values, "shape": SHAPE}) == entrant("a", 0.1)
