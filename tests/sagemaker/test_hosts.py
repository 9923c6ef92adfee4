from __future__ import annotations

import socket
import threading
import time
from contextlib import ExitStack, suppress

import pytest

from benchmarks.sagemaker_stand_in import free_port
from rlnas.errors import ContainerError
from rlnas.sagemaker import hosts as module
from rlnas.sagemaker.hosts import Hosts, Meeting, wait_for_first

PAIR = Hosts(("127.0.0.1", "127.0.0.2"), "127.0.0.2")
OTHERS = PAIR.others


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(module, "BEAT_SECONDS", 0.05)


@pytest.fixture
def waiting():
    """Starts another host; gives what it ends with."""
    threads = []

    def start(port, *, stopped=lambda: False, **seconds):
        ends = []

        def wait():
            try:
                wait_for_first(PAIR, port, stopped, **seconds)
                ends.append("done")
            except ContainerError as error:
                ends.append(str(error))

        threads.append(threading.Thread(target=wait))
        threads[-1].start()
        return lambda: (threads[-1].join(20), ends)[1]

    yield start
    for thread in threads:
        thread.join(20)


def test_hosts_are_in_the_order_of_their_numbers():
    hosts = Hosts(("algo-10", "algo-2", "algo-1"), "algo-10")
    assert hosts.names == ("algo-1", "algo-2", "algo-10")
    assert (hosts.rank, hosts.first, hosts.is_first) == (2, "algo-1", False)
    assert hosts.others == ("algo-2", "algo-10")
    assert Hosts(("b", "a"), "a").is_first


def test_a_host_that_is_not_among_the_hosts_is_refused():
    with pytest.raises(ContainerError, match=r"current_host='algo-3' is none of the hosts algo-1, algo-2"):
        Hosts(("algo-1", "algo-2"), "algo-3")
    with pytest.raises(ContainerError, match=r"is none of the hosts \(none\)"):
        Hosts((), "algo-1")


def test_others_wait_until_the_first_is_done(waiting):
    port = free_port()
    with Meeting(OTHERS, port):
        end = waiting(port, silence_s=1.0)
        time.sleep(1.5)  # longer than the silence that is borne: it is heard from
    assert end() == ["done"]


def test_a_first_host_that_is_done_early_waits_for_those_that_start_late(waiting):
    port = free_port()
    ends = []

    def late():
        time.sleep(0.5)
        ends.append(waiting(port))

    thread = threading.Thread(target=late)
    thread.start()
    with Meeting(OTHERS, port):
        pass
    thread.join()
    assert ends[0]() == ["done"]


@pytest.fixture
def without_waiting(monkeypatch):
    """A wait of the first host for others, which would take `JOIN_SECONDS`, is a failure."""
    monkeypatch.setattr(module.time, "sleep", lambda _: pytest.fail("waited"))


@pytest.mark.usefixtures("without_waiting")
def test_a_first_host_that_is_cut_short_waits_for_nobody():
    with pytest.raises(ValueError, match="broken"), Meeting(OTHERS, free_port()):
        raise ValueError("broken")
    with Meeting(OTHERS, free_port()) as meeting:
        meeting.ends_at_once = True
    with Meeting(OTHERS, free_port(), join_s=0.0):
        pass
    with Meeting(OTHERS, free_port(), lambda: True):
        pass


def test_who_is_no_host_of_the_job_is_turned_away(waiting, monkeypatch):
    monkeypatch.setattr(module, "GREETING_SECONDS", 1.0)
    port = free_port()
    with Meeting(OTHERS, port) as meeting:
        with socket.create_connection(("127.0.0.1", port), timeout=20) as probe:
            probe.sendall(b"GET / HTTP/1.1")
            with suppress(ConnectionResetError):
                assert probe.recv(64) == b""
        silent = socket.create_connection(("127.0.0.1", port), timeout=20)
        end = waiting(port)
        while not meeting._connections:
            threading.Event().wait(0.01)
        assert set(meeting._connections) == {"127.0.0.2"}
    assert end() == ["done"]
    silent.close()


def test_a_host_that_comes_twice_counts_once():
    port = free_port()
    with Meeting(("a", "b"), port, join_s=0.5) as meeting, ExitStack() as connections:
        for _ in range(2):
            connection = socket.create_connection(("127.0.0.1", port), timeout=20)
            connections.enter_context(connection).sendall(b"a\n")
            assert connection.recv(1) == b"."
        assert set(meeting._connections) == {"a"}


def test_a_job_of_one_host_opens_no_port(monkeypatch):
    monkeypatch.setattr(socket, "create_server", lambda *_, **__: pytest.fail("opened"))
    with Meeting(()):
        pass


def test_a_port_that_is_taken_is_named():
    with (
        socket.create_server(("", 0)) as taken,
        pytest.raises(
            ContainerError, match=r"cannot meet at port \d+: .*; name another \(RLNAS_SAGEMAKER_P"
        ),
    ):
        Meeting(OTHERS, taken.getsockname()[1])


def test_a_first_host_that_never_comes_is_given_up(waiting):
    (end,) = waiting(free_port(), join_s=0.3)()
    assert "the first host, 127.0.0.1, was not to be found at port" in end
    assert "need a security group that lets them talk" in end


@pytest.mark.parametrize("how", ["closes", "is silent"])
def test_a_first_host_that_goes_without_a_word_is_noticed(waiting, how):
    with socket.create_server(("", 0)) as server:
        end = waiting(server.getsockname()[1], silence_s=0.5)
        connection, _ = server.accept()
        assert connection.recv(64) == b"127.0.0.2\n"
        if how == "closes":
            connection.close()
        assert end() == ["the first host, 127.0.0.1, went without a word; see its log"]
        connection.close()


def test_a_host_that_is_stopped_stops_waiting(waiting):
    asked = []
    with socket.create_server(("", 0)) as server:
        end = waiting(server.getsockname()[1], stopped=lambda: bool(asked))
        connection, _ = server.accept()
        asked.append(True)
        assert end() == ["done"]
        connection.close()
    assert waiting(free_port(), stopped=lambda: True)() == ["done"]
