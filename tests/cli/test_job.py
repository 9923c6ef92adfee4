from __future__ import annotations

import importlib.util
import sys
from types import SimpleNamespace

import pytest

from rlnas.cli import main
from rlnas.cli.job import CONTROLLERS, make_controller, make_racing, make_torchrun, parse_precisions
from rlnas.controllers.evolution import EvolutionController
from rlnas.controllers.knapsack import KnapsackController
from rlnas.controllers.local import LocalSearchController
from rlnas.controllers.optuna import OptunaController
from rlnas.controllers.ppo import PPOController
from rlnas.controllers.random import RandomController
from rlnas.controllers.surrogate import AutoController, SurrogatePPOController
from rlnas.evaluation import Racing
from rlnas.run import Torchrun
from rlnas.run.folder import read_json
from rlnas.scale import Cluster, WorkerNeeds


def test_the_command_line_asks_for_the_same_as_python(world, finished):
    assert read_json(finished / "config.json") == world.job().settings()


def test_precisions_are_read_as_people_write_them():
    assert parse_precisions("float32, int8") == ("float32", "int8")
    assert parse_precisions(None) == ()


@pytest.mark.parametrize(
    ("precisions", "message"),
    [
        ("float32,int4", "a precision must be one of float32, .*, but got 'int4'"),
        ("bfloat16,int8", "dtype='float32', so precisions must hold it, but got bfloat16, int8; .*--dtype"),
    ],
)
def test_precisions_that_make_no_sense_are_refused_before_any_work(refused, tmp_path, precisions, message):
    refused(
        ["search", "--precisions", precisions, "--device", "cpu", "--out", str(tmp_path / "run")], message
    )
    assert not (tmp_path / "run").exists()


def test_controllers_by_name(tmp_path):
    named = {
        "evolution": EvolutionController(),
        "knapsack": KnapsackController(),
        "local": LocalSearchController(),
        "nsga2": OptunaController("nsga2"),
        "random": RandomController(),
        "tpe": OptunaController("tpe"),
    }
    assert {name: make_controller(name, tmp_path) for name in named} == named
    assert {*named, "ppo", "auto", "plain-ppo"} == set(CONTROLLERS)
    for name, kind in (("ppo", SurrogatePPOController), ("auto", AutoController)):
        learner = make_controller(name, tmp_path)
        assert type(learner) is kind
        assert learner.save_path == tmp_path / "policy"
    ppo = make_controller("plain-ppo", tmp_path)
    assert isinstance(ppo, PPOController)
    assert ppo.save_path == tmp_path / "controller.zip"
    assert ppo.log_dir == tmp_path / "ppo"


def test_a_controller_whose_package_is_absent_is_refused_before_any_work(monkeypatch, tmp_path, refused):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "optuna" else find(name))
    refused(
        ["search", "--controller", "tpe", "--out", str(tmp_path / "run")],
        r"sampler='tpe'\) needs optuna; install with: pip install 'rlnas\[optuna\]'",
    )
    assert not (tmp_path / "run").exists()


def test_a_run_knows_what_the_knapsack_needs(world, trained):
    assert main(world.arguments(trained, "--controller", "knapsack", "--budget", "8")) == 0
    assert read_json(trained / "summary.json")["n_trials"] == 8


def test_searches_do_not_race_unless_told(asked):
    assert main(["search"]) == 0
    assert main(["search", "--racing"]) == 0
    assert main(["search", "--racing", "--indifference", "1.5", "--seed", "3"]) == 0
    racings = [job.racing for job, _, _ in asked]
    assert racings == [None, Racing(), Racing(indifference=0.015, seed=3)]


