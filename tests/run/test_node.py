from __future__ import annotations

import os
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest

from rlnas.run import node
from rlnas.run.node import main

ROOT = Path(__file__).parents[2]
FLAGS = ["--nproc=2", "--nnodes=3", "--node-rank=1", "--rdzv-endpoint=first:29400", "--device=cpu"]


@pytest.fixture
def started(monkeypatch):
    """A program in the place of torchrun; with what it was started."""
    told = []
    monkeypatch.setattr(node.signal, "signal", lambda *_: None)

    def replace(program):
        @contextmanager
        def start(*arguments, **how):
            told.append((arguments, how))
            with arguments[3].open("w") as log:
                yield subprocess.Popen([sys.executable, "-c", program], stderr=log)

        monkeypatch.setattr(node, "started", start)
        return told

    return replace


def test_a_node_trains_along_in_an_empty_folder_that_does_not_stay(started):
    told = started("")
    assert main(FLAGS) == 0
    (((torchrun, device, run, _), how),) = told
    assert (torchrun.nproc, torchrun.nnodes, torchrun.rdzv_endpoint) == (2, 3, "first:29400")
    assert (device, how) == ("cpu", {"node_rank": 1})
    assert not run.parent.exists()


def test_what_torchrun_says_outlives_the_folder(started, capsys):
    started("import sys; print('out of memory', file=sys.stderr); sys.exit(1)")
    assert main(FLAGS) == 2
    assert capsys.readouterr().err == (
        "out of memory\nrlnas: error: a process has ended with exit code 1 (see its own words above); go "
        "on from its last checkpoint with --resume\n"
    )


def test_what_goes_wrong_is_one_line(started, capsys):
    started("import sys; print('rlnas: error: no GPU here', file=sys.stderr); sys.exit(1)")
    assert main(FLAGS) == 2
    assert capsys.readouterr().err == "rlnas: error: no GPU here\n" * 2


@pytest.mark.timeout(180)
def test_sigterm_ends_a_node_that_waits_for_the_first_one_and_leaves_nothing(tmp_path):
    environ = {**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path)}
    line = [sys.executable, "-m", "rlnas.run.node", *FLAGS[:3], "--rdzv-endpoint=127.0.0.1:9", FLAGS[4]]
    with subprocess.Popen(line, env=environ, stderr=subprocess.PIPE) as process:
        while not list(tmp_path.glob("rlnas-*/torchrun.log")):
            assert process.poll() is None
        process.terminate()
        assert process.wait(60) == 143
    assert not list(tmp_path.glob("rlnas-*"))
    commands = subprocess.run(["ps", "-eo", "args="], capture_output=True, text=True, check=True).stdout
    assert str(tmp_path) not in commands
