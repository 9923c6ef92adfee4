from __future__ import annotations

import logging
from dataclasses import replace

import pytest
from world import SHAPE, WORKLOAD, make_table

from rlnas.calibration import Effort, calibrate, probe_blocks
from rlnas.controllers.surrogate import SurrogatePPOController, WarmStart
from rlnas.data import read_task
from rlnas.errors import (
    CheckpointError,
    DataError,
    DeviceError,
    HistoryError,
    InfeasibleTargetError,
    LatencyTableError,
    RunFolderError,
)
from rlnas.evaluation import Racing
from rlnas.latency import LatencyTable
from rlnas.latency.regime import find_regime
from rlnas.metrics import Metrics
from rlnas.rewards import LatencyTarget, LinearPenalty
from rlnas.run import Schedule, calibration
from rlnas.run.folder import RunFolder
from rlnas.run.inputs import full_latency, prepare_inputs
from rlnas.space import LayerConfig, SubnetConfig
from rlnas.supernet.encoding import with_lengths_of
from rlnas.trial import Trial
from rlnas.workload import Workload

FULL_MS, SMALLEST_MS = make_table()([SHAPE.full])[0], 0.4


@pytest.fixture
def folder(run):
    """A run that is trained: nothing is left to do but to read."""
    return RunFolder(run)


def prepared(job, folder):
    folder.path.mkdir(exist_ok=True)
    return prepare_inputs(job, folder, progress=False)


def test_data_table_and_weights_are_found_in_the_folder(world, folder):
    found = prepared(replace(world.job(), latency_table="deleted since", model="deleted since"), folder)
    assert list(found.task.train.texts) == list(read_task(folder.data).train.texts)
    assert found.latency([SHAPE.full])[0] == FULL_MS
    assert found.supernet.block_importance is not None
    assert found.space.largest() == SHAPE.full
    assert found.target_ratio == pytest.approx(0.75)


