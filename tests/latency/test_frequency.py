from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rlnas.latency import frequency
from rlnas.latency.frequency import FrequencyWatch, frequency_note, frequency_reader

CPU_INFO = "processor\t: 0\ncpu MHz\t\t: 2400.125\n\nprocessor\t: 1\ncpu MHz\t\t: 3100.500\n"


@pytest.fixture
def cores(tmp_path, monkeypatch):
    """A machine whose cores' clocks a test writes down."""
    monkeypatch.setattr(frequency, "_CPUS", tmp_path)
    monkeypatch.setattr(frequency, "_CPU_INFO", tmp_path / "cpuinfo")

    def write(number, text):
        path = tmp_path / f"cpu{number}" / "cpufreq" / "scaling_cur_freq"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    return write


@pytest.fixture
def nvml(monkeypatch):
    """An NVML that knows one GPU."""

    class FakeError(Exception):
        pass

    module = ModuleType("pynvml")
    module.NVMLError, module.NVML_CLOCK_SM, module.clocks, module.started = FakeError, 1, [1980, 1710], []
    module.nvmlInit = lambda: module.started.append(True)

    def handle_of(uuid):
        if uuid != "GPU-12ab-34":
            raise FakeError("not found")
        return "the handle"

    def clock(handle, kind):
        assert (handle, kind, module.started) == ("the handle", 1, [True])
        if not module.clocks:
            raise FakeError("the GPU is lost")
        return module.clocks[0]

    module.nvmlDeviceGetHandleByUUID, module.nvmlDeviceGetClockInfo = handle_of, clock
    monkeypatch.setitem(sys.modules, "pynvml", module)
    uuids = {0: "other", 1: "12ab-34"}
    monkeypatch.setattr(
        torch.cuda, "get_device_properties", lambda index: SimpleNamespace(uuid=uuids[index])
    )
    return module


def test_the_fastest_core_counts(cores):
    cores(0, "1200000\n")
    cores(11, "3400000\n")
    assert frequency_reader("cpu")() == 3400.0


def test_every_reading_is_a_new_one(cores):
    cores(0, "1200000\n")
    read = frequency_reader("cpu")
    cores(0, "800000\n")
    assert read() == 800.0


def test_a_core_that_says_nothing_is_left_out(cores):
    cores(0, "<unknown>\n")
    cores(1, "1200000\n")
    assert frequency_reader("cpu")() == 1200.0


def test_without_scaling_files_the_cpu_info_is_read(cores, tmp_path):
    (tmp_path / "cpuinfo").write_text(CPU_INFO)
    read = frequency_reader("cpu")
    assert read() == 3100.5
    (tmp_path / "cpuinfo").unlink()
    assert read() is None


def test_a_machine_that_shows_no_clock_has_no_reader(cores, tmp_path):
    assert frequency_reader("cpu") is None
    (tmp_path / "cpuinfo").write_text("model name: a CPU\n")
    assert frequency_reader("cpu") is None
    assert frequency_reader("mps") is None


def test_a_gpu_is_found_by_what_torch_calls_it_and_not_by_its_number(nvml):
    read = frequency_reader("cuda:1")
    assert read() == 1980.0
    nvml.clocks.pop(0)
    assert read() == 1710.0


def test_a_gpu_that_nvml_does_not_know_has_no_reader(nvml):
    assert frequency_reader("cuda") is None


def test_a_gpu_that_shows_no_clock_has_no_reader(nvml):
    nvml.clocks.clear()
    assert frequency_reader("cuda:1") is None


def test_a_reading_that_fails_later_is_none(nvml):
    read = frequency_reader("cuda:1")
    nvml.clocks.clear()
    assert read() is None


def test_an_nvml_that_does_not_start_is_no_error(nvml, monkeypatch):
    def fail():
        raise nvml.NVMLError("no driver")

    monkeypatch.setattr(nvml, "nvmlInit", fail)
    assert frequency_reader("cuda:1") is None


def test_without_the_package_there_is_no_reader(monkeypatch):
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert frequency_reader("cuda:0") is None


def test_the_real_package_without_a_driver_is_no_error():
    pytest.importorskip("pynvml")
    if torch.cuda.is_available():
        pytest.skip("there is a driver")
    assert frequency_reader("cuda:0") is None


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_tells_its_clock():
    read = frequency_reader("cuda:0")
    if read is None:
        pytest.skip("NVML is not installed, or does not answer")
    assert 100 < read() < 10_000


@pytest.mark.parametrize("readings", [(), (1500.0,), (1500.0, 1574.0, 1500.0)])
def test_a_steady_clock_is_not_mentioned(readings):
    assert frequency_note(readings) is None


@pytest.mark.parametrize(
    ("readings", "words"),
    [
        ((1980.0, 1410.0, 1700.0), "from 1980 to 1410 MHz"),
        ((1410.0, 1700.0, 1980.0), "from 1410 to 1980 MHz"),
    ],
)
def test_a_clock_that_moved_is_said_in_the_order_of_time_with_what_to_do(readings, words):
    note = frequency_note(readings)
    assert words in note
    assert "lock its clocks" in note


@given(st.lists(st.floats(300, 5000), min_size=1))
def test_exactly_a_spread_above_five_percent_is_mentioned(readings):
    moved = max(readings) > 1.05 * min(readings)
    assert (frequency_note(readings) is not None) == moved


def test_a_watch_notes_what_it_has_seen():
    readings = iter([1_000.0, None, 700.0])
    watch = FrequencyWatch(lambda: next(readings))
    for _ in range(3):
        watch.look()
    assert watch.note == frequency_note([1_000.0, 700.0])
    assert watch.note is not None
    blind = FrequencyWatch(None)
    blind.look()
    assert blind.note is None
