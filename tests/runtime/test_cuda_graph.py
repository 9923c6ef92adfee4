from __future__ import annotations

import pytest
import torch
from models import CASES, Narrow, Refused

from rlnas.errors import DeviceError
from rlnas.runtime import GraphMemory, prepare
from rlnas.runtime.cuda_graph import graph_call

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


def on_gpu(case):
    module, inputs = CASES[case]()
    return module.cuda(), {k: None if v is None else v.cuda() for k, v in inputs.items()}


def test_without_cuda_there_are_no_graphs(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(DeviceError, match="mode='cuda_graph' needs CUDA, which is not available"):
        graph_call(Narrow(), {"x": torch.ones(2, 4)})


@pytest.mark.gpu
@needs_gpu
@pytest.mark.parametrize("case", CASES)
def test_a_replay_gives_the_eager_output(case):
    module, inputs = on_gpu(case)
    expected = prepare(module, inputs, "eager")()
    call = prepare(module, inputs, "cuda_graph")
    torch.testing.assert_close(call(), expected)
    next(iter(inputs.values())).zero_()
    torch.testing.assert_close(call(), prepare(module, inputs, "eager")())


@pytest.mark.gpu
@needs_gpu
def test_graphs_that_share_memory_answer_in_any_order():
    memory, x = GraphMemory(), torch.randn(64, 4, device="cuda")
    modules = [Narrow(units).cuda() for units in (64, 8, 256, 8)]
    calls = [prepare(module, {"x": x}, "cuda_graph", share=memory) for module in modules]
    for index in (0, 3, 1, 2, 0, 2):
        torch.testing.assert_close(calls[index](), modules[index](x))


@pytest.mark.gpu
@needs_gpu
def test_a_module_that_waits_for_the_gpu_is_refused():
    with pytest.raises(DeviceError, match="a Refused could not be recorded as a CUDA graph"):
        prepare(Refused(), {"x": torch.ones(2, device="cuda")}, "cuda_graph")


@pytest.mark.gpu
@needs_gpu
def test_a_module_on_the_cpu_is_refused():
    if "fake" in torch.cuda.get_device_name():
        pytest.skip("a fake GPU runs what is on the CPU")
    with pytest.raises(DeviceError, match=r"a Narrow could not be recorded .*empty"):
        prepare(Narrow(), {"x": torch.ones(2, 4)}, "cuda_graph")
