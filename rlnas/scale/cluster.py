"""Which Ray cluster, and what its workers take; nothing of Ray is loaded here."""

from __future__ import annotations

from dataclasses import dataclass, field

LOCAL = "local"
"""Address of a cluster of this machine alone, started for the purpose."""


@dataclass(frozen=True, slots=True)
class WorkerNeeds:
    """What one worker takes of its node.

    Attributes:
        n_cpus: Cores, as Ray counts them, at least 1; a worker computes on as many threads.
        n_gpus: GPUs: 0, a fraction of one, or a whole number.

    Raises:
        ValueError: If a number is another.
    """

    n_cpus: int = 1
    n_gpus: float = 0.0

    def __post_init__(self) -> None:
        if self.n_cpus < 1:
            raise ValueError(f"n_cpus must be at least 1, but got n_cpus={self.n_cpus}")
        if not (0 <= self.n_gpus <= 1 or (self.n_gpus > 1 and float(self.n_gpus).is_integer())):
            raise ValueError(
                f"n_gpus must be 0, a fraction of one, or a whole number, but got n_gpus={self.n_gpus}"
            )


@dataclass(frozen=True, slots=True)
class Cluster:
    """Workers of a Ray cluster that evaluate subnets, and the node on which latency counts.

    Attributes:
        address: ``"auto"`` for the cluster that this machine belongs to, ``"HOST:PORT"`` of a head, or
            `LOCAL`.
        n_workers: How many are to evaluate; 0 evaluates in the driving process.
        needs: What each takes of its node; with GPUs they compute there.
        latency_resource: Resource of the node on which models are timed, as that was started with
            (``ray start --resources '{"edge": 1}'``); one of it is taken. None times on this machine.
        latency_device: Device of that node, ``"cpu"`` or ``"cuda"``.

    Raises:
        ValueError: If nothing would be done there, or the resource or the device is none of these.
    """

    address: str = LOCAL
    n_workers: int = 2
    needs: WorkerNeeds = field(default_factory=WorkerNeeds)
    latency_resource: str | None = None
    latency_device: str = "cpu"

    def __post_init__(self) -> None:
        least = 1 if self.latency_resource is None else 0
        if self.n_workers < least:
            raise ValueError(f"n_workers must be at least {least}, but got n_workers={self.n_workers}")
        if self.latency_resource in ("", "CPU", "GPU"):
            raise ValueError(
                "latency_resource must be a name of your own, as it says which node is meant, "
                f"but got latency_resource={self.latency_resource!r}"
            )
        if self.latency_device not in ("cpu", "cuda"):
            raise ValueError(
                f"latency_device must be cpu or cuda, but got latency_device={self.latency_device!r}"
            )

    @property
    def timed_on(self) -> str | None:
        """Device of the node on which models are timed; None where that is the driving process."""
        return None if self.latency_resource is None else self.latency_device
