"""The hosts of a training job: who they are, and where they find each other."""

from __future__ import annotations

import hmac
import re
import socket
from dataclasses import dataclass, field

from rlnas.errors import ContainerError

PORT = 29475
"""Where the first host is reached; `PORT_VARIABLE` moves it. The next two are torchrun's and Ray's."""

LAST_PORT = 65533
"""The highest port that has two others behind it."""

PORT_VARIABLE = "RLNAS_SAGEMAKER_PORT"


@dataclass(frozen=True, slots=True)
class Hosts:
    """The containers of a job.

    Attributes:
        names: Their host names, in the order of their numbers (``algo-2`` before ``algo-10``).
        current: The one that this process runs on.
        interface: Name of the network interface by which they talk, or None if nobody says.
        secret: What all of them know; whoever else knows it can speak as one of them.

    Raises:
        ContainerError: If there is none, or `current` is not among them.
    """

    names: tuple[str, ...]
    current: str
    interface: str | None = None
    secret: str = field(default="", repr=False, compare=False)

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
        """Names of the hosts that do what the first one says."""
        return self.names[1:]

    @property
    def first(self) -> str:
        """Name of the host that searches: the address that others find it at."""
        return self.names[0]

    @property
    def is_first(self) -> bool:
        """Whether this host searches."""
        return self.current == self.first

    @property
    def variables(self) -> dict[str, str]:
        """What libraries that train on several hosts have to be told of the network."""
        if self.interface is None or not self.others:
            return {}
        return {"GLOO_SOCKET_IFNAME": self.interface, "NCCL_SOCKET_IFNAME": self.interface}

    def sign(self, message: bytes) -> str:
        """What shows that a message is from a host of the job: 64 hexadecimal digits."""
        return hmac.new(self.secret.encode(), message, "sha256").hexdigest()


def ip_of(host: str) -> str:
    """The IP address of a host of the job.

    Raises:
        ContainerError: If its name has none.
    """
    try:
        return socket.gethostbyname(host)
    except OSError as error:
        raise ContainerError(
            f"the host {host} has no address: {error.strerror}; hosts of a job in a VPC need its DNS"
        ) from error


def _natural(name: str) -> tuple[tuple[int, str], ...]:
    """Key that sorts numbers inside of names as numbers."""
    parts = re.findall(r"\d+|\D+", name)
    return tuple((int(part), "") if part.isdigit() else (-1, part) for part in parts)
