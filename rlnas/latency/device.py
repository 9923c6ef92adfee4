"""Devices: which one, what it is called, and the conditions under which it is timed."""

from __future__ import annotations

import platform
import re
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlnas.errors import DeviceError
from rlnas.latency.clock import CPU_CLOCK

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

TIMED_THREADS = 1
"""Threads while timing: two threads on a busy machine wait for each other (30 times slower, seen)."""

_CPU_INFO = Path("/proc/cpuinfo")
_NVIDIA_DRIVER = Path("/proc/driver/nvidia/version")


@dataclass(frozen=True, slots=True)
class DeviceInfo:
    """What a latency was measured on; names neither host nor user.

    Attributes:
        kind: ``"cpu"`` or ``"cuda"``.
        name: The model's name, e.g. ``"NVIDIA H100 80GB HBM3"``.
        threads: Torch threads while timing.
        driver: Driver and CUDA version, or None on a CPU.
        clock: What counts as time: ``"processor time"`` of the process on a CPU (wall-clock time
            less what other programs took, see `CpuClock`), ``"CUDA events"`` on a GPU.
        versions: Of Python (major.minor), torch and transformers, and of onnxruntime where that runs
            the model.
    """

    kind: str
    name: str
    threads: int = TIMED_THREADS
    driver: str | None = None
    clock: str = "processor time"
    versions: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "versions", dict(self.versions))

    def __str__(self) -> str:
        parts = [
            f"{self.kind} {self.name}",
            f"{self.threads} thread{'s' * (self.threads != 1)}",
            self.clock,
        ]
        if self.driver is not None:
            parts.append(f"driver {self.driver}")
        parts += [f"{package} {number}" for package, number in sorted(self.versions.items())]
        return ", ".join(parts)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)


def resolve_device(device: str = "auto") -> str:
    """The name of the device that is meant: ``"cpu"`` or ``"cuda:0"``.

    Args:
        device: ``"cpu"``, ``"cuda"``, ``"cuda:1"``, or ``"auto"`` for CUDA where it is there.

    Raises:
        DeviceError: If the device is unknown or not there.
    """
    import torch

    n_gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if device == "auto":
        return "cuda:0" if n_gpus else "cpu"
    match = re.fullmatch(r"(cpu|cuda)(?::(\d+))?", device)
    if match is None:
        raise DeviceError(f"device must be auto, cpu, cuda or cuda:N, but got device={device!r}")
    if match[1] == "cpu":
        return "cpu"
    index = int(match[2] or 0)
    if n_gpus == 0:
        raise DeviceError(f"device={device!r} needs CUDA, which is not available; use device='cpu'")
    if index >= n_gpus:
        raise DeviceError(f"device={device!r} is not there; this machine has cuda:0 to cuda:{n_gpus - 1}")
    return f"cuda:{index}"


def describe_device(device: str, *, threads: int = TIMED_THREADS, mode: str = "eager") -> DeviceInfo:
    """What a latency measured on `device` under `timing_conditions` belongs to.

    Args:
        device: See `resolve_device`.
        threads: Torch threads while timing.
        mode: How the model is run, see `rlnas.workload.MODES`.

    Raises:
        DeviceError: If the device is unknown or not there.
    """
    chosen = resolve_device(device)
    versions = {
        "python": ".".join(platform.python_version_tuple()[:2]),
        "torch": _version_of("torch"),
        "transformers": _version_of("transformers"),
    }
    if mode == "onnxruntime":
        versions[mode] = _version_of(mode)
    if chosen == "cpu":
        return DeviceInfo("cpu", _cpu_name(), threads, clock=CPU_CLOCK, versions=versions)
    import torch

    driver = f"{_nvidia_driver()}, CUDA {torch.version.cuda}"
    name = torch.cuda.get_device_name(chosen)
    return DeviceInfo("cuda", name, threads, driver, "CUDA events", versions)


@contextmanager
def timing_conditions(threads: int = TIMED_THREADS) -> Iterator[None]:
    """Few threads while building and timing; their number is restored afterwards.

    Args:
        threads: Torch threads within the context, at least 1.

    Raises:
        ValueError: If `threads` is below 1.
    """
    import torch

    if threads < 1:
        raise ValueError(f"threads must be at least 1, but got threads={threads}")
    threads_before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(threads_before)


def _version_of(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _cpu_name() -> str:
    """The CPU's name, and its numbers where they show: a virtual machine may say "AMD EPYC" of them all."""
    try:
        text = _CPU_INFO.read_text()
    except OSError:
        text = ""
    found = {
        key: match[1].strip()
        for key in ("model name", "cpu family", "model", "stepping")
        if (match := re.search(rf"^{key}\s*:(.+)$", text, re.MULTILINE))
    }
    name = found.pop("model name", "") or platform.processor() or platform.machine()
    numbers = ", ".join(f"{key.removeprefix('cpu ')} {number}" for key, number in found.items())
    return f"{name} ({numbers})" if numbers else name


def _nvidia_driver() -> str:
    try:
        match = re.search(r"\b\d+\.\d+(?:\.\d+)*\b", _NVIDIA_DRIVER.read_text())
    except OSError:
        match = None
    return match[0] if match else "unknown"
