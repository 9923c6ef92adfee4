"""A tiny world, and one whole run in it, both made once per session."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parent))  # for `import world`: folders of tests are no packages

from world import World, make_world

from rlnas.run import run_job


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return make_world(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="session")
def finished(world: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a finished run of ``world.job()``; not to be changed."""
    path = tmp_path_factory.mktemp("runs") / "finished"
    run_job(world.job(), path, progress=False)
    return path


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    """A copy of the finished run."""
    return Path(shutil.copytree(finished, tmp_path / "run"))