def test_a_job_that_is_refused_leaves_no_data_for_a_better_one(world, tmp_path):
    with pytest.raises(CheckpointError, match="no checkpoint 'absent'"):
        prepared(replace(world.job(), model="absent"), RunFolder(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["phases.json"]


def test_a_warm_start_from_another_space_is_refused_before_the_training(world, folder):
    trial = Trial(0, SubnetConfig((LayerConfig(7, 7),) * 2), Metrics(0.5, 1.0, 1), 0.5)
    start = WarmStart.of(tuple(replace(trial, number=number) for number in range(16)))
    job = world.job(controller=SurrogatePPOController(warm_start=start))
    other = RunFolder(folder.path.with_name("other"))
    with pytest.raises(HistoryError, match="only 0 of the warm start's 16 subnets belong to this search's"):
        prepared(job, other)
    assert not other.data.exists()  # so that a better job may begin in that folder


def test_a_table_that_lacks_a_size_on_offer_is_refused_before_it_is_stored(world, tmp_path):
    table = make_table()
    sizes = {size: ms for size, ms in table.ffn_ms.items() if size != SHAPE.intermediate_size // 2}
    replace(table, ffn_ms=sizes).save(tmp_path / "table.json")
    job = replace(world.job(), latency_table=str(tmp_path / "table.json"))
    run = RunFolder(tmp_path / "run")
    with pytest.raises(LatencyTableError, match=r"table.json' holds no ffn block of size 32, .* --parts"):
        prepared(job, run)
    assert not run.latency.exists()
    assert len(prepared(replace(job, parts=1), run).space.layers[0].intermediate_size) == 2


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
    def quick(*args, **how):
        return calibrate(*args, **{**how, "effort": Effort(n_models=6, n_rounds=5, max_seconds=0.5)})

    monkeypatch.setattr(calibration, "calibrate", quick)
    folder.latency.unlink()
    job = replace(world.job(), latency_table=None, reward=LinearPenalty())
    found = prepared(job, folder).latency
    assert found.workload == job.workload
    assert found.error is not None
    assert LatencyTable.load(folder.latency) == found


def test_what_speaks_against_a_table_is_told(world, folder, caplog):
    replace(make_table(), notes=("the device's clock moved",)).save(folder.latency)
    with caplog.at_level(logging.WARNING, "rlnas"):
        prepared(world.job(), folder)
    assert caplog.messages == ["latency: the device's clock moved"]


def test_a_mode_that_does_not_run_here_is_refused_before_anything_is_read(world, tmp_path):
    job = world.job(workload=replace(WORKLOAD, mode="cuda_graph"))
    with pytest.raises(DeviceError, match="mode='cuda_graph' needs a CUDA device, but got device='cpu'"):
        prepared(job, RunFolder(tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_texts_longer_than_the_checkpoint_are_refused_before_training(world, tmp_path):
    workload = Workload(seq_len=65)
    make_table(workload=workload).save(tmp_path / "table.json")
    job = world.job(workload=workload, latency_table=str(tmp_path / "table.json"))
    folder = RunFolder(tmp_path / "run")
    folder.path.mkdir()
    with pytest.raises(CheckpointError, match=r"positions for 64 tokens .* seq_len=65"):
        prepared(job, folder)
    assert not folder.latency.exists()


def test_the_workload_is_that_of_the_job(world, folder):
    assert prepared(world.job(), folder).workload == WORKLOAD


def test_the_lengths_are_those_of_the_training_texts_if_asked_for(world, folder):
    job = world.job(lengths_from_task=True, allow_foreign_table=True)
    found = prepared(job, folder)
    expected = with_lengths_of(WORKLOAD, found.supernet.tokenizer, found.task.train)
    assert found.workload == expected
    assert len(expected.lengths) == 64
    assert prepared(job, folder).workload == expected


def test_a_table_of_this_machine_and_workload_is_of_here(world, folder):
    assert prepared(world.job(), folder).predicted_for is None


def test_a_table_of_another_device_is_refused_or_noted(world, folder, caplog):
    make_table(device_name="Other CPU").save(folder.latency)
    with pytest.raises(LatencyTableError, match=r"was made on .*Other CPU.*calibrate here, or allow"):
        prepared(world.job(), folder)
    with caplog.at_level(logging.WARNING, "rlnas"):
        found = prepared(replace(world.job(), allow_foreign_table=True), folder)
    assert "Other CPU" in found.latency.foreign_note
    assert found.latency.foreign_note in caplog.text
    assert found.predicted_for == f"{WORKLOAD} on cpu Other CPU"


def test_a_table_of_another_workload_is_refused_or_noted(world, folder):
    make_table(workload=Workload(4, 16)).save(folder.latency)
    with pytest.raises(LatencyTableError, match=r"made for \[batch 4 x 16 .* not for \[batch 1 x 16"):
        prepared(world.job(), folder)
    found = prepared(replace(world.job(), allow_foreign_table=True), folder)
    assert "batch 4 x 16" in found.latency.foreign_note
    assert found.predicted_for == f"{Workload(4, 16)} on cpu {found.latency.device.name}"


def test_a_table_of_another_version_can_be_measured_here(world, folder):
    table = make_table()
    replace(table, device=replace(table.device, versions={"torch": "1.0"})).save(folder.latency)
    found = prepared(replace(world.job(), allow_foreign_table=True), folder)
    assert "torch 1.0" in found.latency.foreign_note
    assert found.predicted_for is None


def test_the_reward_is_that_of_this_table(world, folder):
    found = prepared(world.job(), folder)
    assert found.reward == LatencyTarget(target_ms=0.75 * FULL_MS)
    assert full_latency(found.space, found.latency) == FULL_MS


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
    with pytest.raises(InfeasibleTargetError, match=message):
        prepared(world.job(target_ratios=(0.1, 0.75)), new)
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


def test_sizes_worth_having_are_those_of_the_table(world, tmp_path):
    # Two heads cost what four do, and half of the units what three quarters do.
    flat = replace(make_table(), attention_ms={1: 0.1, 2: 0.4, 3: 0.4, 4: 0.4}, ffn_ms=STEPS)
    flat.save(tmp_path / "table.json")
    job = replace(world.job(sizes_worth_having=True), latency_table=str(tmp_path / "table.json"))
    found = prepared(job, RunFolder(tmp_path / "run"))
    assert found.regime == find_regime(flat)
    assert {layer.num_attention_heads for layer in found.space.layers} == {(0, 1, 4)}
    assert {layer.intermediate_size for layer in found.space.layers} == {(0, *regime_units(flat))}
    quarters = prepared(replace(job, sizes_worth_having=False), RunFolder(tmp_path / "other"))
    assert {layer.num_attention_heads for layer in quarters.space.layers} == {(0, 1, 2, 3, 4)}
    halves = prepared(replace(job, sizes_worth_having=False, parts=2), RunFolder(tmp_path / "coarse"))
    assert {layer.num_attention_heads for layer in halves.space.layers} == {(0, 2, 4)}


STEPS = {size: 0.2 if 2 * size <= SHAPE.intermediate_size else 0.5 for size in make_table().ffn_ms}


def regime_units(table: LatencyTable) -> tuple[int, ...]:
    halves = [size for size in table.ffn_ms if 2 * size <= SHAPE.intermediate_size]
    return (max(halves), SHAPE.intermediate_size)


def test_sizes_are_probed_where_there_is_no_table(world, tmp_path, monkeypatch):
    asked = {}

    def few(*args, effort, extra_blocks, **how):
        asked["extra"] = extra_blocks
        return calibrate(
            *args, effort=Effort(4, n_rounds=5, max_seconds=0.2), extra_blocks=extra_blocks, **how
        )

    monkeypatch.setattr(calibration, "calibrate", few)
    job = replace(world.job(sizes_worth_having=True), latency_table=None, reward=LinearPenalty())
    found = prepared(job, RunFolder(tmp_path))
    assert asked["extra"] == probe_blocks(SHAPE)
    assert found.space == found.regime.space(SHAPE)
    prepared(replace(job, sizes_worth_having=False), RunFolder(tmp_path / "other"))
    assert asked["extra"] == ()


def test_a_table_of_one_size_has_no_regime_and_no_sizes_worth_having(world, tmp_path):
    table = replace(
        make_table(), attention_ms={SHAPE.num_attention_heads: 1.0}, ffn_ms={SHAPE.intermediate_size: 1.0}
    )
    table.save(tmp_path / "table.json")
    job = replace(world.job(), latency_table=str(tmp_path / "table.json"))
    with pytest.raises(LatencyTableError, match="two sizes to see what a size costs"):
        prepared(replace(job, sizes_worth_having=True), RunFolder(tmp_path / "run"))
    assert prepared(replace(job, parts=1), RunFolder(tmp_path / "run")).regime is None
