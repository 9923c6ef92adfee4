"""What the precisions are."""

from __future__ import annotations

import pytest

from rlnas.precision import INT8_BLOCKS, PRECISIONS, stored_as


@pytest.mark.parametrize("precision", PRECISIONS)
def test_int8_is_made_of_float32_and_floats_are_what_they_are(precision):
    assert stored_as(precision) == ("float32" if precision.startswith("int8") else precision)


def test_every_int8_names_its_blocks():
    assert set(INT8_BLOCKS) == {p for p in PRECISIONS if p.startswith("int8")}
    assert INT8_BLOCKS["int8"] == INT8_BLOCKS["int8_attention"] + INT8_BLOCKS["int8_ffn"]
