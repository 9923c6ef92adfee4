"""A card says what is known, as plain text, and nothing that is not known."""

from __future__ import annotations

import errno
import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from huggingface_hub import ModelCard

from rlnas.deploy import Certificate, Measured, Prediction
from rlnas.deploy.card import Exported, card_text, plain, write_card
from rlnas.deploy.export import export
from rlnas.deploy.files import CARD_FILE
from rlnas.deploy.forms import Form
from rlnas.deploy.origin import BaseModel, DataFacts, Origin
from rlnas.errors import CheckpointError, RunFolderError
from rlnas.latency import DeviceInfo
from rlnas.space import LayerConfig, SubnetConfig
from rlnas.workload import Workload

SUBNET = SubnetConfig((LayerConfig(1, 24), LayerConfig(0, 0), LayerConfig(2, 0)))
CERTIFICATE = Certificate(
    baseline=Measured(4.0, (3.9, 4.1), 0.1, 22_700_000, 0.91, (0.89, 0.93)),
    subnet=Measured(1.9, (1.85, 1.95), 0.1, 12_300_000, 0.9, (0.88, 0.92)),
    latency_ratio=0.475,
    latency_ratio_ci=(0.47, 0.48),
    target_ratio=0.5,
    workload=Workload(batch_size=1, seq_len=32),
    device=DeviceInfo("cpu", "Some <CPU>"),
    loss_points=1.0,
    loss_ci=(0.2, 1.8),
    task_name="films_and_plays",
    metric="accuracy",
    split="validation",
    n_items=872,
)
DATA = DataFacts("films", "matthews", (100, 50, 872), ("train", "search", "validation"), ("a *note*",))
ORIGIN = Origin(
    base=BaseModel("owner/small-bert", on_hub=True),
    data=DATA,
    training=("with weights shared among subnets: 2 passes",),
    certificate=CERTIFICATE.to_dict(),
    versions={"rlnas": "1.2", "torch": "3.4"},
)


@pytest.fixture(scope="module")
def folder(supernets, task, tmp_path_factory):
    return export(supernets("bert", task), SUBNET, tmp_path_factory.mktemp("card") / "model")


@pytest.fixture(scope="module")
def model(folder):
    return Exported.read(folder)


@pytest.fixture
def copied(folder, tmp_path):
    return Path(shutil.copytree(folder, tmp_path / "model"))


def test_a_folder_says_what_its_model_is(model, task):
    assert model.config == SUBNET
    assert model.label_names == task.label_names
    assert model.max_seq_len == 20
    assert (model.own_code, model.takes_types) == (True, True)
    assert [form.name for form in model.forms] == ["hf"]


def test_parameters_are_counted(model, supernets, task):
    assert model.n_params == supernets("bert", task).n_params(SUBNET)


def test_the_certificate_stands_there_with_its_intervals(model):
    text = card_text(model, ORIGIN)
    assert "| full model | 0.910 [0.890, 0.930] | 4.00 [3.90, 4.10] | 22,700,000 |" in text
    assert "| this model | 0.900 [0.880, 0.920] | 1.90 [1.85, 1.95] | 12,300,000 |" in text
    assert (
        "the same 872 items of the validation split of films\\_and\\_plays: "
        "this model loses 1.0 [0.2, 1.8] points of accuracy." in text
    )
    assert (
        "Its latency is 0.475 [0.470, 0.480] of the full model's; the target 0.5 is met. Both were timed "
        "in the same rounds: batch 1 x 32 tokens, float32, eager, on cpu Some \\<CPU\\>, 1 thread" in text
    )
    assert "was certified" not in text


def test_without_a_task_latency_alone_is_told(model):
    bare = replace(
        CERTIFICATE,
        baseline=Measured(4.0, (3.9, 4.1), 0.1, 2),
        subnet=Measured(1.9, (1.8, 2.0), 0.1, 1),
        loss_points=None,
        loss_ci=None,
        n_items=None,
        target_ratio=0.4,
        note="timings are <noisy>",
        prediction=None,
    )
    text = card_text(model, Origin(certificate=bare.to_dict()))
    assert "| this model | 1.90 [1.80, 2.00] | 1 |" in text
    assert "points of" not in text
    assert "the target 0.4 is missed." in text
    assert "Note: timings are \\<noisy\\>." in text


def test_what_is_predicted_for_another_device_is_not_called_measured(model):
    other = replace(CERTIFICATE, prediction=Prediction(0.44, "batch 8 on cuda A_100"))
    text = card_text(model, Origin(certificate=other.to_dict()))
    assert "For batch 8 on cuda A\\_100, which is not what was measured, a latency of 0.440 of" in text
    assert "the target" not in text


@pytest.mark.parametrize(
    ("precision", "engine", "file"),
    [("int8", "onnxruntime", "model_int8.onnx"), ("bfloat16", "eager", "model.safetensors")],
)
def test_figures_are_told_of_the_form_that_was_measured(model, precision, engine, file):
    served = replace(CERTIFICATE, subnet_workload=CERTIFICATE.workload.in_precision(precision))
    forms = (*model.forms, Form("onnx-int8", "model_int8.onnx", "a note"))
    text = card_text(replace(model, forms=forms), Origin(certificate=served.to_dict()))
    assert f"This model was judged and timed in {precision}, {engine}." in text
    assert f"- The figures are of `{file}`; other forms have latencies of their own." in text


