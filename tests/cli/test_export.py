from __future__ import annotations

import importlib.util
import json
import re

import pytest

from rlnas.cli import main
from rlnas.deploy.forms import read_forms
from rlnas.history import History
from rlnas.run.folder import read_json


def test_the_chosen_subnet_is_exported(finished, tmp_path, capsys):
    assert main(["export", str(finished), "--out", str(tmp_path / "small")]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[:2] == [f"copied: {finished / 'best'}", f"model: {tmp_path / 'small'}"]
    (form,) = read_forms(tmp_path / "small")
    assert re.fullmatch(rf"model.safetensors, 0.\d MB: {re.escape(form.note)}", printed[2])


def test_int8_is_told_with_what_it_costs(finished, tmp_path, capsys):
    pytest.importorskip("onnxscript")
    arguments = ["export", str(finished), "--formats", "hf, onnx-int8", "--out", str(tmp_path / "small")]
    assert main(arguments) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    told = (
        r"model_int8.onnx, 0.\d MB: weights in int8; against float32 it gives the same class for \d+ of 32 "
    )
    assert re.match(told + r"items of the search split, whose accuracy is \d", last)
    card = (tmp_path / "small" / "README.md").read_text()
    assert "of 32 items of the search split" in card
    assert not (tmp_path / "small" / "model.onnx").exists()


def test_an_unknown_format_is_named_with_the_nearest_one(finished, tmp_path, refused):
    message = r"formats are hf, onnx, onnx-int8, torch and all, but got 'onxx'; did you mean 'onnx'\?$"
    refused(["export", finished, "--formats", "hf,onxx", "--out", tmp_path / "none"], message)
    assert not (tmp_path / "none").exists()


def test_a_missing_package_is_named_with_the_command_that_installs_it(
    finished, tmp_path, refused, monkeypatch
):
    real = importlib.util.find_spec
    hide = lambda name, *given: None if name == "onnxscript" else real(name, *given)  # noqa: E731
    monkeypatch.setattr(importlib.util, "find_spec", hide)
    message = r"the format onnx needs onnxscript; install with: pip install 'rlnas\[onnx\]'$"
    refused(["export", finished, "--formats", "onnx", "--out", tmp_path / "none"], message)
    assert not (tmp_path / "none").exists()


def test_a_trial_is_exported(finished, tmp_path, capsys):
    assert main(["export", str(finished), "--trial", "5", "--out", str(tmp_path / "fifth")]) == 0
    with History.read(finished) as history:
        expected = history.trials[5].config.to_dict()
    assert json.loads(capsys.readouterr().out.splitlines()[0]) == expected
    assert read_json(tmp_path / "fifth" / "subnet.json") == expected


@pytest.mark.parametrize("number", ["40", "-1"])
def test_a_trial_out_of_range(finished, tmp_path, refused, number):
    arguments = ["export", finished, "--trial", number, "--out", tmp_path / "none"]
    refused(arguments, f"has trials 0 to 39, but got trial {number}")


def test_an_export_overwrites_nothing(finished, tmp_path, refused):
    (tmp_path / "mine").write_text("precious")
    refused(["export", finished, "--out", tmp_path], "is there already; delete it or give another folder")


def test_an_export_of_a_missing_run(tmp_path, refused):
    refused(["export", tmp_path / "absent", "--out", tmp_path / "x"], "absent/config.json' is missing")


def test_a_model_of_several_is_exported_by_its_target(several, tmp_path):
    assert main(["export", str(several), "--target-ratio", "0.5", "--out", str(tmp_path / "half")]) == 0
    expected = read_json(several / "models" / "0.5" / "subnet.json")
    assert read_json(tmp_path / "half" / "subnet.json") == expected


def test_of_several_models_one_has_to_be_named(several, tmp_path, refused):
    message = r"has models for the target ratios 0.5, 0.75; say which \(--target-ratio\)"
    refused(["export", several, "--out", tmp_path / "one"], message)
    message = "has models for the target ratios 0.5, 0.75, but got 0.3; "
    refused(["export", several, "--target-ratio", "0.3", "--out", tmp_path / "one"], message)


@pytest.mark.parametrize("flags", [("--target-ratio", "0.75"), ("--delivered",)])
def test_flags_of_delivered_models_do_not_go_with_a_trial(finished, tmp_path, refused, flags):
    message = r"--trial=5 is a subnet with the shared weights, but --target-ratio and .*; drop either$"
    refused(["export", finished, "--trial", "5", *flags, "--out", tmp_path / "none"], message)
    assert not (tmp_path / "none").exists()
