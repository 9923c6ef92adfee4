"""Runs whose search chooses the precision."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from world import RATIOS, WORKLOAD, write_tables

from rlnas.data import load_task
from rlnas.errors import LatencyTableError
from rlnas.evaluation import Racing
from rlnas.latency import PrecisionTables
from rlnas.metrics import Metrics
from rlnas.report import format_table, read_summary
from rlnas.run import run_job
from rlnas.run.child import describe_training, training_job
from rlnas.run.folder import RunFolder
from rlnas.run.precisions import describe_precisions, int8_sentence, precision_tables
from rlnas.run.training import load_supernet
from rlnas.space import LayerConfig, SubnetConfig
from rlnas.trial import Trial


def trial(number, precision, units, ms, right, n_items=100):
    """A trial that answers the first `right` items."""
    correct = np.packbits(np.arange(n_items) < right).tobytes()
    metrics = Metrics(right / n_items, ms, n_params=units, n_items=n_items, correct=correct)
    return Trial(number, SubnetConfig((LayerConfig(1, units),), precision), metrics, 0.0)


def test_a_run_chooses_among_floats_and_delivers_what_it_chose(world, tmp_path):
    tables = write_tables(tmp_path / "tables", ("float32", "bfloat16"))
    precisions = ("float32", "bfloat16")
    job = world.job(precisions=precisions, latency_table=str(tables), budget=24)
    summary = run_job(job, tmp_path / "run", progress=False)
    chosen = summary["best"]["config"]["precision"]
    assert chosen in precisions
    assert summary["precisions"]["full_ratios"] == {"bfloat16": 0.6, "float32": 1.0}
    assert sum(summary["precisions"]["n_trials"].values()) == 24
    assert {entry["config"]["precision"] for entry in summary["pareto"]} <= set(precisions)
    assert f"chosen subnet, {chosen}" in format_table(read_summary(tmp_path / "run"))
    assert "Precisions" in (tmp_path / "run" / "report.html").read_text()
    assert f"to be served in {chosen}" in (tmp_path / "run" / "best" / "README.md").read_text()
    read = PrecisionTables.load(tmp_path / "run" / "latency")
    assert read.full_ratios == {"float32": 1.0, "bfloat16": 0.6}


@pytest.mark.slow
def test_an_int8_winner_is_certified_in_onnx_runtime_and_comes_as_a_file(world, tmp_path):
    pytest.importorskip("onnxruntime")
    tables = write_tables(tmp_path / "tables")
    job = world.job(precisions=tuple(RATIOS), latency_table=str(tables), budget=24)
    summary = run_job(job, tmp_path / "run", progress=False)
    assert summary["best"]["config"]["precision"] == "int8"
    assert (tmp_path / "run" / "best" / "model_int8.onnx").is_file()


def test_a_run_that_was_killed_while_it_kept_its_tables_goes_on(world, tmp_path, monkeypatch):
    precisions = ("float32", "bfloat16")
    tables = write_tables(tmp_path / "tables", precisions)
    job, folder = world.job(precisions=precisions, latency_table=str(tables)), RunFolder(tmp_path / "run")
    folder.precisions.mkdir(parents=True)
    supernet = load_supernet(job, load_task(str(world.data)))
    monkeypatch.setattr("rlnas.run.precisions.calibrate_precisions", None)
    for name in ("precisions.json", "../latency.json"):
        found = precision_tables(job, supernet, job.workload, folder, progress=False)
        assert found.full_ratios == {"float32": 1.0, "bfloat16": 0.6}
        assert (folder.precisions / "precisions.json").is_file()
        assert folder.latency.is_file()
        (folder.precisions / name).unlink()


def test_a_table_that_lacks_a_precision_is_refused(world, tmp_path):
    tables = write_tables(tmp_path / "tables", ("float32",))
    job = world.job(precisions=("float32", "bfloat16"), latency_table=str(tables))
    with pytest.raises(LatencyTableError, match=r"tables for float32, but bfloat16 is asked for"):
        run_job(job, tmp_path / "run", progress=False)


def test_the_sentence_names_the_clearest_case():
    trials = [
        trial(0, "float32", 10, 5.0, 80),
        trial(1, "bfloat16", 20, 9.0, 85),
        trial(2, "int8", 30, 5.0, 90),
        trial(3, "int8", 5, 1.0, 99),
    ]
    assert int8_sentence(trials) == (
        "of 2 best subnets in floats, 2 are beaten by a larger one in int8 that is not slower, most "
        "clearly trial 0 (float32, 0.00 M parameters, 5.00 ms, 0.800) by trial 2 (int8, 0.00 M parameters, "
        "5.00 ms, 0.900): by 10.0 points [5.0, 17.0] on the search items"
    )


def test_the_sentence_says_that_there_is_no_case():
    trials = [trial(0, "float32", 10, 5.0, 95), trial(1, "int8", 30, 5.0, 90)]
    assert int8_sentence(trials) == (
        "of 1 best subnets in floats, none is beaten by a larger one in int8 that is not slower"
    )
    assert int8_sentence(trials[:1]) is None
    assert int8_sentence(trials[1:]) is None


def test_the_summary_counts_trials_by_precision(tmp_path):
    tables = PrecisionTables.load(write_tables(tmp_path))
    described = describe_precisions(tables, [trial(0, "int8", 10, 1.0, 90), trial(1, "int8", 9, 1.0, 90)])
    assert described["n_trials"] == {"int8": 2, "bfloat16": 0, "float32": 0}
    assert described["table_mape"] == {"int8": None, "bfloat16": None, "float32": None}
    assert described["reference"] == "float32"


def test_races_among_precisions_are_refused(world):
    with pytest.raises(ValueError, match=r"races are among subnets of one precision, .*without --racing"):
        world.job(precisions=("float32", "int8"), racing=Racing())


def test_int8_alone_is_refused_as_nothing_would_be_searched_or_delivered_in_it(world):
    workload = replace(WORKLOAD, dtype="int8", mode="onnxruntime")
    with pytest.raises(ValueError, match=r"dtype='int8' alone would search in floats.*--precisions int8"):
        world.job(workload=workload)
    job = world.job(workload=workload, precisions=("int8",))
    assert training_job(json.loads(json.dumps(describe_training(job)))).precisions == ("int8",)


def test_settings_hold_precisions_only_where_there_are_some(world):
    assert "precisions" not in world.job().settings()
    assert world.job(precisions=("float32", "int8")).settings()["precisions"] == "('float32', 'int8')"
