"""The clock frequency of a device, read only: a clock that moves makes timings of one run differ."""

from __future__ import annotations

import importlib
import re
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

MOVED = 0.05
"""Share by which the clock may move unmentioned."""

_CPUS = Path("/sys/devices/system/cpu")
_CPU_INFO = Path("/proc/cpuinfo")


def frequency_reader(device: str) -> Callable[[], float | None] | None:
    """What reads the device's present clock frequency in MHz, or None where nothing can.

    On a CPU it is the highest of all cores, since the one that computes runs fastest; Linux only, and
    many virtual machines show none. On an NVIDIA GPU it is the clock of the multiprocessors, through
    NVML, if the extra ``nvml`` is installed. A reading that fails later is None. Nothing is ever changed.

    Args:
        device: As `rlnas.latency.device.resolve_device` gives it.
    """
    if device.startswith("cuda"):
        return _gpu_reader(int(device.partition(":")[2] or 0))
    if device == "cpu":
        return next((read for read in (_scaling_mhz, _cpu_info_mhz) if read() is not None), None)
    return None


class FrequencyWatch:
    """Reads a device's clock now and then.

    Args:
        read: As `frequency_reader` gives it; None where nothing can be read.
    """

    def __init__(self, read: Callable[[], float | None] | None) -> None:
        self._read = read
        self._readings_mhz: list[float] = []

    def look(self) -> None:
        """Read the clock once."""
        reading = None if self._read is None else self._read()
        if reading is not None:
            self._readings_mhz.append(reading)

    @property
    def note(self) -> str | None:
        """See `frequency_note`."""
        return frequency_note(self._readings_mhz)


def frequency_note(readings_mhz: Sequence[float]) -> str | None:
    """One sentence if the clock moved by more than `MOVED` of its lowest value, else None.

    Args:
        readings_mhz: The clock in every round, in their order.
    """
    if not readings_mhz:
        return None
    low, high = min(readings_mhz), max(readings_mhz)
    if high <= (1 + MOVED) * low:
        return None
    first, last = sorted((readings_mhz.index(low), readings_mhz.index(high)))
    return (
        f"the device's clock moved from {readings_mhz[first]:.0f} to {readings_mhz[last]:.0f} MHz between "
        "rounds, so timings differ by that; lock its clocks, or let it warm up under load first"
    )


def _scaling_mhz() -> float | None:
    found = []
    for path in _CPUS.glob("cpu[0-9]*/cpufreq/scaling_cur_freq"):
        with suppress(OSError, ValueError):  # a core may be switched off
            found.append(int(path.read_text()) / 1e3)
    return max(found, default=None)


def _cpu_info_mhz() -> float | None:
    try:
        text = _CPU_INFO.read_text()
    except OSError:
        return None
    return max(map(float, re.findall(r"^cpu MHz\s*:\s*([\d.]+)$", text, re.MULTILINE)), default=None)


def _gpu_reader(index: int) -> Callable[[], float | None] | None:
    """A reader through NVML, or None if it is not installed, does not start or does not know the GPU."""
    try:
        nvml = importlib.import_module("pynvml")
    except ImportError:
        return None
    try:
        nvml.nvmlInit()
        handle = nvml.nvmlDeviceGetHandleByUUID(_uuid(index))
    except Exception:  # what is wrong with a driver, or with torch's, is nobody's concern here
        return None

    def read() -> float | None:
        try:
            return float(nvml.nvmlDeviceGetClockInfo(handle, nvml.NVML_CLOCK_SM))
        except nvml.NVMLError:
            return None

    return read if read() is not None else None


def _uuid(index: int) -> str:
    """Name of a GPU that does not depend on CUDA_VISIBLE_DEVICES, as numbers do."""
    import torch

    properties: Any = torch.cuda.get_device_properties(index)
    return f"GPU-{properties.uuid}"
