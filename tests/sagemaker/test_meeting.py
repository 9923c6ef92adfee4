from __future__ import annotations

import socket
import threading
import time
from dataclasses import replace
from http.client import HTTPException
from http.server import BaseHTTPRequestHandler, HTTPServer
from urllib.request import Request, urlopen

import pytest

from benchmarks.sagemaker_stand_in import free_port
from rlnas.errors import ContainerError
from rlnas.sagemaker import meeting as module
from rlnas.sagemaker.hosts import Hosts
from rlnas.sagemaker.meeting import FirstHost, Meeting

PAIR = Hosts(("127.0.0.1", "127.0.0.2"), "127.0.0.2", secret="of the job")
STRANGER = Hosts(PAIR.names, PAIR.current, secret="guessed")
SAID = b'{"host": "127.0.0.2", "fault": null}'


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(module, "LEAVE_SECONDS", 0.3)


@pytest.fixture
def without_waiting(monkeypatch):
    """A wait of the first host for others, which would take `JOIN_SECONDS`, is a failure."""
    monkeypatch.setattr(module.time, "sleep", lambda _: pytest.fail("waited"))


def test_who_asks_hears_all_that_was_told_however_late_it_comes():
    with Meeting(PAIR, port := free_port()) as meeting:
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
    with Meeting(PAIR, port):
        pass
    thread.join()
    assert heard == [{"done": True}]


def test_one_that_has_failed_stays_for_a_while_to_say_so(monkeypatch):
    monkeypatch.setattr(module, "FAILED_SECONDS", 0.3)
    with pytest.raises(ValueError, match="broken"), Meeting(PAIR, free_port()):
        raise ValueError("broken")
    with Meeting(PAIR, free_port()) as meeting:
        meeting.failed = True
    with Meeting(PAIR, free_port(), join_s=0.0):
        pass


@pytest.mark.usefixtures("without_waiting")
def test_one_that_is_stopped_waits_for_nobody():
    with Meeting(PAIR, free_port(), lambda: True):
        pass


def test_one_whose_hosts_have_come_and_gone_leaves_soon():
    with Meeting(PAIR, port := free_port()):
        FirstHost(PAIR, port).ask()


def test_a_host_to_which_nothing_could_be_sent_has_not_heard_that_all_is_over():
    def broken(facts):
        sent.append(facts)
        raise BrokenPipeError

    sent = []
    with Meeting(PAIR, free_port()) as meeting:
        meeting.tell(module.DONE, True)
        with pytest.raises(BrokenPipeError):
            meeting.answer(SAID, PAIR.sign(SAID), broken)
        assert sent == [{"done": True}]
        assert meeting._awaited(0.0, time.monotonic() + 20)
        meeting.answer(SAID, PAIR.sign(SAID), sent.append)
        assert not meeting._awaited(0.0, time.monotonic() + 20)


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        (SAID, {}),
        (SAID, {module.SIGNATURE: ""}),
        (SAID, {module.SIGNATURE: "é"}),
        (SAID, {module.SIGNATURE: STRANGER.sign(SAID)}),
        (SAID, {module.SIGNATURE: PAIR.sign(b"ray")}),
        (SAID, {module.SIGNATURE: PAIR.sign(SAID), "Content-Length": "-1"}),
        (SAID, {module.SIGNATURE: PAIR.sign(SAID), "Content-Length": "all"}),
        (b"no JSON", {module.SIGNATURE: PAIR.sign(b"no JSON")}),
        (b"[" * 2**17, {module.SIGNATURE: PAIR.sign(b"[" * 2**17)}),
    ],
)
def test_who_is_no_host_of_the_job_gets_no_answer(body, headers):
    with Meeting(PAIR, port := free_port(), join_s=0.0) as meeting:
        meeting.tell("where", "here")
        request = Request(f"http://127.0.0.1:{port}", body, headers)
        with pytest.raises((HTTPException, OSError)):
            urlopen(request, timeout=20)
        assert meeting.silent(0.0) == ()
        assert FirstHost(STRANGER, port).ask() == {}
        assert FirstHost(PAIR, port).ask() == {"where": "here"}


def test_a_connection_that_says_nothing_keeps_nobody_from_asking():
    with Meeting(PAIR, port := free_port()), socket.create_connection(("127.0.0.1", port)):
        assert FirstHost(PAIR, port).ask() == {}


def test_what_goes_wrong_elsewhere_is_heard():
    with Meeting(PAIR, port := free_port()) as meeting:
        FirstHost(PAIR, port).ask("\U0001f4a5" * 2000)
        assert meeting.faults == {"127.0.0.2": "\U0001f4a5" * 1000}
        FirstHost(PAIR, port).ask()
        assert list(meeting.faults) == ["127.0.0.2"]


def test_hosts_that_have_come_and_are_not_heard_of_are_named():
    three = replace(PAIR, names=(*PAIR.names, "127.0.0.3"))
    with Meeting(three, port := free_port(), join_s=0.0) as meeting:
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
    with Meeting(Hosts(("a",), "a")) as meeting:
        assert meeting.silent() == meeting.missing(0.0) == ()


def test_a_port_that_is_taken_is_named():
    with (
        socket.create_server(("", 0)) as taken,
        pytest.raises(
            ContainerError, match=r"cannot meet at port \d+: .*; name another \(RLNAS_SAGEMAKER_P"
        ),
    ):
        Meeting(PAIR, taken.getsockname()[1])


def test_a_first_host_that_never_comes_is_given_up():
    assert FirstHost(PAIR, free_port()).ask() == {}
    with pytest.raises(
        ContainerError, match=r"the first host, 127\.0\.0\.1, was not to be found at port"
    ) as e:
        FirstHost(PAIR, free_port(), join_s=0.0).ask()
    assert "in 0 seconds" in str(e.value)
    assert "need a security group that lets them talk" in str(e.value)


def test_a_first_host_that_goes_without_a_word_is_noticed():
    with Meeting(PAIR, port := free_port(), lambda: True):
        patient, other = FirstHost(PAIR, port), FirstHost(PAIR, port, silence_s=0.0)
        assert patient.ask() == other.ask() == {}
    assert patient.ask() == {}
    with pytest.raises(ContainerError, match=r"the first host, 127\.0\.0\.1, went without a word; see its"):
        other.ask()


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
