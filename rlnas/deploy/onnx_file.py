"""One ONNX file for requests of any batch and length, and a class that runs it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from rlnas.deploy.agreement import TRACED, check_agreement, example_request, ready
from rlnas.errors import CheckpointError, ExportError, RunFolderError, first_line
from rlnas.runtime.onnx import check_packages, open_session, quantize_graph, write_graph

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy.typing as npt
    from torch import Tensor
    from transformers import PreTrainedModel

LARGEST_FILE = 2**31 - 2**24
"""Bytes of weights that one ONNX file holds beside its graph; more lie in a file beside it."""


def write_onnx(model: PreTrainedModel, path: Path) -> Path:
    """Write a sequence classifier as an ONNX file, in float32, and check it in ONNX Runtime.

    The graph takes ``input_ids``, ``attention_mask`` and, where the model tells token types apart,
    ``token_type_ids``, integers of shape ``(batch, length)``, both free; it gives ``logits``, of shape
    ``(batch, num_labels)``. Weights of more than `LARGEST_FILE` bytes lie beside the file, in one of
    its name and ``.data``. Nothing is left of a file that fails.

    Args:
        model: Ours, or any sequence classifier of transformers.
        path: The file.

    Returns:
        `path`.

    Raises:
        MissingDependencyError: If onnx, onnxscript or onnxruntime is not installed.
        ExportError: If the model cannot be traced, or the file computes other logits than the model.
        RunFolderError: If the file cannot be written.
    """
    check_packages("writing ONNX")
    model = ready(model)
    n_bytes = sum(parameter.nbytes for parameter in model.parameters())
    try:
        _write(model, path, external_data=n_bytes > LARGEST_FILE)
        runner = OnnxModel(path)
        check_agreement(model, lambda request: runner(**_arrays(request)), f"the ONNX file {path.name!r}")
    except BaseException:
        _remove(path)
        raise
    return path


def write_in_precision(model: PreTrainedModel, path: Path, precision: str) -> Path:
    """Write a sequence classifier with the products of its blocks in int8, as it is timed and served so.

    Like a file of `write_onnx`, but for the precision: embeddings and head stay in float32. Nothing is
    left of a file that fails.

    Args:
        model: Ours.
        path: The file.
        precision: One of `rlnas.precision.INT8_BLOCKS`.

    Returns:
        `path`.

    Raises:
        MissingDependencyError: If onnx, onnxscript or onnxruntime is not installed.
        ExportError: If the model cannot be brought to ONNX.
        RunFolderError: If the file cannot be written.
    """
    check_packages(f"precision={precision!r}")
    try:
        _write(ready(model), path, external_data=False, precision=precision)
        OnnxModel(path)
    except BaseException:
        _remove(path)
        raise
    return path


def write_int8(source: Path, path: Path) -> Path:
    """Write a file of `write_onnx` once more, with weights in int8: a quarter of the size.

    This changes logits, on purpose: measure what it costs. Nothing is left of a file that fails.

    Args:
        source: The file in float32.
        path: The file to write.

    Returns:
        `path`.

    Raises:
        MissingDependencyError: If onnx or onnxruntime is not installed.
        ExportError: If the graph cannot be brought to int8.
        RunFolderError: If the file cannot be written.
    """
    check_packages("writing ONNX in int8", ("onnx", "onnxruntime"))
    try:
        quantize_graph(source, path)
        OnnxModel(path)
    except BaseException as error:
        _remove(path)
        if isinstance(error, OSError):
            raise _unwritable(path, error) from error
        if isinstance(error, Exception):
            raise ExportError(
                f"{str(source)!r} could not be brought to int8 ({first_line(error)}); deploy it in float32"
            ) from error
        raise
    return path


def _remove(path: Path) -> None:
    for file in (path, path.with_name(f"{path.name}.data")):
        file.unlink(missing_ok=True)


def _unwritable(path: Path, error: OSError) -> RunFolderError:
    return RunFolderError(
        f"cannot write {str(path)!r} ({error.strerror or error}); choose a folder that can be written"
    )


def _write(
    model: PreTrainedModel, path: Path, *, external_data: bool, precision: str | None = None
) -> None:
    try:
        write_graph(
            model,
            example_request(model, *TRACED),
            path,
            output_name="logits",
            dynamic={0: "batch", 1: "length"},
            external_data=external_data,
            precision=precision,
        )
    except OSError as error:
        raise _unwritable(path, error) from error
    except Exception as error:  # the exporter's classes share no parent of their own
        raise ExportError(
            f"a {type(model).__name__} could not be brought to ONNX ({first_line(error)}); "
            "deploy it in another form"
        ) from error


def _arrays(request: Mapping[str, Tensor]) -> dict[str, npt.NDArray[np.int64]]:
    return {name: tensor.numpy() for name, tensor in request.items()}


class OnnxModel:
    """An ONNX file of `write_onnx` in ONNX Runtime, on one thread of the CPU.

    Args:
        path: The file.

    Attributes:
        input_names: What the graph takes.

    Raises:
        MissingDependencyError: If onnxruntime is not installed.
        CheckpointError: If the file is missing or damaged.
    """

    def __init__(self, path: str | Path) -> None:
        check_packages("running ONNX", ("onnxruntime",))
        if not Path(path).is_file():
            raise CheckpointError(f"there is no ONNX file {str(path)!r}; write one with write_onnx")
        try:
            self._session = open_session(Path(path))
        except Exception as error:  # of onnxruntime, whose classes share no parent of their own
            raise CheckpointError(
                f"cannot read the ONNX file {str(path)!r} ({first_line(error)}); write it again"
            ) from error
        self.input_names = tuple(argument.name for argument in self._session.get_inputs())

    def __call__(
        self,
        input_ids: npt.NDArray[np.integer],
        attention_mask: npt.NDArray[np.integer],
        token_type_ids: npt.NDArray[np.integer] | None = None,
    ) -> npt.NDArray[np.float32]:
        """Logits of shape ``(batch, num_labels)``.

        Args:
            input_ids: Shape ``(batch, length)``.
            attention_mask: 1 for tokens, 0 for padding; shape as `input_ids`.
            token_type_ids: Shape as `input_ids`; 0 everywhere by default. Not looked at where the
                graph does not take it.

        Raises:
            CheckpointError: If ONNX Runtime refuses the request, e.g. one that is too long.
        """
        types = np.zeros_like(input_ids) if token_type_ids is None else token_type_ids
        given = {"input_ids": input_ids, "attention_mask": attention_mask, "token_type_ids": types}
        feed = {name: np.asarray(given[name], dtype=np.int64) for name in self.input_names}
        try:
            logits: npt.NDArray[np.float32] = self._session.run(["logits"], feed)[0]
        except Exception as error:  # as above
            raise CheckpointError(
                f"ONNX Runtime refuses a request of shape {np.shape(input_ids)}: {first_line(error)}"
            ) from error
        return logits
