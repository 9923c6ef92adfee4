"""How the first host of a job tells the others what to do.

The others ask it every second, by a small HTTP request, and get all that it has to say: so whoever comes
late or loses a connection misses nothing, and whoever is not heard of for a while has gone. This is all
that hosts say to each other by themselves; work is shared out by libraries that are made for it, and these
get their addresses from here. Requests are signed, see `rlnas.sagemaker.hosts.Hosts.sign`.
"""

from __future__ import annotations

import hmac
import json
import threading
import time
from contextlib import suppress
from http.client import HTTPConnection, HTTPException
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

from rlnas.errors import ContainerError
from rlnas.sagemaker.hosts import PORT, PORT_VARIABLE

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from rlnas.sagemaker.hosts import Hosts

JOIN_SECONDS = 600.0
"""Time that hosts have to find each other: they start minutes apart."""

FAILED_SECONDS = 60.0
"""Time that a first host which has failed stays to say so to those that come late."""

LEAVE_SECONDS = 30.0
"""Time in which hosts that have come hear that all is over."""

SILENCE_SECONDS = 60.0
"""Time after which a host that says nothing is taken as gone."""

SIGNATURE = "X-Signature"
"""Header of a request."""

ANSWER_SECONDS = 10.0
"""Time that one request may take."""

_LONGEST = 2**16
"""Bytes of a request."""

DONE = "done"


class Meeting:
    """What the first host keeps open while it works: others ask it what to do.

    A context manager. At its end it stays until all have heard that it is over: for `JOIN_SECONDS` since
    its beginning, so that none of them looks for a first host that is done already, and for
    `FAILED_SECONDS` where it ends by a failure. Whoever else asks gets no answer.

    Args:
        hosts: Of the job; where there is but one, nothing is opened.
        port: Where.
        stopped: Whether to give up waiting, asked several times a second.
        join_s: Seconds that hosts may take to come.

    Attributes:
        failed: Whether what the hosts have met for has failed.
        faults: What hosts have said that went wrong, by their names.

    Raises:
        ContainerError: If the port is taken.
    """

    def __init__(
        self,
        hosts: Hosts,
        port: int = PORT,
        stopped: Callable[[], bool] = lambda: False,
        *,
        join_s: float = JOIN_SECONDS,
    ) -> None:
        self.failed = False
        self.faults: dict[str, str] = {}
        self._hosts, self._stopped, self._deadline = hosts, stopped, time.monotonic() + join_s
        self._others = hosts.others
        self._facts: dict[str, Any] = {}
        self._heard: dict[str, float] = {}
        self._ended: set[str] = set()
        self._server: ThreadingHTTPServer | None = None
        if not self._others:
            return
        try:
            self._server = ThreadingHTTPServer(("", port), _handler(self))
        except OSError as error:
            raise ContainerError(
                f"the hosts cannot meet at port {port}: {error.strerror}; name another ({PORT_VARIABLE})"
            ) from error
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def __enter__(self) -> Meeting:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._server is None:
            return
        self.tell(DONE, True)
        now = time.monotonic()
        join = min(self._deadline, now + FAILED_SECONDS) if kind or self.failed else self._deadline
        while not self._stopped() and self._awaited(join, now + LEAVE_SECONDS):
            time.sleep(0.1)
        self._server.shutdown()
        self._server.server_close()

    def tell(self, name: str, value: object) -> None:
        """Add a fact, a value for JSON, to what everyone hears from now on."""
        self._facts[name] = value

    def answer(self, request: bytes, signature: str, send: Callable[[dict[str, Any]], None]) -> None:
        """Send all facts to a host of the job that asks, and nothing to who is none.

        Args:
            request: A JSON object: name of the ``host``, and the ``fault`` there, or null.
            signature: Of the request.
            send: What sends them; a host has heard that all is over once it returns.

        Raises:
            ValueError: If the request is signed rightly and is no JSON.
        """
        if not hmac.compare_digest(self._hosts.sign(request).encode(), signature.encode()):
            return
        said = json.loads(request)
        host, fault = said["host"], said["fault"]
        self._heard[host] = time.monotonic()
        if fault is not None:
            self.faults[host] = fault
        facts = dict(self._facts)
        send(facts)
        if DONE in facts:
            self._ended.add(host)

    def silent(self, seconds: float = SILENCE_SECONDS) -> tuple[str, ...]:
        """Names of the hosts that have come and have not been heard of for so long."""
        heard, now = dict(self._heard), time.monotonic()
        return tuple(name for name in self._others if name in heard and now - heard[name] > seconds)

    def missing(self, seconds: float) -> tuple[str, ...]:
        """Call the roll: names of the hosts that are not heard of, at the latest after so many seconds."""
        start = time.monotonic()
        while True:
            heard = dict(self._heard)
            names = tuple(name for name in self._others if heard.get(name, start) <= start)
            if not names or self._stopped() or time.monotonic() - start > seconds:
                return names
            time.sleep(0.1)

    def _awaited(self, join: float, leave: float) -> bool:
        """Whether a host is to hear yet that all is over; until when depends on whether it has come."""
        now = time.monotonic()
        left = [name for name in self._others if name not in self._ended]
        return any(now < (leave if name in self._heard else join) for name in left)


