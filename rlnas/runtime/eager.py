"""Plain PyTorch: operation by operation, launched from Python."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from torch import nn


def first_tensor(output: object) -> Tensor:
    """The tensor that counts of what a model returns: its logits, or the first of several.

    Args:
        output: A tensor, a sequence of tensors, or an output of transformers.
    """
    if isinstance(output, Tensor):
        return output
    several = cast("Any", output)
    first: Tensor = several.logits if hasattr(several, "logits") else several[0]
    return first


def eager_call(module: nn.Module, inputs: Mapping[str, Tensor | None]) -> Callable[[], Tensor]:
    """A call that runs a module on inputs."""

    def call() -> Tensor:
        with torch.inference_mode():
            return first_tensor(module(**inputs))

    return call
