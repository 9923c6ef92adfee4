"""Graphs whose blocks compute in int8."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from models import CASES

from rlnas.errors import DeviceError
from rlnas.runtime.onnx import check_onnxruntime, onnx_call, write_graph
from rlnas.runtime.onnx_int8 import check_int8

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")


@pytest.mark.parametrize(
    "precision",
    ["int8_ffn", *(pytest.param(p, marks=pytest.mark.slow) for p in ("int8", "int8_attention"))],
)
def test_only_products_of_the_blocks_asked_for_are_in_int8(tmp_path, precision):
    module, inputs = CASES["subnet"]()
    write_graph(module, inputs, tmp_path / "model.onnx", precision=precision)
    graph = onnx.load(tmp_path / "model.onnx").graph
    assert not any(node.metadata_props for node in graph.node)  # they name folders of this machine
    n_integer = sum(node.op_type == "MatMulInteger" for node in graph.node)
    blocks = [(layer.attention, layer.ffn) for layer in module.layers]
    n_attention = 4 * sum(attention is not None for attention, _ in blocks)
    n_ffn = 2 * sum(ffn is not None for _, ffn in blocks)
    wanted = {"int8": n_attention + n_ffn, "int8_attention": n_attention, "int8_ffn": n_ffn}
    assert n_integer == wanted[precision] > 0
    words = next(tensor for tensor in graph.initializer if "word" in tensor.name)
    assert words.data_type == onnx.TensorProto.FLOAT
    if precision != "int8_attention":
        tensors = [onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer]
        weights = next(ffn for _, ffn in blocks if ffn is not None).inner.weight.detach()
        scales = weights.abs().amax(dim=1).numpy() / 127  # of each output channel
        assert any(t.shape == scales.shape and np.allclose(t, scales, rtol=1e-6) for t in tensors)


def test_answers_in_int8_are_near_those_in_float32_but_not_the_same():
    module, inputs = CASES["subnet"]()
    exact, rounded = (onnx_call(module, inputs, precision)().clone() for precision in (None, "int8"))
    gap = (exact - rounded).abs().max().item()
    assert 0 < gap < 0.1 * exact.abs().max().item()


def test_a_module_without_blocks_is_left_as_it_is(tmp_path):
    linear, rows = torch.nn.Linear(4, 3), torch.ones(2, 4)
    write_graph(linear, {"input": rows}, tmp_path / "m.onnx", precision="int8")
    kinds = {node.op_type for node in onnx.load(tmp_path / "m.onnx").graph.node}
    assert "MatMulInteger" not in kinds


@pytest.mark.parametrize("check", [check_int8, check_onnxruntime])
def test_int8_on_a_gpu_is_refused_as_not_measured(check):
    with pytest.raises(DeviceError, match=r"dtype='int8' runs on a CPU, .*device='cuda:0': no int8 engine"):
        check("cuda:0", "int8")
