from __future__ import annotations

import threading

import pytest

from benchmarks.sagemaker_stand_in import free_port
from rlnas.errors import ContainerError, ScaleError
from rlnas.sagemaker import helping as module
from rlnas.sagemaker import meeting
from rlnas.sagemaker.helping import Helper, help_first
from rlnas.sagemaker.hosts import Hosts
from rlnas.sagemaker.meeting import Meeting
from rlnas.sagemaker.ray_node import Head
from rlnas.sagemaker.sharing import Machine

PAIR = Hosts(("127.0.0.1", "127.0.0.2"), "127.0.0.2", "lo", "of the job")
RAY = {"ray": {"n_cpus": 2}}
TRAINING = {"training": {"nproc": 2, "device": "cpu"}}


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(module, "ASK_SECONDS", 0.01)


@pytest.fixture
def training(monkeypatch):
    """A process that ends as a test says in the place of the training; what it was started with."""
    told = []

    def replace(code):
        class Training:
            def __init__(self, *arguments):
                told.append(arguments)

            def wait(self, seconds):
                return code

            def failure(self, code):
                return f"no GPU here ({code})"

            def end(self):
                told.append("ended")

        monkeypatch.setattr(module, "Child", Training)
        return told

    return replace


def a_helper(**machine):
    return Helper(PAIR, 5, Machine(**machine), {"HOME": "/home"})


def test_a_host_joins_the_cluster_once(node, capfd):
    with a_helper(n_cpus=4, n_gpus=1) as helper:
        helper.follow({})
        assert node == []
        helper.follow(RAY)
        helper.follow(RAY)
        ((head, host, n_cpus, n_gpus),) = node
        assert head == Head.of(PAIR, 5)
        assert (host, n_cpus, n_gpus) == ("127.0.0.2", 2, 1)
    assert node[-1] == "closed"
    assert capfd.readouterr().out == "this host has joined the Ray cluster\n"


def test_a_cluster_that_cannot_be_joined_is_left_to_others(node, capfd, monkeypatch):
    monkeypatch.setattr(module.Node, "ready", ScaleError("another version"))
    with a_helper() as helper:
        helper.follow(RAY)
        helper.follow(RAY)
        assert helper.fault is None

    def absent(*_):
        raise ScaleError("Ray is not installed")

    monkeypatch.setattr(module, "Node", absent)
    with a_helper() as helper:
        helper.follow(RAY)
    assert capfd.readouterr().out == (
        "no worker runs here: another version\nno worker runs here: Ray is not installed\n"
    )


def test_a_host_trains_along_once(training, capfd):
    told = training(0)
    with a_helper() as helper:
        helper.follow(TRAINING)
        helper.follow(TRAINING)
        assert helper.fault is None
    arguments, environ, program = told[0]
    assert set(arguments) == {
        *("--nproc=2", "--nnodes=2", "--node-rank=1", "--rdzv-endpoint=127.0.0.1:6", "--device=cpu"),
    }
    assert environ == {"HOME": "/home", "GLOO_SOCKET_IFNAME": "lo", "NCCL_SOCKET_IFNAME": "lo"}
    assert program == "rlnas.run.node"
    assert told[1:] == ["ended"]
    assert capfd.readouterr().out == "this host trains along\nthe training is done here\n"


def test_what_goes_wrong_in_the_training_is_the_fault(training):
    training(2)
    with a_helper() as helper:
        helper.follow(TRAINING)
        helper.follow({})
        assert helper.fault == "no GPU here (2)"


def test_a_training_ends_with_the_host(training):
    told = training(None)
    with a_helper() as helper:
        helper.follow(TRAINING)
        assert told[-1] != "ended"
    assert told[-1] == "ended"


def test_a_host_helps_until_the_first_one_is_done(node, monkeypatch):
    port = free_port()
    with Meeting(PAIR, port) as first:
        thread = threading.Thread(target=help_first, args=(PAIR, port, Machine(), lambda: False, {}))
        thread.start()
        first.tell("ray", RAY["ray"])
        while not node:
            threading.Event().wait(0.01)
    thread.join(20)
    assert node[-1] == "closed"


def test_a_fault_is_told_to_the_first_host(training):
    training(2)
    port = free_port()
    with Meeting(PAIR, port) as first:
        thread = threading.Thread(target=help_first, args=(PAIR, port, Machine(), lambda: False, {}))
        thread.start()
        first.tell("training", TRAINING["training"])
        while not first.faults:
            threading.Event().wait(0.01)
    thread.join(20)
    assert first.faults == {"127.0.0.2": "no GPU here (2)"}


def test_a_host_that_is_stopped_ends(node):
    help_first(PAIR, free_port(), Machine(), lambda: True, {})


def test_a_first_host_that_never_comes_is_given_up(monkeypatch):
    monkeypatch.setattr(meeting.FirstHost.__init__, "__kwdefaults__", {"join_s": 0.0, "silence_s": 0.0})
    with pytest.raises(ContainerError, match="was not to be found at port"):
        help_first(PAIR, free_port(), Machine(), lambda: False, {})
