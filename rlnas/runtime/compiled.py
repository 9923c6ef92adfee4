"""``torch.compile``: one fused program for each module and each shape of its inputs."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
import warnings
from types import FunctionType
from typing import TYPE_CHECKING

import torch
from torch._dynamo.exc import FailOnRecompileLimitHit, TorchDynamoException

from rlnas.errors import DeviceError, MissingDependencyError, first_line
from rlnas.runtime.eager import first_tensor

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from torch import Tensor, nn


def check_compiler(device: str) -> None:
    """Make sure that what ``torch.compile`` builds its kernels with is there.

    Args:
        device: ``"cpu"`` or a CUDA device.

    Raises:
        DeviceError: On a CPU, if there is no C++ compiler.
        MissingDependencyError: On a GPU, if Triton is not installed.
    """
    if device.startswith("cuda"):
        if importlib.util.find_spec("triton") is None:
            raise MissingDependencyError(
                f"mode='compiled' on device={device!r} needs Triton, which is not installed; "
                "pip install triton, or use mode='cuda_graph'"
            )
        return
    usual = {"darwin": "clang++", "win32": "cl"}.get(sys.platform, "g++")
    compiler = os.environ.get("CXX", usual)
    if shutil.which(compiler) is None:
        raise DeviceError(
            f"mode='compiled' on device={device!r} needs a C++ compiler, but {compiler!r} is not there; "
            "install it, name another in the variable CXX, or use mode='eager'"
        )


def compiled_call(module: nn.Module, inputs: Mapping[str, Tensor | None]) -> Callable[[], Tensor]:
    """A call that runs a module as ``torch.compile`` builds it for these inputs.

    It is built here, in seconds to a minute, for the number of threads that torch has now;
    a call under another number builds it again.

    Raises:
        DeviceError: If the module cannot be compiled as a whole.
    """
    program = torch.compile(_alone(module), fullgraph=True, dynamic=False)

    def call() -> Tensor:
        with torch.inference_mode():
            return first_tensor(program(**inputs))

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the compiler's advice to its own developers
            call()
    except (TorchDynamoException, FailOnRecompileLimitHit) as error:
        reason = first_line(getattr(error, "inner_exception", error))
        raise DeviceError(
            f"torch.compile failed on a {type(module).__name__} ({reason}); use mode='eager'"
        ) from error
    call()  # the first call after the one that compiles is still slower
    return call


def _alone(module: nn.Module) -> Callable[..., object]:
    """The module as a function whose code object is its own.

    ``torch.compile`` keeps its programs with the code object, at most eight of them, and looks
    through them in every call. All subnets have one `forward`: the ninth would be refused, and
    before that each call would pay for its siblings.
    """

    def forward(**inputs: Tensor | None) -> object:
        return module(**inputs)

    return FunctionType(forward.__code__.replace(), globals(), "forward", None, forward.__closure__)
