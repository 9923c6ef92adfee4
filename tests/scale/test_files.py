from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from rlnas.scale import files as passing
from rlnas.scale.files import PREFIX, packed, passing_folder, unpacked

KILLED = """
import os, signal
from rlnas.scale.files import unpacked
with unpacked({"model.safetensors": b"weights"}) as folder:
    print(folder, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def temporary(tmp_path, monkeypatch):
    """The folder of temporary files, for this process and those that it starts."""
    place = tmp_path / "temporary"
    place.mkdir()
    monkeypatch.setenv("TMPDIR", str(place))
    monkeypatch.setattr("tempfile.tempdir", None)
    return place


def test_a_folder_arrives_as_it_was_and_is_gone_afterwards(tmp_path, temporary):
    folder = tmp_path / "sent"
    (folder / "inner").mkdir(parents=True)
    (folder / "a.txt").write_bytes(b"one")
    (folder / "b.bin").write_bytes(bytes(range(256)))
    files = packed(folder)
    assert sorted(files) == ["a.txt", "b.bin"]
    with unpacked(files) as found:
        assert packed(found) == files
        assert found.parent.stat().st_mode & 0o077 == 0
    assert list(temporary.iterdir()) == []


def test_what_a_killed_process_has_left_is_removed_by_the_next(temporary, monkeypatch):
    killed = subprocess.run([sys.executable, "-c", KILLED], capture_output=True, check=False)
    assert killed.returncode == -signal.SIGKILL
    (left,) = temporary.iterdir()
    assert left.name.startswith(PREFIX)
    with passing_folder():
        assert left.exists()  # it may just have been made
    monkeypatch.setattr(passing, "MIN_AGE", -1.0)
    with passing_folder() as held, passing_folder() as other:
        assert not left.exists()
        assert held.exists()
        assert {held.parent, other.parent} == set(temporary.iterdir())


def test_links_are_not_followed(tmp_path, temporary, monkeypatch):
    monkeypatch.setattr(passing, "MIN_AGE", -1.0)
    (tmp_path / "mine").mkdir()
    os.symlink(tmp_path / "mine", temporary / f"{PREFIX}link")
    with passing_folder():
        assert list((tmp_path / "mine").iterdir()) == []
