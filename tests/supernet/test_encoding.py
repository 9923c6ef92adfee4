from __future__ import annotations

import numpy as np
import pytest
import tiny
import torch
from hypothesis import given
from hypothesis import strategies as st

from rlnas.errors import DataError
from rlnas.supernet.encoding import (
    N_LENGTHS,
    EncodedSplit,
    collate,
    encode,
    shuffled_batches,
    sorted_batches,
    text_lengths,
    with_lengths_of,
)
from rlnas.workload import Workload, thin


def encoded_of(lengths, pad_token_id=0):
    ids = tuple(np.full(length, 5 + index) for index, length in enumerate(lengths))
    return EncodedSplit(ids, None, np.arange(len(lengths)), pad_token_id)


def test_every_item_is_tokenised_by_itself_between_special_tokens(family):
    tokenizer, split = tiny.make_tokenizer(family), tiny.make_split(5)
    encoded = encode(tokenizer, split, 40)
    assert len(encoded) == 5
    for text, ids, length in zip(split.texts, encoded.input_ids, encoded.lengths, strict=True):
        assert ids.tolist() == tokenizer(text)["input_ids"]
        assert ids.dtype == np.int64
        assert (ids[0], ids[-1]) == (tokenizer.cls_token_id, tokenizer.sep_token_id)
        assert length == len(ids)
    assert encoded.pad_token_id == tokenizer.pad_token_id
    assert encoded.labels is split.labels


def test_pairs_are_told_apart_where_the_family_has_token_types(family):
    split = tiny.make_split(3, pairs=True)
    encoded = encode(tiny.make_tokenizer(family), split, 40)
    if family in ("roberta", "distilbert"):
        assert encoded.token_type_ids is None
        return
    alone = encode(tiny.make_tokenizer(family), tiny.make_split(3), 40)
    for types, ids, first in zip(encoded.token_type_ids, encoded.input_ids, alone.input_ids, strict=True):
        assert types.tolist() == [0] * len(first) + [1] * (len(ids) - len(first))


def test_long_texts_are_cut_and_keep_their_last_special_token():
    tokenizer = tiny.make_tokenizer("bert")
    for pairs in (False, True):
        encoded = encode(tokenizer, tiny.make_split(20, pairs=pairs), 7)
        assert encoded.lengths.max() == 7
        assert all(ids[-1] == tokenizer.sep_token_id for ids in encoded.input_ids)


@pytest.mark.parametrize("pairs", [False, True])
def test_the_lengths_of_texts_are_those_of_their_tokens_after_the_cut(family, pairs):
    tokenizer, split = tiny.make_tokenizer(family), tiny.make_split(20, pairs=pairs)
    lengths = text_lengths(tokenizer, split, 9)
    assert lengths == tuple(encode(tokenizer, split, 9).lengths)
    assert {type(length) for length in lengths} == {int}
    assert max(lengths) == 9


def test_lengths_that_leave_no_room_for_special_tokens_are_refused():
    with pytest.raises(DataError, match="max_seq_len=2 leaves no room for the 3 special tokens"):
        text_lengths(tiny.make_tokenizer("bert"), tiny.make_split(3, pairs=True), 2)


@pytest.mark.parametrize("n_items", [5, 300])
def test_a_workload_takes_its_lengths_from_texts(n_items):
    tokenizer, split = tiny.make_tokenizer("bert"), tiny.make_split(n_items)
    workload = with_lengths_of(Workload(4, 9, "bfloat16", lengths=(3,)), tokenizer, split)
    lengths = text_lengths(tokenizer, split, 9)
    assert workload.lengths == thin(lengths, min(n_items, N_LENGTHS))
    assert (workload.batch_size, workload.seq_len, workload.dtype) == (4, 9, "bfloat16")


def test_a_text_of_one_token_counts_as_two():
    """No workload has fewer: a request of a single token is none."""

    class Bare(type(tiny.make_tokenizer("bert"))):
        """A tokenizer without special tokens."""

        def num_special_tokens_to_add(self, pair=False):
            return 0

        def __call__(self, texts, pairs, **_):
            return {"input_ids": [[7] for _ in texts]}

    tokenizer = Bare(vocab=dict(tiny.make_tokenizer("bert").vocab))
    assert set(with_lengths_of(Workload(1, 9), tokenizer, tiny.make_split(3)).lengths) == {2}


