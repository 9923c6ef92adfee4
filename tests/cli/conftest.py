"""A tiny world, one whole run in it by the command line, and checks of how a command ends."""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path

import pytest

# For `import world`: folders of tests are no packages.
sys.path.append(str(Path(__file__).parents[1] / "run"))

from world import make_world

import rlnas.run
from rlnas.cli import main


@pytest.fixture(scope="session")
def world(tmp_path_factory):
    return make_world(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="session")
def finished(world, tmp_path_factory):
    """Folder of a run that the command line has finished; not to be changed."""
    path = tmp_path_factory.mktemp("runs") / "finished"
    assert main(world.arguments(path)) == 0
    return path


@pytest.fixture(scope="session")
def several(world, finished, tmp_path_factory):
    """Folder of a finished run for several targets; not to be changed."""
    path = tmp_path_factory.mktemp("several") / "run"
    for name in ("data", "supernet", "full"):
        shutil.copytree(finished / name, path / name)
    shutil.copy(finished / "latency.json", path)
    assert main(for_targets(world.arguments(path), "0.75,0.5")) == 0
    return path


def for_targets(arguments, ratios):
    """The same search for several targets."""
    at = arguments.index("--target-ratio")
    return [*arguments[:at], f"--target-ratios={ratios}", *arguments[at + 2 :]]


@pytest.fixture
def targets():
    """Makes of a search one for several targets."""
    return for_targets


@pytest.fixture
def run(finished, tmp_path):
    """A copy of the finished run."""
    return Path(shutil.copytree(finished, tmp_path / "run"))


@pytest.fixture
def unfinished(run):
    """A run that was killed after its search."""
    (run / "summary.json").unlink()
    return run


@pytest.fixture
def trained(finished, tmp_path):
    """A folder for a run whose data, weights and table are there, and nothing else."""
    path = tmp_path / "run"
    for name in ("data", "supernet", "full"):
        shutil.copytree(finished / name, path / name)
    shutil.copy(finished / "latency.json", path)
    return path


@pytest.fixture
def refused(capsys):
    """Checks that a command ends with exit code 2 and one line that says why; returns that line."""

    def check(arguments, message):
        capsys.readouterr()
        assert main([str(argument) for argument in arguments]) == 2
        printed = capsys.readouterr()
        assert "Traceback" not in printed.err
        # Bars of the training may stand before it.
        errors = [line for line in re.split(r"[\r\n]+", printed.err) if "rlnas: error: " in line]
        assert len(errors) == 1, printed.err
        assert printed.err.endswith(f"{errors[0]}\n")
        assert re.search(message, errors[0]), errors[0]
        return errors[0]

    return check


@pytest.fixture
def misused(capsys):
    """Checks that a command is refused by its flags alone."""

    def check(arguments, message):
        with pytest.raises(SystemExit) as end:
            main([str(argument) for argument in arguments])
        assert end.value.code == 2
        assert re.search(message, capsys.readouterr().err.splitlines()[-1])

    return check


@pytest.fixture
def asked(monkeypatch):
    """What would have been run."""
    asked = []
    monkeypatch.setattr("rlnas.cli.checkpoint.minilm_path", lambda: "minilm")
    monkeypatch.setattr("rlnas.cli.search.show_result", lambda *_: None)
    monkeypatch.setattr(rlnas.run, "run_job", lambda job, path, **how: asked.append((job, path, how)))
    return asked
