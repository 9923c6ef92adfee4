"""What is timed in a process of its own comes back, or says why not."""

from __future__ import annotations

import os
import pickle
from contextlib import closing

import pytest
import torch
from world import WORKLOAD

from rlnas.errors import InvalidSubnetError, RunFolderError
from rlnas.history import History
from rlnas.run import apart
from rlnas.run.apart import Apart, Setting
from rlnas.run.choice import measure_again, measure_trials
from rlnas.space import LayerConfig, SubnetConfig
from rlnas.supernet import Supernet
from rlnas.supernet.timing import TimedPrecisions


@pytest.fixture
def setting(run):
    return Setting(run / "supernet", WORKLOAD, (), "cpu", 1)


@pytest.fixture
def timed(setting):
    return setting.timed()


def test_small_models_are_timed_here(timed, setting):
    with closing(Apart(timed, setting, 1000)) as one:
        assert one.call(os.getpid) == os.getpid()
        assert one.call(id, timed) == id(timed)


def test_models_on_a_gpu_are_timed_here(timed, setting):
    on_gpu = Setting(setting.supernet, setting.workload, (), "cuda:0", 1)
    with closing(Apart(timed, on_gpu, 10**8)) as one:
        assert one.call(os.getpid) == os.getpid()


def test_large_models_are_timed_by_a_process_of_their_own(run, timed, setting, monkeypatch):
    monkeypatch.setattr(apart, "WORTH_A_PROCESS", 0)
    with History.read(run) as history:
        trials = history.trials[:3]
    with closing(Apart(timed, setting, 1000)) as one:
        process, again = one.call(os.getpid), one.call(os.getpid)
        assert process == again != os.getpid()
        assert one.call(torch.get_num_threads) == 1
        measured = one.call(measure_trials, timed, trials, "cpu", max_seconds=0.5)
        assert [entry.trial for entry in measured] == list(trials)
        assert all(entry.ratio > 0 for entry in measured)
        # What it refuses is refused here, and it goes on.
        with pytest.raises(InvalidSubnetError):
            one.call(measure_again, timed, SubnetConfig((LayerConfig(99, 99),)), "cpu")
        assert one.call(os.getpid) == process
        message = r"the process that times models has died \(exit code 3\), .*; go on with --resume"
        with pytest.raises(RunFolderError, match=message):
            one.call(os._exit, 3)
        with pytest.raises(RunFolderError, match="exit code 3"):
            one.call(os.getpid)


def test_what_is_served_ends_with_its_requests(setting, tmp_path):
    requests, answers = tmp_path / "requests", tmp_path / "answers"
    requests.write_bytes(pickle.dumps(setting) + pickle.dumps((os.getpid, (), {})))
    with requests.open("rb") as source, answers.open("wb") as target:
        apart.serve(source, target)
    with answers.open("rb") as found:
        assert pickle.load(found) == (True, os.getpid())
        assert found.read() == b""


def test_a_setting_makes_what_is_timed(setting, timed):
    assert isinstance(timed, TimedPrecisions)
    assert timed.shape == Supernet.load(setting.supernet).shape
