from __future__ import annotations

import pytest
from world import WORKLOAD

import rlnas.auto
from rlnas.auto.plan import RUNGS
from rlnas.cli import main
from rlnas.cli.auto import make_arm, parse_rungs
from rlnas.controllers.evolution import EvolutionController
from rlnas.errors import BudgetError
from rlnas.rewards import LatencyTarget
from rlnas.workload import Workload

pytest.importorskip("optuna")


@pytest.fixture
def chosen(monkeypatch):
    """What would have been chosen among."""
    asked = []
    monkeypatch.setattr("rlnas.cli.auto.minilm_path", lambda: "packages/minilm")
    monkeypatch.setattr("rlnas.cli.auto.show_result", lambda *_: None)
    monkeypatch.setattr(rlnas.auto, "run_auto", lambda auto, path, **how: asked.append((auto, path, how)))
    return asked


def test_flags_reach_the_choice_and_the_search(chosen, tmp_path):
    flags = (
        "--models minilm:cls owner/bert:mean:first=4 --task data --target-ratio 0.4 --passes 30 --rungs "
        "1,3 --budget 50 --epochs 3 --finish-epochs 2 --controller evolution --parts 8 --keep-last-layer "
        "--freeze-embeddings --seed 7 --resume --device cpu --seq-len 32 --metric f1 --max-train-items 90 "
        "--search-items 40 --trust-remote-code"
    )
    assert main(["auto", *flags.split(), "--out", str(tmp_path)]) == 0
    ((auto, path, how),) = chosen
    assert [(arm.name, arm.model, arm.pooling, arm.first) for arm in auto.arms] == [
        ("minilm:cls", "packages/minilm", "cls", None),
        ("owner/bert:mean:first=4", "owner/bert", "mean", 4),
    ]
    assert (auto.rungs, auto.passes, auto.target_ratio) == ((1, 3), 30.0, 0.4)
    job = auto.job
    assert job.reward == LatencyTarget(ratio=0.4)
    assert isinstance(job.controller, EvolutionController)
    assert (job.budget, job.parts, job.keep_last_layer, job.seed) == (50, 8, True, 7)
    assert (job.schedule.epochs, job.schedule.finish_epochs, job.schedule.freeze_embeddings) == (3, 2, True)
    assert job.workload == Workload(batch_size=1, seq_len=32)
    assert (job.data.source, job.data.metric, job.data.max_train_items, job.data.search_items) == (
        "data",
        "f1",
        90,
        40,
    )
    assert job.trust_remote_code
    assert (path, how) == (tmp_path, {"resume": True})


def test_by_default_minilm_is_chosen_among_its_forms(chosen, tmp_path):
    assert main(["auto", "--device", "cpu", "--out", str(tmp_path)]) == 0
    ((auto, _, _),) = chosen
    assert [arm.name for arm in auto.arms] == ["minilm", "minilm:cls", "minilm:first=4", "minilm:first=3"]
    assert {arm.model for arm in auto.arms} == {"packages/minilm"}
    assert (auto.rungs, auto.passes, auto.target_ratio) == (RUNGS, None, 0.5)


def test_a_folder_of_that_name_is_taken_for_the_package(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "minilm").mkdir()
    assert make_arm("minilm").model == "minilm"


def test_rungs_are_whole_numbers():
    assert parse_rungs("1,2,5") == (1, 2, 5)
    with pytest.raises(
        BudgetError, match="--rungs=1,half must be whole numbers of passes parted by commas"
    ):
        parse_rungs("1,half")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--models minilm", "a choice needs at least two models, but got minilm; name more"),
        ("--models a a", "every model may stand there once, but 'a' does twice"),
        ("--models a b:max", "the model 'b:max' has 'max' behind a colon"),
        ("--models a b --rungs 2,1", r"rungs must be passes that ascend from at least 1"),
        ("--models a b --passes 0", "passes must be a number above 0, but got passes=0"),
        ("--models a b --target-ratio 1.5", "--target-ratio=1.5 is more than the full model takes"),
        (
            "--models a b --lengths task",
            "--lengths=task is for one model: tokenizers count texts differently",
        ),
        ("--models a b --budget 0", "budget must be at least 1 trial, but got budget=0"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(chosen, refused, tmp_path, flags, message):
    refused(["auto", *flags.split(), "--device", "cpu", "--out", tmp_path / "run"], message)
    assert chosen == []


def test_a_model_that_is_not_there_is_refused_before_any_training(refused, world, tmp_path):
    flags = ("--task", world.data, "--search-items", "32", "--seq-len", WORKLOAD.seq_len, "--device", "cpu")
    models = ("--models", world.model, tmp_path / "missing")
    refused(["auto", *models, *flags, "--out", tmp_path / "run"], "there is no folder .*missing")
    assert not (tmp_path / "run" / "data").exists()
