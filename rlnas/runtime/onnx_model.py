"""A classifier as an ONNX file for texts of any number and length, and what ONNX Runtime answers."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import numpy as np
import torch

from rlnas.errors import DeviceError, first_line
from rlnas.runtime.onnx import PositionalModule, export, session_options

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import numpy.typing as npt
    from torch import nn

INPUTS = ("input_ids", "attention_mask", "token_type_ids")
_TEXTS, _TOKENS = 2, 8  # of the example; sizes of 0 and 1 would be taken as fixed


def write_onnx(module: nn.Module, path: Path, *, precision: str | None = None) -> None:
    """Write a classifier that takes any number of texts of any length.

    Args:
        module: Its `forward` takes ``input_ids``, ``attention_mask`` and ``token_type_ids``; on a CPU.
        path: The file to write.
        precision: One of `rlnas.precision.INT8_BLOCKS`, or None to compute as it is stored.

    Raises:
        DeviceError: If it cannot be exported.
    """
    ids = torch.ones(_TEXTS, _TOKENS, dtype=torch.int64)
    inputs = {"input_ids": ids, "attention_mask": ids.clone(), "token_type_ids": torch.zeros_like(ids)}
    try:
        export(PositionalModule(module.eval(), inputs), inputs, path, precision=precision, is_dynamic=True)
    except Exception as error:  # the exporter's classes share no parent of their own
        raise DeviceError(
            f"a {type(module).__name__} could not be written as {path.name} ({first_line(error)})"
        ) from error


class OnnxModel:
    """A file that `write_onnx` wrote, on one thread of a CPU.

    Args:
        path: The file.

    Raises:
        DeviceError: If ONNX Runtime does not take it.
    """

    def __init__(self, path: Path) -> None:
        import onnxruntime

        try:
            self._session = onnxruntime.InferenceSession(
                str(path), session_options(), providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # the runtime's classes share no parent of their own
            raise DeviceError(f"ONNX Runtime does not take {str(path)!r} ({first_line(error)})") from error
        self._names = {argument.name for argument in self._session.get_inputs()}

    def logits(self, inputs: Mapping[str, npt.NDArray[np.int64]]) -> npt.NDArray[np.float32]:
        """Answers to a request, shape ``(texts, num_labels)``.

        Args:
            inputs: By name, each of shape ``(texts, tokens)``; those that the model does not use may be
                there, and token types of 0 may be absent.
        """
        given = {"token_type_ids": np.zeros_like(inputs["input_ids"]), **inputs}
        taken = {name: value for name, value in given.items() if name in self._names}
        return cast("npt.NDArray[np.float32]", self._session.run(None, taken)[0])
