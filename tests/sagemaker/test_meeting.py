from __future__ import annotations

import socket
import threading
import time
from http.client import HTTPConnection, HTTPException
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from benchmarks.sagemaker_stand_in import free_port
from rlnas.errors import ContainerError
from rlnas.sagemaker import meeting as module
from rlnas.sagemaker.hosts import Hosts
from rlnas.sagemaker.meeting import FirstHost, Meeting

PAIR = Hosts(("127.0.0.1", "127.0.0.2"), "127.0.0.2")
OTHERS = PAIR.others


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(module, "LEAVE_SECONDS", 0.3)


@pytest.fixture
def without_waiting(monkeypatch):
    """A wait of the first host for others, which would take `JOIN_SECONDS`, is a failure."""
    monkeypatch.setattr(module.time, "sleep", lambda _: pytest.fail("waited"))


def test_who_asks_hears_all_that_was_told_however_late_it_comes():
    with Meeting(OTHERS, port := free_port()) as meeting:
        meeting.tell("ray", {"port": 3})
        first = FirstHost(PAIR, port)
        assert first.ask() == {"ray": {"port": 3}}
        meeting.tell("training", True)
        assert FirstHost(PAIR, port).ask() == {"ray": {"port": 3}, "training": True}
        assert first.ask() == {"ray": {"port": 3}, "training": True}


def test_a_first_host_that_is_done_waits_for_those_that_start_late():
    port, heard = free_port(), []

    def late():
        time.sleep(0.5)
        heard.append(FirstHost(PAIR, port).ask())

    thread = threading.Thread(target=late)
    thread.start()
    with Meeting(OTHERS, port):
        pass
    thread.join()
    assert heard == [{"done": True}]


def test_one_that_has_failed_stays_for_a_while_to_say_so(monkeypatch):
    monkeypatch.setattr(module, "FAILED_SECONDS", 0.3)
    with pytest.raises(ValueError, match="broken"), Meeting(OTHERS, free_port()):
        raise ValueError("broken")
    with Meeting(OTHERS, free_port()) as meeting:
        meeting.failed = True
    with Meeting(OTHERS, free_port(), join_s=0.0):
        pass


@pytest.mark.usefixtures("without_waiting")
def test_one_that_is_stopped_waits_for_nobody():
    with Meeting(OTHERS, free_port(), lambda: True):
        pass


def test_one_whose_hosts_have_come_and_gone_leaves_soon():
    with Meeting(OTHERS, port := free_port()):
        FirstHost(PAIR, port).ask()


@pytest.mark.parametrize(
    "body",
    [
        '{"host": "127.0.0.3", "fault": null}',
        '{"host": "127.0.0.2"}',
        '["127.0.0.2"]',
        "127.0.0.2 is a host",
    ],
)
def test_who_is_no_host_of_the_job_gets_no_answer(body):
    with Meeting(OTHERS, port := free_port(), join_s=0.0) as meeting:
        meeting.tell("token", "a secret")
        connection = HTTPConnection("127.0.0.1", port, timeout=20)
        connection.request("POST", "/", body)
        with pytest.raises((HTTPException, OSError)):
            connection.getresponse()
        assert meeting.silent(0.0) == ()


def test_a_connection_that_says_nothing_keeps_nobody_from_asking():
    with Meeting(OTHERS, port := free_port()), socket.create_connection(("127.0.0.1", port)):
        assert FirstHost(PAIR, port).ask() == {}


def test_what_goes_wrong_elsewhere_is_heard():
    with Meeting(OTHERS, port := free_port()) as meeting:
        FirstHost(PAIR, port).ask("\U0001f4a5" * 2000)
        assert meeting.faults == {"127.0.0.2": "\U0001f4a5" * 1000}
        FirstHost(PAIR, port).ask()
        assert list(meeting.faults) == ["127.0.0.2"]


def test_hosts_that_have_come_and_are_not_heard_of_are_named():
    with Meeting(("127.0.0.2", "127.0.0.3"), port := free_port(), join_s=0.0) as meeting:
        assert meeting.silent(0.0) == ()
        assert meeting.missing(0.0) == ("127.0.0.2", "127.0.0.3")
        FirstHost(PAIR, port).ask()
        assert meeting.silent(20.0) == ()
        time.sleep(0.01)
        assert meeting.silent(0.0) == ("127.0.0.2",)
        thread = threading.Timer(0.2, FirstHost(PAIR, port).ask)
        thread.start()
        assert meeting.missing(1.0) == ("127.0.0.3",)


def test_a_job_of_one_host_opens_no_port(monkeypatch):
    monkeypatch.setattr(module, "ThreadingHTTPServer", lambda *_: pytest.fail("opened"))
    with Meeting(()) as meeting:
        assert meeting.silent() == meeting.missing(0.0) == ()


def test_a_port_that_is_taken_is_named():
    with (
        socket.create_server(("", 0)) as taken,
        pytest.raises(
            ContainerError, match=r"cannot meet at port \d+: .*; name another \(RLNAS_SAGEMAKER_P"
        ),
    ):
        Meeting(OTHERS, taken.getsockname()[1])


def test_a_first_host_that_never_comes_is_given_up():
    first = FirstHost(PAIR, free_port(), join_s=0.2)
    assert first.ask() == {}
    time.sleep(0.3)
    with pytest.raises(
        ContainerError, match=r"the first host, 127\.0\.0\.1, was not to be found at port"
    ) as e:
        first.ask()
    assert "in 0.2 seconds" in str(e.value)
    assert "need a security group that lets them talk" in str(e.value)


def test_a_first_host_that_goes_without_a_word_is_noticed():
    with Meeting(OTHERS, port := free_port(), lambda: True):
        first = FirstHost(PAIR, port, silence_s=0.2)
        assert first.ask() == {}
    assert first.ask() == {}
    time.sleep(0.3)
    with pytest.raises(ContainerError, match=r"the first host, 127\.0\.0\.1, went without a word; see its"):
        first.ask()


def test_who_answers_otherwise_than_a_first_host_counts_as_silent():
    class Other(BaseHTTPRequestHandler):
        def do_POST(self):
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"[]")

        def log_message(self, *_):
            pass

    with HTTPServer(("127.0.0.1", 0), Other) as server:
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        with pytest.raises(ContainerError, match=r"expected an object, but got \[\]"):
            FirstHost(PAIR, server.server_port, join_s=0.0).ask()
        thread.join(20)
