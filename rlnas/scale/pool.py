"""Workers in processes of their own, on any node of a Ray cluster; they may die, and others take over.

Only workers that are ready get work, so that one which finds no room in the cluster holds nobody up.
"""

from __future__ import annotations

import logging
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rlnas.errors import MissingDependencyError, ScaleError, first_line
from rlnas.scale.cluster import LOCAL, WorkerNeeds

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from rlnas.scale.shares import Shares

logger = logging.getLogger(__name__)

MAX_DEATHS = 5
"""Deaths in a row, with no answer between them and beyond one of each worker, that are no accident."""

START_SECONDS = 120.0
"""Time in which at least one worker has to be ready."""


def connect(address: str) -> Any:  # noqa: ANN401 - the module
    """Connect this process to a cluster, unless it is, and return the module `ray`.

    Args:
        address: As in `rlnas.scale.Cluster`.

    Raises:
        MissingDependencyError: If Ray is not installed.
        ScaleError: If there is no cluster.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
    except ImportError as error:
        raise MissingDependencyError("Ray is not installed; pip install 'rlnas[ray]'") from error
    if not ray.is_initialized():
        dashboard = False if address == LOCAL else None  # that of a cluster is not ours to choose
        try:
            ray.init(address=address, log_to_driver=False, include_dashboard=dashboard)
        except Exception as error:  # Ray raises many kinds, bare ones too
            raise ScaleError(
                f"no Ray cluster at {address!r}: {first_line(error)}; start one (ray start --head), or "
                f"take {LOCAL!r}"
            ) from error
    return ray


@contextmanager
def connected(address: str) -> Iterator[None]:
    """A connection as of `connect`, which ends with the block unless it was there before.

    Raises:
        MissingDependencyError: If Ray is not installed.
        ScaleError: If there is no cluster.
    """
    was_connected = _is_connected()
    ray = connect(address)
    try:
        yield
    finally:
        if not was_connected:
            ray.shutdown()


def _is_connected() -> bool:
    try:
        import ray
    except ImportError:
        return False
    return bool(ray.is_initialized())


def lost(ray: Any) -> tuple[type[Exception], ...]:  # noqa: ANN401
    """What Ray raises where a process, its node or its answer has gone."""
    errors = ray.exceptions
    return (
        errors.RayActorError,
        errors.ActorUnavailableError,
        errors.NodeDiedError,
        errors.OutOfMemoryError,
        errors.ObjectLostError,
    )


def resources_of(ray: Any) -> str:  # noqa: ANN401
    """What a cluster has, for messages: cores, GPUs and what its nodes were started with."""
    resources = ray.cluster_resources()
    skipped = ("memory", "object_store_memory")
    named = {
        name: amount
        for name, amount in sorted(resources.items())
        if name not in skipped and not name.startswith(("node:", "accelerator_type:"))
    }
    return ", ".join(f"{amount:g} {name}" for name, amount in named.items()) or "nothing"


class Pool:
    """Workers of one kind; one that dies is replaced, and its work is done by others.

    They are started when there is work, and stay until `close`; work after that starts new ones.

    Args:
        ray: The module, connected to a cluster, see `connect`.
        make: A class; its instances live in the workers' processes. They have the methods ``prepare``,
            which is called once, and ``answer``.
        arguments: What each is made of; large ones as references (``ray.put``).
        n_workers: How many there are to be, at least 1; fewer while the cluster has no room.
        needs: What each takes of its node.

    Attributes:
        n_workers: How many there are to be.
        n_lost: How many have died.

    Raises:
        ValueError: If `n_workers` is less than 1.
    """

    def __init__(
        self,
        ray: Any,  # noqa: ANN401
        make: Callable[..., Any],
        arguments: tuple[Any, ...],
        n_workers: int,
        needs: WorkerNeeds | None = None,
    ) -> None:
        if n_workers < 1:
            raise ValueError(f"n_workers must be at least 1, but got n_workers={n_workers}")
        self._needs = needs or WorkerNeeds()
        self._ray, self._arguments, self.n_workers = ray, arguments, n_workers
        self._actor = ray.remote(num_cpus=self._needs.n_cpus, num_gpus=self._needs.n_gpus)(make)
        self._starting: dict[Any, Any] = {}
        self._idle: list[Any] = []
        self._n_deaths = 0
        self.n_lost = 0

    def close(self) -> None:
        """End all workers, so that others find room."""
        for worker in [*self._idle, *self._starting.values()]:
            self._ray.kill(worker)
        self._idle, self._starting = [], {}

    def wait_for_all(self) -> None:
        """Wait until all workers are ready, for a measurement.

        Raises:
            ScaleError: If there is no room for one more, or workers keep dying.
        """
        self._start(self.n_workers - len(self._idle) - len(self._starting))
        while self._starting:
            for reference in self._wait({}):
                self._welcome(reference)

    def answers(
        self, shares: Shares, request: Callable[[tuple[int, ...]], tuple[Any, ...]]
    ) -> Iterator[tuple[tuple[int, ...], Any]]:
        """What the workers answer, in the order in which they are done.

        Args:
            shares: The work; each share is answered once.
            request: From a share to what ``answer`` is called with.

        Yields:
            The share, and the answer to it.

        Raises:
            ScaleError: If no worker gets ready, or workers keep dying.
            Exception: What a worker raised itself.
        """
        working: dict[Any, tuple[Any, tuple[int, ...]]] = {}
        try:
            while shares or working:
                if shares:
                    self._start(self.n_workers - len(self._idle) - len(self._starting) - len(working))
                while shares and self._idle:
                    worker, share = self._idle.pop(), shares.take()
                    working[worker.answer.remote(*request(share))] = (worker, share)
                for reference in self._wait(working):
                    if reference in self._starting:
                        self._welcome(reference)
                        continue
                    worker, share = working.pop(reference)
                    answer = self._result(reference, worker)
                    if answer is None:
                        shares.give_back(share)
                        continue
                    self._n_deaths = 0
                    yield share, answer[0]
        finally:  # given up half-way: what still works is at some old share
            for worker, _ in working.values():
                self._ray.kill(worker)

    def _start(self, n_workers: int) -> None:
        for _ in range(n_workers):
            worker = self._actor.remote(*self._arguments)
            self._starting[worker.prepare.remote()] = worker

    def _wait(self, working: Mapping[Any, Any]) -> list[Any]:
        """References that are done, at least one."""
        references = [*working, *self._starting]
        timeout = None if working else START_SECONDS
        done, _ = self._ray.wait(references, num_returns=1, timeout=timeout)
        if not done:
            raise ScaleError(
                f"no worker was ready within {START_SECONDS:.0f} s: each needs {self._needs}, and the "
                f"cluster has {resources_of(self._ray)}; ask for less, add nodes, or end what runs there"
            )
        return list(done)

    def _welcome(self, reference: Any) -> None:  # noqa: ANN401
        self._result(reference, self._starting.pop(reference))

    def _result(self, reference: Any, worker: Any) -> tuple[Any] | None:  # noqa: ANN401
        """What a worker has answered, or None if it has died; what it raised is raised here."""
        try:
            answer = self._ray.get(reference)
        except self._ray.exceptions.RayTaskError as error:
            self._idle.append(worker)
            raise error.cause from None
        except lost(self._ray) as error:
            self._ray.kill(worker)
            self.n_lost += 1
            self._n_deaths += 1
            reason = str(error).strip().splitlines()[-1]
            logger.warning("a worker was lost, others take over its work: %s", reason)
            if self._n_deaths > MAX_DEATHS + self.n_workers:  # those of one node die together
                raise ScaleError(
                    f"{self._n_deaths} workers in a row have died without an answer, the last one so: "
                    f"{reason}; see /tmp/ray/session_latest/logs on its node, or give them more memory"
                ) from error
            return None
        self._idle.append(worker)
        return (answer,)
