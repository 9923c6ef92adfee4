"""How the hosts of a job share its work: which flags a search gets that the user has not given.

Subnets are judged by Ray workers on all hosts, and shared weights are trained by torchrun on all hosts.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rlnas.errors import RequestError

if TYPE_CHECKING:
    from collections.abc import Mapping

MAX_WORKERS = 8
"""Workers of a host without GPUs: each holds a copy of the weights."""


@dataclass(frozen=True, slots=True)
class Machine:
    """What each host of a job has; they are all alike.

    Attributes:
        n_cpus: Cores, at least 1.
        n_gpus: GPUs.
    """

    n_cpus: int = 1
    n_gpus: int = 0

    @classmethod
    def read(cls, environ: Mapping[str, str], devices: Path = Path("/dev")) -> Machine:
        """This host, by the training toolkit's variables where they are there.

        Args:
            environ: The variables of the process.
            devices: Folder in which GPUs show.
        """
        cpus, gpus = environ.get("SM_NUM_CPUS", ""), environ.get("SM_NUM_GPUS", "")
        return cls(
            int(cpus) if cpus.isdigit() and int(cpus) else len(os.sched_getaffinity(0)),
            int(gpus) if gpus.isdigit() else len(list(devices.glob("nvidia[0-9]*"))),
        )


@dataclass(frozen=True, slots=True)
class Sharing:
    """How the work is shared.

    Attributes:
        flags: Further arguments of the search; they win over equal ones of the user.
        node_cpus: Cores that Ray gives to workers on the first host, and on each other one; None without a
            cluster of the hosts.
        nproc: Processes of torchrun on each host; None where the first host trains alone.
    """

    flags: tuple[str, ...] = ()
    node_cpus: tuple[int, int] | None = None
    nproc: int | None = None


def share(
    given: Mapping[str, str],
    n_hosts: int,
    machine: Machine,
    *,
    ray_address: str = "first:2",
    rdzv_endpoint: str = "first:1",
    trains_alone: bool = False,
) -> Sharing:
    """Decide how hosts share the work, by what the user says and what they have.

    Args:
        given: Hyper-parameters, flags of the search without their dashes.
        n_hosts: Hosts of the job, at least 1.
        machine: Each of them.
        ray_address: Where the cluster of the hosts will be.
        rdzv_endpoint: Where they meet for the training.
        trains_alone: Whether the run was begun by a training on the first host, which it goes on with
            unless the user says otherwise: other numbers of processes round otherwise.

    Raises:
        RequestError: If what the user says does not go with so many hosts.
    """
    _check(given, n_hosts)
    if n_hosts == 1:
        return Sharing()
    gpus = _usable_gpus(given.get("device", ""), machine.n_gpus)
    flags: dict[str, object] = {}
    node_cpus = None
    if given.get("ray", "auto") == "auto":
        wanted = given.get("worker-cpus", "")
        per_worker = 1 if gpus else max(1, machine.n_cpus // MAX_WORKERS)
        per_worker = max(1, int(wanted)) if wanted.isdecimal() else per_worker
        # On a CPU, half of the first host is for the search itself, and the baseline beside it.
        first = machine.n_cpus if gpus else max(1, machine.n_cpus // 2)
        node_cpus = first, machine.n_cpus
        room = [machine.n_cpus // per_worker] * (n_hosts - 1) + [first // per_worker]
        workers = max(1, sum(min(n, gpus) if gpus else n for n in room))
        flags = {"workers": workers, "worker-cpus": per_worker, "worker-gpus": int(gpus > 0)}
        flags = {name: value for name, value in flags.items() if name not in given}
        flags["ray"] = ray_address
    nproc = None
    if given.get("nnodes") != "1" and not (trains_alone and "nproc" not in given):
        processes = given.get("nproc", str(max(1, gpus)))
        nproc = int(processes) if processes.isdigit() else None  # which the search refuses
        flags |= {"nproc": processes, "nnodes": n_hosts, "rdzv-endpoint": rdzv_endpoint}
    return Sharing(tuple(f"--{name}={value}" for name, value in flags.items()), node_cpus, nproc)


def _usable_gpus(device: str, n_gpus: int) -> int:
    """GPUs from the device on that a user names, all of them by default."""
    kind, _, index = device.partition(":")
    if kind == "cpu":
        return 0
    return max(0, n_gpus - int(index)) if index.isdigit() else n_gpus


def _check(given: Mapping[str, str], n_hosts: int) -> None:
    if "rdzv-endpoint" in given:
        raise RequestError(
            f"--rdzv-endpoint={given['rdzv-endpoint']} is set in the container: the hosts of a job find "
            "each other; leave it out"
        )
    if given.get("nnodes", "1") not in ("1", str(n_hosts)):
        raise RequestError(
            f"--nnodes={given['nnodes']} does not go with --instance-count {n_hosts}; leave it out to "
            "train on all hosts, or give 1 for the first one alone"
        )
    if given.get("ray") == "auto" and n_hosts == 1:
        raise RequestError(
            "--ray=auto is the cluster that the hosts of a job make, but there is one host; ask for more "
            "(--instance-count), or take --ray=local"
        )
    if n_hosts > 1 and given.get("ray", "auto") == "auto" and "latency-resource" in given:
        raise RequestError(
            f"--latency-resource={given['latency-resource']} is of no host of the job: latency is measured "
            "on the first one; drop it"
        )
