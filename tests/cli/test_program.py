from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

import rlnas.auto
import rlnas.run
import rlnas.run.export
from rlnas.cli import main

ROOT = Path(__file__).parents[2]


def test_the_package_is_a_command():
    done = subprocess.run(
        [sys.executable, "-m", "rlnas", "--help"], capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "Shrink a BERT to a latency that is measured on your device." in done.stdout


def test_an_interrupt_says_how_to_go_on(world, tmp_path, capsys, monkeypatch):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(rlnas.run, "run_job", interrupt)
    assert main(world.arguments(tmp_path)) == 130
    assert "interrupted; nothing scored is lost: go on with --resume" in capsys.readouterr().err


def test_an_interrupted_choice_says_how_to_go_on(tmp_path, capsys, monkeypatch):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(rlnas.auto, "run_auto", interrupt)
    assert main(["auto", "--models", "a", "b", "--device", "cpu", "--out", str(tmp_path)]) == 130
    assert "interrupted; nothing scored is lost: go on with --resume" in capsys.readouterr().err


def test_what_cannot_be_resumed_does_not_say_so(tmp_path, capsys, monkeypatch):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(rlnas.run.export, "export_chosen", interrupt)
    assert main(["export", str(tmp_path)]) == 130
    assert capsys.readouterr().err == "interrupted\n"


def test_a_reader_that_has_gone_is_no_error(run, monkeypatch):
    class Closed(io.StringIO):
        """Standard output that is found closed when its buffer is written."""

        def flush(self):
            raise BrokenPipeError

        def fileno(self):
            return 1

    replaced = []
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", Closed())
        patch.setattr(os, "dup2", lambda *numbers: replaced.append(numbers))
        assert main(["report", str(run)]) == 0
    (null, stdout), *more = replaced
    os.close(null)
    assert (stdout, more) == (1, [])


def test_a_value_error_shows_its_trace_if_asked_for(world, tmp_path, monkeypatch):
    monkeypatch.setenv("RLNAS_TRACEBACK", "1")
    with pytest.raises(ValueError, match="batch_size=0"):
        main(world.arguments(tmp_path, "--batch-size", "0"))


def test_an_error_of_the_program_itself_is_not_hidden(world, tmp_path, monkeypatch):
    def fail(*_, **__):
        raise KeyError("a bug")

    monkeypatch.setattr(rlnas.run, "run_job", fail)
    with pytest.raises(KeyError, match="a bug"):
        main(world.arguments(tmp_path))
