from __future__ import annotations

import pytest
import torch
from models import CASES, Narrow
from torch import nn

from rlnas.errors import DeviceError, MissingDependencyError
from rlnas.runtime import check_mode, prepare
from rlnas.workload import MODES

CPU_MODES = [mode for mode in MODES if mode != "cuda_graph"]
X = torch.linspace(-1.0, 1.0, 8).view(2, 4)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("mode", CPU_MODES)
def test_every_mode_gives_the_eager_output(quick_compiler, mode, case):
    if mode == "onnxruntime":
        pytest.importorskip("onnxruntime")
    module, inputs = CASES[case]()
    expected = prepare(module, inputs, "eager")()
    assert expected.std(dim=0).max() > 1e-3  # texts differ, so an exchanged or lost input would show
    torch.testing.assert_close(prepare(module, inputs, mode)(), expected)


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("case", CASES)
def test_what_the_real_compiler_makes_gives_the_eager_output(case):
    module, inputs = CASES[case]()
    torch.testing.assert_close(prepare(module, inputs, "compiled")(), prepare(module, inputs, "eager")())


@pytest.mark.parametrize("mode", CPU_MODES)
def test_no_gradients_are_computed_and_dropout_is_off(quick_compiler, mode):
    if mode == "onnxruntime":
        pytest.importorskip("onnxruntime")
    module = nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5)).train()
    result = prepare(module, {"input": X}, mode)()
    assert not result.requires_grad
    torch.testing.assert_close(result, module[0](X).detach())


@pytest.mark.parametrize("mode", ["eager", "compiled"])
def test_a_mode_that_runs_here_is_let_through(mode):
    check_mode(mode, "cpu", "bfloat16")


def test_an_unknown_mode_is_refused():
    with pytest.raises(ValueError, match=r"mode must be one of eager, .* but got mode='fast'"):
        check_mode("fast", "cpu")
    with pytest.raises(ValueError, match="mode='fast'"):
        prepare(Narrow(), {"x": X}, "fast")


def test_cuda_graphs_need_a_gpu():
    with pytest.raises(DeviceError, match="needs a CUDA device, but got device='cpu'; use mode='eager'"):
        check_mode("cuda_graph", "cpu")
    check_mode("cuda_graph", "cuda:1", "bfloat16")


def test_inputs_without_a_tensor_are_refused():
    with pytest.raises(ValueError, match=r"at least one tensor, but got inputs=\{'mask': None\}"):
        prepare(Narrow(), {"mask": None}, "eager")


def test_int8_is_for_onnx_runtime_alone():
    with pytest.raises(ValueError, match="precision='int8' needs mode='onnxruntime', but got mode='eager'"):
        prepare(Narrow(), {"x": X}, "eager", precision="int8")


def test_what_a_mode_cannot_run_is_refused_before_it_is_built(monkeypatch):
    with pytest.raises(DeviceError, match="dtype='bfloat16'"):
        prepare(Narrow().bfloat16(), {"x": X.bfloat16()}, "onnxruntime")
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(DeviceError, match="no-such-compiler"):
        prepare(Narrow(), {"x": X}, "compiled")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingDependencyError, match=r"rlnas\[onnx\]"):
        prepare(Narrow(), {"x": X}, "onnxruntime")
