"""Forward passes of many subnets at the cost of what they do not share.

A batch of configs is a tree over blocks: subnets that begin alike share the hidden states of
their common beginning. The tree is walked depth first, so no more hidden states are alive than
there are blocks; dropped blocks cost nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from rlnas.errors import EvaluationError
from rlnas.supernet.inference import to_predictions

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import numpy as np
    import numpy.typing as npt
    from torch import Tensor

    from rlnas.space import SubnetConfig
    from rlnas.supernet.encoding import Batch
    from rlnas.supernet.modeling_subnet import SubnetModel

Sizes = tuple[int, ...]


def block_sizes(config: SubnetConfig) -> Sizes:
    """Heads and units of every layer in the order in which they are computed."""
    return tuple(
        size for layer in config.layers for size in (layer.num_attention_heads, layer.intermediate_size)
    )


def predict_batch(
    model: SubnetModel, configs: Sequence[SubnetConfig], batch: Batch
) -> Iterator[tuple[int, npt.NDArray[np.generic]]]:
    """Predictions of every config for one batch of items.

    What a config predicts does not depend on the other configs: its own path through the tree is
    the same sequence of operations on the same shapes.

    Yields:
        Index into `configs`, and its predictions of shape ``(batch,)``.

    Raises:
        EvaluationError: If logits are not finite; `config` is the culprit.
    """
    paths = [block_sizes(config) for config in configs]
    hidden = model.embeddings(batch.input_ids, batch.token_type_ids)
    mask = model.attention_mask(batch.attention_mask)
    for index, last in _walk(model, paths, list(range(len(paths))), 0, hidden, mask):
        logits = model.head(last, batch.attention_mask)
        # The largest of classes would hide a NaN.
        if not torch.isfinite(logits).all():
            config = configs[index]
            raise EvaluationError(f"the subnet {config} predicts values that are not finite", config)
        yield index, to_predictions(logits)


def _walk(
    model: SubnetModel,
    paths: list[Sizes],
    members: list[int],
    depth: int,
    hidden: Tensor,
    mask: Tensor | None,
) -> Iterator[tuple[int, Tensor]]:
    if depth == 2 * len(model.layers):
        for index in members:
            yield index, hidden
        return
    groups: dict[int, list[int]] = {}
    for index in members:
        groups.setdefault(paths[index][depth], []).append(index)
    layer = model.layers[depth // 2]
    for size, group in groups.items():
        # One block at a time; a block of size 0 is the identity.
        heads, units = (size, 0) if depth % 2 == 0 else (0, size)
        following = layer(hidden, mask, heads, units)
        yield from _walk(model, paths, group, depth + 1, following, mask)
