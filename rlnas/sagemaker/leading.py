"""The first of several hosts of a job: it opens the Ray cluster, and calls the others to the training."""

from __future__ import annotations

import json
import time
from contextlib import closing, contextmanager, suppress
from typing import TYPE_CHECKING

from rlnas.errors import ContainerError, MissingDependencyError
from rlnas.sagemaker.ray_node import Head, Node
from rlnas.sagemaker.sharing import Machine, Sharing, share

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from rlnas.sagemaker.contract import Container
    from rlnas.sagemaker.meeting import Meeting

RAY, TRAINING = "ray", "training"
"""What the others are told: that there is a cluster, and how to train."""

ROLL_CALL_SECONDS = 10.0
"""Time in which hosts are heard of, each of which asks every second, and the search says what it knows."""

START_SECONDS = 300.0
"""Time that Ray may take to start."""


class Lead:
    """What the first host knows of the others' part.

    Args:
        container: Its own.
        meeting: Where the others ask.
        port: Where that is; torchrun and Ray have the next two.
        machine: What each host has.
    """

    def __init__(self, container: Container, meeting: Meeting, port: int, machine: Machine) -> None:
        hosts = container.hosts
        self._run, self._hosts, self._meeting, self._machine = container.run, hosts, meeting, machine
        self._head: Head | None = None
        self._is_called = False
        self._fault_since: float | None = None
        self._told_lost: set[str] = set()
        self.sharing = Sharing()
        if hosts.others:
            self._head = Head.of(hosts, port)
            self.sharing = share(
                container.hyperparameters,
                len(hosts.names),
                machine,
                ray_address=self._head.address,
                rdzv_endpoint=f"{self._head.host}:{port + 1}",
                trains_alone=_was_begun_alone(container),
            )
        self._training.unlink(missing_ok=True)  # of a job that was interrupted

    @contextmanager
    def cluster(self, stopped: Callable[[], bool]) -> Iterator[dict[str, str]]:
        """The cluster of the hosts, if they share by one; gives variables for the search.

        Args:
            stopped: Whether to give up waiting for it.

        Raises:
            ContainerError: If Ray is not installed, or does not start in time.
            ScaleError: If it does not start.
        """
        if self._head is None or self.sharing.node_cpus is None:
            yield self._hosts.variables
            return
        try:
            node = Node(self._head, self._head.host, self.sharing.node_cpus[0], self._machine.n_gpus)
        except MissingDependencyError as error:
            raise ContainerError(
                "several hosts share a search by Ray, and the image has none; build it from the Dockerfile "
                "of rlnas (pip install 'rlnas[ray]'), or ask for one host (--instance-count 1)"
            ) from error
        with closing(node):
            deadline = time.monotonic() + START_SECONDS
            while not node.is_ready(0.5) and not stopped():
                if time.monotonic() > deadline:
                    raise ContainerError(f"Ray has not started on the first host in {START_SECONDS:.0f} s")
            self._meeting.tell(RAY, {"n_cpus": self.sharing.node_cpus[1]})
            yield {**self._hosts.variables, **self._head.variables}

    @property
    def is_training(self) -> bool:
        """Whether shared weights are being trained on all hosts, or that has failed."""
        return self._is_called and not (self._run / "supernet").is_dir()

    def look(self) -> str | None:
        """Call the others once the training begins, and say who has been lost.

        Where a host says that something went wrong, the search has `ROLL_CALL_SECONDS` to fail by itself:
        it may know why.

        Returns:
            Why the training cannot go on, if it cannot.
        """
        if not self._is_called and self.sharing.nproc is not None and self._training.is_file():
            with suppress(OSError, ValueError):  # which ends in this very moment
                device = json.loads(self._training.read_text())["job"]["device"]
                self._meeting.tell(TRAINING, {"nproc": self.sharing.nproc, "device": device})
                self._is_called = True
                print("the other hosts have been called to the training", flush=True)
        lost = self._meeting.silent()
        for name in set(lost) - self._told_lost:
            self._told_lost.add(name)
            print(f"the host {name} is not heard of any more", flush=True)
        if self.is_training and (lost or self._is_overdue()):
            return self._sentence(lost)
        return None

    def _is_overdue(self) -> bool:
        """Whether the search goes on though a host has said long ago that something went wrong."""
        if not self._meeting.faults:
            return False
        now = time.monotonic()
        self._fault_since = self._fault_since or now
        return now - self._fault_since >= ROLL_CALL_SECONDS

    def explained(self, reason: str) -> str:
        """Why the search has failed, where that may be another host's doing.

        Args:
            reason: What the search itself says.
        """
        if not self.is_training:
            return reason
        until = time.monotonic() + ROLL_CALL_SECONDS
        missing = self._meeting.missing(ROLL_CALL_SECONDS)
        while not (missing or self._meeting.faults) and time.monotonic() < until:
            time.sleep(0.1)  # a host whose processes have ended says so soon
        if missing:
            return self._sentence(missing)
        return self._sentence((), reason) if self._meeting.faults else reason

    @property
    def _training(self) -> Path:
        return self._run / "training.json"

    def _sentence(self, lost: tuple[str, ...], own: str | None = None) -> str:
        faults = dict(self._meeting.faults)  # others may be heard of in between
        said = [] if own is None else [f"the first host says: {own}"]
        said += [f"the host {name} says: {fault}" for name, fault in faults.items()]
        said += [f"the host {name} was lost" for name in lost if name not in faults]
        return (
            f"the training on {len(self._hosts.names)} hosts has failed: {'; '.join(said)}; launch the job "
            "again with --resume, which goes on from the last checkpoint"
        )


def _was_begun_alone(container: Container) -> bool:
    """Whether the run that the container goes on with has been trained, or is to be, in one process."""
    try:
        return "torchrun" not in json.loads((container.run / "config.json").read_text())
    except (OSError, ValueError):
        return False
