"""Forward passes of many subnets at the cost of what they do not share.

A batch of configs is a tree over blocks: subnets that begin alike share the hidden states of
their common beginning, and those that go on with another size of the same block share the inner
half of the widest one. Dropped blocks cost nothing. The tree is walked

- depth first: no more hidden states are alive than there are blocks, times sizes of a block; or
- breadth first: subnets that take the same size at the same depth are one larger matrix product,
  for devices that a single subnet leaves idle.

What a subnet answers does not depend on the other subnets, bit for bit: its own path is the same
operations on the same shapes, or takes columns of a wider product, which are the same numbers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from torch import Tensor

    from rlnas.evaluation.blocks import PackedBlocks
    from rlnas.evaluation.packing import Layout
    from rlnas.space import SubnetConfig

Sizes = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Node:
    """A common beginning of some subnets.

    Attributes:
        depth: Blocks that are decided.
        members: Indices of the subnets that begin so.
        children: Size of the next block, and the node that it leads to, by ascending size.
    """

    depth: int
    members: tuple[int, ...]
    children: tuple[tuple[int, Node], ...]


def block_sizes(config: SubnetConfig) -> Sizes:
    """Heads and units of every layer in the order in which they are computed."""
    return tuple(
        size for layer in config.layers for size in (layer.num_attention_heads, layer.intermediate_size)
    )


def tree_of(paths: Sequence[Sizes], members: Sequence[int]) -> Node:
    """The tree of the subnets `members`, at least one, given the block sizes of all."""

    def grow(those: tuple[int, ...], depth: int) -> Node:
        groups: dict[int, list[int]] = {}
        if depth < len(paths[those[0]]):
            for index in those:
                groups.setdefault(paths[index][depth], []).append(index)
        children = tuple((size, grow(tuple(groups[size]), depth + 1)) for size in sorted(groups))
        return Node(depth, those, children)

    return grow(tuple(members), 0)


class Walk:
    """Takes the hidden states of one pack through a tree.

    Args:
        blocks: What is computed.
        layout: Of the pack.

    Attributes:
        flops: Operations within matrix products so far.
        filler_flops: Those among them whose results were thrown away.
    """

    def __init__(self, blocks: PackedBlocks, layout: Layout) -> None:
        self._blocks = blocks
        self._layout = layout
        self.flops = 0
        self.filler_flops = 0

    def depth_first(self, node: Node, hidden: Tensor) -> Iterator[tuple[Node, Tensor]]:
        """Leaves with their last hidden states, one subnet after the other."""
        if not node.children:
            yield node, hidden
            return
        following = self._step(node, hidden)
        del hidden
        while following:  # each is let go once it is walked
            child, states = following.pop()
            yield from self.depth_first(child, states)

    def _step(self, node: Node, hidden: Tensor) -> list[tuple[Node, Tensor]]:
        """The children of a node with their hidden states."""
        depth, blocks, layout = node.depth, self._blocks, self._layout
        following = [(child, hidden) for size, child in node.children if size == 0]
        kept = [(size, child) for size, child in node.children if size]
        sizes = [size for size, _ in kept]
        shared = None
        if blocks.can_share(depth, sizes, layout.n_tokens):
            shared = blocks.inner(depth, hidden, sizes[-1], layout)
            self.flops += blocks.inner_flops(depth, sizes[-1], layout)
        for size, child in kept:
            if shared is not None:
                inner = shared[:, : blocks.width(depth, size)]
            else:
                inner = blocks.inner(depth, hidden, size, layout)
                self.flops += blocks.inner_flops(depth, size, layout)
            following.append((child, blocks.outer(depth, hidden, inner, layout)))
            self.flops += blocks.outer_flops(depth, size, layout)
        return following

    def breadth_first(self, root: Node, hidden: Tensor, group: int) -> Iterator[tuple[Node, Tensor]]:
        """Leaves with their last hidden states, level by level.

        Args:
            root: Of the tree.
            hidden: Of the pack.
            group: Subnets of one product, always: what is lacking is filled up and thrown away, as
                another shape might round otherwise.
        """
        level = [(root, hidden)]
        grouped = self._layout.repeated(group)
        for depth in range(len(self._blocks)):
            by_size: dict[int, list[tuple[Node, Tensor]]] = {}
            for node, states in level:
                for size, child in node.children:
                    by_size.setdefault(size, []).append((child, states))
            level = by_size.pop(0, [])
            for size in sorted(by_size):
                members = by_size.pop(size)
                for start in range(0, len(members), group):
                    level.extend(self._product(depth, size, members[start : start + group], grouped))
        yield from level

    def _product(
        self, depth: int, size: int, members: list[tuple[Node, Tensor]], grouped: Layout
    ) -> Iterator[tuple[Node, Tensor]]:
        n_copies = len(grouped.ends) // (len(self._layout.ends) - 1)
        lacking = n_copies - len(members)
        hidden = torch.cat([states for _, states in members] + [members[-1][1]] * lacking)
        inner = self._blocks.inner(depth, hidden, size, grouped)
        following = self._blocks.outer(depth, hidden, inner, grouped)
        flops = self._blocks.flops(depth, size, grouped)
        self.flops += flops
        self.filler_flops += flops * lacking // n_copies
        parts = torch.split(following, self._layout.n_tokens)
        return zip((node for node, _ in members), parts, strict=False)
