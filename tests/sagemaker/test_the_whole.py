"""Jobs that really run: launched by the command line, in processes that the stand-in starts and stops."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import time

import pytest
from deep_world import BUCKET, BUDGET, arguments_of

import rlnas.run.pipeline
from benchmarks.sagemaker_stand_in import GRACE_SECONDS
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


def arguments_of_job(service, world):
    """Those of its search, on the inputs of the first host."""
    inputs = service.base(0) / "input" / "data"
    arguments = ["search", *arguments_of(world)]
    for flag, place in (
        ("--model", "model"),
        ("--task", "task"),
        ("--latency-table", "latency-table/latency-of-tiny-bert.json"),
    ):
        arguments[arguments.index(flag) + 1] = str(inputs / place)
    return arguments


def outcomes(run):
    with History.read(run) as history:
        return [(trial.config, trial.reward, trial.metrics.accuracy) for trial in history.trials]


@pytest.mark.timeout(240)  # a process that loads torch on a busy machine
def test_a_job_that_is_stopped_leaves_a_run_that_goes_on_where_it_was(
    service, world, tmp_path, without_delivery, capsys
):
    """The run is fetched, and finished here."""
    name = launched(service, world)
    says(service, name, r"rlnas:trials=\d+;")
    assert main(["sagemaker", "stop", name]) == 0
    job = service.wait(name)
    assert (job.status, job.codes) == ("Stopped", [143])
    assert main(["sagemaker", "fetch", name, "--out", str(tmp_path / "fetched")]) == 0
    kept = outcomes(tmp_path / "fetched")
    assert 0 < len(kept) <= BUDGET  # a quick machine may have judged all of them before the stop
    assert main(["sagemaker", "status", name]) == 0
    assert re.search(r"^rlnas:trials: \d+$", capsys.readouterr().out, re.MULTILINE)

    arguments = arguments_of_job(service, world)
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


needs_ray = pytest.mark.skipif(
    importlib.util.find_spec("ray") is None, reason="Ray is not installed: pip install 'rlnas[ray]'"
)
TRAINING = ("--full-epochs", "1", "--epochs", "5", "--budget", "100")


@needs_ray
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_two_hosts_find_what_one_finds_with_as_many_processes(service, world, tmp_path, without_delivery):
    """The one worker needs all cores, and the first host keeps half of them: the second one judges."""
    n_cores = len(os.sched_getaffinity(0))
    if n_cores == 1:
        pytest.skip("with one core, either host has room for the worker")
    workers = ("--workers", "1", "--worker-cpus", str(n_cores))
    name = launched(service, world, "--instance-count", "2", search=(*TRAINING, *workers))
    job = service.wait(name, 600)
    assert (job.status, job.codes) == ("Completed", [0, 0]), job.log
    for line in ("this host has joined the Ray cluster", "the training is done here"):
        assert line in job.log
    assert any("1 workers, depth first" in line for line in job.log)
    assert main(["sagemaker", "fetch", name, "--out", str(tmp_path / "fetched")]) == 0
    alone = [*arguments_of_job(service, world), *TRAINING, "--nproc", "2"]
    assert main([*alone, "--out", str(tmp_path / "alone")]) == 0
    assert outcomes(tmp_path / "fetched") == outcomes(tmp_path / "alone")


@needs_ray
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_host_that_dies_in_the_training_is_named_and_a_later_job_goes_on(
    service, world, tmp_path, capsys
):
    """The later job is stopped: its hosts end within the time that SageMaker gives."""
    first = launched(service, world, "--instance-count", "2", search=TRAINING)
    says(service, first, "this host trains along")
    service.lose(first, 1)
    job = service.wait(first, 300)
    assert job.status == "Failed"
    assert job.codes[0] == 1
    assert main(["sagemaker", "status", first]) == 0
    told = (
        "the training on 2 hosts has failed: the host 127.0.0.2 was lost; launch the job again with --res"
    )
    assert told in capsys.readouterr().out

    second = launched(service, world, "--instance-count", "2", "--resume", search=TRAINING)
    says(service, second, r"going on with snapshot-\d+.json of an earlier job")
    says(service, second, r"rlnas:trials=\d+;")
    assert main(["sagemaker", "stop", second]) == 0
    job = service.wait(second, GRACE_SECONDS)
    assert (job.status, job.codes) == ("Stopped", [143, 143])
    assert main(["sagemaker", "fetch", second, "--out", str(tmp_path / "fetched")]) == 0
    assert outcomes(tmp_path / "fetched")


@needs_ray
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_search_goes_on_without_a_host_that_dies(service, world):
    name = launched(service, world, "--instance-count", "2", search=("--nproc", "1", "--nnodes", "1"))
    says(service, name, r"rlnas:trials=\d+;")
    service.lose(name, 1)
    job = service.wait(name, 600)
    assert job.codes[0] == 0, job.log
    assert any(line.startswith(f"rlnas:trials={BUDGET};") for line in job.log)


@needs_ray
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


def tuned(service, world, *flags):
    """The name of a tuning job of short searches; what it tries out is not fixed."""
    fixed = [text for text in arguments_of(world) if text not in ("--controller", "random")]
    assert main(["sagemaker", "tune", *LAUNCH, *flags, "--", *fixed, "--budget", "32"]) == 0
    return list(service.tuning_jobs)[-1]


TRIED = ("--strategy", "Random", "--range", "seed=0:1000", "--choice", "controller=random,evolution")


def nth(tuning, number):
    """A training job of a tuning job, once it has begun."""
    while len(tuning.tries) < number and tuning.status == "InProgress":
        time.sleep(0.02)
    return tuning.tries[number - 1]


@pytest.mark.timeout(480)  # two such processes, one after the other
def test_jobs_of_a_tuning_job_do_not_go_on_with_each_other_s_checkpoints(service, world, tmp_path, capsys):
    """The second one is given those of the first; then the tuning job is stopped."""
    name = tuned(service, world, *TRIED, "--max-jobs", "3", "--max-parallel", "1")
    tuning = service.tuning_jobs[name]
    first = nth(tuning, 1)
    says(service, first.job.name, r"rlnas:trials=\d+;")
    assert main(["sagemaker", "stop", first.job.name]) == 0
    second = nth(tuning, 2)
    says(service, second.job.name, r"rlnas:trials=\d+;")
    given = service.base(0, second.job.slot) / "checkpoints" / first.job.name
    assert list(given.glob("snapshot-*.json"))
    assert not any("going on with" in line for line in second.job.log)
    assert main(["sagemaker", "stop", name]) == 0
    tuning.wait()
    assert tuning.status == "Stopped"
    assert len(tuning.tries) == 2

    runs = []
    for one in (first, second):
        out = tmp_path / one.job.name
        assert main(["sagemaker", "fetch", one.job.name, "--out", str(out)]) == 0
        assert json.loads((out / "config.json").read_text())["seed"] == one.settings["seed"]
        runs.append([config for config, *_ in outcomes(out)])
    assert runs[0][:16] != runs[1][:16]
    capsys.readouterr()
    assert main(["sagemaker", "status", name]) == 0
    told = capsys.readouterr().out
    for one in (first, second):
        settings = f"--controller={one.settings['controller']} --seed={one.settings['seed']}"
        assert re.search(
            rf"^{one.job.name}: Stopped, rlnas:best_reward \S+ with {settings}$", told, re.MULTILINE
        )
    assert main(["sagemaker", "logs", second.job.name]) == 0
    assert re.search(r"^rlnas:trials=\d+; rlnas:best_reward=", capsys.readouterr().out, re.MULTILINE)
    assert main(["sagemaker", "fetch", name, "--out", str(tmp_path / "best")]) == 2
    assert f"no training job of {name} has been completed yet; name one of them" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_tuning_job_from_its_launch_to_the_certificate_of_its_best_run(service, world, tmp_path, capsys):
    name = tuned(service, world, *TRIED, "--max-jobs", "3", "--max-parallel", "2")
    tuning = service.tuning_jobs[name]
    tuning.wait(600)
    assert tuning.status == "Completed"
    values = {one.job.name: one.job.metrics()["rlnas:best_reward"] for one in tuning.tries}
    best = max(values, key=values.get)
    capsys.readouterr()
    assert main(["sagemaker", "status", name]) == 0
    told = capsys.readouterr().out
    assert f"\nbest: {best}, Completed, rlnas:best_reward {values[best]:g} with --controller=" in told
    assert len(re.findall(rf"^{name}-00\d-[0-9a-f]{{8}}: Completed, ", told, re.MULTILINE)) == 3
    assert main(["sagemaker", "logs", name]) == 0
    assert re.search(rf"rlnas:best_reward={values[best]:g};", capsys.readouterr().out)
    run = tmp_path / "best"
    assert main(["sagemaker", "fetch", name, "--out", str(run)]) == 0
    assert f"{best}, the best so far: the run as of snapshot-" in capsys.readouterr().out
    assert max(reward for _, reward, _ in outcomes(run)) == pytest.approx(values[best], rel=1e-4)
    assert main(["report", str(run)]) == 0
    assert main(["certify", str(run)]) in (0, 1)  # whether the target is met, as this machine measures it
    assert re.search(r"^latency +0\.\d+ of the baseline's", capsys.readouterr().out, re.MULTILINE)
