"""This machine as a node of a Ray cluster, for as long as it is wanted.

``ray stop`` ends every Ray process of a machine; what is started here ends alone.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from rlnas.errors import MissingDependencyError, ScaleError
from rlnas.sagemaker.hosts import ip_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rlnas.sagemaker.hosts import Hosts


@dataclass(frozen=True, slots=True)
class Head:
    """Where a cluster is, and what opens it.

    Attributes:
        host: IP address of its first node.
        port: Where that is reached.
        token: Of Ray's token authentication; whoever has it runs code on the cluster.
    """

    host: str
    port: int
    token: str = field(repr=False)

    @classmethod
    def of(cls, hosts: Hosts, port: int) -> Head:
        """That of a job, whose hosts all know the token: nobody has to tell it.

        Args:
            hosts: Of the job.
            port: Where the first one is asked; Ray has the second one behind it.

        Raises:
            ContainerError: If the first host has no address.
        """
        return cls(ip_of(hosts.first), port + 2, hosts.sign(b"ray"))

    @property
    def address(self) -> str:
        """As ``--ray`` takes it."""
        return f"{self.host}:{self.port}"

    @property
    def variables(self) -> dict[str, str]:
        """Of the environment of every process of the cluster."""
        return {
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": self.token,
            "RAY_USAGE_STATS_ENABLED": "0",
        }


class Node:
    """The processes of Ray on one machine: no dashboard, nothing reported to anyone, a folder of its own.

    Args:
        head: Of the cluster.
        host: IP address of this machine; that of the head starts the cluster, another one joins it.
        n_cpus: Cores that workers may have here, at least 0.
        n_gpus: GPUs, likewise.

    Raises:
        MissingDependencyError: If Ray is not installed.
    """

    def __init__(self, head: Head, host: str, n_cpus: int, n_gpus: int) -> None:
        if importlib.util.find_spec("ray") is None:
            raise MissingDependencyError("Ray is not installed; pip install 'rlnas[ray]'")
        self._host = host
        self._folder = Path(tempfile.mkdtemp(prefix="ray-", dir="/tmp"))  # paths of sockets are short
        # Ports of workers as the system gives them: the usual ones may be taken by another node.
        own = [f"--node-ip-address={host}", f"--num-cpus={n_cpus}", f"--num-gpus={n_gpus}"]
        own += ["--min-worker-port=0", "--max-worker-port=0"]
        if host == head.host:
            own += ["--head", f"--port={head.port}", "--include-dashboard=false"]
            own += ["--disable-usage-stats", f"--temp-dir={self._folder}"]
        else:
            own.append(f"--address={head.address}")
        self._log = self._folder / "start.log"
        self._process = _start(own, head, self._log)

    def is_ready(self, seconds: float = 0.0) -> bool:
        """Whether the node belongs to the cluster, or does within so many seconds.

        Raises:
            ScaleError: If it could not be started.
        """
        try:
            code = self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return False
        if code:
            said = self._log.read_text(errors="replace").strip().splitlines()
            raise ScaleError(
                f"Ray does not start on {self._host}: {said[-1].strip() if said else f'exit code {code}'}"
            )
        return True

    def close(self) -> None:
        """End all of the processes at once; work that they have not answered is lost."""
        with suppress(ProcessLookupError):  # they have ended
            os.killpg(self._process.pid, signal.SIGKILL)  # workers, in groups of their own, follow
        self._process.wait()
        shutil.rmtree(self._folder, ignore_errors=True)


def _start(arguments: Sequence[str], head: Head, log: Path) -> subprocess.Popen[bytes]:
    """``ray start``, which ends when the node is there; what it starts stays in its process group."""
    with log.open("wb") as messages:
        return subprocess.Popen(
            [sys.executable, "-m", "ray.scripts.scripts", "start", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=messages,
            stderr=subprocess.STDOUT,
            env={**os.environ, **head.variables},
            process_group=0,
        )
