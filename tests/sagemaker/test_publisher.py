from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from contextlib import closing

import pytest

from rlnas.errors import HistoryError, RunFolderError
from rlnas.sagemaker import publisher as module
from rlnas.sagemaker.checkpoints import read_snapshots, restore
from rlnas.sagemaker.publisher import Publisher


@pytest.fixture
def run(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    return folder


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "checkpoints"


def numbers(folder):
    return [snapshot.number for snapshot in read_snapshots(folder)]


def test_nothing_new_is_published_where_nothing_has_changed(run, folder):
    publisher = Publisher(run, folder)
    assert publisher.publish()
    assert not publisher.publish()
    assert not Publisher(run, folder).publish()
    assert numbers(folder) == [0]


def test_a_run_folder_that_is_not_there_yet_is_waited_for(tmp_path, folder):
    assert not Publisher(tmp_path / "absent", folder).publish()


def test_a_later_publisher_goes_on_counting(run, folder):
    Publisher(run, folder).publish()
    (run / "latency.json").write_text("{}")
    Publisher(run, folder).publish()
    assert numbers(folder) == [1, 0]


@pytest.mark.parametrize(
    "name",
    ["run.lock", "history.sqlite-journal", "x.sqlite-wal", "y.json.tmp", ".best.tmp/model", ".z.123"],
)
def test_what_belongs_to_a_moment_is_left_out(run, folder, name):
    (run / name).parent.mkdir(exist_ok=True)
    (run / name).write_text("x")
    Publisher(run, folder).publish()
    assert set(read_snapshots(folder)[0].files) == {"config.json"}


def test_old_snapshots_go_once_later_ones_are_old_enough(run, folder):
    now = [0.0]
    publisher = Publisher(run, folder, clock=lambda: now[0])
    for number in range(4):
        (run / "config.json").write_text(str(number))
        publisher.publish()
        now[0] += module.KEEP_SECONDS / 4
    assert numbers(folder) == [3, 2, 1, 0]  # a slow copy may still be at work on any of them
    now[0] += module.KEEP_SECONDS
    (run / "config.json").write_text("last")
    publisher.publish()
    assert numbers(folder) == [4, 3]
    assert len(list((folder / "files").iterdir())) == 2


def test_contents_that_are_equal_are_stored_once(run, folder):
    (run / "copy.json").write_text("{}")
    Publisher(run, folder).publish()
    assert len(list((folder / "files").iterdir())) == 1


def test_what_a_killed_publisher_has_left_is_removed(run, folder):
    (folder / "files").mkdir(parents=True)
    (folder / "files" / ".1.sagemaker-ignore").write_text("half")
    (folder / ".snapshot-00000000.json.sagemaker-ignore").write_text("half")
    Publisher(run, folder).publish()
    assert not list(folder.rglob(".*"))


def test_what_is_half_written_has_a_name_that_is_not_copied(run, folder, monkeypatch):
    written, replace = [], os.replace

    def watched(source, target):
        written.append(source.name)
        replace(source, target)

    monkeypatch.setattr(os, "replace", watched)
    Publisher(run, folder).publish()
    assert len(written) == 2
    assert all(name.endswith(".sagemaker-ignore") for name in written)


def test_markers_of_the_copy_stay_and_may_go_at_any_moment(run, folder, monkeypatch):
    now = [0.0]
    publisher = Publisher(run, folder, clock=lambda: now[0])
    publisher.publish()
    (first,) = (folder / "files").iterdir()
    marker = first.with_name(f"{first.name}.sagemaker-uploaded")
    marker.write_text("")
    for number in range(3):
        now[0] += module.KEEP_SECONDS
        (run / "config.json").write_text(str(number))
        if number == 2:
            monkeypatch.setattr(type(folder), "iterdir", _with_a_name_that_goes(type(folder).iterdir))
        assert publisher.publish()
    assert not first.exists()
    assert marker.exists()


def _with_a_name_that_goes(iterdir):
    def listed(folder):
        yield from iterdir(folder)
        yield folder / ("0" * 64)

    return listed


@pytest.mark.parametrize("content", [b"", b"[]"])
def test_contents_that_were_damaged_are_written_anew(run, folder, tmp_path, content):
    Publisher(run, folder).publish()
    (path,) = (folder / "files").iterdir()
    path.write_bytes(content)
    Publisher(run, folder).publish()
    assert restore(folder, tmp_path / "back") is not None


def test_a_folder_that_never_stands_still_is_published_later(run, folder, monkeypatch):
    publisher, n_looks = Publisher(run, folder), [0]
    look = module._states

    def restless(path):
        n_looks[0] += 1
        return look(path) | {f"new-{n_looks[0]}": (0, 0, 0)}

    with monkeypatch.context() as patch:
        patch.setattr(module, "_states", restless)
        assert not publisher.publish()
    assert n_looks[0] == module.ATTEMPTS
    assert publisher.publish()


def test_a_database_changed_twice_within_a_tick_is_copied_twice(run, folder):
    publisher = Publisher(run, folder)
    with closing(sqlite3.connect(run / "history.sqlite")) as history:
        history.execute("CREATE TABLE t (n)")
        publisher.publish()
        before = os.stat(run / "history.sqlite")
        history.execute("INSERT INTO t VALUES (1)")
        history.commit()
        os.utime(run / "history.sqlite", ns=(before.st_atime_ns, before.st_mtime_ns))
        assert publisher.publish()


def test_a_batch_that_a_killed_process_has_begun_is_not_in_the_copy(run, folder, tmp_path):
    program = (
        "import os, sqlite3, sys\n"
        "history = sqlite3.connect(sys.argv[1], isolation_level=None)\n"
        "history.execute('PRAGMA cache_size = 1')\n"  # so that the file itself is written to before the end
        "history.execute('CREATE TABLE t (n INTEGER, filler TEXT)')\n"
        "history.execute('INSERT INTO t VALUES (0, 0)')\n"
        "history.execute('BEGIN')\n"
        "history.executemany('INSERT INTO t VALUES (?, ?)', [(i, 'x' * 3000) for i in range(100)])\n"
        "os.kill(os.getpid(), 9)\n"
    )
    subprocess.run([sys.executable, "-c", program, str(run / "history.sqlite")], check=False)
    assert (run / "history.sqlite-journal").is_file()
    Publisher(run, folder).publish()
    restore(folder, tmp_path / "back")
    with closing(sqlite3.connect(tmp_path / "back" / "history.sqlite")) as history:
        assert history.execute("SELECT count(*) FROM t").fetchone() == (1,)


def test_a_damaged_history_is_named(run, folder):
    (run / "history.sqlite").write_bytes(b"no database " * 1000)
    with pytest.raises(
        HistoryError, match=r"cannot copy the history .*history.sqlite: file is not a database"
    ):
        Publisher(run, folder).publish()


def test_a_checkpoint_folder_that_cannot_be_written(run, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunFolderError, match=r"cannot write checkpoints into '.*file/x': Not a directory"):
        Publisher(run, tmp_path / "file" / "x")