@pytest.mark.parametrize(
    ("enabled", "points", "message"),
    [
        (False, 1.0, "--indifference=1 is for races only; add --racing, or drop it"),
        (False, 0.0, "--indifference=0 is for races only"),
        (True, -0.5, "--indifference=-0.5 must be at least 0 and less than 100 points of accuracy"),
        (True, 100.0, "--indifference=100 must be at least 0 and less than 100 points"),
        (True, float("nan"), "--indifference=nan must be at least 0"),
    ],
)
def test_an_indifference_that_cannot_be_is_refused(enabled, points, message):
    with pytest.raises(ValueError, match=message):
        make_racing(enabled, points, 0)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--indifference", "1"], "--indifference=1 is for races only; add --racing, or drop it$"),
        (
            ["--racing", "--indifference", "-1"],
            "--indifference=-1 must be at least 0 and less than 100 points",
        ),
        (
            ["--racing", "--reward", "latency-target-absolute"],
            "absolute=True.* also prices being faster than the target; run without --racing",
        ),
        (["--racing", "--metric", "f1"], "needs metric=accuracy, but the task 'reviews' has metric=f1"),
    ],
    ids=lambda value: value[-1] if isinstance(value, list) else "",
)
def test_a_race_that_cannot_be_is_refused_before_any_work(world, tmp_path, refused, flags, message):
    refused(world.arguments(tmp_path / "run", *flags), message)
    left = tmp_path / "run"
    assert not left.exists() or {path.name for path in left.iterdir()} <= {"config.json", "run.lock"}


def test_a_raced_run_ends_with_its_table(world, trained, capsys):
    assert main(world.arguments(trained, "--racing", "--indifference", "1", "--budget", "16")) == 0
    assert "The search judged 16 subnets on" in " ".join(capsys.readouterr().out.split())
    racing = read_json(trained / "summary.json")["evaluation"]["racing"]
    assert racing == {"confidence": 0.95, "indifference": 0.01}


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--workers", "4"], "--workers=4 needs a Ray cluster: add --ray local, or --ray ADDRESS"),
        (["--latency-resource", "edge"], "--latency-resource=edge needs a Ray cluster: add --ray local"),
        (["--worker-gpus", "0.5"], r"--worker-gpus=0\.5 needs a Ray cluster: add --ray local"),
        (
            ["--ray", "local", "--latency-device", "cuda"],
            "--latency-device=cuda is that of another node: say",
        ),
        (["--ray", "local", "--workers", "0"], "n_workers must be at least 1, but got n_workers=0"),
        (["--ray", "local", "--worker-cpus", "0"], "n_cpus must be at least 1, but got n_cpus=0"),
        (["--ray", "local"], r"Ray is not installed; pip install 'rlnas\[ray\]'"),
    ],
)
def test_workers_that_cannot_be_are_refused_before_any_work(
    world, tmp_path, refused, monkeypatch, flags, message
):
    monkeypatch.setitem(sys.modules, "ray", None)
    refused(world.arguments(tmp_path / "run", *flags), message)
    assert not (tmp_path / "run").exists()


def test_a_cluster_that_is_not_there_is_refused_before_any_work(world, tmp_path, refused, monkeypatch):
    def init(address, **_):
        raise ConnectionError(f"nothing at {address}")

    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace(is_initialized=lambda: False, init=init))
    message = "no Ray cluster at 'ray://no:1': nothing at ray://no:1; start one"
    refused(world.arguments(tmp_path / "run", "--ray", "ray://no:1"), message)
    assert not (tmp_path / "run").exists()


def test_workers_as_they_are_asked_for(asked):
    needs = ("--worker-cpus", "2", "--worker-gpus", "0.5")
    there = ("--latency-resource", "edge", "--latency-device", "cuda")
    assert main(["search", "--ray", "auto", "--workers", "3", *needs, *there]) == 0
    assert main(["search", "--ray", "local"]) == 0
    assert main(["search"]) == 0
    timed_there = asked[0][0].workload
    assert timed_there.dtype == "bfloat16"  # as is usual on the device that will serve
    expected = Cluster("auto", 3, WorkerNeeds(n_cpus=2, n_gpus=0.5), "edge", "cuda")
    assert [job.cluster for job, _, _ in asked] == [expected, Cluster(), None]


def test_processes_by_their_numbers():
    assert make_torchrun(None, None, None) is None
    assert make_torchrun(2, None, None) == Torchrun(2)
    assert make_torchrun(2, 3, "first:29400") == Torchrun(2, 3, "first:29400")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--nnodes", "2"], "--nnodes=2 goes with processes on each node; add --nproc"),
        (["--rdzv-endpoint", "a:1"], "--rdzv-endpoint=a:1 goes with processes on each node; add --nproc"),
        (["--nproc", "0"], "nproc must be at least 1, but got nproc=0"),
    ],
)
def test_processes_that_make_no_sense_are_refused_before_any_work(refused, tmp_path, flags, message):
    refused(["search", *flags, "--device", "cpu", "--out", str(tmp_path / "run")], message)
    assert not (tmp_path / "run").exists()
