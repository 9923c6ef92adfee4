"""Generators and thread counts of the process, kept apart from those of a policy that trains in it."""

from __future__ import annotations

import random
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

if TYPE_CHECKING:
    from collections.abc import Iterator


class Randomness:
    """Keeps the global generators that SB3 draws from apart from the caller's."""

    def __init__(self) -> None:
        self._callers = GlobalState.capture()

    @contextmanager
    def inside(self, seed: int | None = None) -> Iterator[None]:
        """The policy's side: whatever is drawn or seeded here is undone at the end.

        Args:
            seed: Where the generators start, at least 0; None goes on with the caller's state.
        """
        self._callers = GlobalState.capture()
        torch.set_num_threads(1)  # one order of summation everywhere, and the fastest for this size
        if seed is not None:
            random.seed(seed)
            np.random.seed(seed % 2**32)
            torch.manual_seed(seed)
        try:
            yield
        finally:
            self._callers.restore()

    @contextmanager
    def outside(self) -> Iterator[None]:
        """Back on the caller's side for a while, from within `inside`."""
        policys = GlobalState.capture()
        self._callers.restore()
        try:
            yield
        finally:
            self._callers = GlobalState.capture()
            policys.restore()


@dataclass(frozen=True, slots=True)
class GlobalState:
    """Generators and settings of the process that training a policy touches."""

    python: tuple[Any, ...]
    numpy: Any
    torch_cpu: torch.Tensor
    torch_cuda: tuple[torch.Tensor, ...]
    n_threads: int
    cudnn: tuple[bool, bool]

    @classmethod
    def capture(cls) -> GlobalState:
        """The state as it is."""
        return cls(
            python=random.getstate(),
            numpy=np.random.get_state(),
            torch_cpu=torch.get_rng_state(),
            torch_cuda=_cuda_states(),
            n_threads=torch.get_num_threads(),
            cudnn=(torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark),
        )

    def restore(self) -> None:
        """Make the process as it was."""
        random.setstate(self.python)
        np.random.set_state(self.numpy)
        torch.set_rng_state(self.torch_cpu)
        for device, state in enumerate(self.torch_cuda):
            torch.cuda.set_rng_state(state, device)
        torch.set_num_threads(self.n_threads)
        torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = self.cudnn


def _cuda_states() -> tuple[torch.Tensor, ...]:
    # Asking for the state of a device starts CUDA; where nothing has started it, there is none.
    started: bool = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]  # torch has no hint here
    return tuple(torch.cuda.get_rng_state_all()) if started else ()
