"""The processes that train one model together, as torchrun starts them: gloo on a CPU, NCCL on GPUs."""

from __future__ import annotations

import os
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

import torch
from torch import distributed

from rlnas.errors import DeviceError, RunFolderError, TrainingError

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np
    import numpy.typing as npt
    from torch import Tensor, nn

WAIT = timedelta(minutes=10)
"""How long a rank waits for the others before it gives up: a node without power says nothing."""


@dataclass(frozen=True, slots=True)
class Ranks:
    """The processes of one training, seen from one of them; all have to make the same calls.

    Attributes:
        rank: Number of this process, from 0.
        size: How many there are.
        device: Where this process computes.
    """

    rank: int
    size: int
    device: str

    @property
    def is_first(self) -> bool:
        """Whether this is the process that writes files and shows bars."""
        return self.rank == 0

    def share_of(self, indices: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """This rank's items of a step: every `size`-th one, as neighbours are alike in length."""
        return indices[self.rank :: self.size]

    def add_up(self, values: Tensor) -> None:
        """Replace values by their sum over all ranks, the same bits on each."""
        distributed.all_reduce(values)

    def align(self, model: nn.Module) -> None:
        """Give the model the weights that the first rank has."""
        for weight in model.state_dict().values():
            distributed.broadcast(weight, 0)

    def check_same(self, step: int) -> None:
        """Refuse to go on from different checkpoints.

        Raises:
            RunFolderError: If `step` is not the same on all ranks.
        """
        bounds = torch.tensor([step, -step], device=self.device)
        distributed.all_reduce(bounds, distributed.ReduceOp.MAX)
        last, first = int(bounds[0]), -int(bounds[1])
        if first != last:
            raise RunFolderError(
                f"the ranks read checkpoints of different steps, from {first} to {last}; "
                "give all nodes the same folder"
            )

    def any(self, holds: bool) -> bool:
        """Whether something holds on at least one rank."""
        count = torch.tensor([float(holds)], device=self.device)
        self.add_up(count)
        return bool(count > 0)

    def send(self, content: bytes = b"") -> bytes:
        """Bytes of the first rank, on all of them; those that others give are not looked at."""
        size = torch.tensor([len(content)], device=self.device)
        distributed.broadcast(size, 0)
        if not (n_bytes := int(size)):
            return b""
        values = torch.empty(n_bytes, dtype=torch.uint8)
        if self.is_first:
            values = torch.frombuffer(bytearray(content), dtype=torch.uint8)
        values = values.to(self.device)
        distributed.broadcast(values, 0)
        return values.cpu().numpy().tobytes()

    def wait(self) -> None:
        """Return when all ranks are here."""
        self.add_up(torch.zeros(1, device=self.device))


@contextmanager
def joined(device: str) -> Iterator[Ranks]:
    """Join the processes that torchrun has started beside this one, and leave them together.

    After an error nothing is waited for: then the process has to end, and torchrun ends the others.

    Args:
        device: ``"cpu"``, ``"cuda"`` or ``"cuda:N"``; see `device_of_rank`.

    Raises:
        TrainingError: If torchrun has not started this process, or the others do not come.
        DeviceError: If a node has fewer GPUs than processes.
    """
    missing = [name for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK") if name not in os.environ]
    if missing:
        raise TrainingError(
            f"this process is one of no group ({missing[0]} is not set); "
            "start it by torchrun --standalone --nproc-per-node N"
        )
    own = device_of_rank(device, int(os.environ["LOCAL_RANK"]))
    is_gpu = own.startswith("cuda")
    if is_gpu:
        torch.cuda.set_device(own)
    try:
        distributed.init_process_group(
            "nccl" if is_gpu else "gloo",
            timeout=WAIT,
            device_id=torch.device(own) if is_gpu else None,
        )
    except (RuntimeError, ValueError) as error:
        raise TrainingError(f"the processes of the training cannot reach each other: {error}") from error
    ranks = Ranks(distributed.get_rank(), distributed.get_world_size(), own)
    yield ranks
    ranks.wait()
    distributed.destroy_process_group()


def device_of_rank(device: str, local_rank: int) -> str:
    """Where a process computes: a GPU of its own, counted from the one that is named.

    Args:
        device: ``"cpu"``, ``"cuda"`` or ``"cuda:N"``.
        local_rank: Number of the process on its node, from 0.

    Raises:
        DeviceError: If the node has no such GPU.
    """
    kind, _, first = device.partition(":")
    if kind != "cuda":
        return device
    index = int(first or 0) + local_rank
    n_gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if index >= n_gpus:
        raise DeviceError(
            f"process {local_rank} of this node needs the GPU cuda:{index}, but there are {n_gpus}; "
            "start one process for each GPU (--nproc)"
        )
    return f"cuda:{index}"
