"""The blocks of a supernet on packs of items, in two halves each.

The *inner* half of a block is what its heads or units compute by themselves: attention up to its
output matrix, the FFN up to its activations. The first k of them do not depend on how many more there
are, so subnets that differ from here on by the size of this block share the inner half of the widest.
The *outer* half brings them back into the residual stream.

The weights are those of the model; the parts of `rlnas.supernet.modeling_subnet` compute both halves, or
`rlnas.evaluation.int8` where their products are to be in int8.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import torch
from torch.nn import functional as F
from torch.nn.attention.varlen import varlen_attn

from rlnas.evaluation.int8 import Int8Blocks

if TYPE_CHECKING:
    from torch import Tensor

    from rlnas.evaluation.packing import Layout, Pack
    from rlnas.supernet.modeling_subnet import AttentionBlock, FFNBlock, Layer, SubnetModel

# Sizes of matrices from which on a column of a product does not depend, bit for bit, on how many other
# columns are computed. Tested, not promised by the libraries: below these, kernels for vectors are taken.
_SAFE_MULTIPLE = 32
_SAFE_TOKENS = 16


class PackedBlocks:
    """The 2 * layers blocks of a full model in the order in which they are computed.

    Args:
        model: A full model in evaluation mode.
        int8: Kinds of block, ``"attention"`` and ``"ffn"``, whose products are computed in int8.
    """

    def __init__(self, model: SubnetModel, int8: tuple[str, ...] = ()) -> None:
        self._model = model
        layers: list[Layer] = list(model.layers)  # type: ignore[arg-type]
        blocks = [block for layer in layers for block in (layer.attention, layer.ffn)]
        self._blocks: list[AttentionBlock | FFNBlock] = [b for b in blocks if b is not None]
        self._hidden_size = int(model.config.hidden_size)
        self._head_size = int(model.config.head_size)
        kinds = ("attention", "ffn")
        rounded = {d: block for d, block in enumerate(self._blocks) if kinds[d % 2] in int8}
        self._int8 = Int8Blocks(rounded)

    def __len__(self) -> int:
        return len(self._blocks)

    def is_attention(self, depth: int) -> bool:
        """Whether the block at a depth is attention; else it is an FFN."""
        return depth % 2 == 0

    def width(self, depth: int, size: int) -> int:
        """Columns of the inner half: head size times heads, or units."""
        return size * self._head_size if self.is_attention(depth) else size

    def can_share(self, depth: int, sizes: list[int], n_tokens: int) -> bool:
        """Whether these sizes may take the inner half of the widest without any change of a bit."""
        return (
            self._model.device.type == "cpu"
            and len(sizes) > 1
            and n_tokens >= _SAFE_TOKENS
            and all(self.width(depth, size) % _SAFE_MULTIPLE == 0 for size in sizes)
        )

    def embed(self, pack: Pack) -> Tensor:
        """Hidden states before the first block, shape ``(n_tokens, hidden_size)``."""
        types = pack.token_type_ids
        parts = []
        for run in pack.layout.runs:
            shape = (run.n_items, run.length)
            ids = pack.input_ids[run.tokens].view(shape)
            part = self._model.embeddings(ids, None if types is None else types[run.tokens].view(shape))
            parts.append(part.flatten(0, 1))
        return torch.cat(parts)

    def inner(self, depth: int, hidden: Tensor, size: int, layout: Layout) -> Tensor:
        """The first half of a block with its first heads or units, ``(n_tokens, width)``."""
        block, is_int8 = self._blocks[depth], depth in self._int8
        projected = self._int8.project(depth, hidden, self.width(depth, size), layout) if is_int8 else None
        if self.is_attention(depth):
            query, key, value = projected or block.project(hidden, size)  # type: ignore[operator]
            return _attend(query, key, value, layout, self._head_size)
        if projected:
            return cast("Tensor", block.activation(projected[0]))  # type: ignore[operator]
        activations: Tensor = block.activate(hidden, size)  # type: ignore[operator]
        return activations

    def outer(self, depth: int, hidden: Tensor, inner: Tensor, layout: Layout) -> Tensor:
        """The second half: the hidden states after the block, ``(n_tokens, hidden_size)``."""
        if depth in self._int8:
            return self._int8.merge(depth, hidden, inner, layout)
        return self._blocks[depth].merge(hidden, inner)

    def logits(self, hidden: Tensor, layout: Layout) -> Tensor:
        """Answers for every item, ``(n_items, num_labels)``."""
        head = self._model.head
        if hidden.is_cuda:  # one kernel instead of one for every length
            pooled = pool_by_ends(hidden, layout.ends, head.pooling)
        else:
            runs = (hidden[run.tokens].view(run.n_items, run.length, -1) for run in layout.runs)
            pooled = torch.cat([head.pool(run, None) for run in runs])
        answers: Tensor = head.classify(pooled)
        return answers

    def inner_flops(self, depth: int, size: int, layout: Layout) -> int:
        """Operations of the inner half: two for each multiplication within a matrix product."""
        width = self.width(depth, size)
        per_token = 2 * self._hidden_size * width
        if self.is_attention(depth):
            return 3 * per_token * layout.n_tokens + 4 * width * layout.n_pairs
        return per_token * layout.n_tokens

    def flops(self, depth: int, size: int, layout: Layout) -> int:
        """Operations of a whole block."""
        return self.inner_flops(depth, size, layout) + self.outer_flops(depth, size, layout)

    def outer_flops(self, depth: int, size: int, layout: Layout) -> int:
        """Operations of the outer half."""
        return 2 * self._hidden_size * self.width(depth, size) * layout.n_tokens


def _can_skip(query: Tensor, head_size: int) -> bool:
    """Whether there is a kernel that takes the ends of items: flash attention's own conditions."""
    return (
        query.is_cuda
        and query.dtype in (torch.float16, torch.bfloat16)
        and head_size % 8 == 0
        and head_size <= 256
        and torch.cuda.get_device_capability(query.device) >= (8, 0)
    )


def pool_by_ends(hidden: Tensor, ends: Tensor, pooling: str) -> Tensor:
    """One vector per item, ``(n_items, hidden_size)``, given where items begin and end."""
    if pooling == "cls":
        return hidden[ends[:-1]]
    means = torch.segment_reduce(hidden.float(), "mean", offsets=ends.long(), axis=0)
    return means.to(hidden.dtype)


def _attend(query: Tensor, key: Tensor, value: Tensor, layout: Layout, head_size: int) -> Tensor:
    """Attention of every item to itself, shape ``(n_tokens, heads * head_size)``."""
    if _can_skip(query, head_size):
        by_head = (layout.n_tokens, -1, head_size)
        context = varlen_attn(
            query.view(by_head),
            key.view(by_head),
            value.view(by_head),
            cu_seq_q=layout.ends,
            cu_seq_k=layout.ends,
            max_q=layout.longest,
            max_k=layout.longest,
        )
        return cast("Tensor", context).flatten(1)
    result = torch.empty_like(query)
    for run in layout.runs:
        q, k, v = (
            part[run.tokens].view(run.n_items, run.length, -1, head_size).transpose(1, 2)
            for part in (query, key, value)
        )
        context = F.scaled_dot_product_attention(q, k, v)
        result[run.tokens] = context.transpose(1, 2).reshape(-1, query.shape[1])
    return result
