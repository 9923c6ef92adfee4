"""Jobs that really run: launched by the command line, in processes that the stand-in starts and stops."""

from __future__ import annotations

import re
import time

import pytest
from deep_world import BUCKET, BUDGET, arguments_of

import rlnas.run.pipeline
from rlnas.cli import main
from rlnas.history import History

LAUNCH = (
    *("--name", "demo", "--bucket", BUCKET, "--role", "arn:aws:iam::123456789012:role/rlnas-job"),
    *("--image", "123456789012.dkr.ecr.eu-west-1.amazonaws.com/rlnas:1", "--instance-type", "ml.m5.large"),
)


@pytest.fixture
def without_delivery(monkeypatch):
    """Searches in this process end with their history."""
    monkeypatch.setattr(rlnas.run.pipeline, "deliver", lambda *_, **__: {})
    monkeypatch.setattr("rlnas.cli.search.show_result", lambda *_: None)


def launched(service, world, *flags, search=()):
    """The name of a job that has been launched."""
    before = set(service.jobs)
    assert main(["sagemaker", "launch", *LAUNCH, *flags, "--", *arguments_of(world), *search]) == 0
    (name,) = set(service.jobs) - before
    return name


def says(service, name, pattern):
    """The first match in what a job writes."""
    job = service.jobs[name]
    while job.status == "InProgress":
        for line in list(job.log):
            if match := re.search(pattern, line):
                return match
        time.sleep(0.02)
    raise AssertionError(job.log)


def outcomes(run):
    with History.read(run) as history:
        return [(trial.config, trial.reward, trial.metrics.accuracy) for trial in history.trials]


@pytest.mark.timeout(240)  # a process that loads torch on a busy machine
def test_a_job_that_is_stopped_leaves_a_run_that_goes_on_where_it_was(
    service, world, tmp_path, without_delivery, capsys
):
    """Two hosts; the run is fetched, and finished here."""
    name = launched(service, world, "--instance-count", "2")
    says(service, name, r"rlnas:trials=\d+;")
    assert main(["sagemaker", "stop", name]) == 0
    job = service.wait(name)
    assert (job.status, job.codes) == ("Stopped", [143, 143])
    assert main(["sagemaker", "fetch", name, "--out", str(tmp_path / "fetched")]) == 0
    kept = outcomes(tmp_path / "fetched")
    assert 0 < len(kept) <= BUDGET  # a quick machine may have judged all of them before the stop
    assert main(["sagemaker", "status", name]) == 0
    assert re.search(r"^rlnas:trials: \d+$", capsys.readouterr().out, re.MULTILINE)

    inputs = service.base(0) / "input" / "data"
    arguments = ["search", *arguments_of(world)]
    for flag, place in (
        ("--model", "model"),
        ("--task", "task"),
        ("--latency-table", "latency-table/latency-of-tiny-bert.json"),
    ):
        arguments[arguments.index(flag) + 1] = str(inputs / place)
    assert main([*arguments, "--out", str(tmp_path / "unbroken")]) == 0
    unbroken = outcomes(tmp_path / "unbroken")
    assert kept == unbroken[: len(kept)]
    assert main([*arguments, "--out", str(tmp_path / "fetched"), "--resume"]) == 0
    assert outcomes(tmp_path / "fetched") == unbroken
    assert len(unbroken) == BUDGET


def test_a_job_that_fails_says_why_and_other_hosts_end_too(service, world, capsys):
    name = launched(service, world, "--instance-count", "2", search=("--task", "channel:model/absent.csv"))
    job = service.wait(name)
    assert (job.status, job.codes) == ("Failed", [1, 0])
    assert main(["sagemaker", "status", name]) == 0
    told = capsys.readouterr().out
    assert "task=channel:model/absent.csv names a file that the channel does not hold: " in told


def test_a_second_job_on_the_same_run_is_refused(service, world, capsys):
    name = launched(service, world)
    assert main(["sagemaker", "launch", *LAUNCH, "--resume", "--", *arguments_of(world)]) == 2
    assert capsys.readouterr().err == (
        f"rlnas: error: the job {name} still works on the run demo; stop it first (rlnas sagemaker stop "
        f"{name}), or give another name (--name)\n"
    )
    assert list(service.jobs) == [name]
    service.vanish(name)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_later_job_ends_what_an_instance_that_vanished_has_begun(service, world, tmp_path, capsys):
    first = launched(service, world)
    says(service, first, r"rlnas:trials=\d+;")
    service.vanish(first)
    assert service.wait(first).secondary == "Interrupted"
    second = launched(service, world, "--resume", "--instance-count", "2")
    says(service, second, r"going on with snapshot-\d+.json of an earlier job")
    job = service.wait(second, 600)
    assert (job.status, job.codes) == ("Completed", [0, 0]), job.log
    assert main(["sagemaker", "fetch", second, "--out", str(tmp_path / "fetched")]) == 0
    assert main(["sagemaker", "status", second]) == 0
    assert re.search(r"^rlnas:latency_ratio: 0\.\d+$", capsys.readouterr().out, re.MULTILINE)
    third = launched(service, world, "--name", "unbroken")
    assert service.wait(third, 600).status == "Completed"
    assert main(["sagemaker", "fetch", third, "--out", str(tmp_path / "unbroken")]) == 0
    assert outcomes(tmp_path / "fetched") == outcomes(tmp_path / "unbroken")
    for name in ("config.json", "model.safetensors"):
        assert (service.base(0) / "model" / name).is_file()
        assert (tmp_path / "fetched" / "best" / name).is_file()
