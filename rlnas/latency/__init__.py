"""Measured latency: a stopwatch, and a table that predicts from what it measured."""

from rlnas.latency.clock import Clock, CpuClock, CudaClock, FakeClock, clock_for
from rlnas.latency.correction import Correction
from rlnas.latency.device import DeviceInfo, describe_device, resolve_device, timing_conditions
from rlnas.latency.precisions import PrecisionTables
from rlnas.latency.stopwatch import compare, measure, sample_ms
from rlnas.latency.table import BlockTiming, LatencyTable, ModelTiming
from rlnas.latency.timing import Comparison, Timing, compare_timings, level_rounds, noise_note
from rlnas.latency.validation import HeldOutError, PredictionError

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
    "PrecisionTables",
    "PredictionError",
    "Timing",
    "clock_for",
    "compare",
    "compare_timings",
    "describe_device",
    "level_rounds",
    "measure",
    "noise_note",
    "resolve_device",
    "sample_ms",
    "timing_conditions",
]
