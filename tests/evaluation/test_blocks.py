from __future__ import annotations

import numpy as np
import pytest
import tiny
import torch
from torch.nn import functional as F

from rlnas.evaluation.blocks import PackedBlocks, pool_by_ends
from rlnas.evaluation.packing import pack_items


def packs_of(supernet, n=12, max_tokens=60):
    encoded = supernet.encode(tiny.make_split(n, pairs=True))
    return pack_items(encoded, np.arange(n), max_tokens, torch.device("cpu"))


def hidden_of(layout, width, seed=0):
    return torch.randn(layout.n_tokens, width, generator=torch.Generator().manual_seed(seed))


def by_item(rows, layout):
    """The rows of each item, as a batch of one."""
    return [part[None] for part in torch.split(rows, np.diff(layout.ends).tolist())]


@pytest.fixture
def blocks(supernet):
    return PackedBlocks(supernet.model.eval())


def test_embeddings_of_a_pack_are_those_of_each_item(supernet, blocks):
    for pack in packs_of(supernet):
        types = [None] * len(pack.indices)
        if pack.token_type_ids is not None:
            types = by_item(pack.token_type_ids, pack.layout)
            assert pack.token_type_ids.any()
        with torch.inference_mode():
            found = by_item(blocks.embed(pack), pack.layout)
            for ids, kinds, part in zip(by_item(pack.input_ids, pack.layout), types, found, strict=True):
                assert tiny.largest_gap(part, supernet.model.embeddings(ids, kinds)) < 1e-5


@pytest.mark.parametrize("size", [1, 3, 4])
def test_the_halves_of_attention_are_the_block_on_each_item(supernet, blocks, size):
    pack = packs_of(supernet)[0]
    hidden = hidden_of(pack.layout, tiny.HIDDEN)
    block = supernet.model.layers[1].attention
    with torch.inference_mode():
        inner = blocks.inner(2, hidden, size, pack.layout)
        assert inner.shape == (pack.layout.n_tokens, blocks.width(2, size)) == (len(hidden), 8 * size)
        whole = by_item(blocks.outer(2, hidden, inner, pack.layout), pack.layout)
        for item, found in zip(by_item(hidden, pack.layout), whole, strict=True):
            assert tiny.largest_gap(found, block(item, None, size)) < 1e-5


@pytest.mark.parametrize("size", [1, 20, 48])
def test_the_halves_of_an_ffn_are_the_block(supernet, blocks, size):
    pack = packs_of(supernet)[0]
    hidden = hidden_of(pack.layout, tiny.HIDDEN)
    with torch.inference_mode():
        inner = blocks.inner(5, hidden, size, pack.layout)
        assert inner.shape == (len(hidden), size)
        assert torch.equal(
            blocks.outer(5, hidden, inner, pack.layout), supernet.model.layers[2].ffn(hidden, size)
        )


def test_logits_of_a_pack_are_those_of_each_item(supernet, blocks):
    pack = packs_of(supernet, max_tokens=1000)[0]
    assert len({run.length for run in pack.layout.runs}) > 1
    hidden = hidden_of(pack.layout, tiny.HIDDEN)
    with torch.inference_mode():
        expected = torch.cat([supernet.model.head(item, None) for item in by_item(hidden, pack.layout)])
        assert tiny.largest_gap(blocks.logits(hidden, pack.layout), expected) < 1e-5


def test_there_are_two_blocks_a_layer_attention_first(bert):
    blocks = PackedBlocks(bert.model)
    assert len(blocks) == 2 * tiny.NUM_LAYERS
    assert [blocks.is_attention(depth) for depth in range(4)] == [True, False, True, False]


@pytest.mark.parametrize(
    ("depth", "sizes", "n_tokens", "can"),
    [
        (0, [1, 4], 100, True),
        (1, [32, 96, 128], 16, True),
        (1, [32, 96, 128], 15, False),
        (1, [32, 48], 100, False),
        (1, [100, 128], 100, False),
        (1, [128], 100, False),
        (1, [], 100, False),
    ],
)
def test_only_safe_shapes_are_shared(wide, depth, sizes, n_tokens, can):
    assert PackedBlocks(wide.model).can_share(depth, sizes, n_tokens) is can


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_inner_half_of_a_narrow_block_is_the_beginning_of_a_wider_one_bit_for_bit(wide, dtype):
    blocks = PackedBlocks(wide.model.to(dtype).eval())
    n_compared = 0
    for max_tokens in (20, 37, 64, 150, 1000):
        for pack in packs_of(wide, 20, max_tokens):
            hidden = hidden_of(pack.layout, 128).to(dtype)
            for depth, sizes in ((0, [1, 2, 3, 4]), (1, [32, 64, 96, 128])):
                if not blocks.can_share(depth, sizes, pack.layout.n_tokens):
                    continue
                with torch.inference_mode():
                    widest = blocks.inner(depth, hidden, sizes[-1], pack.layout)
                    for size in sizes:
                        alone = blocks.inner(depth, hidden, size, pack.layout)
                        shared = widest[:, : blocks.width(depth, size)]
                        assert torch.equal(alone, shared)
                        assert torch.equal(
                            blocks.outer(depth, hidden, alone, pack.layout),
                            blocks.outer(depth, hidden, shared, pack.layout),
                        )
                        n_compared += 1
    assert n_compared > 50


@pytest.mark.parametrize(("depth", "size"), [(0, 1), (2, 3), (1, 32), (3, 100)])
def test_operations_are_those_of_the_matrix_products(wide, monkeypatch, depth, size):
    counted = 0
    linear, attend = F.linear, F.scaled_dot_product_attention

    def counting_linear(rows, weight, bias=None):
        nonlocal counted
        counted += 2 * rows.shape[0] * weight.shape[0] * weight.shape[1]
        return linear(rows, weight, bias)

    def counting_attention(query, key, value):
        nonlocal counted
        n_items, heads, length, head_size = query.shape
        counted += 2 * 2 * n_items * heads * length * length * head_size
        return attend(query, key, value)

    monkeypatch.setattr(F, "linear", counting_linear)
    monkeypatch.setattr(F, "scaled_dot_product_attention", counting_attention)
    blocks, pack = PackedBlocks(wide.model.eval()), packs_of(wide)[0]
    hidden = hidden_of(pack.layout, 128)
    inner = blocks.inner(depth, hidden, size, pack.layout)
    assert counted == blocks.inner_flops(depth, size, pack.layout) > 0
    blocks.outer(depth, hidden, inner, pack.layout)
    assert counted == blocks.flops(depth, size, pack.layout)
    assert blocks.outer_flops(depth, size, pack.layout) > 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_pooling_by_ends_is_pooling_by_runs(supernet, dtype):
    """The way that a GPU takes."""
    pack = packs_of(supernet)[0]
    hidden = hidden_of(pack.layout, tiny.HIDDEN).to(dtype)
    head = supernet.model.head
    found = pool_by_ends(hidden, pack.layout.ends, head.pooling)
    expected = torch.cat([head.pool(item, None) for item in by_item(hidden, pack.layout)])
    assert found.dtype == dtype
    tolerance = 1e-6 if dtype == torch.float32 else 2e-2
    assert tiny.largest_gap(found.float(), expected.float()) < tolerance
