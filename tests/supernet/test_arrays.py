"""Supernets on arrays that others may hold too: the same answers, and no copy of the weights."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import tiny
import torch

from rlnas.supernet.arrays import ALIGNMENT, SupernetArrays
from rlnas.supernet.encoding import sorted_batches


def arrays_of(supernet):
    return SupernetArrays.of(supernet.model, supernet.tokenizer, supernet.max_seq_len)


def aligned(array):
    """A copy at an address that suits, as Ray lays large arrays out."""
    room = np.empty(array.nbytes + ALIGNMENT, dtype=np.uint8)
    start = -room.ctypes.data % ALIGNMENT
    copied = room[start : start + array.nbytes].reshape(array.shape)
    copied[...] = array
    copied.flags.writeable = False
    return copied


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_supernet_arrives_as_it_was(bert, dtype):
    bert.model.to(getattr(torch, dtype))
    found = pickle.loads(pickle.dumps(arrays_of(bert))).supernet()
    assert (found.shape, found.max_seq_len, found.label_names) == (
        bert.shape,
        bert.max_seq_len,
        tiny.LABELS,
    )
    assert not found.model.training
    split = tiny.make_split(12)
    (batch,) = sorted_batches(found.encode(split), 12, "cpu")
    for config in tiny.random_configs(bert, 3):
        with torch.no_grad():
            assert torch.equal(found.forward(config, batch), bert.forward(config, batch))


def test_weights_are_read_where_they_lie(bert):
    found = arrays_of(bert)
    given = {name: aligned(array) for name, array in found.weights.items()}
    shared = SupernetArrays(found.config, found.tokenizer, found.max_seq_len, found.dtype, given).supernet()
    parameters = dict(shared.model.named_parameters())
    assert parameters.keys() == given.keys()
    assert all(parameters[name].data_ptr() == array.ctypes.data for name, array in given.items())


def test_weights_where_products_would_round_otherwise_are_copied(bert):
    found = arrays_of(bert)
    off = {
        name: np.concatenate([np.zeros(8, np.uint8), array.ravel()])[8:].reshape(array.shape)
        for name, array in found.weights.items()
    }
    shared = SupernetArrays(found.config, found.tokenizer, found.max_seq_len, found.dtype, off).supernet()
    for name, parameter in shared.model.named_parameters():
        assert parameter.data_ptr() % ALIGNMENT == 0
        assert torch.equal(parameter, bert.model.get_parameter(name))


def test_pickles_hold_the_weights_apart(bert):
    buffers = []
    head = pickle.dumps(arrays_of(bert), protocol=5, buffer_callback=buffers.append)
    n_bytes = sum(parameter.nbytes for parameter in bert.model.parameters())
    assert sum(buffer.raw().nbytes for buffer in buffers) >= n_bytes
    assert len(head) < n_bytes
