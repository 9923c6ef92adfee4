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
    }


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