def test_data_training_and_versions_stand_there(model):
    text = card_text(model, ORIGIN)
    assert "- 100 items of the train split for its weights\n- 50 items of the search split for" in text
    assert "- 872 items of the validation split for the figures above, and for nothing else" in text
    assert "- a \\*note\\*" in text
    assert "- with weights shared among subnets: 2 passes" in text
    assert "rlnas 1.2, torch 3.4" in text


def test_the_hub_reads_the_head(model):
    head = ModelCard(card_text(model, replace(ORIGIN, data=replace(DATA, hub_name="owner/films")))).data
    assert (head.library_name, head.pipeline_tag) == ("transformers", "text-classification")
    assert (head.base_model, head.datasets, head.metrics) == (
        "owner/small-bert",
        ["owner/films"],
        ["matthews_correlation"],
    )
    assert (head.license, head.language) == (None, None)


def test_the_head_leaves_out_what_is_not_known(model):
    head = ModelCard(card_text(model, Origin())).data
    assert (head.base_model, head.datasets, head.metrics) == (None, None, None)
    assert "## Measured" not in card_text(model, Origin())


def test_a_package_is_named_in_the_text_but_is_no_name_of_the_hub(model):
    text = card_text(model, Origin(base=BaseModel("some-package", on_hub=False)))
    assert "made of the checkpoint in the Python package some-package" in text
    assert ModelCard(text).data.base_model is None


def test_a_name_cannot_break_out_of_the_head(model):
    text = card_text(model, Origin(base=BaseModel('a"\n---\n# b', on_hub=True)))
    assert ModelCard(text).data.base_model == 'a"\n---\n# b'
    assert "\n# b" not in text


@pytest.mark.parametrize("certified", [True, False])
def test_limits_say_what_the_figures_stand_for(model, certified):
    forms = (*model.forms, Form("torch", "program.pt2", "a note"))
    text = card_text(replace(model, forms=forms), ORIGIN if certified else Origin())
    assert ("The figures are of `model.safetensors`; other forms have" in text) == certified
    assert ("Neither its accuracy nor its latency was certified." in text) != certified


def test_int8_beside_float32_is_loaded_as_that_is(model):
    forms = tuple(Form(name, f"{name}.onnx", "a note") for name in ("onnx", "onnx-int8"))
    text = card_text(replace(model, forms=forms), Origin())
    assert "`onnx-int8.onnx`: a note.\n\nIt runs as `model.onnx` does." in text
    assert card_text(replace(model, forms=forms[1:]), Origin()).count("onnxruntime.InferenceSession") == 1


def test_the_table_names_the_full_sizes_where_they_are_known(model, supernets, task):
    assert "| 3 | 2 | 0 |" in card_text(model, Origin())
    shape = supernets("bert", task).shape
    assert "| 3 | 2 of 4 | 0 of 48 |" in card_text(model, Origin(shape=shape))


def test_a_card_is_replaced_in_one_step(copied):
    assert write_card(copied, Origin(figures={"x": 1})) == copied / CARD_FILE
    assert "- x: 1\n" in (copied / CARD_FILE).read_text()
    assert not list(copied.glob(".*"))


def test_a_full_disk_keeps_the_old_card(copied, monkeypatch):
    def fill(self, text, encoding):
        self.touch()
        raise OSError(errno.ENOSPC, "No space left on device")

    before = (copied / CARD_FILE).read_text()
    monkeypatch.setattr(Path, "write_text", fill)
    with pytest.raises(RunFolderError, match=r"cannot write '.*README.md' \(No space left on device\)"):
        write_card(copied, Origin())
    assert (copied / CARD_FILE).read_text() == before
    assert not list(copied.glob(".*"))


def test_a_folder_without_a_model_has_no_card(tmp_path):
    with pytest.raises(
        CheckpointError, match=r"' is no model that rlnas exported \(.*config.json.*export it"
    ):
        write_card(tmp_path, Origin())


@pytest.mark.parametrize("changes", [{"best": [1]}, {"workload": None}, {"latency_ratio_ci": [0.1]}])
def test_a_certificate_that_lacks_something_is_named(copied, changes):
    origin = Origin(certificate={**CERTIFICATE.to_dict(), **changes})
    with pytest.raises(CheckpointError, match=r"the certificate of '.*model' is damaged \(.*; certify the"):
        write_card(copied, origin)


def test_a_damaged_list_of_forms_is_named(copied):
    (copied / "forms.json").write_text(json.dumps([{"name": "hf"}]))
    with pytest.raises(CheckpointError, match=r"cannot read '.*forms.json' \("):
        write_card(copied, Origin())


def test_plain_text_stays_on_one_line():
    assert plain("a\n# [b](c) | `d`") == "a \\# \\[b\\]\\(c\\) \\| \\`d\\`"
