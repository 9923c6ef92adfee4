from __future__ import annotations

import sys

import pytest

import rlnas.run.choice
from rlnas.cli import main
from rlnas.run.folder import read_json
from rlnas.workload import Workload


@pytest.mark.parametrize(("device", "dtype"), [("cpu", "float32"), ("cuda:0", "bfloat16")])
def test_the_number_format_is_that_of_the_device(asked, monkeypatch, device, dtype):
    monkeypatch.setattr("rlnas.latency.resolve_device", lambda name: device)
    assert main(["search"]) == 0
    assert main(["search", "--dtype", "float16"]) == 0
    assert [job.workload.dtype for job, _, _ in asked] == [dtype, "float16"]
    assert asked[0][0].device == device


def test_the_workload_is_what_the_flags_say(asked):
    assert main(["search", "--device", "cpu"]) == 0
    assert main(["search", "--device", "cpu", "--mode", "compiled", "--statistic", "p99"]) == 0
    assert main(["search", "--device", "cpu", "--lengths", "16:2,300", "--batch-size", "4"]) == 0
    assert main(["search", "--device", "cpu", "--lengths", "16,32", "--seq-len", "64"]) == 0
    assert main(["search", "--device", "cpu", "--lengths", "task"]) == 0
    jobs = [job for job, _, _ in asked]
    assert [job.workload for job in jobs] == [
        Workload(),
        Workload(mode="compiled", statistic="p99"),
        Workload(4, 300, lengths=(16, 16, 300)),
        Workload(1, 64, lengths=(16, 32)),
        Workload(),
    ]
    assert [job.lengths_from_task for job in jobs] == [False, False, False, False, True]


def test_the_tail_of_a_tasks_lengths_is_refused_before_the_task_is_read(tmp_path, refused):
    flags = ("--device", "cpu", "--lengths", "task", "--statistic", "p99", "--out", tmp_path / "run")
    message = "--statistic=p99 is for texts of one length, so --lengths=task does not go with it; give the"
    refused(["search", "--task", "no-such-task", "--model", "no/such", *flags], message)
    assert not (tmp_path / "run").exists()


def test_onnx_runtime_on_a_gpu_takes_a_format_that_it_knows(asked, monkeypatch):
    monkeypatch.setattr("rlnas.latency.resolve_device", lambda name: "cuda:0")
    monkeypatch.setattr("rlnas.runtime.check_mode", lambda *_: None)
    assert main(["search", "--mode", "onnxruntime"]) == 0
    assert asked[0][0].workload.dtype == "float16"


def test_a_run_with_the_lengths_of_its_task_is_resumed_as_one(world, trained, monkeypatch):
    # Many requests take their time.
    monkeypatch.setitem(sys.modules["rlnas.deploy.certify"].MAX_SECONDS, "median", 0.1)
    monkeypatch.setattr(rlnas.run.choice, "MAX_SECONDS", 0.1)
    arguments = world.arguments(trained, "--lengths", "task", "--allow-foreign-table", "--budget", "16")
    assert main(arguments) == 0
    lengths = read_json(trained / "summary.json")["workload"]["lengths"]
    assert len(lengths) == 64
    (trained / "summary.json").unlink()
    assert main([*arguments, "--resume"]) == 0
    assert read_json(trained / "summary.json")["workload"]["lengths"] == lengths


def test_texts_longer_than_the_checkpoint_takes(world, tmp_path, refused):
    flags = ("--seq-len", "512", "--allow-foreign-table")
    refused(world.arguments(tmp_path / "run", *flags), "positions for 64 tokens .* seq_len=512")
