from __future__ import annotations

import copy
import json
import math
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlnas.metrics import Metrics

finite = st.floats(allow_nan=False, allow_infinity=False)
metrics = st.builds(
    Metrics,
    accuracy=st.floats(-1, 1),
    latency_ms=st.just(math.nan) | st.floats(0, 1e6),
    n_params=st.integers(0, 10**12),
    n_items=st.integers(0, 10**9),
    accuracy_ci=st.none() | st.tuples(st.floats(-1, 1), st.floats(-1, 1)),
    extra=st.dictionaries(st.text(max_size=5), finite, max_size=3),
    raced_out=st.booleans(),
)


@given(metrics)
def test_json_gives_the_same_metrics_back(value):
    assert Metrics.from_dict(json.loads(json.dumps(value.to_dict(), allow_nan=False))) == value


@given(metrics)
def test_metrics_travel_between_processes_and_are_hashable(value):
    assert pickle.loads(pickle.dumps(value)) == value
    assert copy.deepcopy(value) == value
    assert hash(copy.deepcopy(value)) == hash(value)


def test_numpy_scalars_become_plain_numbers():
    value = Metrics(
        np.float32(0.5), np.float64(2), np.int64(3), np.int32(4), None, {"f1": np.float32(0.25)}
    )
    assert json.loads(json.dumps(value.to_dict())) == {
        "accuracy": 0.5,
        "latency_ms": 2.0,
        "n_params": 3,
        "n_items": 4,
        "accuracy_ci": None,
        "extra": {"f1": 0.25},
        "raced_out": False,
        "correct": None,
    }


@given(st.lists(st.booleans(), min_size=1, max_size=40))
def test_the_bits_of_the_items_survive_json_and_processes(bits):
    value = Metrics(np.mean(bits), n_items=len(bits), correct=np.packbits(bits))
    assert isinstance(value.correct, bytes)
    assert Metrics.from_dict(json.loads(json.dumps(value.to_dict()))) == value
    assert pickle.loads(pickle.dumps(value)) == value
    unpacked = np.unpackbits(np.frombuffer(value.correct, np.uint8), count=len(bits))
    assert unpacked.astype(bool).tolist() == bits


def test_the_bits_are_part_of_the_value_but_not_of_its_text():
    value = Metrics(0.5, n_items=8, correct=b"\x0f")
    assert value.to_dict()["correct"] == "0f"
    assert value != Metrics(0.5, n_items=8, correct=b"\xf0")
    assert "correct" not in repr(value)
    assert "raced_out=False" in repr(value)


def test_a_flag_of_numpy_becomes_a_plain_one():
    assert Metrics(0.5, raced_out=np.bool_(True)).raced_out is True


def test_metrics_of_old_histories_left_no_race():
    old = Metrics.from_dict({"accuracy": 0.5, "n_items": 9, "extra": {}})
    assert (old.raced_out, old.correct) == (False, None)
    assert old.n_items == 9


@pytest.mark.parametrize("n_bytes", [0, 1, 3])
def test_bits_that_do_not_fit_the_items_are_refused(n_bytes):
    with pytest.raises(
        ValueError, match=f"must hold 2 bytes, a bit for each of n_items=9, but got {n_bytes}; pack it"
    ):
        Metrics(0.5, n_items=9, correct=bytes(n_bytes))


def test_bits_of_a_race_or_of_an_unknown_number_of_items_may_be_any():
    assert Metrics(0.5, n_items=9, raced_out=True, correct=bytes(7)).correct == bytes(7)
    assert Metrics(0.5, correct=bytes(7)).correct == bytes(7)


@pytest.mark.parametrize("bad", [5, "0f"])
def test_bits_that_are_no_bytes_are_refused(bad):
    with pytest.raises(TypeError, match=type(bad).__name__):
        Metrics(0.5, correct=bad)


def test_bits_that_are_not_hexadecimal_are_refused():
    with pytest.raises(ValueError, match="non-hexadecimal number"):
        Metrics.from_dict({"accuracy": 0.5, "correct": "xy"})


def test_an_unknown_latency_is_null_in_json():
    assert math.isnan(Metrics(0.5).latency_ms)
    assert Metrics(0.5).to_dict()["latency_ms"] is None


def test_metrics_do_not_follow_the_mapping_that_they_were_made_of():
    extra = {"f1": 0.1}
    value = Metrics(0.5, extra=extra)
    extra["f1"] = 0.9
    assert value.extra == {"f1": 0.1}
    with pytest.raises(TypeError, match="does not support item assignment"):
        value.extra["f1"] = 0.9


def test_metrics_are_frozen():
    with pytest.raises(AttributeError, match="accuracy"):
        Metrics(0.5).accuracy = 0.9


def test_an_interval_becomes_a_pair_of_floats():
    assert Metrics(0.5, accuracy_ci=[0, 1]).accuracy_ci == (0.0, 1.0)


def test_metrics_without_accuracy_are_refused():
    with pytest.raises(KeyError, match="accuracy"):
        Metrics.from_dict({"latency_ms": 1.0})


@pytest.mark.parametrize(("bad", "message"), [("high", "'high'"), (None, "NoneType")])
def test_an_accuracy_that_is_no_number_is_refused(bad, message):
    with pytest.raises((TypeError, ValueError), match=message):
        Metrics(bad)
