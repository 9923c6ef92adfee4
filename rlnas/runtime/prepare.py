"""From a module and the inputs of one request to a call that runs it as it will be served."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from rlnas.errors import DeviceError
from rlnas.precision import INT8_BLOCKS
from rlnas.runtime.compiled import check_compiler, compiled_call
from rlnas.runtime.cuda_graph import GraphMemory, graph_call
from rlnas.runtime.eager import eager_call
from rlnas.runtime.onnx import check_onnxruntime, onnx_call
from rlnas.workload import MODES

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from torch import Tensor, nn


def check_mode(mode: str, device: str, dtype: str = "float32") -> None:
    """Refuse what cannot run here, before anything is built or measured.

    Args:
        mode: One of `rlnas.workload.MODES`.
        device: ``"cpu"``, or a CUDA device such as ``"cuda:0"``.
        dtype: Number format of weights and activations, one of `rlnas.precision.PRECISIONS`.

    Raises:
        ValueError: If the mode is another.
        DeviceError: If the mode cannot run on the device or in the number format.
        MissingDependencyError: If a package that it needs is not installed.
    """
    if mode not in MODES:
        raise ValueError(f"mode must be one of {', '.join(MODES)}, but got mode={mode!r}")
    if mode == "cuda_graph" and not device.startswith("cuda"):
        raise DeviceError(
            f"mode='cuda_graph' needs a CUDA device, but got device={device!r}; "
            "use mode='eager' or mode='compiled'"
        )
    if mode == "compiled":
        check_compiler(device)
    if mode == "onnxruntime":
        check_onnxruntime(device, dtype)


def prepare(
    module: nn.Module,
    inputs: Mapping[str, Tensor | None],
    mode: str,
    *,
    share: GraphMemory | None = None,
    precision: str | None = None,
) -> Callable[[], Tensor]:
    """A call that runs a module on inputs as it will be served; it needs no further warm-up to be right.

    Calls compute no gradients and do not wait for the device (ONNX Runtime always does). They return
    the module's logits, or the first tensor that it returns; the next call may overwrite it.

    Args:
        module: Anything whose `forward` takes the inputs by name; it is put in evaluation mode.
        inputs: Tensors on the module's device, or None, by name; at least one tensor.
        mode: One of `rlnas.workload.MODES`.
        share: Memory that the CUDA graphs of several calls share; other modes make no use of it.
        precision: One of `rlnas.precision.PRECISIONS`; None, or one that is no int8, computes in the number
            format that the module is stored in.

    Raises:
        ValueError: If the mode is another, there is no tensor, or int8 is asked of another mode than
            onnxruntime.
        DeviceError: If the mode cannot run on the device, or the module cannot run in the mode.
        MissingDependencyError: If a package that it needs is not installed.
    """
    tensor = next((value for value in inputs.values() if value is not None), None)
    if tensor is None:
        raise ValueError(f"inputs must hold at least one tensor, but got inputs={dict(inputs)}")
    int8 = precision if precision in INT8_BLOCKS else None
    if int8 is not None and mode != "onnxruntime":
        raise ValueError(f"precision={int8!r} needs mode='onnxruntime', but got mode={mode!r}")
    if mode != "cuda_graph":  # which finds out by itself whether anything ran on a GPU
        dtype = next((parameter.dtype for parameter in module.parameters()), torch.float32)
        check_mode(mode, str(tensor.device), int8 or str(dtype).removeprefix("torch."))
    module.eval()
    if mode == "compiled":
        return compiled_call(module, inputs)
    if mode == "cuda_graph":
        return graph_call(module, inputs, share)
    if mode == "onnxruntime":
        return onnx_call(module, inputs, int8)
    return eager_call(module, inputs)
