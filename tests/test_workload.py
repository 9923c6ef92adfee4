from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlnas.workload import DTYPES, MAX_REQUESTS, MODES, STATISTICS, Workload, parse_lengths, thin


@given(
    st.builds(
        Workload,
        batch_size=st.integers(1, 512),
        seq_len=st.integers(2, 512),
        dtype=st.sampled_from(DTYPES),
        mode=st.just("onnxruntime"),  # the one mode of all number formats
        statistic=st.sampled_from(STATISTICS),
    )
)
def test_json_gives_the_same_workload_back(workload):
    assert Workload(**json.loads(json.dumps(workload.to_dict()))) == workload


def test_a_workload_reads_like_a_sentence():
    assert str(Workload(4, 32, "bfloat16")) == "batch 4 x 32 tokens, bfloat16, eager"
    mix = Workload(1, 64, mode="compiled", lengths=(64, 8, 16))
    assert str(mix) == "batch 1 x 8 to 64 (median 16) tokens, float32, compiled"
    assert str(Workload(1, 64, statistic="p99")) == "batch 1 x 64 tokens, float32, eager, p99"


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("batch_size", 0, "batch_size must be at least 1, but got batch_size=0"),
        ("seq_len", 1, "seq_len must be at least 2, but got seq_len=1"),
        (
            "dtype",
            "int3",
            "dtype must be one of float32, bfloat16, float16, int8, int8_attention, int8_ffn, "
            "but got dtype='int3'",
        ),
        (
            "mode",
            "magic",
            "mode must be one of eager, compiled, cuda_graph, onnxruntime, but got mode='magic'",
        ),
        ("statistic", "mean", "statistic must be one of median, p99, but got statistic='mean'"),
        ("lengths", (8, 129), r"lengths must be in \[2, seq_len=128\], but got 129; raise seq_len"),
        ("lengths", (1,), r"lengths must be in \[2, seq_len=128\], but got 1"),
    ],
)
def test_a_field_out_of_range_is_named(field, value, message):
    with pytest.raises(ValueError, match=message):
        Workload(**{field: value})


def test_texts_of_one_length_are_one_request_without_padding():
    assert Workload(3, 16).requests == ((16, 16, 16),)


def test_single_texts_are_one_request_for_each_length():
    assert Workload(1, 64, lengths=(64, 8, 8)).requests == ((8,), (8,), (64,))


@given(lengths=st.lists(st.integers(2, 128), min_size=1, max_size=99), batch_size=st.integers(1, 33))
def test_requests_stand_for_the_lengths(lengths, batch_size):
    workload = Workload(batch_size, 128, lengths=tuple(lengths))
    requests = workload.requests
    assert requests == workload.requests
    assert 1 <= len(requests) <= MAX_REQUESTS
    assert {len(request) for request in requests} == {batch_size}
    texts = [length for request in requests for length in request]
    # Each text stands for an equal part of the distribution, and its mean is the distribution's.
    assert sorted(texts) == list(thin(lengths, len(texts)))
    assert np.mean(texts) == pytest.approx(np.mean(lengths), abs=0.51)
    assert all(request == tuple(sorted(request, reverse=True)) for request in requests)


def test_lengths_are_thinned_evenly():
    assert thin(range(1, 101), 4) == (13, 38, 63, 88)
    assert thin([7], 3) == (7, 7, 7)


def test_a_rare_long_text_is_not_lost():
    lengths = parse_lengths("16:9,128")
    assert thin(lengths, 5) == (16, 16, 16, 16, 72)


@pytest.mark.parametrize(("lengths", "n"), [([], 1), ([3], 0)])
def test_nothing_cannot_be_thinned(lengths, n):
    with pytest.raises(ValueError, match=f"got {len(lengths)} lengths and n={n}"):
        thin(lengths, n)


def test_lengths_are_read_as_people_write_them():
    assert parse_lengths("16,32, 128") == (16, 32, 128)
    assert parse_lengths("16:3,128:1") == (16, 16, 16, 128)


@pytest.mark.parametrize("text", ["", "16,", "16:0", "16:", "16:x", "a", "16;32", "3.5", "16:99999999999"])
def test_other_lengths_are_refused(text):
    with pytest.raises(ValueError, match=f"with shares as 16:3,128:1 .*, but got '{text}'"):
        parse_lengths(text)


def test_the_tail_of_a_mix_is_refused():
    with pytest.raises(ValueError, match="statistic='p99' is for texts of one length, but there are 2"):
        Workload(1, 64, statistic="p99", lengths=(8, 64))


def test_a_request_that_no_machine_holds_is_refused():
    with pytest.raises(ValueError, match="4,194,304 tokens, but got batch_size=100000 times seq_len=128"):
        Workload(100_000, 128)


def test_a_workload_of_several_lengths_survives_json():
    workload = Workload(2, 64, lengths=(8, 64))
    assert Workload(**json.loads(json.dumps(workload.to_dict()))) == workload


@pytest.mark.parametrize("mode", [mode for mode in MODES if mode != "onnxruntime"])
def test_int8_is_for_onnx_runtime(mode):
    with pytest.raises(
        ValueError, match=f"dtype='int8' runs in ONNX Runtime, but got mode='{mode}'; use mode"
    ):
        Workload(dtype="int8", mode=mode)


def test_another_precision_comes_in_the_form_in_which_it_is_served():
    workload = Workload(4, 32, mode="compiled")
    assert workload.in_precision("bfloat16") == Workload(4, 32, "bfloat16", "compiled")
    assert workload.in_precision("int8_ffn") == Workload(4, 32, "int8_ffn", "onnxruntime")
    assert workload.in_precision(None) is workload
