from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys

import pytest

from benchmarks.sagemaker_stand_in import free_port
from rlnas.cli.sagemaker import search_flags
from rlnas.history import History
from rlnas.metrics import Metrics
from rlnas.sagemaker import meeting
from rlnas.sagemaker import training as module
from rlnas.sagemaker.checkpoints import read_snapshots, restore
from rlnas.sagemaker.contract import Container
from rlnas.sagemaker.sharing import Machine
from rlnas.sagemaker.training import deliver, train
from rlnas.space import LayerConfig, SubnetConfig
from rlnas.trial import Trial

FLAGS = search_flags()


@pytest.fixture
def base(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "POLL_SECONDS", 0.01)
    config = tmp_path / "ml" / "input" / "config"
    config.mkdir(parents=True)
    (config / "hyperparameters.json").write_text('{"budget": "3"}')
    return tmp_path / "ml"


def tell(base, name, content):
    (base / "input" / "config" / f"{name}.json").write_text(json.dumps(content))


def environ_of(base, **more):
    return {"SAGEMAKER_BASE_DIR": str(base), "RLNAS_SAGEMAKER_PORT": str(free_port()), **more}


@pytest.fixture
def searching(base, monkeypatch):
    """Puts a search into the place of the real one, whose steps are functions of its run folder.

    A step returns None while the search goes on, or its exit code. Returns what searches were started with.
    """
    started, ended = [], []

    def with_steps(*steps):
        class Search:
            def __init__(self, arguments, environ):
                started.append(list(arguments))
                self.steps = iter(steps)

            def wait(self, seconds):
                return next(self.steps)(base / "run")

            def end(self):
                ended.append(True)

            def failure(self, code):
                return f"it ended with {code}"

        monkeypatch.setattr(module, "Child", Search)
        return started, ended

    return with_steps


def write_batch(run):
    """What a search leaves after its first batch."""
    run.mkdir(exist_ok=True)
    (run / "config.json").write_text("{}")
    with History.open(run, {}, resume=True) as history:
        number = len(history.trials)
        config = SubnetConfig((LayerConfig(number + 1, 4),))
        history.append([Trial(number, config, Metrics(accuracy=0.5, latency_ms=1.0), 0.25)])


def test_a_search_begins_with_the_job_s_arguments_and_is_published_as_it_goes(base, searching, capfd):
    started, _ = searching(write_batch, write_batch, lambda run: 2)
    assert train(FLAGS, environ_of(base)) == 1
    assert started == [["search", "--budget=3", "--out", str(base / "run"), "--resume"]]
    assert restore(base / "checkpoints", base / "back").number >= 1
    with History.read(base / "back") as history:
        assert len(history.trials) == 2
    told = capfd.readouterr().out
    assert "rlnas:trials=1; rlnas:best_reward=0.25; rlnas:best_accuracy=0.5;" in told
    assert (base / "output" / "failure").read_text() == "it ended with 2"


def test_what_watches_a_search_loads_nothing_heavy():
    """What it does shows in the time by which latencies are measured."""
    program = (
        "import sys, rlnas.sagemaker.training; print({'torch', 'transformers', 'ray'} & set(sys.modules))"
    )
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert found.stdout == "set()\n"


def test_sigterm_ends_the_search_and_saves_what_it_has(base, searching, capfd):
    before = signal.getsignal(signal.SIGTERM)

    def interrupted(run):
        write_batch(run)
        os.kill(os.getpid(), signal.SIGTERM)

    _, ended = searching(interrupted)
    assert train(FLAGS, environ_of(base)) == 143
    assert ended
    assert signal.getsignal(signal.SIGTERM) is before
    assert "history.sqlite" in read_snapshots(base / "checkpoints")[0].files
    assert not (base / "output" / "failure").exists()
    assert "stopped; what was scored is in the checkpoints" in capfd.readouterr().out


