from __future__ import annotations

import functools
import logging
from dataclasses import replace

import pytest
from world import SHAPE, make_table

from rlnas.calibration import calibrate
from rlnas.data import read_task
from rlnas.errors import (
    CheckpointError,
    DataError,
    InfeasibleTargetError,
    LatencyTableError,
    RunFolderError,
)
from rlnas.evaluation import Racing
from rlnas.latency import LatencyTable
from rlnas.rewards import LatencyTarget, LinearPenalty
from rlnas.run import Schedule, inputs
from rlnas.run.folder import RunFolder
from rlnas.run.inputs import calibrate_with_bar, prepare_inputs
from rlnas.supernet import Supernet
from rlnas.workload import Workload

FULL_MS, SMALLEST_MS = make_table()([SHAPE.full])[0], 0.4


@pytest.fixture
def folder(run):
    """A run that is trained: nothing is left to do but to read."""
    return RunFolder(run)


def prepared(job, folder):
    return prepare_inputs(job, folder, progress=False)


def test_data_table_and_weights_are_found_in_the_folder(world, folder):
    found = prepared(replace(world.job(), latency_table="deleted since", model="deleted since"), folder)
    assert list(found.task.train.texts) == list(read_task(folder.data).train.texts)
    assert found.latency([SHAPE.full])[0] == FULL_MS
    assert found.supernet.block_importance is not None
    assert found.space.largest() == SHAPE.full
    assert found.target_ratio == pytest.approx(0.75)


def test_data_is_stored_before_anything_else(world, tmp_path):
    with pytest.raises(CheckpointError, match="no checkpoint 'absent'"):
        prepared(replace(world.job(), model="absent"), RunFolder(tmp_path))
    assert read_task(tmp_path / "data").name == "reviews"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "phases.json"]


def test_a_damaged_task_in_the_folder_is_named(world, folder):
    (folder.data / "task.json").write_text("{")
    message = r"task\.json.*; delete '.*data' and add --resume to read the task again"
    with pytest.raises(RunFolderError, match=message):
        prepared(world.job(), folder)


def test_a_race_for_a_metric_that_has_no_items_is_refused_before_anything_is_stored(world, tmp_path):
    job = world.job(racing=Racing())
    job = replace(job, data=replace(job.data, metric="f1"))
    message = "needs metric=accuracy, but the task 'reviews' has metric=f1; run without --racing"
    with pytest.raises(DataError, match=message):
        prepared(job, RunFolder(tmp_path))
    assert list(tmp_path.iterdir()) == []
    assert prepared(replace(job, racing=None), RunFolder(tmp_path)).task.metric == "f1"
    with pytest.raises(DataError, match=message):  # also of data that lies there
        prepared(job, RunFolder(tmp_path))


def test_a_race_for_accuracy_is_let_through(world, folder):
    assert prepared(world.job(racing=Racing()), folder).task.metric == "accuracy"


def test_a_given_table_is_stored(world, folder):
    folder.latency.unlink()
    prepared(world.job(), folder)
    assert LatencyTable.load(folder.latency) == make_table()


def test_the_stored_table_comes_before_the_given_one(world, folder, tmp_path):
    replace(make_table(), floor_ms=0.5).save(folder.latency)
    assert prepared(world.job(), folder).latency.floor_ms == 0.5


def test_without_a_table_the_device_is_calibrated(world, folder, monkeypatch):
    quick = functools.partial(calibrate, n_models=6, n_rounds=5, max_seconds=0.5)
    monkeypatch.setattr(inputs, "calibrate", quick)
    folder.latency.unlink()
    job = replace(world.job(), latency_table=None, reward=LinearPenalty())
    found = prepared(job, folder).latency
    assert found.workload == job.workload
    assert found.error is not None
    assert LatencyTable.load(folder.latency) == found


def test_calibration_tells_the_bar_how_far_it_is(world, folder, monkeypatch, capsys):
    monkeypatch.setattr(inputs, "calibrate", lambda *_, progress, **__: [progress(n, 4) for n in (1, 4)])
    supernet = Supernet.load(folder.supernet)
    calibrate_with_bar(world.job(), supernet, None, progress=True)
    assert "calibrate: 100%" in capsys.readouterr().err


def test_a_table_of_another_device_is_refused_or_noted(world, folder, caplog):
    make_table(device_name="Other CPU").save(folder.latency)
    with pytest.raises(LatencyTableError, match=r"was made on .*Other CPU.*calibrate here, or allow"):
        prepared(world.job(), folder)
    with caplog.at_level(logging.WARNING, "rlnas"):
        found = prepared(replace(world.job(), allow_foreign_table=True), folder)
    assert "Other CPU" in found.latency.foreign_note
    assert found.latency.foreign_note in caplog.text


def test_a_table_of_another_workload_is_refused_or_noted(world, folder):
    make_table(workload=Workload(4, 16)).save(folder.latency)
    with pytest.raises(LatencyTableError, match=r"made for \[batch 4 x 16 .* not for \[batch 1 x 16"):
        prepared(world.job(), folder)
    found = prepared(replace(world.job(), allow_foreign_table=True), folder)
    assert "batch 4 x 16" in found.latency.foreign_note


def test_a_target_in_milliseconds_becomes_a_ratio(world, folder):
    job = replace(world.job(), reward=LatencyTarget(target_ms=0.6))
    assert prepared(job, folder).target_ratio == pytest.approx(0.6 / FULL_MS)


@pytest.mark.parametrize(
    "reward", [LinearPenalty(), lambda metrics: metrics.accuracy], ids=["penalty", "mine"]
)
def test_a_reward_without_a_target_has_no_ratio(world, folder, reward):
    assert prepared(replace(world.job(), reward=reward), folder).target_ratio is None


@pytest.mark.parametrize("reward", [LatencyTarget(ratio=0.1), LatencyTarget(target_ms=0.108)])
def test_a_target_that_cannot_be_reached_is_refused_with_the_floor_before_training(
    world, folder, reward, tmp_path
):
    new = RunFolder(tmp_path / "new")
    new.path.mkdir()
    message = (
        rf"target of 0.108 ms \(0.1 of the full model\) cannot be reached: the smallest subnet takes "
        rf"{SMALLEST_MS:.4g} ms, {SMALLEST_MS / FULL_MS:.3g} of the full model's {FULL_MS:.4g} ms"
    )
    with pytest.raises(InfeasibleTargetError, match=message):
        prepared(replace(world.job(), reward=reward), new)
    assert not new.supernet.exists()
    assert not new.checkpoints.exists()


def test_no_training_at_all_is_refused_before_calibration(world, tmp_path):
    job = replace(world.job(), schedule=Schedule(full_epochs=0, epochs=0), latency_table=None)
    with pytest.raises(CheckpointError, match=r"has no trained classifier for this task.*--full-epochs 1"):
        prepared(job, RunFolder(tmp_path))
    assert not (tmp_path / "latency.json").exists()


def test_what_was_done_to_the_data_is_told(world, folder, caplog):
    with caplog.at_level(logging.INFO, logger="rlnas"):
        task = prepared(world.job(), folder).task
    assert task.notes
    assert {f"data: {note}" for note in task.notes} <= set(caplog.messages)


def test_a_target_above_the_full_model_is_told(world, folder, caplog):
    with caplog.at_level(logging.WARNING, logger="rlnas"):
        prepared(world.job(reward=LatencyTarget(target_ms=2 * FULL_MS)), folder)
    assert f"the target of {2 * FULL_MS:.4g} ms is above the full model's {FULL_MS:.4g} ms" in caplog.text
