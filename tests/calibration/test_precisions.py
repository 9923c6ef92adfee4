"""Calibration of several precisions."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from rlnas.calibration import precisions as precisions_module
from rlnas.calibration.precisions import check_reference, full_ratios
from rlnas.latency import FakeClock
from rlnas.workload import Workload


def test_full_models_are_compared_in_the_same_rounds(monkeypatch):
    clock = FakeClock()
    monkeypatch.setattr(precisions_module, "clock_for", lambda device: clock)

    def model(ms: float) -> SimpleNamespace:
        return SimpleNamespace(
            shape=SimpleNamespace(full=None), model_calls=lambda config: [clock.call(ms)]
        )

    ratios = full_ratios({"int8": model(3.0), "float32": model(12.0)}, "float32", "cpu")
    assert ratios == {"int8": pytest.approx(0.25), "float32": 1.0}


def test_the_reference_has_to_be_among_the_precisions():
    check_reference(Workload(), ("int8", "float32"))
    with pytest.raises(
        ValueError, match=r"dtype='bfloat16', so precisions must hold it, but got int8, float32"
    ):
        check_reference(Workload(dtype="bfloat16"), ("int8", "float32"))