class FirstHost:
    """The first host as another one sees it.

    Args:
        hosts: Of the job.
        port: Where the first one is asked.
        join_s: Seconds that it may take to be there.
        silence_s: Seconds without an answer after which it is taken as gone.
    """

    def __init__(
        self,
        hosts: Hosts,
        port: int,
        *,
        join_s: float = JOIN_SECONDS,
        silence_s: float = SILENCE_SECONDS,
    ) -> None:
        self._hosts, self._port, self._join_s, self._silence_s = hosts, port, join_s, silence_s
        self._since, self._has_come = time.monotonic(), False

    def ask(self, fault: str | None = None) -> dict[str, Any]:
        """What it has to say by now; nothing while it does not answer.

        Args:
            fault: What has gone wrong here, if anything.

        Raises:
            ContainerError: If it never comes, or goes without a word.
        """
        try:
            answer = self._asked(fault)
        except (OSError, HTTPException, ValueError) as error:
            self._check_patience(error)
            return {}
        self._since, self._has_come = time.monotonic(), True
        return answer

    def _asked(self, fault: str | None) -> dict[str, Any]:
        connection = HTTPConnection(self._hosts.first, self._port, timeout=ANSWER_SECONDS)
        try:
            body = json.dumps({"host": self._hosts.current, "fault": fault and fault[:1000]}).encode()
            connection.request("POST", "/", body, {SIGNATURE: self._hosts.sign(body)})
            answer = json.loads(connection.getresponse().read())
        finally:
            connection.close()
        if not isinstance(answer, dict):
            raise ValueError(f"expected an object, but got {answer!r}")
        return answer

    def _check_patience(self, error: Exception) -> None:
        waited = time.monotonic() - self._since
        first, port = self._hosts.first, self._port
        if self._has_come and waited >= self._silence_s:
            raise ContainerError(f"the first host, {first}, went without a word; see its log") from error
        if not self._has_come and waited >= self._join_s:
            raise ContainerError(
                f"the first host, {first}, was not to be found at port {port} in {self._join_s:g} seconds: "
                f"{error}; hosts of a job in a VPC need a security group that lets them talk"
            ) from error


def _handler(meeting: Meeting) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        timeout = ANSWER_SECONDS

        def do_POST(self) -> None:
            with suppress(ValueError, OSError):  # whoever it is: it gets no answer
                length = int(self.headers.get("Content-Length", "0"))
                request = self.rfile.read(length) if 0 <= length <= _LONGEST else b""
                meeting.answer(request, self.headers.get(SIGNATURE, ""), self.send)

        def send(self, facts: dict[str, Any]) -> None:
            body = json.dumps(facts).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Say nothing: this happens every second."""

    return Handler
