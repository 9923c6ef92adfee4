"""Architectures with a precision."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlnas.errors import InvalidSpaceError, InvalidSubnetError
from rlnas.precision_space import PrecisionSpace
from rlnas.space import ChoiceSpace, LayerwiseSpace, ModelShape, UniformSpace
from rlnas.testing import check_space

SHAPE = ModelShape(3, 4, 48, 32)
INNER = LayerwiseSpace.for_model(SHAPE)
SPACE = PrecisionSpace(INNER, ("int8", "bfloat16", "float32"))


@given(st.tuples(*(st.integers(0, n - 1) for n in SPACE.nvec)))
def test_decoding_and_encoding_are_inverse(action):
    config = SPACE.decode(action)
    assert SPACE.encode(config) == action
    assert config in SPACE
    assert config.precision == SPACE.precisions[action[-1]]
    assert INNER.decode(action[:-1]) == replace(config, precision=None)


@given(st.integers(0, 2**32 - 1))
def test_samples_are_members_and_seeds_repeat_them(seed):
    first, second = (SPACE.sample(np.random.default_rng(seed)) for _ in range(2))
    assert first == second
    assert first in SPACE


@pytest.mark.parametrize(
    "inner",
    [INNER, ChoiceSpace.for_model(SHAPE), UniformSpace.for_model(SHAPE)],
    ids=lambda s: type(s).__name__,
)
def test_it_is_a_sound_space_around_each_of_ours(inner):
    check_space(PrecisionSpace(inner, ("int8", "float32")))


def test_the_smallest_is_in_the_fastest_precision_and_the_largest_in_the_slowest():
    assert SPACE.smallest() == replace(INNER.smallest(), precision="int8")
    assert SPACE.largest() == replace(INNER.largest(), precision="float32")


def test_configs_of_another_precision_or_of_none_are_no_members():
    for precision in (None, "float16"):
        config = replace(SHAPE.full, precision=precision)
        assert config not in SPACE
        with pytest.raises(InvalidSubnetError, match=f"int8, bfloat16, float32 .*precision={precision!r}"):
            SPACE.encode(config)
    assert "a text" not in SPACE


@pytest.mark.parametrize(
    ("precisions", "message"),
    [
        ((), "precisions needs at least one of float32, .*, but got none"),
        (("float32", "int4"), "a precision must be one of float32, .*, but got 'int4'"),
        (("int8", "int8"), "every precision may stand there once, but int8 does twice"),
    ],
)
def test_precisions_that_make_no_sense_are_refused(precisions, message):
    with pytest.raises(InvalidSpaceError, match=message):
        PrecisionSpace(INNER, precisions)
