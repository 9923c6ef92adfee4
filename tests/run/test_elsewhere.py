"""Timing on another node: what travels there, and what comes back."""

from __future__ import annotations

import pickle
import sys
from contextlib import closing
from dataclasses import replace
from types import SimpleNamespace

import pytest
from world import WORKLOAD, write_tables

from rlnas.errors import CheckpointError, InvalidSubnetError, MissingDependencyError, ScaleError
from rlnas.history import History
from rlnas.latency import LatencyTable
from rlnas.run import elsewhere
from rlnas.run.calibration import calibrate_folder, calibrate_precisions_folder
from rlnas.run.choice import measure_again, measure_trials
from rlnas.run.elsewhere import Elsewhere, _packed_call, _Timer
from rlnas.run.folder import RunFolder
from rlnas.run.precisions import precision_tables
from rlnas.scale.cluster import Cluster
from rlnas.space import LayerConfig, LayerwiseSpace, SubnetConfig
from rlnas.workload import Workload


class Handle:
    """What Ray gives for an actor, with the actor in this process: a call is answered at once."""

    def __init__(self, ray, *arguments):
        self._ray, self._timer = ray, _Timer(*arguments)
        self.prepare = SimpleNamespace(remote=self._timer.prepare)
        self.answer = SimpleNamespace(remote=self._answer)

    def _answer(self, message, folders):
        self._ray.sent.append(folders)
        return self._timer.answer(message, folders)


class OneActor:
    """Ray as far as one actor goes, without any process.

    Attributes:
        needs: What the actor was made with.
        sent: Folders of each call.
        n_ended: Actors that were killed.
        is_full: Whether there is no room for the actor.
        is_dead: Whether the actor is lost.
    """

    def __init__(self):
        self.needs, self.sent, self.n_ended = {}, [], 0
        self.is_full = self.is_dead = False

    def remote(self, **needs):
        self.needs = needs
        return lambda _: SimpleNamespace(remote=lambda *arguments: Handle(self, *arguments))

    def wait(self, references, timeout):
        return ([], references) if self.is_full else (references, [])

    def get(self, reference):
        if self.is_dead:
            raise ConnectionError("it is gone")
        return reference

    def kill(self, _actor):
        self.n_ended += 1

    def cluster_resources(self):
        return {"CPU": 4.0, "memory": 1e9, "node:10.0.0.1": 1.0}


@pytest.fixture
def actor(monkeypatch):
    ray = OneActor()
    monkeypatch.setattr(elsewhere, "connect", lambda _: ray)
    monkeypatch.setattr(elsewhere, "lost", lambda _: (ConnectionError,))
    return ray


def test_calls_answers_and_refusals_travel(actor, run):
    with History.read(run) as history:
        trials = history.trials[:2]
    with closing(Elsewhere(Cluster(latency_resource="edge"), run / "supernet", WORKLOAD)) as there:
        assert actor.needs == {"num_cpus": 0, "num_gpus": 0, "resources": {"edge": 1}}
        assert there.call(max, 3, 4) == 4
        measured = there.call(measure_trials, there.timed, trials, "cpu", max_seconds=0.5)
        assert [entry.trial for entry in measured] == list(trials)
        with pytest.raises(InvalidSubnetError):
            there.call(measure_again, there.timed, SubnetConfig((LayerConfig(99, 99),)), "cpu")
    assert actor.n_ended == 1


def test_folders_travel_with_a_call(actor, run):
    space = LayerwiseSpace.for_model(LatencyTable.load(run / "latency.json").shape)
    with closing(Elsewhere(Cluster(latency_resource="edge"), run / "supernet", WORKLOAD)) as there:
        table = there.call(calibrate_folder, there.supernet, space, WORKLOAD, "cpu", (), 0)
        assert table.workload == WORKLOAD
        names = there.call(sorted_names, run / "best")
        assert names == sorted(path.name for path in (run / "best").iterdir() if path.is_file())
        assert [len(folders) for folders in actor.sent] == [1, 1]


def test_several_precisions_are_timed_there(actor, run, tmp_path):
    precisions = ("float32", "bfloat16")
    table = LatencyTable.load(run / "latency.json")
    job = SimpleNamespace(
        precisions=precisions,
        latency_table=str(write_tables(tmp_path / "tables", precisions)),
        latency_device="cpu",
        allow_foreign_table=False,
        sizes_worth_having=True,
        seed=0,
        plain_space=LayerwiseSpace.for_model,
    )
    supernet, folder = SimpleNamespace(shape=table.shape), RunFolder(tmp_path / "tables-kept")
    space, cluster = job.plain_space(table.shape), Cluster(latency_resource="edge")
    folder.path.mkdir()
    with closing(Elsewhere(cluster, run / "supernet", WORKLOAD, precisions)) as there:
        with History.read(run) as history:
            config = replace(history.trials[0].config, precision="bfloat16")
        assert there.call(measure_again, there.timed, config, "cpu") > 0
        found = precision_tables(job, supernet, WORKLOAD, folder, there=there)
        assert found.by_speed == ("bfloat16", "float32")
        measured = there.call(
            calibrate_precisions_folder, there.supernet, space, WORKLOAD, precisions, "cpu", (), 0
        )
        assert set(measured.full_ratios) == set(precisions)


def test_a_workload_that_does_not_run_there_is_refused_at_once(actor, run):
    too_long = Workload(batch_size=1, seq_len=4096)
    with pytest.raises(CheckpointError, match="the workload has seq_len=4096"):
        Elsewhere(Cluster(latency_resource="edge"), run / "supernet", too_long)


def test_a_node_that_is_missing_is_told_with_what_there_is(actor, run):
    actor.is_full = True
    cluster = Cluster(latency_resource="edge", latency_device="cuda")
    message = (
        "no node could time models within 120 s: that takes 1 of latency_resource='edge' and a GPU, and "
        "the cluster has 4 CPU, perhaps in use by another run; start a node with it: .* '{\"edge\": 1}'"
    )
    with pytest.raises(ScaleError, match=message):
        Elsewhere(cluster, run / "supernet", WORKLOAD)
    assert actor.n_ended == 1


def test_a_node_that_is_lost_is_told(actor, run):
    with closing(Elsewhere(Cluster(latency_resource="edge"), run / "supernet", WORKLOAD)) as there:
        actor.is_dead = True
        message = r"\(latency_resource='edge'\) was lost; bring it back and go on with --resume"
        with pytest.raises(ScaleError, match=message):
            there.call(max, 3, 4)


def sorted_names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_what_is_pickled_counts_the_folders(tmp_path):
    (tmp_path / "a").write_bytes(b"one")
    timed = object()
    message, folders = _packed_call((timed, tmp_path, tmp_path / "a", "b"), timed)
    assert folders == [{"a": b"one"}]
    with pytest.raises(pickle.UnpicklingError):  # nobody without these folders can read it
        pickle.loads(message)


def test_ray_that_is_not_installed_is_named(monkeypatch, run):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingDependencyError, match=r"Ray is not installed; pip install 'rlnas\[ray\]'"):
        Elsewhere(Cluster(latency_resource="edge"), run / "supernet", WORKLOAD)