def test_a_later_job_goes_on_where_the_checkpoints_are(base, searching, capfd):
    searching(write_batch, lambda run: 2)
    train(FLAGS, environ_of(base))
    shutil.rmtree(base / "run")

    def check(run):
        with History.read(run) as history:
            assert len(history.trials) == 1
        return 2

    searching(check)
    train(FLAGS, environ_of(base))
    assert "going on with snapshot-" in capfd.readouterr().out


def test_a_failure_in_the_container_itself_is_told_too(base, searching):
    started, _ = searching()
    tell(base, "hyperparameters", {"bugdet": "3"})
    assert train(FLAGS, environ_of(base)) == 1
    assert (base / "output" / "failure").read_text().startswith("the hyper-parameter bugdet=3 is none of")
    tell(base, "resourceconfig", {"hosts": ["a"], "current_host": "b"})
    assert train(FLAGS, environ_of(base)) == 1
    assert "current_host='b' is none of the hosts" in (base / "output" / "failure").read_text()
    assert started == []


def test_a_search_that_a_stop_ends_before_us_was_stopped(base, searching):
    def stopped(run):
        os.kill(os.getpid(), signal.SIGTERM)
        return -15

    searching(stopped)
    assert train(FLAGS, environ_of(base)) == 143
    assert not (base / "output" / "failure").exists()


def test_a_search_that_ended_well_despite_a_stop_is_done(base, searching, monkeypatch):
    def done(run):
        os.kill(os.getpid(), signal.SIGTERM)
        return 0

    delivered = []
    monkeypatch.setattr(module, "deliver", delivered.append)
    searching(done)
    assert train(FLAGS, environ_of(base)) == 0
    assert len(delivered) == 1


def test_whatever_goes_wrong_leaves_its_reason(base, searching, capfd):
    def fail(run):
        raise RecursionError("too deep \udce4")

    searching(fail)
    assert train(FLAGS, environ_of(base)) == 1
    assert (base / "output" / "failure").read_text() == "RecursionError: too deep ?"
    assert "rlnas: error: RecursionError: too deep ?" in capfd.readouterr().out


@pytest.mark.parametrize("port", ["0", "65534", "²", "http"])
def test_a_port_that_is_none_is_refused(base, port):
    assert train(FLAGS, environ_of(base, RLNAS_SAGEMAKER_PORT=port)) == 1
    reason = (base / "output" / "failure").read_text()
    assert reason == f"RLNAS_SAGEMAKER_PORT must be a port from 1 to 65533, but is '{port}'"


def test_other_hosts_help_and_search_nothing(base, searching, monkeypatch):
    hosts = ["127.0.0.1", "127.0.0.2"]
    tell(base, "resourceconfig", {"hosts": hosts, "current_host": hosts[1]})
    helped, environ = [], environ_of(base, SM_NUM_CPUS="8", SM_NUM_GPUS="0")
    monkeypatch.setattr(module, "help_first", lambda *told: helped.append(told))
    started, _ = searching()
    assert train(FLAGS, environ) == 0
    ((told, port, machine, stopped, _),) = helped
    assert (told.rank, port, machine) == (1, int(environ["RLNAS_SAGEMAKER_PORT"]), Machine(8, 0))
    assert not stopped()
    monkeypatch.setattr(module, "help_first", lambda *_: os.kill(os.getpid(), signal.SIGTERM))
    assert train(FLAGS, environ) == 143
    assert started == []


@pytest.fixture
def several(base, monkeypatch):
    """A job of two hosts whose cluster and meeting stand still."""
    tell(base, "resourceconfig", {"hosts": ["127.0.0.1", "127.0.0.2"], "current_host": "127.0.0.1"})
    monkeypatch.setattr("rlnas.sagemaker.leading.Node", Ready)
    for name in ("FAILED_SECONDS", "LEAVE_SECONDS", "JOIN_SECONDS"):
        monkeypatch.setattr(meeting, name, 0.0)
    monkeypatch.setattr("rlnas.sagemaker.leading.ROLL_CALL_SECONDS", 0.0)


class Ready:
    """A node of Ray that is there."""

    def __init__(self, *_):
        pass

    def is_ready(self, seconds):
        return True

    def close(self):
        pass


