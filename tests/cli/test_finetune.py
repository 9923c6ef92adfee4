from __future__ import annotations

import importlib
import shutil

import pytest

from rlnas.cli import main
from rlnas.run.folder import read_json, write_json

QUICK = ("--epochs", "2", "--patience", "0", "--train-batch-size", "8", "--learning-rate", "0.003")

TOLD = {"folder": "finetuned"}


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Certificates of few rounds."""
    monkeypatch.setitem(importlib.import_module("rlnas.deploy.certify").N_ROUNDS, "median", 10)


def test_the_delivered_model_is_trained_further_and_handed_out_from_then_on(run, tmp_path, capsys):
    assert main(["finetune", str(run), *QUICK]) == 0
    printed = capsys.readouterr().out
    assert "subnet    accuracy" in printed
    assert "Fine-tuned further (finetuned), it has accuracy" in printed
    assert f"model: {run / 'finetuned'}" in printed
    for flags, source in (((), "finetuned"), (("--delivered",), "best")):
        assert main(["export", str(run), "--out", str(tmp_path / source), *flags]) == 0
        assert f"copied: {run / source}\n" in capsys.readouterr().out
        weights = [folder / source / "model.safetensors" for folder in (run, tmp_path)]
        assert weights[0].read_bytes() == weights[1].read_bytes()
    assert main(["report", str(run)]) == 0
    assert "Fine-tuned further (finetuned)" in capsys.readouterr().out


def test_certify_takes_the_finetuned_model_where_the_summary_tells_of_one(run, caplog):
    caplog.set_level("INFO", "rlnas")
    shutil.copytree(run / "best", run / "finetuned")
    for told, flags, source in (
        (False, [], "best"),
        (True, [], "finetuned"),
        (True, ["--delivered"], "best"),
    ):
        summary = read_json(run / "summary.json")
        write_json(run / "summary.json", {**summary, **({"finetuned": TOLD} if told else {})})
        caplog.clear()
        assert main(["certify", str(run), *flags]) in (0, 1)
        assert (f"measured: {run / source}" in caplog.messages) is told


def test_a_model_of_several_is_trained_by_its_target(several, tmp_path, refused, capsys):
    run = shutil.copytree(several, tmp_path / "several")
    refused(["finetune", run, *QUICK], r"for the target ratios 0.5, 0.75; say which \(--target-ratio\)")
    assert main(["finetune", str(run), "--target-ratio", "0.5", *QUICK]) == 0
    assert f"model: {run / 'finetuned' / '0.5'}" in capsys.readouterr().out
    assert read_json(run / "summary.json")["targets"][0]["finetuned"]["folder"] == "finetuned/0.5"


def test_flags_reach_the_training(run, monkeypatch, capsys):
    asked = {}

    def finetune(path, settings, **how):
        asked.update(path=path, settings=settings, **how)
        raise KeyboardInterrupt

    monkeypatch.setattr("rlnas.run.finetuning.finetune", finetune)
    flags = "--precision bfloat16 --teacher-weight 0.25 --hidden-weight 3 --seed 7 --device cpu --resume"
    assert main(["finetune", str(run), *QUICK, *flags.split(), "--out", "elsewhere"]) == 130
    assert capsys.readouterr().err == "interrupted; go on with --resume\n"
    settings = asked["settings"]
    assert (settings.epochs, settings.patience, settings.batch_size, settings.seed) == (2, None, 8, 7)
    assert (settings.precision, settings.teacher_weight, settings.hidden_weight) == ("bfloat16", 0.25, 3.0)
    assert settings.learning_rate == 0.003
    assert (asked["device"], str(asked["out"]), asked["resume"]) == ("cpu", "elsewhere", True)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--epochs", "0"), "epochs must be at least 1, but got epochs=0"),
        (("--epochs", "-3"), "epochs must be at least 1, but got epochs=-3"),
        (("--patience", "-1"), "patience must be at least 1 look, but got patience=-1"),
        (("--learning-rate", "-0.1"), "learning_rate must be a number of at least 0"),
        (("--learning-rate", "nan"), "learning_rate must be a number of at least 0"),
        (("--hidden-weight", "-1"), "hidden_weight must be a number of at least 0"),
        (("--teacher-weight", "2"), r"teacher_weight must be in \[0, 1\], but got teacher_weight=2"),
        (("--train-batch-size", "0"), "batch_size must be at least 1, but got batch_size=0"),
        (("--device", "cuda:99"), "cuda"),
    ],
)
def test_flags_out_of_range_are_refused(finished, refused, flags, message):
    refused(["finetune", finished, *flags], message)


def test_an_unfinished_run_says_how_far_it_is(unfinished, refused):
    refused(["finetune", unfinished], "is not finished: 40 subnets are scored")


def test_a_folder_without_a_run(tmp_path, refused):
    refused(["finetune", tmp_path / "absent"], "absent/config.json' is missing")


def test_a_loss_that_is_no_number_ends_in_one_line(run, refused):
    arguments = ["finetune", run, *QUICK, "--learning-rate", "1e30"]
    refused(arguments, "lower the learning rate|are not finite numbers")
