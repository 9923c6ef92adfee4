"""The matrix products of a graph in 8-bit integers, as ONNX Runtime computes them on a CPU.

Weights are rounded once: to int8, with one scale for each output channel. The activations that meet
them are rounded to uint8 in every request, with a scale and a zero point that all tokens of the request
share. Sums are exact, in 32-bit integers. So what a text is answered depends a little on the texts that
are in its request; alone it depends on nothing else.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from rlnas.errors import DeviceError
from rlnas.precision import INT8_BLOCKS

if TYPE_CHECKING:
    from pathlib import Path

    from onnx import ModelProto
    from torch.onnx import ONNXProgram

PRODUCTS = ("MatMul", "Gemm")
_SCOPES = "pkg.torch.onnx.name_scopes"
_PART_OF_LAYER = re.compile(r"\blayers?\.\d+\.(\w+)")
_NO_LIMIT = 2**62


def check_int8(device: str, precision: str) -> None:
    """Refuse int8 where no engine for it was measured.

    Args:
        device: ``"cpu"`` or a CUDA device.
        precision: One of `rlnas.precision.INT8_BLOCKS`.

    Raises:
        DeviceError: On anything but a CPU.
    """
    if device != "cpu":
        raise DeviceError(
            f"dtype={precision!r} runs on a CPU, but got device={device!r}: no int8 engine for GPUs has "
            "been measured yet; use dtype='bfloat16' or dtype='float16' there"
        )


def save_int8(program: ONNXProgram, path: Path, precision: str) -> None:
    """Write an exported program with the products of its blocks in int8.

    Only products with a weight are meant: what attention computes of activations alone stays as it is.

    Args:
        program: What ``torch.onnx.export`` gives; its constants are folded.
        path: The file to write.
        precision: One of `rlnas.precision.INT8_BLOCKS`.
    """
    from onnxruntime.quantization import QuantType, quantize_dynamic
    from onnxscript.optimizer import fold_constants, remove_unused_nodes

    # A weight that the graph transposes is no constant to the quantiser.
    fold_constants(program.model, input_size_limit=_NO_LIMIT, output_size_limit=_NO_LIMIT)
    remove_unused_nodes(program.model)
    graph = program.model_proto
    chosen = products_of(graph, INT8_BLOCKS[precision])
    for node in graph.graph.node:  # which lines of code it was, in folders of this machine
        del node.metadata_props[:]
    if not chosen:  # to the quantiser no names mean all
        path.write_bytes(graph.SerializeToString())
        return
    quantize_dynamic(
        graph,
        path,
        op_types_to_quantize=list(PRODUCTS),
        nodes_to_quantize=chosen,
        per_channel=True,
        weight_type=QuantType.QInt8,
    )


def products_of(graph: ModelProto, kinds: tuple[str, ...]) -> list[str]:
    """Names of the products of weights within blocks of some kinds.

    Args:
        graph: An encoder of a supported family, or some of its layers. A layer's modules are told by
            their names: all that is not in ``attention`` belongs to the FFN block.
        kinds: ``"attention"``, ``"ffn"``, or both.
    """
    weights = {tensor.name for tensor in graph.graph.initializer}
    found = []
    for node in graph.graph.node:
        if node.op_type not in PRODUCTS or node.input[1] not in weights:
            continue
        scopes = next((entry.value for entry in node.metadata_props if entry.key == _SCOPES), "")
        part = _PART_OF_LAYER.search(scopes)
        if part is not None and ("attention" if part[1] == "attention" else "ffn") in kinds:
            found.append(str(node.name))
    return found
