"""What a model answers in the precision and the engine that it is served in."""

from __future__ import annotations

import copy
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from rlnas.deploy.files import FILES
from rlnas.deploy.onnx_file import OnnxModel, write_in_precision
from rlnas.errors import EvaluationError
from rlnas.precision import INT8_BLOCKS
from rlnas.supernet.inference import predict, to_predictions

if TYPE_CHECKING:
    import numpy.typing as npt
    from transformers import PreTrainedModel

    from rlnas.supernet.encoding import EncodedSplit

INT8_FILE = FILES["onnx-int8"]
"""Of an exported model that is served in int8, beside its float32 weights."""


def predict_as_served(
    model: PreTrainedModel,
    encoded: EncodedSplit,
    precision: str,
    *,
    batch_size: int = 32,
    name: str = "the model",
) -> npt.NDArray[np.generic]:
    """Predictions for all items of a split, in a precision.

    In int8 they come from ONNX Runtime, which gets the texts one by one: the activations of a request
    share a scale, so others beside a text would change its answer. In floats they come from PyTorch.

    Args:
        model: On the device where it is to run: for int8 in float32 on a CPU.
        encoded: Tokens of the items.
        precision: One of `rlnas.precision.PRECISIONS`.
        batch_size: Items per forward pass of PyTorch.
        name: What messages call the model.

    Returns:
        Shape ``(n,)``: class indices, or values where the model has one output.

    Raises:
        EvaluationError: If a logit is not a finite number.
        ExportError: If the model cannot be brought to ONNX Runtime.
    """
    if precision not in INT8_BLOCKS:
        dtype: torch.dtype = getattr(torch, precision)
        placed: Any = model if model.dtype == dtype else copy.deepcopy(model)
        return predict(placed.to(dtype=dtype).eval(), encoded, batch_size, name=name)
    with tempfile.TemporaryDirectory(prefix="rlnas-int8-", ignore_cleanup_errors=True) as folder:
        path = Path(folder) / INT8_FILE
        served = OnnxModel(write_in_precision(model, path, precision))
    logits = np.concatenate([served(**_request(encoded, item)) for item in range(len(encoded))])
    n_bad = int((~np.isfinite(logits)).any(axis=1).sum())
    if n_bad:
        raise EvaluationError(
            f"{n_bad} of {len(encoded)} predictions of {name} in {precision} are not finite numbers; "
            "train it again, or take another precision"
        )
    return to_predictions(torch.from_numpy(logits))


def _request(encoded: EncodedSplit, item: int) -> dict[str, npt.NDArray[np.int64]]:
    """One text."""
    ids = np.asarray(encoded.input_ids[item], dtype=np.int64)[None]
    request = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
    if encoded.token_type_ids is not None:
        request["token_type_ids"] = np.asarray(encoded.token_type_ids[item], dtype=np.int64)[None]
    return request
