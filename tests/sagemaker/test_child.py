from __future__ import annotations

import os
import sys
import threading
from pathlib import Path

import pytest

from rlnas.sagemaker import child as module
from rlnas.sagemaker.child import Child


@pytest.fixture
def run_program(tmp_path, monkeypatch):
    """Starts a program in the place of a search."""
    folder = tmp_path / "fake" / "rlnas"
    folder.mkdir(parents=True)
    monkeypatch.chdir(tmp_path)  # python -m looks here first

    def start(text, *arguments, **environ):
        (folder / "__init__.py").write_text("")
        (folder / "__main__.py").write_text(text)
        variables = {**os.environ, "PYTHONPATH": str(folder.parent), **environ}
        return Child(arguments, variables)

    return start


def ended(child):
    code = child.wait(30)
    assert code is not None
    return code


def test_a_search_runs_as_on_the_command_line(run_program, tmp_path):
    child = run_program(
        "import sys; open('told', 'w').write(' '.join(sys.argv[1:]))", "search", "--budget=3"
    )
    assert ended(child) == 0
    assert (tmp_path / "told").read_text() == "search --budget=3"


def test_another_module_may_take_its_place(run_program, tmp_path):
    ended(run_program(""))
    (tmp_path / "fake" / "rlnas" / "other.py").write_text("import sys; sys.exit(len(sys.argv))")
    other = Child(["one", "two"], {"PYTHONPATH": str(tmp_path / "fake")}, "rlnas.other")
    assert ended(other) == 3


def test_what_it_says_goes_to_the_log(run_program, capfd):
    child = run_program("import sys; print('out'); print('first\\nsecond', file=sys.stderr)")
    assert ended(child) == 0
    told = capfd.readouterr()
    assert (told.out, told.err) == ("out\n", "first\nsecond\n")


def test_bars_are_rare_unless_told_otherwise(run_program, tmp_path):
    text = "import os; open('told', 'w').write(os.environ['TQDM_MININTERVAL'])"
    ended(run_program(text))
    assert (tmp_path / "told").read_text() == "30"
    ended(run_program(text, TQDM_MININTERVAL="1"))
    assert (tmp_path / "told").read_text() == "1"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (
            "import sys; print('bar 50%\\rrlnas: error: no task\\n', file=sys.stderr); sys.exit(2)",
            "no task",
        ),
        (
            "import sys; print('rlnas: error: no task\\nother: 1 left', file=sys.stderr); sys.exit(2)",
            "no task",
        ),
        ("import sys; print('Killed', file=sys.stderr); sys.exit(2)", "Killed"),
        ("import sys; sys.exit(3)", "the search ended with exit code 3"),
        (
            "import os; os.kill(os.getpid(), 9)",
            "the search was ended by SIGKILL, perhaps for want of memory; launch it again with --resume",
        ),
        (
            "import os; os.kill(os.getpid(), 11)",
            "the search was ended by SIGSEGV; launch it again with --resume",
        ),
    ],
)
def test_the_reason_of_a_failure_is_one_sentence(run_program, text, reason):
    child = run_program(text)
    assert child.failure(ended(child)) == reason


@pytest.mark.parametrize("text", ["", "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)"])
def test_it_can_be_ended_whatever_it_does(run_program, monkeypatch, text, tmp_path):
    monkeypatch.setattr(module, "GRACE_SECONDS", 1.0)
    child = run_program(f"{text}\nimport time; open('begun', 'w'); time.sleep(600)")
    while not (tmp_path / "begun").exists():
        assert child.wait(0.05) is None
    child.end()
    assert child.wait(0) < 0
    child.end()  # twice does no harm


@pytest.mark.parametrize("end", ["time.sleep(600)", "sys.exit(2)"])
def test_what_it_has_started_ends_with_it(run_program, monkeypatch, tmp_path, end):
    monkeypatch.setattr(module, "GRACE_SECONDS", 1.0)
    child = run_program(
        "import subprocess, sys, time\n"
        "started = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        f"open('begun.tmp', 'w').write(str(started.pid)); import os; os.rename('begun.tmp', 'begun'); {end}"
    )
    while not (tmp_path / "begun").exists():
        child.wait(0.05)
    child.end()
    status = Path("/proc", (tmp_path / "begun").read_text(), "status")
    while status.exists() and "(zombie)" not in status.read_text():
        threading.Event().wait(0.01)


def test_it_runs_with_the_same_python(run_program, tmp_path):
    ended(run_program("import sys; open('told', 'w').write(sys.executable)"))
    assert (tmp_path / "told").read_text() == sys.executable
