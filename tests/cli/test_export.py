from __future__ import annotations

import json

import pytest

from rlnas.cli import main
from rlnas.history import History
from rlnas.run.folder import read_json


def test_the_chosen_subnet_is_exported(finished, tmp_path, capsys):
    assert main(["export", str(finished), "--out", str(tmp_path / "small")]) == 0
    assert (tmp_path / "small" / "modeling_subnet.py").is_file()
    assert f"model: {tmp_path / 'small'}" in capsys.readouterr().out


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
