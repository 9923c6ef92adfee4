from __future__ import annotations

from itertools import groupby

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from rlnas.evaluation.packing import Layout, Run, pack_items
from rlnas.supernet.encoding import EncodedSplit

CPU = torch.device("cpu")
lengths_of_items = st.lists(st.integers(1, 30), min_size=1, max_size=60)


def make_encoded(lengths, with_types=True):
    """Items whose tokens tell which item and which place they are: 1000 * item + place."""
    ids = tuple(1000 * item + np.arange(length) for item, length in enumerate(lengths))
    types = tuple(np.arange(length) % 2 for length in lengths) if with_types else None
    return EncodedSplit(ids, types, np.zeros(len(lengths), dtype=np.int64), 0)


def pack_all(lengths, max_tokens, **settings):
    return pack_items(make_encoded(lengths, **settings), np.arange(len(lengths)), max_tokens, CPU)


def sizes_of(packs):
    return [pack.layout.n_tokens for pack in packs]


@given(lengths=lengths_of_items, max_tokens=st.integers(1, 100))
def test_every_item_is_there_once_with_its_tokens_and_not_one_more(lengths, max_tokens):
    packs = pack_all(lengths, max_tokens)
    assert sorted(torch.cat([pack.indices for pack in packs]).tolist()) == list(range(len(lengths)))
    assert sum(sizes_of(packs)) == sum(lengths)
    encoded = make_encoded(lengths)
    for pack in packs:
        ends = pack.layout.ends.tolist()
        assert (ends[0], ends[-1], len(ends)) == (0, pack.layout.n_tokens, len(pack.indices) + 1)
        assert len(pack.input_ids) == len(pack.token_type_ids) == pack.layout.n_tokens
        for item, start, end in zip(pack.indices.tolist(), ends, ends[1:], strict=False):
            assert np.array_equal(pack.input_ids[start:end], encoded.input_ids[item])
            assert np.array_equal(pack.token_type_ids[start:end], encoded.token_type_ids[item])


@given(lengths=lengths_of_items, max_tokens=st.integers(1, 100))
def test_a_pack_holds_no_more_than_it_may_but_for_single_items(lengths, max_tokens):
    packs = pack_all(lengths, max_tokens)
    for pack in packs:
        assert pack.layout.n_tokens <= max_tokens or len(pack.indices) == 1


@given(lengths=lengths_of_items, max_tokens=st.integers(60, 300))
def test_packs_are_nearly_equal_and_few(lengths, max_tokens):
    sizes = sizes_of(pack_all(lengths, max_tokens))
    assert max(sizes) - min(sizes) <= 2 * max(lengths)
    assert len(sizes) <= max(1, -(-sum(lengths) // (max_tokens - max(lengths))))


def test_no_small_rest_is_left_at_the_end():
    assert sizes_of(pack_all([40] * 51, 1024)) == [680, 680, 680]
    assert sizes_of(pack_all([10] * 100, 104)) == [100] * 10


@given(lengths=lengths_of_items, max_tokens=st.integers(1, 100))
def test_runs_hold_neighbours_of_one_length(lengths, max_tokens):
    for pack in pack_all(lengths, max_tokens):
        own = [lengths[item] for item in pack.indices.tolist()]
        assert own == sorted(own)
        groups = [(length, len(list(group))) for length, group in groupby(own)]
        assert [(run.length, run.n_items) for run in pack.layout.runs] == groups
        assert np.array_equal(np.diff(pack.layout.ends), own)
        position = 0
        for run in pack.layout.runs:
            assert run.tokens == slice(position, position + run.n_items * run.length)
            position = run.tokens.stop
        assert position == pack.layout.n_tokens
        assert pack.layout.longest == max(own)
        assert pack.layout.n_pairs == sum(length**2 for length in own)


@given(lengths=lengths_of_items, data=st.data())
def test_packs_do_not_depend_on_the_order_in_which_items_are_chosen(lengths, data):
    subset = st.lists(st.sampled_from(range(len(lengths))), unique=True, min_size=1)
    chosen = data.draw(subset)
    shuffled = data.draw(st.permutations(chosen))
    encoded = make_encoded(lengths)
    first, second = (pack_items(encoded, np.array(items), 50, CPU) for items in (chosen, shuffled))
    assert len(first) == len(second)
    for one, other in zip(first, second, strict=True):
        assert torch.equal(one.indices, other.indices)
        assert torch.equal(one.input_ids, other.input_ids)
        assert one.layout.runs == other.layout.runs
    assert sorted(torch.cat([pack.indices for pack in first]).tolist()) == sorted(chosen)


@given(lengths=lengths_of_items, times=st.integers(1, 5))
def test_a_repeated_layout_is_that_of_packs_one_after_the_other(lengths, times):
    layout = pack_all(lengths, 10_000)[0].layout
    repeated = layout.repeated(times)
    assert np.array_equal(np.diff(repeated.ends), np.tile(np.diff(layout.ends), times))
    assert repeated.ends.dtype == layout.ends.dtype == torch.int32
    assert (repeated.n_tokens, repeated.n_pairs) == (times * layout.n_tokens, times * layout.n_pairs)
    assert repeated.longest == layout.longest
    covered = np.concatenate([np.arange(repeated.n_tokens)[run.tokens] for run in repeated.runs])
    assert np.array_equal(covered, np.arange(repeated.n_tokens))
    shapes = [(run.n_items, run.length) for run in repeated.runs]
    assert shapes == [(run.n_items, run.length) for run in layout.runs] * times


def test_families_without_token_types_have_none():
    assert all(pack.token_type_ids is None for pack in pack_all([3, 5, 4], 8, with_types=False))


def test_no_items_are_no_packs():
    assert pack_items(make_encoded([3, 4]), np.array([], dtype=np.int64), 10, CPU) == []


def test_a_layout_with_one_run_reads_as_it_is_written():
    layout = Layout((Run(0, 2, 3),), torch.tensor([0, 3, 6], dtype=torch.int32), 6)
    assert layout.repeated(2).runs == (Run(0, 2, 3), Run(6, 2, 3))
    assert layout.repeated(2).ends.tolist() == [0, 3, 6, 9, 12]
    assert (layout.longest, layout.n_pairs) == (3, 18)
