"""Clocks: the only part of timing that knows a device.

Statistics (`rlnas.latency.stopwatch`) see one method, `Clock.time_ms`, so they are tested
with a `FakeClock` and need no device.
"""

from __future__ import annotations

import time
from itertools import repeat
from typing import TYPE_CHECKING, Protocol

from rlnas.errors import DeviceError

if TYPE_CHECKING:
    from collections.abc import Callable


# Elsewhere (Windows) processor time advances in steps of 16 ms.
_HAS_FINE_PROCESS_TIME = time.get_clock_info("process_time").implementation.startswith("clock_gettime")

CPU_CLOCK = "processor time" if _HAS_FINE_PROCESS_TIME else "wall clock"
"""What `CpuClock` counts by default on this machine."""


class Clock(Protocol):
    """Times calls on one device."""

    def time_ms(self, call: Callable[[], object], n_calls: int, /) -> float:
        """Run `call` back to back and wait until the device is done.

        Args:
            call: What to time; it need not wait for the device.
            n_calls: How often to run it, at least 1.

        Returns:
            Milliseconds from before the first call to the end of the last one's work.
        """


class CpuClock:
    """Times synchronous calls on the CPU.

    By default it counts the processor time of this process. For a call that computes on
    one thread that is its wall-clock time, less the pauses in which the operating system
    ran somebody else's work: on a busy machine those are most of the wall-clock time, and they
    say nothing about the model. Calls that wait (for a disk, a lock) or that run on several
    threads need the wall clock.

    Args:
        wall: Count wall-clock time instead.
    """

    def __init__(self, *, wall: bool = False) -> None:
        self._now_ns = time.perf_counter_ns if wall or not _HAS_FINE_PROCESS_TIME else time.process_time_ns

    def time_ms(self, call: Callable[[], object], n_calls: int, /) -> float:
        """See `Clock.time_ms`."""
        start_ns = self._now_ns()
        for _ in repeat(None, n_calls):
            call()
        return (self._now_ns() - start_ns) / 1e6


class CudaClock:
    """CUDA events around calls on the current stream of one GPU.

    The GPU is idle when the first event is recorded, so the time holds the launches on
    the host as well as the kernels: what one waits for.

    Args:
        device: A CUDA device.

    Raises:
        DeviceError: If CUDA is not there.
    """

    def __init__(self, device: str = "cuda") -> None:
        import torch

        if not torch.cuda.is_available():
            raise DeviceError(f"device={device!r} needs CUDA, which is not available; use device='cpu'")
        self._torch = torch
        self._device = torch.device(device)

    def time_ms(self, call: Callable[[], object], n_calls: int, /) -> float:
        """See `Clock.time_ms`."""
        cuda = self._torch.cuda
        with cuda.device(self._device):
            start, end = cuda.Event(enable_timing=True), cuda.Event(enable_timing=True)
            cuda.synchronize()
            start.record()
            for _ in repeat(None, n_calls):
                call()
            end.record()
            end.synchronize()
            return float(start.elapsed_time(end))


class FakeClock:
    """A clock for tests: time passes only when a call says so.

    Args:
        slowdown: Factor on every cost at a given time (ms since the start), for machines
            that drift; by default 1 at all times.

    Attributes:
        now_ms: The time shown, in milliseconds.
    """

    def __init__(self, slowdown: Callable[[float], float] | None = None) -> None:
        self.now_ms = 0.0
        self._slowdown = slowdown

    def spend(self, ms: float) -> None:
        """Let `ms` milliseconds of work pass."""
        self.now_ms += ms if self._slowdown is None else ms * self._slowdown(self.now_ms)

    def call(self, ms: float) -> Callable[[], None]:
        """A call that takes `ms` milliseconds."""
        return lambda: self.spend(ms)

    def time_ms(self, call: Callable[[], object], n_calls: int, /) -> float:
        """See `Clock.time_ms`."""
        start_ms = self.now_ms
        for _ in repeat(None, n_calls):
            call()
        return self.now_ms - start_ms


def clock_for(device: str) -> Clock:
    """The clock of a device.

    Args:
        device: As `rlnas.latency.device.resolve_device` gives it.

    Raises:
        DeviceError: If there is no clock for this kind of device, or CUDA is not there.
    """
    kind = device.partition(":")[0]
    if kind == "cpu":
        return CpuClock()
    if kind == "cuda":
        return CudaClock(device)
    raise DeviceError(f"there are clocks for cpu and cuda, but got device={device!r}")
