"""Forward passes of many subnets at the cost of what they do not share.

A batch of configs is a tree over blocks: subnets that begin alike share the hidden states of
their common beginning. The tree is walked depth first, so no more hidden states are alive than
there are blocks; dropped blocks cost nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

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
    """
    paths = [block_sizes(config) for config in configs]
    hidden = model.embeddings(batch.input_ids, batch.token_type_ids)
    mask = model.attention_mask(batch.attention_mask)
    for index, last in _walk(model, paths, list(range(len(paths))), 0, hidden, mask):
        yield index, to_predictions(model.head(last, batch.attention_mask))


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
        following = hidden
        if size and depth % 2 == 0:
            following = layer.attention(hidden, mask, size)
        elif size:
            following = layer.ffn(hidden, size)
        yield from _walk(model, paths, group, depth + 1, following, mask)