@pytest.mark.usefixtures("several")
def test_a_search_of_several_hosts_is_told_of_them(base, searching):
    started, _ = searching(lambda run: 2)
    assert train(FLAGS, environ_of(base, SM_NUM_CPUS="2", SM_NUM_GPUS="0")) == 1
    (arguments,) = started
    assert {"--workers=3", "--nproc=1", "--nnodes=2"} < set(arguments)
    assert arguments.index("--budget=3") < arguments.index("--workers=3")
    assert (base / "output" / "failure").read_text() == "it ended with 2"


def begin_training(run):
    write_batch(run)
    (run / "training.json").write_text('{"job": {"device": "cpu"}}')


@pytest.mark.usefixtures("several")
def test_a_training_that_loses_a_host_ends_the_job_with_one_sentence(base, searching):
    searching(begin_training, lambda run: 1)
    assert train(FLAGS, environ_of(base)) == 1
    reason = (base / "output" / "failure").read_text()
    assert reason.startswith("the training on 2 hosts has failed: the host 127.0.0.2 was lost; launch the")
    assert read_snapshots(base / "checkpoints")


@pytest.mark.usefixtures("several")
def test_a_training_that_would_hang_without_a_host_is_ended(base, searching, monkeypatch):
    monkeypatch.setattr(meeting.Meeting, "silent", lambda *_: ("127.0.0.2",))
    _, ended = searching(begin_training)
    assert train(FLAGS, environ_of(base)) == 1
    assert ended
    assert "the host 127.0.0.2 was lost" in (base / "output" / "failure").read_text()


@pytest.mark.usefixtures("several")
def test_a_stop_that_other_hosts_hear_first_is_no_failure(base, searching):
    def lost(run):
        os.kill(os.getpid(), signal.SIGTERM)
        return 1

    searching(begin_training, lost)
    assert train(FLAGS, environ_of(base)) == 143
    assert not (base / "output" / "failure").exists()


def test_what_a_finished_run_has_made_is_put_where_sagemaker_looks(tmp_path, base, capfd, monkeypatch):
    run = base / "run"
    for name in ("best/config.json", "summary.json", "report.html", "history.sqlite"):
        (run / name).parent.mkdir(parents=True, exist_ok=True)
        (run / name).write_text(name)
    summary = {"best": {"accuracy": 0.75}, "latency_ratio": 0.5}
    monkeypatch.setattr(module, "read_summary", lambda _: summary)
    deliver(Container.read(environ_of(base)))
    assert [path.name for path in (base / "model").iterdir()] == ["config.json"]
    assert {path.name for path in (base / "output" / "data").iterdir()} == {"summary.json", "report.html"}
    assert capfd.readouterr().out == "rlnas:accuracy=0.75; rlnas:latency_ratio=0.5;\n"


def test_each_target_has_a_folder_of_its_own(base, monkeypatch):
    run = base / "run"
    entries = [
        {"folder": f"models/{r}", "best": {"accuracy": 0.7}, "latency_ratio": r} for r in (0.25, 0.5)
    ]
    for name in (*(f"{entry['folder']}/config.json" for entry in entries), "summary.json", "report.html"):
        (run / name).parent.mkdir(parents=True, exist_ok=True)
        (run / name).write_text(name)
    monkeypatch.setattr(module, "read_summary", lambda _: {"targets": entries})
    deliver(Container.read(environ_of(base)))
    assert sorted(path.name for path in (base / "model").iterdir()) == ["0.25", "0.5"]


def test_a_model_that_cannot_be_delivered_is_an_error_of_ours(base, searching, monkeypatch):
    searching(lambda run: 0)
    assert train(FLAGS, environ_of(base)) == 1
    assert "holds no summary.json, so there is no finished run" in (base / "output" / "failure").read_text()
    monkeypatch.setattr(module, "read_summary", lambda _: {"best": {}, "latency_ratio": 1})
    searching(lambda run: 0)
    assert train(FLAGS, environ_of(base)) == 1
    assert "cannot deliver the model of" in (base / "output" / "failure").read_text()
