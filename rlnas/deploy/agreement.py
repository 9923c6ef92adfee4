"""Whether a written form of a model computes what the model computes."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch

from rlnas.deploy.loading import positions
from rlnas.errors import ExportError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import numpy.typing as npt
    from torch import Tensor
    from transformers import PreTrainedModel

TOLERANCE = 1e-4
"""Largest difference of two logits that counts as rounding, in units of the largest logit or of 1."""

TRACED = (2, 9)
"""Batch and length that a form is traced with: neither is 1, which tracing takes as a constant."""

CHECKED = ((1, 1), (3, 23), (1, 16))
"""Batches and lengths that a form is checked on."""


def ready(model: PreTrainedModel) -> PreTrainedModel:
    """A copy on the CPU, in float32 and in evaluation mode; the caller's stays as it is."""
    placed: Any = copy.deepcopy(model)
    return cast("PreTrainedModel", placed.to("cpu", torch.float32).eval())


def example_request(model: PreTrainedModel, batch: int, length: int) -> dict[str, Tensor]:
    """Random tokens, by input name, each of shape ``(batch, length)``.

    All texts but the first are padded, and the second half of each is of the second token type where
    the model tells types apart. The length is at most what the model takes.
    """
    config: Any = model.config
    length = min(length, positions(model))
    padding = config.pad_token_id or 0
    generator = torch.Generator().manual_seed(1000 * batch + length)
    ids = torch.randint(config.vocab_size - 1, (batch, length), generator=generator)
    ids += ids >= padding  # a text holds no padding token
    mask = torch.ones_like(ids)
    mask[1:, (length + 1) // 2 :] = 0
    request = {"input_ids": ids.where(mask == 1, torch.tensor(padding)), "attention_mask": mask}
    if has_token_types(model):
        request["token_type_ids"] = (torch.arange(length) >= length / 2).long().repeat(batch, 1)
    return request


def has_token_types(model: PreTrainedModel) -> bool:
    """Whether the model tells token types apart, and so takes ``token_type_ids``."""
    return int(getattr(model.config, "type_vocab_size", None) or 0) > 1


def check_agreement(
    model: PreTrainedModel, run: Callable[[Mapping[str, Tensor]], npt.NDArray[np.float32]], what: str
) -> float:
    """Compare a written form with the model on requests of other shapes than the traced one.

    Args:
        model: As `ready` gives it.
        run: Logits of a request, of shape ``(batch, num_labels)``, by the written form.
        what: The form, for the message.

    Returns:
        The largest absolute difference of two logits.

    Raises:
        ExportError: If a logit differs by more than rounding, see `TOLERANCE`.
    """
    largest = 0.0
    for batch, length in CHECKED:
        request = example_request(model, batch, length)
        with torch.inference_mode():
            expected = model(**request).logits.numpy()
        gap = float(np.abs(run(request) - expected).max())
        if not gap <= TOLERANCE * max(1.0, float(np.abs(expected).max())):  # NaN too
            shape = tuple(request["input_ids"].shape)
            raise ExportError(
                f"{what} does not compute what the model computes: on a request of shape {shape} a logit "
                f"differs by {gap:.2g}; deploy the model in another form"
            )
        largest = max(largest, gap)
    return largest
