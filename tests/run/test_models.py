from __future__ import annotations

import pytest

from rlnas.errors import RunFolderError
from rlnas.run.folder import RunFolder, read_json, write_json
from rlnas.run.models import model_path, models_for, single_model

DELIVERED = ("full", "best", "latency_ratio", "latency_ratio_ci", "loss_points", "loss_ci")


@pytest.fixture
def several(run):
    """A run that says that it was for two targets."""
    summary = read_json(run / "summary.json")
    own = {name: summary.pop(name) for name in DELIVERED}
    targets = [{**own, "target_ratio": ratio, "folder": f"models/{ratio}"} for ratio in (0.25, 0.5)]
    write_json(run / "summary.json", {**summary, "targets": targets})
    return RunFolder(run)


def test_a_run_for_one_target_has_one_model(run):
    folder = RunFolder(run)
    (model,) = models_for(folder, None)
    assert single_model(folder, None) == model
    assert model_path(folder, model) == run / "best"
    assert models_for(folder, 0.3) == [model]  # a target of one's own does not choose
    assert single_model(folder, model["target_ratio"]) == model


def test_a_run_for_several_targets_has_several(several):
    models = models_for(several, None)
    assert [model_path(several, model) for model in models] == [
        several.models / "0.25",
        several.models / "0.5",
    ]
    assert models_for(several, 0.5) == models[1:]
    assert single_model(several, 0.25) == models[0]


def test_a_model_that_was_trained_further_is_there_beside_the_delivered_one(run):
    folder, model = RunFolder(run), {"finetuned": {"folder": "finetuned"}}
    assert model_path(folder, model, delivered=False) == run / "best"  # where it has been deleted
    folder.finetuned_models.mkdir()
    assert model_path(folder, model, delivered=False) == run / "finetuned"
    assert model_path(folder, model) == run / "best"
    assert model_path(folder, {}, delivered=False) == run / "best"


def test_a_model_that_is_not_there_is_refused(several):
    with pytest.raises(
        RunFolderError, match=r"for the target ratios 0.25, 0.5, but got 0.3; see .* propose"
    ):
        models_for(several, 0.3)


def test_one_of_several_has_to_be_named(several):
    with pytest.raises(
        RunFolderError, match=r"for the target ratios 0.25, 0.5; say which \(--target-ratio\)"
    ):
        single_model(several, None)


def test_the_model_of_another_target_is_not_handed_out(run):
    with pytest.raises(RunFolderError, match=r"one model, for the target ratio 0.75, but got 0.3; leave"):
        single_model(RunFolder(run), 0.3)
    summary = read_json(run / "summary.json")
    write_json(run / "summary.json", {**summary, "target_ratio": None})
    with pytest.raises(RunFolderError, match=r"has one model, for no target, but got 0\.75"):
        single_model(RunFolder(run), 0.75)
