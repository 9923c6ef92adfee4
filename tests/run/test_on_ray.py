"""A whole run whose subnets are judged by workers, and timed on a node that carries a resource."""

from __future__ import annotations

from dataclasses import replace

import pytest
from world import BUDGET, write_tables

from rlnas.history import History
from rlnas.run import DataSource, run_job
from rlnas.run.elsewhere import Elsewhere
from rlnas.run.folder import read_json
from rlnas.scale.cluster import Cluster

pytestmark = [pytest.mark.timeout(300), pytest.mark.usefixtures("cluster")]


def what_was_judged(path):
    with History.read(path) as history:
        return [(trial.config, trial.metrics, trial.reward) for trial in history.trials]


@pytest.fixture
def called(monkeypatch):
    """Names of the functions that were called where the resource is."""
    names, call = [], Elsewhere.call

    def told(self, function, *args, **kwargs):
        names.append(function.__name__)
        return call(self, function, *args, **kwargs)

    monkeypatch.setattr(Elsewhere, "call", told)
    return names


def test_its_history_is_that_of_a_run_without_workers(world, finished, called, tmp_path):
    cluster = Cluster(n_workers=2, latency_resource="edge")
    summary = run_job(world.job(cluster=cluster), tmp_path / "run", progress=False)
    assert len(what_was_judged(tmp_path / "run")) == BUDGET
    assert what_was_judged(tmp_path / "run") == what_was_judged(finished)
    assert summary["device"] == read_json(finished / "summary.json")["device"]
    assert summary["evaluation"]["traversal"].startswith("2 workers, ")
    assert {"describe_device", "measure_trials", "certify"} <= set(called)


@pytest.mark.slow
@pytest.mark.parametrize("precisions", [(), ("float32", "bfloat16")], ids=["folds", "precisions"])
def test_folds_and_precisions_are_judged_as_without_workers(world, called, tmp_path, precisions):
    few = DataSource(str(world.data), shots=24, folds=2)
    job = world.job(data=few, budget=8)
    if precisions:
        table = str(write_tables(tmp_path / "tables", precisions))
        job = world.job(precisions=precisions, latency_table=table, budget=16)
    histories = []
    for name, cluster in (("alone", None), ("workers", Cluster(latency_resource="edge"))):
        run_job(replace(job, cluster=cluster), tmp_path / name, progress=False)
        histories.append(what_was_judged(tmp_path / name))
    assert histories[0] == histories[1]
    assert len(histories[0]) == job.budget
    assert {"measure_trials", "certify"} <= set(called)


@pytest.mark.slow
def test_the_table_is_measured_where_the_resource_is(world, called, tmp_path):
    cluster = Cluster(n_workers=0, latency_resource="edge")
    job = world.job(cluster=cluster, latency_table=None, budget=4)
    run_job(job, tmp_path / "run", progress=False)
    assert called[:2] == ["describe_device", "calibrate_folder"]
    assert read_json(tmp_path / "run" / "latency.json")["device"]["kind"] == "cpu"
