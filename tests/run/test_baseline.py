from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from world import LABELS, write_checkpoint

from rlnas.data import read_task, write_task
from rlnas.errors import TrainingError
from rlnas.run import baseline
from rlnas.run.baseline import baseline_beside, half_the_cores, train_baseline, train_baseline_of
from rlnas.run.child import describe_training
from rlnas.run.folder import RunFolder, write_json
from rlnas.supernet import FullTrainer

ROOT = Path(__file__).parents[2]


@pytest.fixture
def task(finished):
    return read_task(finished / "data")


@pytest.fixture
def folder(tmp_path, task):
    folder = RunFolder(tmp_path / "run")
    folder.data.mkdir(parents=True)
    write_task(task, folder.data)
    return folder


@pytest.fixture
def beside(monkeypatch):
    """As on a machine of two cores with a training worth a process."""
    monkeypatch.setattr(baseline, "WORTH_A_PROCESS", 1)
    monkeypatch.setattr(baseline, "available_cores", lambda: 2)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))


def epochs_of_the_baseline(job, task, folder, monkeypatch):
    asked = []
    monkeypatch.setattr(
        FullTrainer, "train", lambda trainer, *_, **__: asked.append(trainer.optimisation.epochs)
    )
    train_baseline(job, task, folder, progress=False)
    return asked


def test_it_has_as_many_passes_as_the_subnet(world, task, folder, monkeypatch):
    assert epochs_of_the_baseline(world.job(), task, folder, monkeypatch) == [2 + 2 + 1]


def test_a_fine_tuned_checkpoint_is_not_tuned_anew_by_the_baseline_alone(world, task, folder, monkeypatch):
    tuned = replace(world.job(), model=str(write_checkpoint(folder.path / "tuned", LABELS)))
    assert epochs_of_the_baseline(tuned, task, folder, monkeypatch) == [2 + 1]


def test_one_that_lies_in_the_folder_is_not_trained_again(world, task, folder, monkeypatch):
    folder.full.mkdir()
    assert epochs_of_the_baseline(world.job(), task, folder, monkeypatch) == []


@pytest.mark.usefixtures("beside")
def test_a_process_beside_gives_the_same_weights_and_leaves_no_trace(world, task, folder, tmp_path):
    with baseline_beside(world.job(), task, folder):
        assert folder.baseline.is_file()
    alone = RunFolder(tmp_path / "alone")
    with half_the_cores("cpu"):
        train_baseline(world.job(), task, alone, progress=False)
    weights, same = (load_file(one.full / "model.safetensors") for one in (folder, alone))
    assert all(torch.equal(weights[name], same[name]) for name in same)
    assert not folder.baseline.exists()
    assert "baseline" in folder.seconds()


@pytest.mark.usefixtures("beside")
def test_what_a_killed_run_left_is_removed(world, task, folder):
    folder.full.mkdir()
    folder.baseline.write_text("{}")
    with baseline_beside(world.job(), task, folder):
        assert not folder.baseline.exists()


@pytest.mark.usefixtures("beside")
def test_the_reason_of_a_failure_beside_is_passed_on(world, task, folder):
    lost = replace(world.job(), model=str(folder.path / "no-such-model"))
    with (
        pytest.raises(
            TrainingError, match=r"the baseline could not be trained: there is no folder '.*no-such-model'"
        ),
        baseline_beside(lost, task, folder),
    ):
        pass


@pytest.mark.usefixtures("beside")
def test_an_error_in_the_run_ends_the_process_beside(world, task, folder, monkeypatch):
    started = []
    popen = subprocess.Popen
    monkeypatch.setattr(subprocess, "Popen", lambda *a, **k: started.append(popen(*a, **k)) or started[0])
    with pytest.raises(KeyError), baseline_beside(world.job(), task, folder):
        raise KeyError("the run failed")
    assert started[0].returncode is not None
    assert not folder.full.exists()


def test_the_process_ends_with_its_parent(world, folder):
    write_json(
        folder.baseline, describe_training(world.job(schedule=replace(world.job().schedule, epochs=10_000)))
    )
    process = subprocess.Popen(
        [sys.executable, "-m", "rlnas.run", str(folder.path)],
        stdin=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    process.stdin.close()  # what the operating system does when the parent dies
    assert process.wait(timeout=50) == 1
    assert not folder.full.exists()


@pytest.mark.parametrize(
    ("cores", "device", "epochs"), [(1, "cpu", 100), (2, "cpu", 0), (2, "cuda:0", 100)]
)
def test_no_process_is_started_where_it_gains_nothing(
    world, task, folder, monkeypatch, cores, device, epochs
):
    monkeypatch.setattr(baseline, "available_cores", lambda: cores)
    monkeypatch.setattr(subprocess, "Popen", lambda *_, **__: pytest.fail("started a process"))
    job = world.job(device=device, schedule=replace(world.job().schedule, epochs=epochs))
    with baseline_beside(job, task, folder):
        assert not folder.baseline.exists()


def test_bad_input_of_the_process_is_one_line(world, folder, capsys):
    write_json(folder.baseline, describe_training(replace(world.job(), model="no-such-model")))
    assert train_baseline_of(str(folder.path)) == 2
    message = capsys.readouterr().err.strip()
    assert message.startswith("no checkpoint 'no-such-model'")
    assert "\n" not in message


def test_half_of_the_cores_are_used_and_given_back(monkeypatch):
    before = torch.get_num_threads()
    monkeypatch.setattr(baseline, "available_cores", lambda: 6)
    with half_the_cores("cpu"):
        assert torch.get_num_threads() == 3
    assert torch.get_num_threads() == before


def test_a_gpu_leaves_the_threads_alone(monkeypatch):
    before = torch.get_num_threads()
    monkeypatch.setattr(baseline, "available_cores", lambda: 4 * before)
    with half_the_cores("cuda:0"):
        assert torch.get_num_threads() == before


def test_the_cores_are_those_that_this_process_may_use(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: {0, 3, 5}, raising=False)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert baseline.available_cores() == 3
    for limit, cores in (("2", 2), ("8", 3), ("0", 3), ("4,2", 3)):
        monkeypatch.setenv("OMP_NUM_THREADS", limit)
        assert baseline.available_cores() == cores
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert baseline.available_cores() == 1
