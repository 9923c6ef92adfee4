"""Measured latency: a stopwatch, and a table that predicts from what it measured."""

from rlnas.latency.clock import Clock, CpuClock, CudaClock, FakeClock, clock_for
from rlnas.latency.correction import Correction, HeldOutError
from rlnas.latency.device import DeviceInfo, describe_device, resolve_device, timing_conditions
from rlnas.latency.stopwatch import (
    Comparison,
    Timing,
    compare,
    compare_timings,
    level_rounds,
    measure,
    noise_note,
)
from rlnas.latency.table import BlockTiming, LatencyTable, ModelTiming

__all__ = [
    "BlockTiming",
    "Clock",
    "Comparison",
    "Correction",
    "CpuClock",
    "CudaClock",
    "DeviceInfo",
    "FakeClock",
    "HeldOutError",
    "LatencyTable",
    "ModelTiming",
    "Timing",
    "clock_for",
    "compare",
    "compare_timings",
    "describe_device",
    "level_rounds",
    "measure",
    "noise_note",
    "resolve_device",
    "timing_conditions",
]