def test_padding_and_truncation_that_a_tokenizer_file_asks_for_are_switched_off():
    """MiniLM's file pads everything to 128 tokens."""
    plain, padded = tiny.make_tokenizer("bert"), tiny.make_tokenizer("bert")
    padded.backend_tokenizer.enable_padding(length=30)
    padded.backend_tokenizer.enable_truncation(4)
    split = tiny.make_split(6)
    for first, second in zip(
        encode(plain, split, 40).input_ids, encode(padded, split, 40).input_ids, strict=True
    ):
        assert first.tolist() == second.tolist()


def test_a_tokenizer_without_a_padding_token_pads_with_0():
    tokenizer = tiny.make_tokenizer("bert")
    tokenizer.pad_token = None
    assert encode(tokenizer, tiny.make_split(2), 40).pad_token_id == 0


def test_a_batch_is_padded_to_its_longest_item():
    batch = collate(encoded_of([2, 4, 3], pad_token_id=1), [2, 0])
    assert batch.input_ids.tolist() == [[7, 7, 7], [5, 5, 1]]
    assert batch.attention_mask.tolist() == [[1, 1, 1], [1, 1, 0]]
    assert batch.labels.tolist() == [2, 0]
    assert batch.indices.tolist() == [2, 0]
    assert batch.token_type_ids is None


def test_a_batch_of_equal_lengths_needs_no_mask():
    assert collate(encoded_of([3, 3]), [0, 1]).attention_mask is None


def test_token_types_are_padded_with_0():
    encoded = encode(tiny.make_tokenizer("bert"), tiny.make_split(4, pairs=True), 40)
    batch = collate(encoded, range(4))
    assert (batch.token_type_ids[batch.attention_mask == 0] == 0).all()
    for row, types in enumerate(encoded.token_type_ids):
        assert batch.token_type_ids[row, : len(types)].tolist() == types.tolist()


@pytest.mark.parametrize(("num_labels", "dtype"), [(3, torch.int64), (1, torch.float32)])
def test_labels_keep_their_kind(num_labels, dtype):
    encoded = encode(tiny.make_tokenizer("bert"), tiny.make_split(4, num_labels=num_labels), 40)
    batch = collate(encoded, [3, 1])
    assert batch.labels.dtype == dtype
    assert batch.labels.tolist() == encoded.labels[[3, 1]].tolist()


lengths_of_items = st.lists(st.integers(1, 30), min_size=1, max_size=60)


@given(lengths=lengths_of_items, batch_size=st.integers(1, 20))
def test_sorted_batches_hold_every_item_once_in_order_of_length(lengths, batch_size):
    batches = list(sorted_batches(encoded_of(lengths), batch_size))
    order = np.concatenate([batch.indices for batch in batches])
    assert sorted(order) == list(range(len(lengths)))
    assert np.all(np.diff(np.array(lengths)[order]) >= 0)
    assert all(len(batch.indices) == batch_size for batch in batches[:-1])


@given(
    lengths=lengths_of_items, batch_size=st.integers(1, 20), seed=st.integers(0, 5), pool=st.integers(1, 4)
)
def test_shuffled_batches_hold_every_item_once(lengths, batch_size, seed, pool):
    batches = shuffled_batches(encoded_of(lengths), batch_size, np.random.default_rng(seed), pool)
    assert sorted(np.concatenate(batches)) == list(range(len(lengths)))
    assert len(batches) == -(-len(lengths) // batch_size)
    assert max(map(len, batches)) <= batch_size


def test_shuffled_batches_are_alike_in_length_and_other_ones_each_epoch():
    lengths = np.random.default_rng(0).integers(1, 100, size=400)
    encoded = encoded_of(lengths)
    first, again, other = (shuffled_batches(encoded, 10, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert not all(np.array_equal(a, b) for a, b in zip(first, other, strict=True))
    spread = np.mean([np.ptp(lengths[batch]) for batch in first])
    assert spread < 0.1 * np.ptp(lengths)
    firsts = [lengths[batch].mean() for batch in first]
    assert sorted(firsts) != firsts


@pytest.mark.parametrize(("pairs", "n_special"), [(False, 2), (True, 3)])
def test_room_for_the_special_tokens_is_needed(pairs, n_special):
    tokenizer, split = tiny.make_tokenizer("bert"), tiny.make_task(pairs=pairs).search
    assert encode(tokenizer, split, n_special).lengths.max() == n_special
    message = f"max_seq_len={n_special - 1} leaves no room for the {n_special} special tokens"
    with pytest.raises(DataError, match=message):
        encode(tokenizer, split, n_special - 1)
