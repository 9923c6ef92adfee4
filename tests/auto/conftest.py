"""A tiny world, choices in it, and one whole run, made once per session."""

from __future__ import annotations

import importlib
import shutil
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest

# For `import world`: folders of tests are no packages.
sys.path.append(str(Path(__file__).parents[1] / "run"))

from world import WORKLOAD, make_world

import rlnas.auto.entrants
import rlnas.run.calibration
from rlnas.auto import Arm, AutoJob, run_auto
from rlnas.calibration import Effort
from rlnas.run import Schedule


@pytest.fixture(scope="session")
def world(tmp_path_factory):
    return make_world(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="session")
def make_auto(world):
    """Makes a choice among three tiny models, with other values of some fields of its job."""

    def make(rungs=(1, 2), passes=None, arms=None, **changes):
        job = world.job(
            latency_table=None,
            budget=12,
            workload=WORKLOAD,
            schedule=Schedule(epochs=1, finish_epochs=1),
            **changes,
        )
        model = str(world.model)
        usual = (
            Arm(model, name="tiny"),
            Arm(model, "mean", name="tiny:mean"),
            Arm(model, first=1, name="half"),
        )
        return AutoJob(usual if arms is None else arms, job, rungs, passes)

    return make


@contextmanager
def brief_timings():
    """Timings so short that they say little: these tests are not about time."""
    with pytest.MonkeyPatch.context() as patch:
        quick = Effort(n_models=6, n_rounds=5, max_seconds=0.5)
        calibrate = rlnas.run.calibration.calibrate
        patch.setattr(
            rlnas.run.calibration,
            "calibrate",
            lambda *args, **how: calibrate(*args, **{**how, "effort": quick}),
        )
        patch.setattr(rlnas.auto.entrants, "MAX_SECONDS", 0.05)
        patch.setitem(importlib.import_module("rlnas.deploy.certify").N_ROUNDS, "median", 10)
        yield


@pytest.fixture
def brief():
    with brief_timings():
        yield


@pytest.fixture(scope="session")
def finished(make_auto, tmp_path_factory):
    """Folder of a finished choice and run, whose target every subnet meets; not to be changed."""
    path = tmp_path_factory.mktemp("auto") / "run"
    with brief_timings():  # for this alone: other folders' tests run in the same session
        run_auto(make_auto(), path, progress=False)
    return path


@pytest.fixture
def run(finished, tmp_path):
    """A copy of the finished run."""
    return Path(shutil.copytree(finished, tmp_path / "run"))
