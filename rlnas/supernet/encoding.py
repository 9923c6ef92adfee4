"""From texts to tokens, and from tokens to batches with little padding."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from rlnas.errors import DataError
from rlnas.workload import thin

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy.typing as npt
    from torch import Tensor
    from transformers import PreTrainedTokenizerBase

    from rlnas.task import Split
    from rlnas.workload import Workload

N_LENGTHS = 64
"""Lengths that stand for those of a task."""


@dataclass(frozen=True, slots=True, eq=False)
class EncodedSplit:
    """Tokens and labels of the n items of a split.

    Attributes:
        input_ids: One integer array of shape ``(length,)`` per item.
        token_type_ids: As `input_ids`, or None where the family has no token types.
        labels: Shape ``(n,)``, int64 classes or float32 values.
        pad_token_id: What fills the ends of shorter items in a batch.
    """

    input_ids: tuple[npt.NDArray[np.int64], ...]
    token_type_ids: tuple[npt.NDArray[np.int64], ...] | None
    labels: npt.NDArray[np.generic]
    pad_token_id: int

    def __len__(self) -> int:
        return len(self.input_ids)

    @property
    def lengths(self) -> npt.NDArray[np.int64]:
        """Tokens of each item, shape ``(n,)``."""
        return np.array([len(ids) for ids in self.input_ids], dtype=np.int64)


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """Items padded to one length.

    Attributes:
        input_ids: Shape ``(batch, seq_len)``.
        attention_mask: 1 for tokens and 0 for padding, or None where nothing is padded.
        token_type_ids: Shape ``(batch, seq_len)``, or None.
        labels: Shape ``(batch,)``.
        indices: Which items of the split these are, shape ``(batch,)``.
    """

    input_ids: Tensor
    attention_mask: Tensor | None
    token_type_ids: Tensor | None
    labels: Tensor
    indices: npt.NDArray[np.int64]


def encode(tokenizer: PreTrainedTokenizerBase, split: Split, max_seq_len: int) -> EncodedSplit:
    """Tokenise a split; longer texts are cut to `max_seq_len` tokens.

    Raises:
        DataError: If so few tokens do not even hold the special ones.
    """
    n_special = tokenizer.num_special_tokens_to_add(pair=split.text_pairs is not None)
    if max_seq_len < n_special:  # tokenizers would cut nothing at all
        raise DataError(
            f"max_seq_len={max_seq_len} leaves no room for the {n_special} special tokens of an item; "
            "give more (--seq-len)"
        )
    # A tokenizer file may carry padding of its own (MiniLM's pads to 128): switch it off.
    pairs = None if split.text_pairs is None else list(split.text_pairs)
    tokens = tokenizer(
        list(split.texts), pairs, truncation=True, max_length=max_seq_len, padding=False, verbose=False
    )
    types = tokens.get("token_type_ids")
    pad_token_id = tokenizer.pad_token_id
    return EncodedSplit(
        input_ids=tuple(np.asarray(ids, dtype=np.int64) for ids in tokens["input_ids"]),
        token_type_ids=None if types is None else tuple(np.asarray(t, dtype=np.int64) for t in types),
        labels=split.labels,
        pad_token_id=0 if pad_token_id is None else int(pad_token_id),
    )


def text_lengths(tokenizer: PreTrainedTokenizerBase, split: Split, max_seq_len: int) -> tuple[int, ...]:
    """Tokens of each item of a split, special ones included, after the cut to `max_seq_len`.

    Raises:
        DataError: If so few tokens do not even hold the special ones.
    """
    return tuple(encode(tokenizer, split, max_seq_len).lengths.tolist())


def with_lengths_of(workload: Workload, tokenizer: PreTrainedTokenizerBase, split: Split) -> Workload:
    """A workload whose texts are as long as those of a split, cut to its `seq_len`.

    Args:
        workload: Its lengths, if any, are replaced.
        tokenizer: Counts the tokens.
        split: At least one item; at most `N_LENGTHS` lengths stand for all.

    Raises:
        DataError: If `seq_len` leaves no room for the special tokens.
    """
    lengths = [max(2, length) for length in text_lengths(tokenizer, split, workload.seq_len)]
    return replace(workload, lengths=thin(lengths, min(N_LENGTHS, len(lengths))))


def collate(encoded: EncodedSplit, indices: npt.ArrayLike, device: str | torch.device = "cpu") -> Batch:
    """Pad the items at `indices` to the longest of them."""
    chosen = np.asarray(indices, dtype=np.int64)
    items = [encoded.input_ids[i] for i in chosen]
    length = max(len(ids) for ids in items)
    input_ids = np.full((len(items), length), encoded.pad_token_id, dtype=np.int64)
    mask = np.zeros((len(items), length), dtype=np.int64)
    types = None if encoded.token_type_ids is None else np.zeros((len(items), length), dtype=np.int64)
    for row, (index, ids) in enumerate(zip(chosen, items, strict=True)):
        input_ids[row, : len(ids)] = ids
        mask[row, : len(ids)] = 1
        if types is not None and encoded.token_type_ids is not None:
            types[row, : len(ids)] = encoded.token_type_ids[index]
    return Batch(
        input_ids=torch.from_numpy(input_ids).to(device),
        attention_mask=None if mask.all() else torch.from_numpy(mask).to(device),
        token_type_ids=None if types is None else torch.from_numpy(types).to(device),
        labels=torch.from_numpy(np.asarray(encoded.labels[chosen])).to(device),
        indices=chosen,
    )


def sorted_batches(
    encoded: EncodedSplit, batch_size: int, device: str | torch.device = "cpu"
) -> Iterator[Batch]:
    """All items in order of length, so that little is padded; always the same batches."""
    order = np.argsort(encoded.lengths, kind="stable")
    for start in range(0, len(order), batch_size):
        yield collate(encoded, order[start : start + batch_size], device)


def shuffled_batches(
    encoded: EncodedSplit, batch_size: int, rng: np.random.Generator, pool: int = 50
) -> list[npt.NDArray[np.int64]]:
    """Item indices of each training batch of one epoch: random, but alike in length.

    Items are shuffled, sorted by length within pools of `pool` batches, cut into batches, and
    the batches are shuffled.
    """
    order = rng.permutation(len(encoded))
    lengths = encoded.lengths
    batches: list[npt.NDArray[np.int64]] = []
    for start in range(0, len(order), batch_size * pool):
        chunk = order[start : start + batch_size * pool]
        chunk = chunk[np.argsort(lengths[chunk], kind="stable")]
        batches.extend(chunk[i : i + batch_size] for i in range(0, len(chunk), batch_size))
    return [batches[i] for i in rng.permutation(len(batches))]
