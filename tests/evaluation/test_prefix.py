from __future__ import annotations

import weakref

import numpy as np
import pytest
import tiny
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rlnas.evaluation.blocks import PackedBlocks
from rlnas.evaluation.packing import pack_items
from rlnas.evaluation.prefix import Walk, block_sizes, tree_of
from rlnas.space import LayerConfig, LayerwiseSpace, ModelShape, SubnetConfig

SPACE = LayerwiseSpace.for_model(ModelShape(3, 4, 128, 128))
GROUP = 4

actions_of_some = st.lists(st.tuples(*(st.integers(0, n - 1) for n in SPACE.nvec)), min_size=1, max_size=12)


class SpiedBlocks(PackedBlocks):
    """Notes what is computed, and which hidden states are alive."""

    def __init__(self, model, shares=True):
        super().__init__(model)
        self.shares = shares
        self.inner_calls, self.outer_calls = [], []
        self.most_alive = self.n_shared = 0
        self._states = []

    def can_share(self, depth, sizes, n_tokens):
        can = self.shares and super().can_share(depth, sizes, n_tokens)
        self.n_shared += can
        return can

    def inner(self, depth, hidden, size, layout):
        self.inner_calls.append((depth, size))
        return super().inner(depth, hidden, size, layout)

    def outer(self, depth, hidden, inner, layout):
        self.outer_calls.append((depth, inner.shape[1]))
        following = super().outer(depth, hidden, inner, layout)
        self._states.append(weakref.ref(following))
        self.most_alive = max(self.most_alive, sum(state() is not None for state in self._states))
        return following


@pytest.fixture(scope="module")
def one_pack(wide_loaded):
    """A model, and some items in a pack."""
    encoded = wide_loaded.encode(tiny.make_split(6))
    (pack,) = pack_items(encoded, np.arange(6), 1000, torch.device("cpu"))
    return wide_loaded.model.eval(), pack


def walk(one_pack, configs, *, breadth=False, shares=True):
    """Last hidden states of every config, what was computed, and the operations counted."""
    model, pack = one_pack
    blocks = SpiedBlocks(model, shares)
    taken = Walk(blocks, pack.layout)
    root = tree_of([block_sizes(config) for config in configs], range(len(configs)))
    found = {}
    with torch.inference_mode():
        hidden = blocks.embed(pack)
        leaves = taken.breadth_first(root, hidden, GROUP) if breadth else taken.depth_first(root, hidden)
        del hidden
        for node, states in leaves:
            found |= {index: states.clone() for index in node.members}
    return found, blocks, taken.flops


def beginnings(configs):
    """Distinct beginnings that end with a block to compute."""
    paths = [block_sizes(config) for config in configs]
    return {path[: depth + 1] for path in paths for depth, size in enumerate(path) if size}


def decoded(actions):
    return [SPACE.decode(action) for action in actions]


def some_configs(n, seed=0):
    rng = np.random.default_rng(seed)
    return [SPACE.sample(rng) for _ in range(n)]


def siblings():
    """Every size of every block, each time behind the same beginning: the full one."""
    full = block_sizes(SPACE.largest())
    paths = []
    for depth in range(len(full)):
        options = range(5) if depth % 2 == 0 else range(0, 129, 32)
        paths += [(*full[:depth], size, *full[depth + 1 :]) for size in options]
    return [SubnetConfig(tuple(LayerConfig(*path[i : i + 2]) for i in range(0, 6, 2))) for path in paths]


def test_sizes_stand_in_the_order_in_which_blocks_are_computed():
    config = SubnetConfig((LayerConfig(1, 12), LayerConfig(0, 24), LayerConfig(4, 0)))
    assert block_sizes(config) == (1, 12, 0, 24, 4, 0)


def test_a_tree_has_a_node_for_every_distinct_beginning():
    root = tree_of([(1, 2), (1, 3), (0, 2), (1, 2), (9, 9)], [0, 1, 2, 3])
    assert (root.depth, root.members) == (0, (0, 1, 2, 3))
    (zero, first), (one, second) = root.children
    assert (zero, one) == (0, 1)
    assert (first.members, second.members) == ((2,), (0, 1, 3))
    assert [(size, leaf.members) for size, leaf in second.children] == [(2, (0, 3)), (3, (1,))]
    assert all(leaf.depth == 2 and leaf.children == () for _, leaf in second.children)


