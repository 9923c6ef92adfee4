from __future__ import annotations

import socket
import threading
import time

import pytest

from benchmarks.sagemaker_stand_in import free_port
from rlnas.errors import ContainerError
from rlnas.sagemaker import hosts as module
from rlnas.sagemaker.hosts import Hosts, Meeting, wait_for_first

PAIR = Hosts(("127.0.0.1", "127.0.0.2"), "127.0.0.2")


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
    assert Hosts(("b", "a"), "a").is_first


def test_a_host_that_is_not_among_the_hosts_is_refused():
    with pytest.raises(ContainerError, match=r"current_host='algo-3' is none of the hosts algo-1, algo-2"):
        Hosts(("algo-1", "algo-2"), "algo-3")
    with pytest.raises(ContainerError, match=r"is none of the hosts \(none\)"):
        Hosts((), "algo-1")


def test_others_wait_until_the_first_is_done(waiting):
    port = free_port()
    with Meeting(1, port):
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
    with Meeting(1, port):
        pass
    thread.join()
    assert ends[0]() == ["done"]


def test_a_first_host_that_is_cut_short_waits_for_nobody():
    begun = time.monotonic()
    with pytest.raises(ValueError, match="broken"), Meeting(1, free_port()):
        raise ValueError("broken")
    with Meeting(1, free_port()) as meeting:
        meeting.ends_at_once = True
    with Meeting(1, free_port(), join_s=0.1):
        pass
    assert time.monotonic() - begun < 60  # and not two times JOIN_SECONDS


def test_a_job_of_one_host_opens_no_port(monkeypatch):
    monkeypatch.setattr(socket, "create_server", lambda *_, **__: pytest.fail("opened"))
    with Meeting(0):
        pass


def test_a_port_that_is_taken_is_named():
    with (
        socket.create_server(("", 0)) as taken,
        pytest.raises(
            ContainerError, match=r"cannot meet at port \d+: .*; name another \(RLNAS_SAGEMAKER_P"
        ),
    ):
        Meeting(1, taken.getsockname()[1])


def test_a_first_host_that_never_comes_is_given_up(waiting):
    (end,) = waiting(free_port(), join_s=0.3)()
    assert "the first host, 127.0.0.1, was not to be found at port" in end
    assert "need a security group that lets them talk" in end


@pytest.mark.parametrize("how", ["closes", "is silent"])
def test_a_first_host_that_goes_without_a_word_is_noticed(waiting, how):
    with socket.create_server(("", 0)) as server:
        end = waiting(server.getsockname()[1], silence_s=0.5)
        connection, _ = server.accept()
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
