from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from world import NUM_LAYERS

from rlnas.auto import Arm, parse_arm
from rlnas.auto.arms import named_apart
from rlnas.data import load_task
from rlnas.errors import CheckpointError

NAMES = st.from_regex(r"[a-z][a-z0-9-]{0,8}(/[a-z0-9-]{1,8})?", fullmatch=True)


@given(NAMES, st.sampled_from([None, "cls", "mean"]), st.sampled_from([None, 1, 4, 12]))
def test_an_arm_is_read_as_it_is_written(model, pooling, first):
    arm = Arm(model, pooling, first)
    assert parse_arm(arm.name) == arm
    assert arm.name == model + arm.suffixes


def test_the_order_of_suffixes_does_not_matter_and_a_folder_may_have_colons(tmp_path):
    assert parse_arm("minilm:first=4:mean").pooling == parse_arm("minilm:mean:first=4").pooling == "mean"
    odd = tmp_path / "a:b"
    odd.mkdir()
    assert parse_arm(str(odd)).model == str(odd)


def test_a_name_shows_no_home_folder(world):
    assert parse_arm(f"{world.model}:mean").name == f"{world.model.parent.name}/{world.model.name}:mean"


@pytest.fixture
def at(tmp_path, monkeypatch):
    """Makes a folder below the working one, and an arm of it."""
    monkeypatch.chdir(tmp_path)

    def make(path, **how):
        (tmp_path / path).mkdir(parents=True, exist_ok=True)
        return Arm(str(tmp_path / path), **how)

    return make


def test_folders_of_one_name_are_told_apart_by_as_much_of_their_paths_as_it_takes(at):
    arms = [at("a/x/m"), at("b/x/m", pooling="mean"), at("c/d/x/m"), at("b/d/x/m"), at("n")]
    names = [arm.name for arm in named_apart([*arms, at("b/x/m")])]
    assert names[0] == "a/x/m"
    assert names[1] == "x/m:mean"
    assert names[2:4] == ["c/d/x/m", "b/d/x/m"]
    assert names[4].endswith("/n")
    assert names[5] == "b/x/m"


def test_a_hub_name_stays_what_it_is_beside_a_folder_that_ends_like_it(at, tmp_path):
    arms = named_apart([Arm("owner/m"), at("a/owner/m"), at("b/owner/m", name="mine")])
    assert [arm.name for arm in arms] == ["owner/m", "a/owner/m", "mine"]
    assert [arm.model for arm in arms][1:] == [str(tmp_path / "a/owner/m"), str(tmp_path / "b/owner/m")]


def test_the_same_folder_by_two_paths_is_there_twice(at):
    with pytest.raises(
        CheckpointError, match=r"every model may stand there once, but '.*/m' does twice; drop"
    ):
        named_apart([at("m"), Arm("m"), Arm("n")])
    assert len(named_apart([at("m"), Arm("m", first=1)])) == 2


def test_two_models_have_no_name_in_common(at):
    named = Arm("other", name="x/m")
    for others in ([Arm("another", name="x/m")], [at("a/x/m"), at("a/x/m", name="x/m", pooling="mean")]):
        with pytest.raises(
            CheckpointError, match="two models are named 'x/m'; give each a name of its own"
        ):
            named_apart([named, *others])
    with pytest.raises(CheckpointError, match="two models are named 'x/m'; give each a name of its own"):
        named_apart([at("a/x/m"), at("a/x/m", name="x/m", pooling="mean")])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("minilm:max", r"the model 'minilm:max' has 'max' behind a colon; give a pooling \(cls, mean\)"),
        ("minilm:cls:mean", "has 'mean' behind a colon"),
        ("minilm:first=2:first=3", "has 'first=3' behind a colon"),
        ("minilm:first=two", "has 'first=two' behind a colon"),
        ("minilm:first=0", "at least 1 layer has to be kept, but got first=0"),
        (":mean", "the model ':mean' has no name before its colon"),
    ],
)
def test_what_cannot_be_read_is_refused(text, message):
    with pytest.raises(CheckpointError, match=message):
        parse_arm(text)


def test_an_unknown_pooling_is_refused():
    with pytest.raises(CheckpointError, match="pooling must be one of cls, mean, but got pooling='max'"):
        Arm("minilm", "max")


def test_an_arm_loads_its_pooling_and_its_first_layers(world):
    task = load_task(world.data, search_items=32)
    how = {"max_seq_len": 16, "device": "cpu", "seed": 0}
    whole = Arm(str(world.model)).load(task, **how)
    half = Arm(str(world.model), "mean", 1).load(task, **how)
    assert (whole.shape.num_hidden_layers, half.shape.num_hidden_layers) == (NUM_LAYERS, 1)
    assert (whole.model.config.pooling, half.model.config.pooling) == ("cls", "mean")
    with pytest.raises(
        CheckpointError, match=r"the model 'tall' cannot be had: first=3 must be from 1 to 2"
    ):
        Arm(str(world.model), first=3, name="tall").load(task, **how)
