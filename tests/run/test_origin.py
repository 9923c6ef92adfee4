"""What a run tells the cards of its models is what its summary and its certificates say."""

from __future__ import annotations

from dataclasses import replace

import pytest

from rlnas.deploy.files import CERTIFICATE_FILE
from rlnas.errors import RunFolderError
from rlnas.history import History
from rlnas.report import read_summary
from rlnas.run.folder import RunFolder, read_json
from rlnas.run.origin import origin_of, origin_of_trial


@pytest.fixture(scope="module")
def trial(finished):
    with History.read(finished) as history:
        return history.trials[3]


def test_a_delivered_model_has_its_data_its_training_and_its_certificate(finished):
    origin = origin_of(read_summary(finished), finished / "best")
    assert origin.certificate == read_json(finished / "best" / CERTIFICATE_FILE)
    assert (origin.data.task, origin.data.splits) == ("reviews", (64, 32, 40))
    assert origin.data.names == ("train", "search", "validation")
    assert origin.training == (
        "the full model alone: 2 passes over the training items",
        "with weights shared among subnets: 2 passes",
        "this subnet alone, taught by the full one: 1 pass",
    )
    assert origin.base is None  # a folder of one's own
    assert origin.shape.num_attention_heads == 4
    assert "rlnas" in origin.versions


def test_other_ways_of_training_are_told(finished):
    summary = read_summary(finished)
    summary["training"] = {"full_epochs": 0, "epochs": 2, "finish_epochs": 0, "repair_items": 1256}
    assert origin_of(summary, finished / "best").training == (
        "the checkpoint was fine-tuned on the task when it came",
        "with weights shared among subnets: 2 passes",
        "repaired without training: fitted by least squares to the full model on the texts of 1,256 "
        "training items",
    )


def test_a_name_that_others_know_is_the_base(finished):
    summary = read_summary(finished) | {"base_model": {"name": "owner/bert", "on_hub": True}}
    assert origin_of(summary, finished / "best").base.name == "owner/bert"


def test_a_choice_among_models_is_told(finished):
    chosen = {"arm": "b:mean", "learning_rate": 2e-4, "batch_size": 16, "n_items": 1200, "split": "search"}
    auto = {"arms": [{}, {}], "trials": [{}] * 5, "chosen": chosen}
    first, *_ = origin_of({**read_summary(finished), "auto": auto}, finished / "best").training
    assert first == (
        "chosen among 2 models in 5 trials, by 1,200 items of the search split: b:mean, learning rate "
        "0.0002, "
        "batches of 16"
    )


def test_of_a_run_of_an_earlier_version_less_is_told(finished, tmp_path):
    summary = read_summary(finished)
    for key in ("base_model", "training"):
        del summary[key]
    del summary["task"]["train_split"]
    origin = origin_of(summary, tmp_path)
    assert (origin.base, origin.data, origin.training, origin.certificate) == (None, None, (), None)


def test_a_trial_is_told_with_what_the_search_saw(finished, trial):
    origin = origin_of_trial(RunFolder(finished), trial)
    metrics = trial.metrics
    low, high = metrics.accuracy_ci
    told = origin.figures["score with shared weights on the search split"]
    assert told == f"{metrics.accuracy:.3f} [{low:.3f}, {high:.3f}] of 32 items"
    assert (origin.figures["trial"], origin.certificate) == (3, None)
    assert origin.data.task == "reviews"


def test_of_a_trial_without_an_interval_the_score_alone_is_told(tmp_path, trial):
    bare = replace(trial, metrics=replace(trial.metrics, accuracy_ci=None, n_items=0, correct=None))
    origin = origin_of_trial(RunFolder(tmp_path), bare)  # of a run that is not finished
    told = origin.figures["score with shared weights on the search split"]
    assert told == f"{trial.metrics.accuracy:.3f}"
    assert origin.data is None


@pytest.mark.parametrize("name", ["shape", "versions"])
def test_a_summary_that_lacks_what_a_card_needs_is_damaged(finished, name):
    summary = read_summary(finished)
    del summary[name]
    with pytest.raises(RunFolderError, match=f"summary.json is damaged: {name} is missing; delete it"):
        origin_of(summary, finished / "best")
