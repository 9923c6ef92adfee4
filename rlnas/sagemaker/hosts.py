"""The hosts of a training job: who runs the search, and how the others learn that it is over.

The first host searches. The others hold a connection to it, on which they say their name first, and end
when it says so; they notice within a minute if it has gone. This is all that hosts say to each other: work
is shared out by libraries that are made for it, and these get their addresses from `Hosts`.
"""

from __future__ import annotations

import re
import socket
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rlnas.errors import ContainerError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from types import TracebackType

PORT = 29475
"""Where the first host is reached; `PORT_VARIABLE` moves it."""

PORT_VARIABLE = "RLNAS_SAGEMAKER_PORT"
JOIN_SECONDS = 600.0
"""Time that hosts have to find each other: they start minutes apart."""

BEAT_SECONDS = 2.0
GREETING_SECONDS = 10.0
"""Time that whoever connects has to say its name."""

SILENCE_SECONDS = 60.0
"""Time after which a first host that says nothing is taken as gone."""

_BEAT, _DONE = b".", b"!"


@dataclass(frozen=True, slots=True)
class Hosts:
    """The containers of a job.

    Attributes:
        names: Their host names, in the order of their numbers (``algo-2`` before ``algo-10``).
        current: The one that this process runs on.

    Raises:
        ContainerError: If there is none, or `current` is not among them.
    """

    names: tuple[str, ...]
    current: str

    def __post_init__(self) -> None:
        if self.current not in self.names:
            raise ContainerError(
                f"current_host={self.current!r} is none of the hosts {', '.join(self.names) or '(none)'}"
            )
        object.__setattr__(self, "names", tuple(sorted(self.names, key=_natural)))

    @property
    def rank(self) -> int:
        """Position of this host, from 0."""
        return self.names.index(self.current)

    @property
    def others(self) -> tuple[str, ...]:
        """Names of the hosts that wait for the first one."""
        return self.names[1:]

    @property
    def first(self) -> str:
        """Name of the host that searches: the address that others meet at."""
        return self.names[0]

    @property
    def is_first(self) -> bool:
        """Whether this host searches."""
        return self.current == self.first


class Meeting:
    """What the first host keeps open while it works: others wait on it.

    A context manager. At its end, unless it was cut short, it waits for hosts that have not come yet, so
    that none of them looks for a first host that is done already, and then tells all. Whoever else connects
    is turned away.

    Args:
        others: Names of the hosts that will come; without any, nothing is opened.
        port: Where.
        stopped: Whether to give up waiting, asked several times a second.
        join_s: Seconds that hosts may take to come.

    Attributes:
        ends_at_once: Whether not to wait for hosts that have not come.

    Raises:
        ContainerError: If the port is taken.
    """

    def __init__(
        self,
        others: Collection[str],
        port: int = PORT,
        stopped: Callable[[], bool] = lambda: False,
        *,
        join_s: float = JOIN_SECONDS,
    ) -> None:
        self.ends_at_once = False
        self._others, self._stopped, self._deadline = frozenset(others), stopped, time.monotonic() + join_s
        self._connections: dict[str, socket.socket] = {}
        self._ended = threading.Event()
        self._server: socket.socket | None = None
        if not others:
            return
        try:
            self._server = socket.create_server(("", port), backlog=len(others))
        except OSError as error:
            raise ContainerError(
                f"the hosts cannot meet at port {port}: {error.strerror}; name another ({PORT_VARIABLE})"
            ) from error
        self._server.settimeout(BEAT_SECONDS)
        self._thread = threading.Thread(target=self._receive, daemon=True)
        self._thread.start()

    def __enter__(self) -> Meeting:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._server is None:
            return
        cut_short = kind is not None or self.ends_at_once
        while not cut_short and len(self._connections) < len(self._others) and self._has_time():
            time.sleep(0.1)
        self._ended.set()
        self._thread.join()
        for connection in self._connections.values():
            with suppress(OSError):
                connection.sendall(_DONE)
            connection.close()
        self._server.close()

    def _has_time(self) -> bool:
        return time.monotonic() < self._deadline and not self._stopped()

    def _receive(self) -> None:
        server = self._server
        while server is not None and not self._ended.is_set():
            with suppress(OSError):  # none came in time, or it went at once
                self._greet(server.accept()[0])
            for connection in self._connections.values():
                with suppress(OSError):  # a host that has gone is SageMaker's to report
                    connection.sendall(_BEAT)

    def _greet(self, connection: socket.socket) -> None:
        """Keep a connection if a host of the job says its name on it; a later one of it counts."""
        connection.settimeout(GREETING_SECONDS)
        name = ""
        with suppress(OSError):
            name = connection.recv(256).decode(errors="replace").strip()
        if name not in self._others:
            connection.close()
            return
        if earlier := self._connections.pop(name, None):
            earlier.close()
        connection.settimeout(BEAT_SECONDS)
        self._connections[name] = connection


def wait_for_first(
    hosts: Hosts,
    port: int,
    stopped: Callable[[], bool],
    *,
    join_s: float = JOIN_SECONDS,
    silence_s: float = SILENCE_SECONDS,
) -> None:
    """Wait until the first host is done, or this one is stopped.

    Args:
        hosts: Of which the first is waited for.
        port: Where it is reached.
        stopped: Whether to give up waiting, asked every second.
        join_s: Seconds that the first host may take to be there.
        silence_s: Seconds after which it is taken as gone.

    Raises:
        ContainerError: If it never comes, or goes without a word.
    """
    connection = _connected(hosts.first, port, stopped, join_s)
    if connection is None:
        return
    with connection:
        connection.settimeout(1.0)
        with suppress(OSError):  # which shows below
            connection.sendall(f"{hosts.current}\n".encode())
        last = time.monotonic()
        while not stopped():
            try:
                said = connection.recv(64)
            except TimeoutError:
                said = b""
                if time.monotonic() - last < silence_s:
                    continue
            except OSError:
                said = b""
            if _DONE in said:
                return
            if not said:
                raise ContainerError(f"the first host, {hosts.first}, went without a word; see its log")
            last = time.monotonic()


def _connected(host: str, port: int, stopped: Callable[[], bool], join_s: float) -> socket.socket | None:
    deadline = time.monotonic() + join_s
    while not stopped():
        try:
            return socket.create_connection((host, port), timeout=1.0)
        except OSError as error:
            if time.monotonic() >= deadline:
                raise ContainerError(
                    f"the first host, {host}, was not to be found at port {port} in {join_s:g} seconds: "
                    f"{error}; hosts of a job in a VPC need a security group that lets them talk"
                ) from error
        time.sleep(0.2)
    return None


def _natural(name: str) -> tuple[tuple[int, str], ...]:
    """Key that sorts numbers inside of names as numbers."""
    parts = re.findall(r"\d+|\D+", name)
    return tuple((int(part), "") if part.isdigit() else (-1, part) for part in parts)
