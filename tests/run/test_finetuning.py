from __future__ import annotations

import importlib
import shutil
from contextlib import closing
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from world import N_SEARCH

from rlnas.data import read_task
from rlnas.deploy.loading import load
from rlnas.deploy.weights_file import weights_digest
from rlnas.errors import DeviceError, EvaluationError, HistoryError, RunFolderError, TrainingError
from rlnas.history import hold
from rlnas.run import finetuning
from rlnas.run.finetuning import Finetuning, finetune
from rlnas.run.folder import RunFolder, read_json, write_json
from rlnas.scores import score
from rlnas.supernet import looks, optimisation
from rlnas.supernet.encoding import encode
from rlnas.supernet.inference import predict

LASTING = Finetuning(epochs=3, patience=None, batch_size=8, learning_rate=0.003, precision="float32")
"""Which ends with other weights than it began with, whatever the looks find."""

DELIVERED = ("full", "best", "latency_ratio", "latency_ratio_ci", "loss_points", "loss_ci")


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Certificates of few rounds."""
    monkeypatch.setitem(importlib.import_module("rlnas.deploy.certify").N_ROUNDS, "median", 10)


@pytest.fixture(scope="module")
def trained(finished, tmp_path_factory):
    """A run whose model was trained further, and what came out; not to be changed."""
    path = Path(shutil.copytree(finished, tmp_path_factory.mktemp("trained") / "run"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(importlib.import_module("rlnas.deploy.certify").N_ROUNDS, "median", 10)
        return path, finetune(path, LASTING, progress=False)


@pytest.fixture
def several(run):
    """A run that says that it was for two targets, with the same model twice."""
    summary = read_json(run / "summary.json")
    own = {name: summary.pop(name) for name in DELIVERED}
    targets = [{**own, "target_ratio": ratio, "folder": f"models/{ratio}"} for ratio in (0.5, 0.75)]
    write_json(run / "summary.json", {**summary, "targets": targets})
    for ratio in ("0.5", "0.75"):
        shutil.copytree(run / "best", run / "models" / ratio)
    return run


def weights_in(folder):
    return load_file(folder / "model.safetensors")


def same_weights(one, other):
    first, second = weights_in(one), weights_in(other)
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def answers_of(folder, task):
    loaded = load(folder, trust_remote_code=False, is_judged=True)
    return predict(loaded.module.eval(), encode(loaded.tokenizer, task.final, loaded.max_seq_len))


# What goes wrong


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"epochs": 0}, "epochs must be at least 1, but got epochs=0"),
        ({"patience": -1}, "patience must be at least 1 look, but got patience=-1"),
        (
            {"learning_rate": -0.1},
            "learning_rate must be a number of at least 0, but got learning_rate=-0.1",
        ),
        ({"batch_size": 0}, "batch_size must be at least 1, but got batch_size=0"),
        ({"seed": -1}, "seed must be at least 0, but got seed=-1"),
        ({"hidden_weight": -1.0}, "hidden_weight must be .* but got hidden_weight=-1.0"),
    ],
)
def test_settings_out_of_range_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        Finetuning(**settings)


@pytest.mark.parametrize(("rate", "expected"), [(None, 5e-5), (0.01, 0.01)])
def test_a_quarter_of_the_usual_learning_rate_is_taken_where_none_is_given(rate, expected):
    assert Finetuning(learning_rate=rate).finisher(384).optimisation.learning_rate == expected


def test_a_run_that_is_not_finished_is_refused(run):
    (run / "summary.json").unlink()
    with pytest.raises(RunFolderError, match=r"holds no summary.json, so there is no finished run in it"):
        finetune(run)


def test_a_folder_without_a_run_is_refused(tmp_path):
    with pytest.raises(RunFolderError, match="holds no run"):
        finetune(tmp_path)


def test_a_target_that_the_run_did_not_have_is_refused(run):
    with pytest.raises(RunFolderError, match=r"one model, for the target ratio 0.75, but got 0.3"):
        finetune(run, target_ratio=0.3)


def test_of_several_models_one_has_to_be_named(several):
    with pytest.raises(RunFolderError, match=r"say which \(--target-ratio\)"):
        finetune(several)


@pytest.mark.parametrize("part", ["full", "best", "data"])
def test_a_part_that_is_missing_is_named_with_the_remedy(run, part):
    shutil.rmtree(run / part)
    message = rf"run/{part}' is missing; delete '.*summary.json' and repeat the search"
    with pytest.raises(RunFolderError, match=message):
        finetune(run, LASTING, progress=False)
    assert not (run / "finetuning").exists()  # nothing was begun


@pytest.mark.parametrize("part", ["full", "best"])
def test_a_model_that_is_damaged_is_named_with_the_remedy(run, part):
    (run / part / "model.safetensors").write_bytes(b"damaged")
    message = (
        rf"cannot read the model '.*{part}': .*; delete '.*{part}', delete '.*summary.json' and repeat"
    )
    with pytest.raises(RunFolderError, match=message):
        finetune(run, LASTING, progress=False)


def test_a_loss_that_is_no_number_leaves_nothing_to_go_on_with(run):
    with pytest.raises((TrainingError, EvaluationError), match=r"lower the learning rate|are not finite"):
        finetune(run, replace(LASTING, learning_rate=1e30), progress=False)
    assert not (run / "finetuning").exists()
    assert not (run / "finetuned").exists()


def test_a_run_that_somebody_works_on_is_left_alone(run):
    with closing(hold(run / "run")), pytest.raises(HistoryError, match="another process is writing to"):
        finetune(run, LASTING, progress=False)


def test_a_folder_that_cannot_be_made_is_named(run):
    RunFolder(run).finetuning.write_text("a file where the folder should be")
    with pytest.raises(RunFolderError, match=r"cannot write the folder '.*finetuning/best'"):
        finetune(run, LASTING, progress=False)


# What comes out


def test_the_delivered_subnet_is_trained_further_and_stays_as_it_was(finished, trained):
    path, result = trained
    assert result.folder == path / "finetuned"
    assert read_json(path / "finetuned" / "subnet.json") == read_json(path / "best" / "subnet.json")
    assert not same_weights(path / "finetuned", path / "best")
    assert same_weights(path / "best", finished / "best")
    assert not (path / "finetuning").exists()


def test_the_record_says_how_it_was_trained_and_what_it_gained(trained):
    path, result = trained
    record = read_json(path / "finetuned" / "finetuning.json")
    assert record == result.record
    task = read_task(path / "data")
    assert record["n_train"] == len(task.train)
    assert record["looks"]["split"] == "search"
    assert record["looks"]["n_items"] == len(task.search)
    assert len(record["looks"]["looks"]) == 3 + 1
    assert not record["looks"]["stopped_early"]
    assert record["settings"].items() >= asdict(LASTING).items()
    assert record["seconds"].keys() == {"train", "certify"}
    before, after = (answers_of(path / name, task) for name in ("best", "finetuned"))
    accuracies = [score("accuracy", task.final.labels, answers) for answers in (before, after)]
    gain = record["gain"]
    assert [gain["delivered_accuracy"], gain["accuracy"]] == accuracies
    assert gain["gain_points"] == pytest.approx(100 * (accuracies[1] - accuracies[0]))
    assert gain["gain_ci"][0] <= gain["gain_points"] <= gain["gain_ci"][1]
    assert (gain["split"], gain["n_items"]) == ("validation", len(task.final))


def test_it_is_certified_beside_the_full_model_with_the_runs_workload_and_target(trained):
    path, result = trained
    certificate = read_json(path / "finetuned" / "certificate.json")
    summary = read_json(path / "summary.json")
    assert certificate["workload"] == summary["workload"]
    assert certificate["target_ratio"] == summary["target_ratio"]
    assert certificate["full"]["accuracy"] == summary["full"]["accuracy"]
    assert certificate["best"]["accuracy"] == result.record["gain"]["accuracy"]
    assert result.certificate is not None
    assert certificate.pop("weights_sha256") == weights_digest(path / "finetuned")
    assert result.certificate.to_dict() == certificate


def test_it_is_judged_and_timed_in_the_precision_that_the_search_chose(run):
    summary = read_json(run / "summary.json")
    summary["best"]["config"]["precision"] = "bfloat16"
    write_json(run / "summary.json", summary)
    result = finetune(run, replace(LASTING, epochs=1), progress=False)
    certificate = read_json(run / "finetuned" / "certificate.json")
    assert certificate["workload"] == summary["workload"]
    assert certificate["subnet_workload"] == {**summary["workload"], "dtype": "bfloat16"}
    assert certificate["best"]["accuracy"] == result.record["gain"]["accuracy"]
    assert "judged and timed in bfloat16, eager" in (run / "finetuned" / "README.md").read_text()


def test_both_sides_of_the_gain_are_judged_as_they_are_served(run, monkeypatch):
    asked = []

    def served(module, encoded, precision, **_):
        asked.append((module.dtype, precision))
        return np.zeros(len(encoded.labels), dtype=np.int64)

    monkeypatch.setattr(finetuning, "predict_as_served", served)
    finetuning._answers(run / "best", read_task(run / "data"), "int8", "cpu")
    finetuning._answers(run / "best", read_task(run / "data"), "float16", "cpu")
    assert asked == [(torch.float32, "int8"), (torch.float16, "float16")]


def test_of_a_run_in_folds_nothing_is_looked_at_as_all_items_were_trained_on(run, monkeypatch):
    task = read_task(run / "data")
    search = task.train.take(range(len(task.train)), "out-of-fold")
    folded = replace(task, search=search, folds=np.arange(len(search)) % 3)
    monkeypatch.setattr(finetuning, "read_task", lambda _: folded)
    result = finetune(run, replace(LASTING, epochs=1, patience=2), progress=False)
    looks = result.record["looks"]
    assert (looks["split"], looks["n_items"], looks["looks"]) == (None, 0, [])
    assert not same_weights(run / "finetuned", run / "best")
    card = (run / "finetuned" / "README.md").read_text()
    assert "trained further on 64 items" in card
    assert "weights were chosen" not in card


def test_summary_and_report_of_the_run_tell_of_it(finished, trained):
    path, result = trained
    summary = read_json(path / "summary.json")
    told = summary.pop("finetuned")
    assert summary == read_json(finished / "summary.json")
    assert told["folder"] == "finetuned"
    assert told["accuracy"] == result.record["gain"]["accuracy"]
    assert told["gain_ci"] == result.record["gain"]["gain_ci"]
    assert "Fine-tuned further (finetuned)" in (path / "report.html").read_text()


def test_it_may_be_written_elsewhere_and_the_run_then_says_nothing(run, tmp_path):
    before = read_json(run / "summary.json")
    result = finetune(run, replace(LASTING, epochs=1), out=tmp_path / "mine", progress=False)
    assert (tmp_path / "mine" / "certificate.json").is_file()
    assert result.model["finetuned"]["folder"] == str(tmp_path / "mine")
    assert read_json(run / "summary.json") == before
    assert not (run / "finetuned").exists()


def test_the_model_of_a_target_is_trained_and_told_of_alone(several):
    result = finetune(several, replace(LASTING, epochs=1), target_ratio=0.75, progress=False)
    assert result.folder == several / "finetuned" / "0.75"
    first, second = read_json(several / "summary.json")["targets"]
    assert "finetuned" not in first
    assert second["finetuned"]["folder"] == "finetuned/0.75"


def test_the_search_split_stops_it_and_keeps_the_best_weights(run, monkeypatch):
    monkeypatch.setattr(looks, "difference_error", lambda *_: 0.0)
    found = iter([0.9, 0.5, 0.4])
    own = finetuning.score
    monkeypatch.setattr(
        finetuning,
        "score",
        lambda metric, labels, answers: (
            next(found) if len(labels) == N_SEARCH else own(metric, labels, answers)
        ),
    )
    settings = replace(LASTING, patience=2)
    result = finetune(run, settings, progress=False)
    assert result.record["looks"]["looks"] == [0.9, 0.5, 0.4]
    assert result.record["looks"]["stopped_early"]
    assert same_weights(run / "finetuned", run / "best")
    assert result.record["gain"]["gain_ci"] == [0.0, 0.0]


def test_items_of_the_final_split_are_not_trained_or_looked_at(run, monkeypatch):
    """With other final items the weights are the same."""
    other = Path(shutil.copytree(run, run.with_name("other")))
    task = read_task(run / "data")
    mixed = replace(task, final=task.final.take(np.arange(len(task.final))[::-2]))
    finetune(run, LASTING, progress=False)
    monkeypatch.setattr(finetuning, "read_task", lambda _: mixed)
    finetune(other, LASTING, progress=False)
    assert same_weights(run / "finetuned", other / "finetuned")


def test_a_device_that_cannot_serve_the_precision_is_refused_before_the_training(run, monkeypatch):
    summary = read_json(run / "summary.json")
    summary["best"]["config"]["precision"] = "int8"
    write_json(run / "summary.json", summary)
    monkeypatch.setattr(finetuning, "resolve_device", lambda device: device)
    with pytest.raises(DeviceError, match="int8"):
        finetune(run, LASTING, device="cuda:0", progress=False)
    assert not (run / "finetuning").exists()


# Interruption


def interrupted(monkeypatch, name, owner, call, error=KeyboardInterrupt):
    """Be interrupted at a call of a function."""

    def interrupt(*_, **__):
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(owner, name, interrupt)
        with pytest.raises(error):
            call()


def in_training(monkeypatch, call, nth):
    """Be interrupted at the nth step."""
    collate, steps = optimisation.collate, []

    def collating(*arguments):
        steps.append(arguments)
        if len(steps) == nth:
            raise KeyboardInterrupt
        return collate(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(optimisation, "collate", collating)
        with pytest.raises(KeyboardInterrupt):
            call()


def test_a_killed_training_goes_on_and_ends_with_the_same_weights(run, trained, monkeypatch):
    settings = replace(LASTING, checkpoint_seconds=0.0)
    in_training(monkeypatch, lambda: finetune(run, settings, progress=False), nth=14)
    assert (run / "finetuning" / "best" / "training.pt").is_file()
    message = r"a training in '.*finetuning/best' was begun and not ended; go on with it \(--resume\)"
    with pytest.raises(RunFolderError, match=message):
        finetune(run, settings, progress=False)
    result = finetune(run, settings, resume=True, progress=False)
    path, unbroken = trained
    assert same_weights(run / "finetuned", path / "finetuned")
    assert result.record["looks"] == unbroken.record["looks"]
    assert not (run / "finetuning").exists()


def test_a_training_goes_on_with_the_same_settings_only(run, monkeypatch):
    in_training(monkeypatch, lambda: finetune(run, LASTING, progress=False), nth=2)
    with pytest.raises(
        RunFolderError, match=r"was begun with epochs=3, not epochs=4; resume it with the same"
    ):
        finetune(run, replace(LASTING, epochs=4), resume=True, progress=False)


@pytest.mark.parametrize("name", ["certify", "write_report"])
def test_what_was_trained_is_not_trained_again(run, monkeypatch, name):
    settings = replace(LASTING, epochs=1)
    interrupted(monkeypatch, name, finetuning, lambda: finetune(run, settings, progress=False))
    monkeypatch.setattr(finetuning, "_train", lambda *_, **__: pytest.fail("trained again"))
    result = finetune(run, settings, resume=True, progress=False)
    assert (result.certificate is None) == (name == "write_report")
    assert read_json(run / "summary.json")["finetuned"]["folder"] == "finetuned"
    assert not (run / "finetuning").exists()


def test_what_is_done_is_not_done_again(trained):
    path, unbroken = trained
    message = r"finetuned' is there already; delete it or give another folder \(--out\)"
    with pytest.raises(RunFolderError, match=message):
        finetune(path, LASTING, progress=False)
    again = finetune(path, LASTING, resume=True, progress=False)
    assert again.record == unbroken.record
    assert again.certificate is None
    with pytest.raises(RunFolderError, match="was begun with seed=0, not seed=1"):
        finetune(path, replace(LASTING, seed=1), resume=True, progress=False)


def test_a_summary_that_was_written_anew_is_told_again(run):
    settings = replace(LASTING, epochs=1)
    finetune(run, settings, progress=False)
    told = read_json(run / "summary.json")
    write_json(run / "summary.json", {key: told[key] for key in told if key != "finetuned"})
    finetune(run, settings, resume=True, progress=False)
    assert read_json(run / "summary.json") == told
