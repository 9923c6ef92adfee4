from __future__ import annotations

import time
from contextlib import nullcontext

import pytest
import torch

from rlnas.errors import DeviceError
from rlnas.latency.clock import CpuClock, CudaClock, FakeClock, clock_for


def spin(n_steps: int) -> None:
    total = 0
    for step in range(n_steps):
        total += step


@pytest.mark.parametrize("wall", [False, True], ids=["processor", "wall"])
def test_a_longer_loop_takes_longer_on_the_cpu(wall):
    clock = CpuClock(wall=wall)
    short_ms = min(clock.time_ms(lambda: spin(2_000), 1) for _ in range(5))
    long_ms = min(clock.time_ms(lambda: spin(200_000), 1) for _ in range(5))
    assert long_ms > 10 * short_ms > 0


def test_the_processor_clock_does_not_count_waiting():
    waited = CpuClock().time_ms(lambda: time.sleep(0.05), 1)
    assert CpuClock(wall=True).time_ms(lambda: time.sleep(0.05), 1) > 2 * waited


def test_the_cpu_clock_runs_each_call():
    seen: list[int] = []
    CpuClock().time_ms(lambda: seen.append(1), 7)
    assert len(seen) == 7


def test_the_fake_clock_shows_what_calls_spend():
    clock = FakeClock()
    assert clock.time_ms(clock.call(1.5), 4) == 6.0
    assert clock.now_ms == 6.0


def test_the_fake_clock_can_slow_down():
    clock = FakeClock(slowdown=lambda now_ms: 1.0 if now_ms < 2 else 10.0)
    assert [clock.time_ms(clock.call(2.0), 1) for _ in range(2)] == [2.0, 20.0]


def test_a_cpu_gets_the_cpu_clock():
    assert isinstance(clock_for("cpu"), CpuClock)


def test_a_device_without_a_clock_is_named():
    with pytest.raises(DeviceError, match="cpu and cuda, but got device='tpu:0'"):
        clock_for("tpu:0")


def test_a_missing_gpu_is_named(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(DeviceError, match="device='cuda:3' needs CUDA"):
        clock_for("cuda:3")


def test_cuda_events_enclose_the_calls_and_both_ends_are_waited_for(monkeypatch):
    happened: list[str] = []

    class Event:
        def __init__(self, *, enable_timing: bool) -> None:
            assert enable_timing

        def record(self) -> None:
            happened.append("record")

        def synchronize(self) -> None:
            happened.append("wait for event")

        def elapsed_time(self, other: Event) -> float:
            return 2.5

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "device", lambda device: nullcontext())
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: happened.append("wait for device"))
    clock = clock_for("cuda:0")
    assert isinstance(clock, CudaClock)
    assert clock.time_ms(lambda: happened.append("call"), 2) == 2.5
    assert happened == ["wait for device", "record", "call", "call", "record", "wait for event"]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_larger_product_takes_longer_on_the_gpu():
    small, large = torch.randn(64, 64, device="cuda"), torch.randn(4096, 4096, device="cuda")
    clock = CudaClock()
    for matrix in (small, large):
        clock.time_ms(lambda matrix=matrix: matrix @ matrix, 3)
    assert clock.time_ms(lambda: large @ large, 5) > 10 * clock.time_ms(lambda: small @ small, 5)
