from __future__ import annotations

import platform
import socket

import pytest
import torch

from rlnas.errors import DeviceError
from rlnas.latency import device as device_module
from rlnas.latency.device import DeviceInfo, describe_device, resolve_device, timing_conditions


@pytest.fixture
def two_gpus(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"GPU of {device}")


@pytest.fixture
def no_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


@pytest.mark.parametrize(
    ("asked", "given"),
    [("auto", "cuda:0"), ("cuda", "cuda:0"), ("cuda:1", "cuda:1"), ("cpu", "cpu"), ("cpu:0", "cpu")],
)
def test_a_device_that_is_there_is_resolved(two_gpus, asked, given):
    assert resolve_device(asked) == given


def test_auto_is_the_cpu_where_there_is_no_gpu(no_gpu):
    assert resolve_device("auto") == "cpu"


@pytest.mark.parametrize("asked", ["cuda", "cuda:0"])
def test_cuda_that_is_not_there_is_an_error(no_gpu, asked):
    with pytest.raises(DeviceError, match=f"device='{asked}' needs CUDA"):
        resolve_device(asked)


def test_a_gpu_beyond_the_last_is_an_error(two_gpus):
    with pytest.raises(
        DeviceError, match="device='cuda:2' is not there; this machine has cuda:0 to cuda:1"
    ):
        resolve_device("cuda:2")


@pytest.mark.parametrize("asked", ["", "gpu", "tpu", "cuda:x", "mps"])
def test_an_unknown_device_is_an_error(asked):
    with pytest.raises(DeviceError, match=f"device='{asked}'"):
        resolve_device(asked)


def test_the_cpu_is_described_without_host_or_path():
    info = describe_device("cpu")
    assert (info.kind, info.threads, info.driver) == ("cpu", 1, None)
    assert info.name
    assert info.versions["torch"] == torch.__version__
    assert info.versions["python"] == ".".join(platform.python_version_tuple()[:2])
    assert socket.gethostname() not in str(info)
    assert "/" not in str(info)


def test_a_cpu_is_named_by_its_platform_where_proc_is_missing(monkeypatch, tmp_path):
    monkeypatch.setattr(device_module, "_CPU_INFO", tmp_path / "nothing")
    monkeypatch.setattr(platform, "processor", lambda: "")
    monkeypatch.setattr(platform, "machine", lambda: "arm64")
    assert describe_device("cpu").name == "arm64"


def test_the_cpu_name_is_read_from_proc(monkeypatch, tmp_path):
    (tmp_path / "cpuinfo").write_text("processor\t: 0\nmodel name\t: Some CPU @ 2 GHz \n")
    monkeypatch.setattr(device_module, "_CPU_INFO", tmp_path / "cpuinfo")
    assert describe_device("cpu").name == "Some CPU @ 2 GHz"


CPU_INFO = """processor\t: 0
vendor_id\t: AuthenticAMD
cpu family\t: 25
model\t\t: 17
model name\t: AMD EPYC
stepping\t: 1
processor\t: 1
cpu family\t: 25
model\t\t: 17
model name\t: AMD EPYC
stepping\t: 1
"""


def test_cpus_of_one_name_are_told_apart_by_their_numbers(monkeypatch, tmp_path):
    monkeypatch.setattr(device_module, "_CPU_INFO", tmp_path / "cpuinfo")
    (tmp_path / "cpuinfo").write_text(CPU_INFO)
    newer = describe_device("cpu")
    assert newer.name == "AMD EPYC (family 25, model 17, stepping 1)"
    (tmp_path / "cpuinfo").write_text(CPU_INFO.replace("model\t\t: 17", "model\t\t: 1"))
    assert describe_device("cpu") != newer


def test_a_gpu_is_described_with_its_driver(two_gpus, monkeypatch, tmp_path):
    (tmp_path / "version").write_text(
        "NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.15  Tue Mar 5\n"
    )
    monkeypatch.setattr(device_module, "_NVIDIA_DRIVER", tmp_path / "version")
    monkeypatch.setattr(torch.version, "cuda", "12.8")
    info = describe_device("cuda:1")
    assert (info.kind, info.name) == ("cuda", "GPU of cuda:1")
    assert info.driver == "550.54.15, CUDA 12.8"


def test_a_driver_that_does_not_show_is_unknown(two_gpus, monkeypatch, tmp_path):
    monkeypatch.setattr(device_module, "_NVIDIA_DRIVER", tmp_path / "nothing")
    assert str(describe_device("cuda").driver).startswith("unknown, CUDA")


def test_a_package_that_is_missing_has_no_version(monkeypatch):
    def version(package: str) -> str:
        raise device_module.PackageNotFoundError(package)

    monkeypatch.setattr(device_module, "version", version)
    assert describe_device("cpu").versions["transformers"] == "not installed"


def test_a_description_survives_json():
    info = DeviceInfo("cuda", "H100", 2, "550, CUDA 12.8", "CUDA events", {"torch": "2.13.0"})
    assert DeviceInfo(**info.to_dict()) == info
    assert str(info) == "cuda H100, 2 threads, CUDA events, driver 550, CUDA 12.8, torch 2.13.0"


def test_timing_runs_on_one_thread_and_puts_the_threads_back():
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        with timing_conditions():
            assert torch.get_num_threads() == 1
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def fail_while_timing() -> None:
    with timing_conditions(2):
        raise RuntimeError("broken call")


def test_the_threads_are_put_back_after_an_error():
    before = torch.get_num_threads()
    with pytest.raises(RuntimeError, match="broken call"):
        fail_while_timing()
    assert torch.get_num_threads() == before


def test_timing_on_no_thread_is_refused():
    with pytest.raises(ValueError, match="threads=0"), timing_conditions(0):
        pass


def test_onnxruntime_counts_where_it_runs_the_model():
    assert "onnxruntime" not in describe_device("cpu").versions
    assert describe_device("cpu", mode="compiled") == describe_device("cpu")
    assert describe_device("cpu", mode="onnxruntime").versions["onnxruntime"]
