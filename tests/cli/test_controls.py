"""Controls and warm starts by their flags."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
from world import BUDGET

from rlnas.cli import main
from rlnas.cli.job import make_controls, warm_started
from rlnas.controllers.evolution import EvolutionController
from rlnas.controllers.random import RandomController
from rlnas.errors import ControllerError, RunFolderError
from rlnas.history import History
from rlnas.run import Control
from rlnas.run.folder import read_json


def test_controls_by_name(tmp_path):
    assert make_controls(None, tmp_path) == ()
    assert make_controls("random, evolution", tmp_path) == (
        Control("random", RandomController()),
        Control("evolution", EvolutionController()),
    )


def test_a_control_leaves_its_files_in_its_own_folder(tmp_path):
    (control,) = make_controls("ppo", tmp_path)
    assert tmp_path / "controls" / "ppo" in control.controller.save_path.parents


@pytest.mark.parametrize("names", ["random,chance", "", "random,"])
def test_an_unknown_control_is_refused(tmp_path, names):
    with pytest.raises(
        ControllerError, match=f"--controls={names}: '(chance|)' is no controller; give some of .*random"
    ):
        make_controls(names, tmp_path)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ("random,random", "every control may stand there once, but random does twice; drop one"),
        ("evolution", "the control evolution is the run's own controller, so it would find the same"),
        ("chance", "--controls=chance: 'chance' is no controller; give some of"),
    ],
)
def test_controls_that_cannot_be_are_refused_before_any_work(world, tmp_path, refused, names, message):
    refused(world.arguments(tmp_path / "run", "--controls", names), message)
    assert not (tmp_path / "run").exists()


def test_controls_are_added_to_a_finished_run(world, run, capsys):
    assert main(world.arguments(run, "--resume", "--controls", "random")) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert f"the control at the same budget of {BUDGET}, random," in printed
    assert read_json(run / "summary.json")["added"]["controls"] == {"random": BUDGET}
    with History.read(run / "controls" / "random") as history:
        assert len(history.trials) == BUDGET


def test_the_table_says_how_to_have_a_control(world, run, capsys):
    assert main(world.arguments(run, "--resume")) == 0
    assert "repeat the command with --resume --controls random" in " ".join(capsys.readouterr().out.split())


@dataclass(frozen=True)
class Learner:
    """A controller that takes an earlier run."""

    warm_start: Any = None


def test_a_warm_start_is_read_from_a_run(finished, tmp_path):
    learner = warm_started(Learner(), finished, tmp_path)
    with History.read(finished) as history:
        assert learner.warm_start.trials == history.trials
    assert warm_started(learner, None, tmp_path) is learner
    other = warm_started(Learner(), finished, tmp_path / "another")
    assert repr(other) == repr(learner)  # so that a run can be resumed with it


def test_a_controller_that_learns_nothing_from_another_run_takes_none(world, finished, tmp_path, refused):
    message = r"--warm-start=.*finished is for controllers .* EvolutionController does not; use "
    with pytest.raises(ControllerError, match=message):
        warm_started(EvolutionController(), finished, tmp_path)
    refused(world.arguments(tmp_path / "run", "--warm-start", str(finished)), message)
    assert not (tmp_path / "run").exists()


def test_a_warm_start_from_what_is_no_run_is_refused(tmp_path):
    with pytest.raises(
        RunFolderError, match=r"--warm-start=.*absent cannot be used: there is no history at .*absent"
    ):
        warm_started(Learner(), tmp_path / "absent", tmp_path / "run")


def test_a_warm_start_from_a_run_of_few_trials_is_refused(tmp_path):
    with History.open(tmp_path / "short", {}, resume=False):
        pass
    with pytest.raises(
        RunFolderError, match=r"--warm-start=.*short cannot be used: .* at least \d+ trials"
    ):
        warm_started(Learner(), tmp_path / "short", tmp_path / "run")


def test_a_run_does_not_start_from_itself(finished):
    with pytest.raises(
        RunFolderError, match=r"--warm-start=.*finished is this very run \(--out\); name an earlier"
    ):
        warm_started(Learner(), finished, finished)
