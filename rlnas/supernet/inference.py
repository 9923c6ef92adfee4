"""Predictions of stand-alone models: ours, or any sequence classifier of transformers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from rlnas.errors import EvaluationError
from rlnas.supernet.encoding import sorted_batches

if TYPE_CHECKING:
    import numpy.typing as npt
    from torch import Tensor
    from transformers import PreTrainedModel

    from rlnas.supernet.encoding import EncodedSplit


def to_predictions(logits: Tensor) -> npt.NDArray[np.generic]:
    """Class indices of shape ``(n,)``, or values where there is one output."""
    if logits.shape[1] == 1:
        return logits[:, 0].float().cpu().numpy()
    return logits.argmax(dim=1).cpu().numpy()


def predict(
    model: PreTrainedModel, encoded: EncodedSplit, batch_size: int = 32, *, name: str = "the model"
) -> npt.NDArray[np.generic]:
    """Predictions for all items of a split, in the split's order.

    Args:
        model: As in `logits_of`, which also tells of the rest.
        encoded: Tokens of the items.
        batch_size: Items per forward pass.
        name: What messages call the model.

    Returns:
        Shape ``(n,)``: class indices, or values where the model has one output.

    Raises:
        EvaluationError: If a logit is not a finite number.
        ValueError: If the split is empty.
    """
    return to_predictions(logits_of(model, encoded, batch_size, name=name))


def logits_of(
    model: PreTrainedModel, encoded: EncodedSplit, batch_size: int = 32, *, name: str = "the model"
) -> Tensor:
    """Logits for all items of a split, in the split's order.

    Args:
        model: In evaluation mode; called with ``input_ids``, ``attention_mask`` and, where the
            tokenizer made them, ``token_type_ids``.
        encoded: Tokens of the items.
        batch_size: Items per forward pass.
        name: What messages call the model.

    Returns:
        Shape ``(n, n_outputs)``, float32, on the CPU.

    Raises:
        EvaluationError: If a logit is not a finite number.
        ValueError: If the split is empty.
    """
    parts: list[Tensor] = []
    indices: list[npt.NDArray[np.int64]] = []
    for batch in sorted_batches(encoded, batch_size, model.device):
        inputs = {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask}
        if batch.token_type_ids is not None:
            inputs["token_type_ids"] = batch.token_type_ids
        with torch.inference_mode():
            parts.append(model(**inputs).logits.float().cpu())
        indices.append(batch.indices)
    if not parts:
        raise ValueError("predict needs at least one item, but the split is empty")
    logits = torch.cat(parts)[torch.from_numpy(np.argsort(np.concatenate(indices)))]
    if n_bad := int((~torch.isfinite(logits)).any(dim=1).sum()):
        raise EvaluationError(
            f"{n_bad} of {len(encoded)} predictions of {name} are not finite numbers; "
            "train it again, or take another number format"
        )
    return logits