@settings(max_examples=25)
@given(actions=actions_of_some, breadth=st.booleans())
def test_every_distinct_beginning_is_computed_once(one_pack, actions, breadth):
    configs = decoded(actions)
    found, blocks, _ = walk(one_pack, configs, breadth=breadth, shares=False)
    assert sorted(found) == list(range(len(configs)))
    width = blocks.width
    nodes = sorted((len(path) - 1, width(len(path) - 1, path[-1])) for path in beginnings(configs))
    if breadth:  # several to a product
        expected = [(d, w) for d, w in sorted(set(nodes)) for _ in range(-(-nodes.count((d, w)) // GROUP))]
        assert sorted(blocks.outer_calls) == expected
    else:
        assert sorted(blocks.outer_calls) == nodes
    assert len(blocks.inner_calls) == len(blocks.outer_calls)


@settings(max_examples=25)
@given(actions=actions_of_some)
def test_siblings_take_the_inner_half_of_the_widest(one_pack, actions):
    configs = decoded(actions)
    _, blocks, _ = walk(one_pack, configs)
    parents = {}
    for path in beginnings(configs):
        parents.setdefault(path[:-1], set()).add(path[-1])
    expected = [(len(parent), max(sizes)) for parent, sizes in parents.items()]
    assert sorted(blocks.inner_calls) == sorted(expected)
    assert len(blocks.outer_calls) == len(beginnings(configs))


@settings(max_examples=25)
@given(actions=actions_of_some, breadth=st.booleans(), shares=st.booleans())
def test_operations_are_counted_as_they_are_called(one_pack, actions, breadth, shares):
    _, blocks, flops = walk(one_pack, decoded(actions), breadth=breadth, shares=shares)
    layout = one_pack[1].layout
    n_tokens, lengths = layout.n_tokens, np.diff(layout.ends).tolist()
    copies = GROUP if breadth else 1
    expected = 0
    for depth, size in blocks.inner_calls:
        if depth % 2 == 0:
            expected += 3 * 2 * n_tokens * 128 * 32 * size
            expected += sum(2 * 2 * length * length * 32 * size for length in lengths)
        else:
            expected += 2 * n_tokens * 128 * size
    expected += sum(2 * n_tokens * 128 * width for _, width in blocks.outer_calls)
    assert flops == copies * expected


@settings(max_examples=15)
@given(actions=actions_of_some, data=st.data())
def test_what_a_subnet_answers_does_not_depend_on_the_others_bit_for_bit(one_pack, actions, data):
    configs = decoded(actions)
    together, _, _ = walk(one_pack, configs)
    index = data.draw(st.integers(0, len(configs) - 1))
    for others in ([], siblings(), configs[::-1]):
        for breadth in (False, True):
            found, _, _ = walk(one_pack, [configs[index], *others], breadth=breadth)
            assert torch.equal(found[0], together[index])


def test_sharing_changes_no_bit(one_pack):
    configs = siblings() + some_configs(20)
    shared, blocks, flops = walk(one_pack, configs)
    apart, _, more_flops = walk(one_pack, configs, shares=False)
    assert blocks.n_shared >= 6
    assert flops < more_flops
    assert all(torch.equal(shared[index], apart[index]) for index in range(len(configs)))
    assert not torch.equal(shared[0], shared[1])


@pytest.mark.parametrize("breadth", [False, True])
def test_dropped_blocks_cost_nothing(one_pack, breadth):
    config = SubnetConfig((LayerConfig(0, 32), LayerConfig(0, 0), LayerConfig(3, 0)))
    _, blocks, _ = walk(one_pack, [config], breadth=breadth)
    assert blocks.outer_calls == [(1, 32), (4, 96)]
    nothing = SubnetConfig((LayerConfig(0, 0),) * 3)
    found, blocks, flops = walk(one_pack, [nothing], breadth=breadth)
    assert (blocks.inner_calls, blocks.outer_calls, flops) == ([], [], 0)
    with torch.inference_mode():
        assert torch.equal(found[0], blocks.embed(one_pack[1]))


@pytest.mark.parametrize("breadth", [False, True])
def test_equal_configs_share_all_work(one_pack, breadth):
    found, blocks, _ = walk(one_pack, [SPACE.largest()] * 5, breadth=breadth)
    assert len(blocks.outer_calls) == 6
    assert all(torch.equal(found[0], found[index]) for index in range(5))


def test_depth_first_keeps_no_more_states_than_there_are_siblings_on_the_way(one_pack):
    configs = some_configs(150)
    paths = [block_sizes(config) for config in configs]
    _, blocks, _ = walk(one_pack, configs)
    assert len(blocks.outer_calls) > 300
    bound = sum(len(set(sizes) - {0}) for sizes in zip(*paths, strict=True))
    assert 6 < blocks.most_alive <= bound


def test_breadth_first_fills_groups_up_and_throws_the_filling_away(one_pack):
    configs = some_configs(9)  # no multiple of the group
    model, pack = one_pack
    blocks = SpiedBlocks(model)
    rows = []
    root = tree_of([block_sizes(config) for config in configs], range(9))
    compute = blocks.outer

    def outer(depth, hidden, inner, layout):
        rows.append(len(hidden))
        return compute(depth, hidden, inner, layout)

    blocks.outer = outer
    with torch.inference_mode():
        hidden = blocks.embed(pack)
        leaves = list(Walk(blocks, pack.layout).breadth_first(root, hidden, GROUP))
    assert set(rows) == {GROUP * pack.layout.n_tokens}
    assert sorted(index for node, _ in leaves for index in node.members) == list(range(9))
    assert all(states.shape == hidden.shape for _, states in leaves)
