from __future__ import annotations

import json
import logging
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from world import N_SEARCH

from rlnas.data import load_task, read_task, write_task
from rlnas.errors import DeviceError, HistoryError, TrainingError
from rlnas.run import pipeline, run_job, torchrun
from rlnas.run.folder import RunFolder
from rlnas.run.job import Torchrun
from rlnas.run.torchrun import check_devices, command, threads_per_process, train_by_torchrun
from rlnas.run.training import furthest_supernet, load_supernet, train_supernet
from rlnas.space import LayerwiseSpace
from rlnas.supernet.encoding import sorted_batches

ROOT = Path(__file__).parents[2]
TWO = Torchrun(2)


@pytest.fixture
def folder(world, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    folder = RunFolder(tmp_path / "run")
    folder.data.mkdir(parents=True)
    write_task(load_task(str(world.data), search_items=N_SEARCH), folder.data)
    return folder


@pytest.fixture
def train(world, folder):
    """Train by torchrun, or by what stands in its place."""

    def call(processes=TWO, **changes):
        job = world.job(**changes)
        supernet = furthest_supernet(job, read_task(folder.data), folder)
        space = LayerwiseSpace.for_model(supernet.shape)
        return train_by_torchrun(job, processes, supernet, space, folder, progress=True)

    return call


@pytest.fixture
def instead(monkeypatch):
    """Start a program of ours instead of torchrun, and interrupt who waits for it if need be."""
    started, popen = [], subprocess.Popen

    def replace(program, *, interrupted=False):
        class Instead(popen):
            def __init__(self, line, **how):
                super().__init__([sys.executable, "-c", program], **how)
                self.line = line
                started.append(self)
                self.interrupted = interrupted

            def wait(self, timeout=None):
                if self.interrupted:
                    self.interrupted = False
                    time.sleep(1)  # until the program is at work
                    raise KeyboardInterrupt
                return super().wait(timeout)

        monkeypatch.setattr(subprocess, "Popen", Instead)
        return started

    return replace


@pytest.fixture(scope="module")
def calm(world, tmp_path_factory):
    """The world's checkpoint without dropout, of which each rank would have its own."""
    path = Path(shutil.copytree(world.model, tmp_path_factory.mktemp("calm") / "tiny-bert"))
    settings = json.loads((path / "config.json").read_text())
    settings |= {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    (path / "config.json").write_text(json.dumps(settings))
    return str(path)


@pytest.mark.timeout(300)  # three processes import all that a run does
def test_two_processes_train_what_the_run_would_itself(world, folder, train, calm, tmp_path, capfd):
    found = train(model=calm)
    shown = capfd.readouterr().err
    assert "fine-tune the full model: 100%" in shown
    assert "share the weights: 100%" in shown
    assert {path.name for path in folder.path.iterdir()} == {
        "checkpoints",
        "data",
        "phases.json",
        "supernet",
    }
    assert list(folder.checkpoints.iterdir()) == []
    assert set(folder.seconds()) == {"finetune", "importance", "share"}

    alone, task, job = RunFolder(tmp_path / "alone"), read_task(folder.data), world.job(model=calm)
    alone.checkpoints.mkdir(parents=True)
    supernet = furthest_supernet(job, task, alone)
    train_supernet(job, supernet, LayerwiseSpace.for_model(supernet.shape), task, alone, progress=False)
    batch = next(sorted_batches(supernet.encode(task.search), len(task.search)))
    with torch.inference_mode():
        logits, same = (one.forward(one.shape.full, batch) for one in (found, supernet))
    torch.testing.assert_close(logits, same, rtol=1e-2, atol=1e-2)


def test_weights_that_are_there_are_not_trained_again(world, folder, train, instead):
    started = instead("raise SystemExit(1)")
    trained = load_supernet(world.job(), read_task(folder.data))
    trained.fine_tuned = True
    trained.save(folder.supernet)
    assert train().fine_tuned
    assert started == []


# What goes wrong


def test_the_reason_that_a_process_gives_is_passed_on(folder, train, instead):
    said = "a table of torchrun\nrlnas: error: the loss became nan"
    instead(f"import sys; print({said!r}, file=sys.stderr); sys.exit(1)")
    message = r"^the training on 2 processes has failed: the loss became nan$"
    with pytest.raises(TrainingError, match=message):
        train()
    assert not folder.training.exists()


ADVICE = "go on from its last checkpoint with --resume"
REPORT = """
Failures:
  exitcode  : -15 (pid: 1)  (SIGTERM)
Root Cause (first observed failure):
  exitcode  : {exitcode}
"""


@pytest.mark.parametrize(
    ("exitcode", "reason"),
    [
        ("-9 (pid: 2)  (SIGKILL)", "a process has ended by SIGKILL, perhaps for want of memory"),
        ("-11 (pid: 2)  (SIGSEGV)", "a process has ended by SIGSEGV"),
        ("1 (pid: 2)", "a process has ended with exit code 3"),
    ],
)
def test_a_process_that_has_died_is_one_sentence(folder, train, instead, exitcode, reason):
    report = REPORT.format(exitcode=exitcode)
    instead(f"import sys; print({report!r}, file=sys.stderr); sys.exit(3)")
    log = folder.checkpoints / "torchrun.log"
    message = f"the training on 2 processes has failed: {reason} (see '{log}'); {ADVICE}"
    with pytest.raises(TrainingError, match=f"^{re.escape(message)}$"):
        train()
    assert "Root Cause" in log.read_text()


def test_an_interrupt_ends_the_processes(folder, train, instead):
    started = instead("import sys; sys.stdin.read()", interrupted=True)  # as ranks do
    with pytest.raises(KeyboardInterrupt):
        train()
    assert started[0].returncode is not None
    assert not folder.training.exists()


def test_a_torchrun_that_does_not_end_is_killed(train, instead, monkeypatch):
    monkeypatch.setattr(torchrun, "GRACE_SECONDS", 0.1)
    ignore = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(60)"
    started = instead(ignore, interrupted=True)
    with pytest.raises(KeyboardInterrupt):
        train()
    assert started[0].returncode == -signal.SIGKILL


# Settings


def test_the_command_of_one_node_and_of_another():
    assert command(TWO, Path("run")) == [
        *("--standalone", "--nproc-per-node", "2", "-m", "rlnas.run.rank", "run"),
    ]
    nodes = Torchrun(8, 3, "first:29400")
    assert command(nodes, Path("run"), node_rank=2) == [
        *("--nnodes", "3", "--node-rank", "2", "--rdzv-backend", "static"),
        *("--rdzv-endpoint", "first:29400", "--nproc-per-node", "8", "-m", "rlnas.run.rank", "run"),
    ]


def test_another_node_receives_the_training(tmp_path, instead):
    lines = instead("")
    nodes, log = Torchrun(1, 2, "first:29400"), tmp_path / "log"
    with torchrun.started(nodes, "cpu", tmp_path / "run", log, node_rank=1) as process:
        assert process.wait() == 0
    assert lines[0].line[-3:] == ["--with-parent", "--receive", "cpu"]
    assert lines[0].line[lines[0].line.index("--node-rank") + 1] == "1"


def test_what_to_start_on_the_other_nodes_is_told(folder, train, instead, caplog):
    instead("raise SystemExit(1)")
    message = "on 2 processes on each of 3 nodes has failed"
    with caplog.at_level(logging.INFO), pytest.raises(TrainingError, match=message):
        train(Torchrun(2, 3, "first:29400"))
    told = "torchrun --nnodes 3 --node-rank 1 --rdzv-backend static --rdzv-endpoint first:29400"
    assert f"{told} --nproc-per-node 2 -m rlnas.run.rank {folder.path}" in caplog.text


@pytest.mark.parametrize(
    ("cores", "nproc", "device", "threads"),
    [(16, 2, "cpu", 4), (2, 2, "cpu", 1), (16, 8, "cuda:0", 2), (1, 1, "cpu", 1)],
)
def test_processes_share_the_cores_that_the_baseline_leaves(monkeypatch, cores, nproc, device, threads):
    monkeypatch.setattr(torchrun, "available_cores", lambda: cores)
    assert threads_per_process(nproc, device) == threads


def test_more_processes_than_gpus_are_refused_before_any_work(world, monkeypatch, tmp_path):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    job = world.job(device="cuda:0", torchrun=Torchrun(3))
    with pytest.raises(DeviceError, match="process 2 of this node needs the GPU cuda:2, but there are 2"):
        run_job(job, tmp_path / "run", progress=False)
    assert not (tmp_path / "run").exists()
    check_devices(world.job(device="cuda:0", torchrun=TWO))
    check_devices(world.job(device="cuda:0"))


@pytest.mark.parametrize("processes", [Torchrun(2), Torchrun(4, 2, "first:29400")])
def test_a_run_is_not_resumed_on_other_processes(world, folder, processes):
    folder.open(world.job().settings(), resume=False)
    with pytest.raises(HistoryError, match=r"with torchrun=the default, not torchrun=. processes"):
        run_job(world.job(torchrun=processes), folder.path, resume=True, progress=False)


def test_a_run_may_go_on_where_its_nodes_meet_elsewhere(world):
    one, other = (
        world.job(torchrun=Torchrun(2, 2, f"{host}:29400")).settings() for host in ("first", "second")
    )
    assert one == other


def test_a_run_trains_by_torchrun_where_the_job_says_so(world, tmp_path, monkeypatch):
    asked = []

    def trained(job, processes, supernet, space, folder, *, progress):
        asked.append(processes)
        raise TrainingError("enough")

    monkeypatch.setattr(pipeline, "train_by_torchrun", trained)
    with pytest.raises(TrainingError, match="enough"):
        run_job(world.job(torchrun=TWO), tmp_path / "run", progress=False)
    assert asked == [TWO]
