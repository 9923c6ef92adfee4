from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlnas.workload import DTYPES, MODES, Workload


@given(
    st.builds(
        Workload,
        batch_size=st.integers(1, 512),
        seq_len=st.integers(2, 512),
        dtype=st.sampled_from(DTYPES),
        mode=st.sampled_from(MODES),
    )
)
def test_json_gives_the_same_workload_back(workload):
    assert Workload(**json.loads(json.dumps(workload.to_dict()))) == workload


def test_a_workload_reads_like_a_sentence():
    assert str(Workload(4, 32, "bfloat16")) == "batch 4 x 32 tokens, bfloat16, eager"


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("batch_size", 0, "batch_size must be at least 1, but got batch_size=0"),
        ("seq_len", 1, "seq_len must be at least 2, but got seq_len=1"),
        ("dtype", "int3", "dtype must be one of float32, bfloat16, float16, but got dtype='int3'"),
        ("mode", "magic", "mode must be one of eager, but got mode='magic'"),
    ],
)
def test_a_field_out_of_range_is_named(field, value, message):
    with pytest.raises(ValueError, match=message):
        Workload(**{field: value})
