from __future__ import annotations

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from rlnas.data import read_task
from rlnas.deploy.plain import obstacle_to_plain, plain_model
from rlnas.errors import CheckpointError, ExportError, HistoryError, RunFolderError
from rlnas.history import History
from rlnas.run.export import _search_items, check_free, export_chosen, export_trial
from rlnas.run.folder import RunFolder, read_json, write_json
from rlnas.space import SubnetConfig
from rlnas.supernet import Supernet


def files_of(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def begun(tmp_path):
    """A run of which nothing but its settings is there."""
    path = tmp_path / "begun"
    path.mkdir()
    write_json(path / "config.json", {})
    return path


def test_the_chosen_subnet_is_copied(finished, tmp_path):
    export_chosen(finished, tmp_path / "small")
    assert files_of(tmp_path / "small") == files_of(finished / "best")


def test_the_model_that_was_trained_further_is_copied_unless_the_delivered_one_is_asked_for(run, tmp_path):
    shutil.copytree(run / "best", run / "finetuned")
    (run / "finetuned" / "here").write_text("")
    write_json(
        run / "summary.json", {**read_json(run / "summary.json"), "finetuned": {"folder": "finetuned"}}
    )
    assert export_chosen(run, tmp_path / "small")[0] == run / "finetuned"
    assert files_of(tmp_path / "small") == files_of(run / "finetuned")
    assert export_chosen(run, tmp_path / "other", delivered=True)[0] == run / "best"


def test_an_empty_folder_is_filled(finished, tmp_path):
    export_chosen(str(finished), str(tmp_path))
    assert (tmp_path / "model.safetensors").is_file()


def test_a_trial_is_exported_with_the_shared_weights(finished, tmp_path):
    with History.read(finished) as history:
        config = history.trials[7].config
    assert export_trial(finished, 7, tmp_path / "seventh")[0] == config
    stored = json.loads((tmp_path / "seventh" / "subnet.json").read_text())
    assert SubnetConfig.from_dict(stored) == config
    subnet = Supernet.load(finished / "supernet").extract(config)
    is_plain = obstacle_to_plain(subnet.config) is None
    expected = (plain_model(subnet) if is_plain else subnet).state_dict()
    weights = load_file(tmp_path / "seventh" / "model.safetensors")
    assert weights.keys() == expected.keys()
    assert all(torch.equal(weights[name], expected[name]) for name in weights)


@pytest.mark.parametrize("number", [-1, 40, 10**9])
def test_a_trial_that_is_not_there_is_refused_with_the_range(finished, tmp_path, number):
    with pytest.raises(RunFolderError, match=f"has trials 0 to 39, but got trial {number}$"):
        export_trial(finished, number, tmp_path / "none")
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("export", [export_chosen, lambda run, out: export_trial(run, 0, out)])
def test_nothing_is_overwritten(finished, tmp_path, export):
    (tmp_path / "mine").write_text("precious")
    with pytest.raises(RunFolderError, match=f"'{tmp_path}' is there already; delete it or give another"):
        export(finished, tmp_path)
    assert files_of(tmp_path) == {"mine": b"precious"}


def test_a_subnet_is_not_copied_into_itself(finished):
    with pytest.raises(RunFolderError, match=r"best/inner' lies in what is copied; give another folder"):
        export_chosen(finished, finished / "best" / "inner")
    assert not (finished / "best" / "inner").exists()


def test_a_file_is_no_run(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunFolderError, match=r"file' is a file; give the folder of a run"):
        export_chosen(tmp_path / "file", tmp_path / "small")


def test_a_file_is_in_the_way(finished, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunFolderError, match="file' is there already"):
        check_free(tmp_path / "file")


def test_a_folder_that_cannot_be_written_is_named(finished, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunFolderError, match=r"cannot write the folder '.*file/small': Not a directory"):
        export_chosen(finished, tmp_path / "file" / "small")


@pytest.mark.parametrize("export", [export_chosen, lambda run, out: export_trial(run, 0, out)])
def test_a_run_that_is_missing_is_named(finished, tmp_path, export):
    with pytest.raises(
        RunFolderError, match=r"finishe/config.json' is missing; did you mean '.*/finished'\?"
    ):
        export(finished.parent / "finishe", tmp_path / "small")


def test_a_run_that_has_chosen_nothing_yet_is_named(begun, tmp_path):
    with pytest.raises(RunFolderError, match=r"begun' has chosen no subnet yet; finish it with --resume"):
        export_chosen(begun, tmp_path / "small")


def test_a_run_without_a_history_is_named(begun, tmp_path):
    with pytest.raises(RunFolderError, match=r"there is no history at .*begun/history.sqlite"):
        export_trial(begun, 0, tmp_path / "small")


def test_a_run_without_a_trial_is_named(begun, tmp_path):
    History.open(begun, {}, resume=False).close()
    with pytest.raises(RunFolderError, match=r"begun' has no trial yet; go on with it \(--resume\)"):
        export_trial(begun, 0, tmp_path / "small")


def test_a_damaged_history_is_named(begun, tmp_path):
    (begun / "history.sqlite").write_bytes(b"not a database, but long enough to be read as one" * 100)
    with pytest.raises(HistoryError, match=r"history.sqlite is not a sound history"):
        export_trial(begun, 0, tmp_path / "small")


@pytest.fixture
def quick(monkeypatch):
    """Instead of a program, which takes seconds, write a file; or fail in the middle of it."""

    def write(model, path):
        path.write_text("a program")
        if model.config.problem_type in failing:
            raise ExportError("it computes something else")

    failing = []
    monkeypatch.setattr("rlnas.deploy.forms.write_program", write)
    return failing


@pytest.mark.usefixtures("quick")
def test_further_forms_lie_beside_the_chosen_subnet_and_stand_in_its_card(finished, tmp_path):
    before = files_of(finished / "best")
    _, forms = export_chosen(finished, tmp_path / "small", forms=["torch"])
    assert [form.name for form in forms] == ["hf", "torch"]
    card = (tmp_path / "small" / "README.md").read_text()
    assert 'torch.export.load("program.pt2")' in card
    assert "## Measured" in card
    assert files_of(finished / "best") == before
    assert (tmp_path / "small" / "program.pt2").read_text() == "a program"


@pytest.mark.usefixtures("quick")
def test_a_trial_is_written_in_further_forms(finished, tmp_path):
    _, forms = export_trial(finished, 7, tmp_path / "seventh", ["torch"])
    assert [form.name for form in forms] == ["hf", "torch"]
    card = (tmp_path / "seventh" / "README.md").read_text()
    assert "- trial: 7\n" in card
    assert "Neither its accuracy nor its latency was certified." in card


def test_a_form_that_fails_leaves_no_folder(finished, tmp_path, quick):
    quick.append("single_label_classification")
    with pytest.raises(ExportError, match="it computes something else"):
        export_chosen(finished, tmp_path / "small", forms=["torch"])
    assert list(tmp_path.iterdir()) == []


def test_int8_is_measured_on_the_search_items_of_the_run(finished, tmp_path):
    split, metric = _search_items(RunFolder(finished))
    assert (split.name, len(split), metric) == ("search", 32, "accuracy")
    assert _search_items(RunFolder(tmp_path)) == (None, "accuracy")


def test_int8_is_measured_on_training_items_of_a_run_in_folds_and_says_so(finished, monkeypatch):
    task = read_task(finished / "data")
    search = task.train.take(range(len(task.train)), "out-of-fold")
    folded = replace(task, search=search, folds=np.arange(len(search)) % 3)
    monkeypatch.setattr("rlnas.run.export.read_task", lambda _: folded)
    split, _ = _search_items(RunFolder(finished))
    assert (split.name, len(split)) == ("train", 64)


def test_what_is_damaged_in_a_model_is_named_by_its_place_in_the_run(run, tmp_path):
    (run / "best" / "certificate.json").write_text("{")
    with pytest.raises(RunFolderError, match=r"^'.*/run/best/certificate.json' is damaged: "):
        export_chosen(run, tmp_path / "small", forms=["torch"])
    (run / "best" / "forms.json").write_text("[{")
    with pytest.raises(CheckpointError, match=r"^cannot read '.*/run/best/forms.json' "):
        export_chosen(run, tmp_path / "small")
    assert not (tmp_path / "small").exists()
