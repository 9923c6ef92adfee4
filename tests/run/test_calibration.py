from __future__ import annotations

import logging
from dataclasses import replace

import pytest
from world import WORKLOAD, make_table

from rlnas.latency import HeldOutError, PredictionError
from rlnas.run import calibration
from rlnas.run.calibration import (
    calibrate_with_bar,
    error_lines,
    table_sentence,
    time_sentence,
    warn_of,
)

ERROR = HeldOutError(
    n_held_out=16,
    table=PredictionError(0.021, 0.05, 0.06, 0.95, 0.8),
    controls={
        "blocks": PredictionError(0.1, 0.2, 0.3, 0.7),
        "flops": PredictionError(0.015, 0.03, 0.03, 0.9, 0.7),
    },
    noise=0.011,
    tau_ceiling=0.93,
    worse_than="flops",
)


@pytest.mark.parametrize("progress", [True, False])
def test_the_bar_shows_how_far_the_calibration_is(monkeypatch, capsys, progress):
    asked = []

    def calibrate(*args, progress, **how):
        asked.append((args, how))
        progress(1, 4)
        progress(4, 4)
        return "a table"

    monkeypatch.setattr(calibration, "calibrate", calibrate)
    how = {"effort": "much", "extra_blocks": [("ffn", 3)], "seed": 3}
    made = calibrate_with_bar("net", "space", WORKLOAD, "cpu", progress=progress, **how)
    assert made == "a table"
    assert asked == [(("net", "space", WORKLOAD, "cpu"), how)]
    assert ("calibrate: 100%" in capsys.readouterr().err) is progress


def test_all_that_speaks_against_a_table_is_a_warning(caplog):
    foreign = "predicted for another"
    table = replace(make_table(), error=ERROR, notes=("it was noisy", "its clock"), foreign_note=foreign)
    warn_of(table)
    assert {record.levelno for record in caplog.records} == {logging.WARNING}
    assert caplog.messages == [
        f"latency: {ERROR.warning}",
        "latency: it was noisy",
        "latency: its clock",
        "latency: predicted for another",
    ]


def test_a_sound_table_warns_of_nothing(caplog):
    warn_of(make_table())
    warn_of(replace(make_table(), error=replace(ERROR, worse_than=None)))
    assert caplog.messages == []


def test_the_sentence_of_a_table_leaves_its_error_to_others():
    table = replace(make_table(), error=ERROR, notes=("it was noisy",), foreign_note="from elsewhere")
    assert table_sentence(table) == str(make_table())


def test_the_error_stands_beside_those_of_both_controls():
    assert error_lines(ERROR) == [
        "error on 16 held-out subnets (each predicted from the others); timings repeat to 1.1%",
        "  this table         2.1% off on average, p95   5.0%, tau 0.95, within equal depth 0.80",
        "  counting blocks   10.0% off on average, p95  20.0%, tau 0.70",
        "  counting FLOPs     1.5% off on average, p95   3.0%, tau 0.90, within equal depth 0.70",
        "  within equal depth, noise hides a tau above 0.93",
    ]


def test_an_error_without_controls_and_noise_is_shorter():
    alone = HeldOutError(3, PredictionError(0.5, 0.6, 0.7), leave_one_out=False)
    assert error_lines(alone) == [
        "error on 3 held-out subnets (measured for this alone)",
        "  this table   50.0% off on average, p95  60.0%",
    ]


@pytest.mark.parametrize(("mode", "how"), [("eager", "building"), ("compiled", "building and compiling")])
def test_the_time_says_whether_anything_was_compiled(mode, how):
    table = make_table(workload=replace(WORKLOAD, mode=mode))
    table = replace(table, build_seconds=3.21, measure_seconds=40.0)
    assert time_sentence(table) == f"{how} took 3.2 s, measuring 40.0 s"
