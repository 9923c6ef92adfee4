from __future__ import annotations

import gc
import importlib.util
import logging
import tempfile
import weakref
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from models import CASES, Narrow, Refused

from rlnas.errors import DeviceError, MissingDependencyError
from rlnas.latency.device import timing_conditions
from rlnas.runtime.eager import eager_call
from rlnas.runtime.onnx import (
    _check_provider,
    check_onnxruntime,
    onnx_call,
    open_session,
    quantize_graph,
    write_graph,
)

onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")
X = torch.linspace(-1.0, 1.0, 8).view(2, 4)


@pytest.mark.parametrize("case", ["subnet", "layer without mask"])
def test_models_that_are_made_while_timing_can_be_exported(case):
    with timing_conditions():
        module, inputs = CASES[case]()
        torch.testing.assert_close(onnx_call(module, inputs)(), eager_call(module, inputs)())


def test_half_precision_runs_on_a_cpu():
    module, inputs = CASES["subnet"]()
    module.half()
    result = onnx_call(module, inputs)()
    assert result.dtype == torch.float16
    torch.testing.assert_close(result, eager_call(module, inputs)(), atol=1e-2, rtol=1e-2)


def test_values_that_are_written_into_the_inputs_count():
    module, x = Narrow(), X.clone()
    call = onnx_call(module, {"x": x})
    call()
    x.mul_(-2.0)
    torch.testing.assert_close(call(), module(x))


def test_nothing_is_copied_in_or_out():
    call = onnx_call(Narrow(), {"x": X})
    assert call().data_ptr() == call().data_ptr()


def test_an_input_that_the_module_does_not_use_may_be_given():
    class Ignores(Narrow):
        def forward(self, x, unused):
            return super().forward(x)

    module = Ignores()
    torch.testing.assert_close(onnx_call(module, {"x": X, "unused": X})(), module(X, X))


def test_a_call_that_is_gone_keeps_no_module_and_no_file(monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    modules = []
    for units in (3, 5):
        module = Narrow(units)
        modules.append(weakref.ref(module))
        onnx_call(module, {"x": X})()
    del module
    gc.collect()
    assert [reference for reference in modules if reference() is not None] == []
    assert list(tmp_path.iterdir()) == []


def test_the_exporter_says_nothing_and_logging_is_as_before(capfd, caplog):
    onnx_call(Narrow(), {"x": X})
    printed = capfd.readouterr()
    assert (printed.out, printed.err) == ("", "")
    assert [record for record in caplog.records if record.levelno >= logging.INFO] == []
    assert logging.root.manager.disable == logging.NOTSET


def test_a_graph_holds_its_weights_or_lays_them_beside(tmp_path):
    module = Narrow()
    for name, external in (("one.onnx", False), ("two.onnx", True)):
        path = tmp_path / name
        write_graph(
            module, {"x": X, "shift": None}, path, output_name="y", dynamic={0: "n"}, external_data=external
        )
        session = open_session(path)
        assert (session.get_inputs()[0].shape, session.get_outputs()[0].shape) == (["n", 4], ["n", 4])
        (y,) = session.run(["y"], {"x": X[:1].numpy()})
        torch.testing.assert_close(torch.from_numpy(y), module(X[:1]))
    assert {file.name for file in tmp_path.iterdir()} == {"one.onnx", "two.onnx", "two.onnx.data"}


def test_one_thread_that_does_not_spin_computes(monkeypatch):
    seen = []
    real = onnxruntime.InferenceSession

    def session(path, options, **how):
        seen.append((options, how["providers"]))
        return real(path, options, **how)

    monkeypatch.setattr(onnxruntime, "InferenceSession", session)
    onnx_call(Narrow(), {"x": X})
    ((options, providers),) = seen
    assert (options.intra_op_num_threads, options.inter_op_num_threads) == (1, 1)
    assert options.get_session_config_entry("session.intra_op.allow_spinning") == "0"
    assert providers == ["CPUExecutionProvider"]


def test_a_module_that_cannot_be_exported_is_refused_by_name():
    with pytest.raises(DeviceError, match=r"a Refused could not be brought to ONNX Runtime .*mode='eager'"):
        onnx_call(Refused(), {"x": X})


@pytest.mark.parametrize("device", ["cpu", "cuda:0"])
def test_bfloat16_is_refused(device):
    with pytest.raises(
        DeviceError, match=r"runs float32, float16, int8, .*, but got dtype='bfloat16'; use dtype='float32'"
    ):
        check_onnxruntime(device, "bfloat16")


def test_absent_packages_are_named_with_the_command_that_installs_them(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "onnxscript" else name)
    with pytest.raises(MissingDependencyError, match=r"needs onnxscript; .*pip install 'rlnas\[onnx\]'"):
        check_onnxruntime("cpu", "float32")


def test_a_gpu_needs_a_build_with_cuda(monkeypatch):
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    with pytest.raises(DeviceError, match=r"device='cuda:0' needs a build .* install onnxruntime-gpu"):
        check_onnxruntime("cuda:0", "float32")
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider"])
    check_onnxruntime("cuda:0", "float16")


def test_the_extra_brings_the_packages():
    assert Path(onnxruntime.__file__).is_file()
    check_onnxruntime("cpu", "float32")


def test_a_session_that_falls_back_to_another_provider_is_refused():
    session = SimpleNamespace(get_providers=lambda: ["CPUExecutionProvider"])
    on_gpu = SimpleNamespace(device=torch.device("cuda:0"))
    with pytest.raises(DeviceError, match="runs on CPUExecutionProvider instead of CUDAExecutionProvider"):
        _check_provider(session, {"input_ids": on_gpu})
    _check_provider(session, {"input_ids": torch.zeros(1)})


@pytest.mark.parametrize("external", [False, True])
def test_a_graph_in_int8_computes_about_the_same_with_a_quarter_of_the_bytes(tmp_path, external):
    module = Narrow(units=4096)  # so many that the exporter leaves transpositions in the graph
    write_graph(module, {"x": X}, tmp_path / "exact.onnx", external_data=external)
    quantize_graph(tmp_path / "exact.onnx", tmp_path / "int8.onnx")
    (exact,), (found,) = (
        open_session(tmp_path / name).run(None, {"x": X.numpy()}) for name in ("exact.onnx", "int8.onnx")
    )
    assert 0 < abs(found - exact).max() < 0.05
    exact_size, size = (
        sum(file.stat().st_size for file in tmp_path.glob(f"{name}.onnx*")) for name in ("exact", "int8")
    )
    assert size < 0.5 * exact_size
    assert (tmp_path / "int8.onnx.data").exists() == external


def test_a_graph_names_no_folder_of_this_machine(tmp_path):
    write_graph(Narrow(), {"x": X}, tmp_path / "one.onnx", external_data=False)
    assert str(Path(__file__).parents[2]).encode() not in (tmp_path / "one.onnx").read_bytes()
