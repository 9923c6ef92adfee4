"""Which forms can be asked for, and how those that are written are told of."""

from __future__ import annotations

import importlib.util
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from rlnas.deploy import forms
from rlnas.deploy.export import export
from rlnas.deploy.files import FORMS_FILE
from rlnas.deploy.forms import FORMS, Form, check_forms, read_forms, save_forms, write_forms
from rlnas.errors import CheckpointError, MissingDependencyError
from rlnas.space import LayerConfig, SubnetConfig
from rlnas.task import Split

SUBNET = SubnetConfig((LayerConfig(1, 24), LayerConfig(0, 0), LayerConfig(2, 0)))


@pytest.fixture(scope="module")
def folder(supernets, task, tmp_path_factory):
    return export(supernets("bert", task), SUBNET, tmp_path_factory.mktemp("forms") / "model")


@pytest.fixture
def copied(folder, tmp_path):
    return Path(shutil.copytree(folder, tmp_path / "model"))


@pytest.fixture
def written(monkeypatch):
    """Instead of exporting, which takes seconds, write the form's name; int8 moves all logits."""

    def write(name):
        def into(*given):
            given[-1].write_text(name)

        return into

    class Run:
        def __init__(self, path):
            self.shift = 0.0 if path.read_text() == "onnx" else SHIFT

        def __call__(self, ids, mask, types):
            first = ids[:, 1] / 100.0  # from the text, so that the order of items shows
            return np.stack([first, np.full(len(ids), SPLIT - self.shift)], axis=1).astype(np.float32)

    monkeypatch.setattr(forms, "write_onnx", write("onnx"))
    monkeypatch.setattr(forms, "write_int8", write("int8"))
    monkeypatch.setattr(forms, "write_program", write("torch"))
    monkeypatch.setattr(forms, "OnnxModel", Run)


SPLIT, SHIFT = 0.105, 0.02


def films(words, labels=(0, 1, 0)):
    return Split("search", tuple(words), None, np.array(labels))


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ([], ("hf",)),
        (["torch", "onnx"], ("hf", "onnx", "torch")),
        (["onnx-int8", "hf"], ("hf", "onnx-int8")),
        (["all"], FORMS),
    ],
)
def test_forms_are_in_one_order_and_transformers_is_always_there(names, expected):
    assert check_forms(names) == expected


@pytest.mark.parametrize(
    ("name", "hint"),
    [("onxx", "; did you mean 'onnx'[?]"), ("int8", "; did you mean 'onnx-int8'[?]"), ("zzz", "")],
)
def test_an_unknown_form_is_named_with_the_nearest_one(name, hint):
    with pytest.raises(ValueError, match=f"^formats are hf, .*torch and all, but got '{name}'{hint}$"):
        check_forms(["hf", name])


@pytest.mark.parametrize("name", ["onnx", "onnx-int8"])
def test_absent_packages_are_named_before_anything_is_written(monkeypatch, copied, name):
    before = sorted(copied.iterdir())
    monkeypatch.setattr(importlib.util, "find_spec", lambda package: None if package == "onnx" else package)
    with pytest.raises(MissingDependencyError, match=rf"^the format {name} needs onnx; .*'rlnas\[onnx\]'$"):
        write_forms(copied, [name])
    assert sorted(copied.iterdir()) == before
    assert check_forms(["torch"]) == ("hf", "torch")


def test_forms_lie_beside_the_model_and_are_told_of(copied, written):
    found = write_forms(copied, ["all"])
    assert [form.name for form in found] == list(FORMS)
    assert found == read_forms(copied)
    assert all((copied / form.file).is_file() for form in found)
    assert "checked on requests of three shapes" in found[1].note
    assert "not measured, as there were no items" in found[2].note


def test_further_forms_join_those_that_are_there(copied, written):
    write_forms(copied, ["torch"])
    assert [form.name for form in write_forms(copied, ["onnx"])] == ["hf", "onnx", "torch"]


def test_int8_alone_leaves_no_float32_file(copied, written):
    assert [form.name for form in write_forms(copied, ["onnx-int8"])] == ["hf", "onnx-int8"]
    assert not (copied / "model.onnx").exists()


def test_the_loss_of_int8_is_measured_on_the_search_items(copied, written):
    # Their first tokens are 7, 14 and 9, of which the last lies where int8 decides otherwise.
    items = films(["film", "dull dull dull", "is the"], labels=(1, 0, 1))
    note = write_forms(copied, ["onnx-int8"], items)[1].note
    assert "the same class for 2 of 3 items of the search split, whose accuracy is 0.667 [" in note
    assert "instead of 1.000 [" in note
    assert note.endswith("(95 % intervals)")


def test_a_model_of_an_earlier_version_has_one_form(copied):
    (copied / FORMS_FILE).unlink()
    (form,) = read_forms(copied)
    assert (form.name, form.note) == ("hf", "carries its own model file modeling_subnet.py")


def test_a_folder_without_a_model_has_no_forms(tmp_path):
    with pytest.raises(
        CheckpointError, match=r"cannot read '.*forms.json' \(.*No such file.*export the model"
    ):
        read_forms(tmp_path)


def test_what_is_stored_is_read(tmp_path):
    stored = [Form("hf", "a.safetensors", "a note"), Form("torch", "b.pt2", "")]
    save_forms(tmp_path, stored)
    assert read_forms(tmp_path) == stored
    assert json.loads((tmp_path / FORMS_FILE).read_text())[0]["file"] == "a.safetensors"


def test_the_values_of_a_regression_are_compared(supernets, regression, tmp_path, written, monkeypatch):
    class Run:
        def __init__(self, path):
            self.shift = 0.0 if path.read_text() == "onnx" else 0.25

        def __call__(self, ids, mask, types):
            return (ids[:, 1:2] + self.shift).astype(np.float32)

    monkeypatch.setattr(forms, "OnnxModel", Run)
    folder = export(supernets("bert", regression), SUBNET, tmp_path / "model")
    split = Split("search", ("film", "dull", "plot"), None, np.array([0.1, 0.2, 0.3], dtype=np.float32))
    note = write_forms(folder, ["onnx-int8"], split, "pearson")[1].note
    assert "it gives values that differ by 0.25 on average for the 3 items of the search split" in note
    assert "whose pearson is" in note
