from __future__ import annotations

import json
import os
import random
import shutil
import sqlite3
import threading
import time
from contextlib import closing

import pytest

from rlnas.errors import RunFolderError
from rlnas.sagemaker.checkpoints import Snapshot, StoredFile, digest_of, read_snapshots, restore
from rlnas.sagemaker.publisher import Publisher


@pytest.fixture
def run(tmp_path):
    folder = tmp_path / "run"
    (folder / "supernet").mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "supernet" / "weights").write_bytes(b"w" * 1000)
    return folder


@pytest.fixture
def published(run, tmp_path):
    folder = tmp_path / "checkpoints"
    assert Publisher(run, folder).publish()
    return folder


def content_of(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_a_run_comes_back_as_it_was(run, published, tmp_path):
    (tmp_path / "back").mkdir()
    (tmp_path / "back" / "of an earlier run").write_text("")
    snapshot = restore(published, tmp_path / "back")
    assert snapshot.number == 0
    assert content_of(tmp_path / "back") == content_of(run)


def test_without_checkpoints_there_is_no_run(tmp_path):
    assert restore(tmp_path / "absent", tmp_path / "run") is None
    (tmp_path / "empty").mkdir()
    assert restore(tmp_path / "empty", tmp_path / "run") is None
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("how", ["gone", "cut short", "changed"])
def test_a_snapshot_that_is_not_whole_gives_way_to_the_one_before(run, tmp_path, how):
    folder = tmp_path / "checkpoints"
    publisher = Publisher(run, folder)
    publisher.publish()
    before = content_of(run)
    (run / "config.json").write_text('{"later": 1}')
    assert publisher.publish()
    content = folder / "files" / digest_of(run / "config.json")
    if how == "gone":
        content.unlink()
    else:
        content.write_text("{" if how == "cut short" else '{"other": 1}')
    assert restore(folder, tmp_path / "back").number == 0
    assert content_of(tmp_path / "back") == before


def test_checkpoints_that_were_cut_off_at_the_beginning_are_no_run_yet(published, tmp_path):
    for path in (published / "files").iterdir():
        path.unlink()
        assert restore(published, tmp_path / "back") is None
    assert not (tmp_path / "back").exists()


def test_contents_without_a_list_are_no_run_yet(published, tmp_path):
    (published / "snapshot-00000000.json").unlink()
    assert restore(published, tmp_path / "back") is None


def test_later_checkpoints_without_any_whole_snapshot_are_refused(published, tmp_path):
    (published / "snapshot-00000000.json").rename(published / "snapshot-00000007.json")
    for path in (published / "files").iterdir():
        path.unlink()
    with pytest.raises(
        RunFolderError, match=r"hold no whole snapshot \(the latest lacks config.json\); put"
    ):
        restore(published, tmp_path / "back")
    assert not (tmp_path / "back").exists()


def test_a_run_that_cannot_be_written_is_an_error_of_ours(published, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunFolderError, match=r"cannot restore a run into '.*file/run': Not a directory"):
        restore(published, tmp_path / "file" / "run")


@pytest.mark.parametrize(
    "files",
    [
        {"../outside": ["0" * 64, 1]},
        {"/outside": ["0" * 64, 1]},
        {"inside": ["../../secret", 1]},
        {"inside": "text"},
        [],
        {"": ["0" * 64, 1]},
    ],
)
def test_a_list_that_no_publisher_has_written_is_passed_over(published, files):
    (published / "snapshot-00000007.json").write_text(json.dumps({"files": files}))
    (published / "snapshot-00000008.json").write_text("{")
    assert [snapshot.number for snapshot in read_snapshots(published)] == [0]


def test_a_snapshot_survives_its_file(tmp_path):
    snapshot = Snapshot(3, {"a/b": StoredFile("0" * 64, 5)})
    (tmp_path / snapshot.name).write_text(snapshot.to_json())
    assert read_snapshots(tmp_path) == [snapshot]


class Writer(threading.Thread):
    """Changes a run folder as a search does: it replaces files, at times a folder, and a history grows.

    What stands in the files is the number of the batch that follows them.
    """

    def __init__(self, run):
        super().__init__(daemon=True)
        self.run_folder, self.ended = run, threading.Event()

    def run(self):
        with closing(sqlite3.connect(self.run_folder / "history.sqlite", isolation_level=None)) as history:
            history.execute("CREATE TABLE trials (number INTEGER PRIMARY KEY, filler TEXT)")
            number = 0
            while not self.ended.is_set():
                if number % 50 == 0:
                    self.replace_folder(f"{number}")
                self.replace("latency.json", f"{number}")
                history.execute("BEGIN IMMEDIATE")
                history.executemany(
                    "INSERT INTO trials VALUES (?, ?)", [(2 * number + i, "x" * 3000) for i in (0, 1)]
                )
                history.execute("COMMIT")
                number += 1
                time.sleep(0.002)

    def replace(self, name, content):
        temporary = self.run_folder / f"{name}.tmp"
        temporary.write_text(content)
        os.replace(temporary, self.run_folder / name)

    def replace_folder(self, content):
        temporary = self.run_folder / ".supernet.tmp"
        temporary.mkdir()
        for name in ("config", "weights"):
            (temporary / name).write_text(content)
        shutil.rmtree(self.run_folder / "supernet", ignore_errors=True)
        os.replace(temporary, self.run_folder / "supernet")


def copied_slowly(source, target, rng):
    """A copy made file by file, in a random order, while the source changes."""
    paths = [path for path in source.rglob("*") if path.is_file()]
    rng.shuffle(paths)
    for path in paths:
        place = target / path.relative_to(source)
        place.parent.mkdir(parents=True, exist_ok=True)
        try:
            shutil.copyfile(path, place)
        except FileNotFoundError:
            continue
        time.sleep(rng.random() * 0.005)


def test_a_copy_from_any_moment_holds_a_run_from_one_moment(tmp_path):
    """The law that resuming rests on, with real threads: one writes, one publishes, one copies."""
    run, folder, rng = tmp_path / "run", tmp_path / "checkpoints", random.Random(0)
    run.mkdir()
    writer, publisher, ended = Writer(run), Publisher(run, folder), threading.Event()

    def publish():
        while not ended.wait(0.05):
            publisher.publish()

    publishing = threading.Thread(target=publish)
    writer.start()
    publishing.start()
    try:
        while len(read_snapshots(folder)) < 2:
            assert publishing.is_alive()
            time.sleep(0.01)
        numbers = []
        while len(numbers) < 8 or numbers[-1] == numbers[0]:  # on a busy machine snapshots are rare
            attempt = len(numbers)
            at_least = read_snapshots(folder)[0].number
            copied_slowly(folder, tmp_path / f"copy-{attempt}", rng)
            snapshot = restore(tmp_path / f"copy-{attempt}", tmp_path / "back")
            assert snapshot.number >= at_least
            numbers.append(n_trials(tmp_path / "back", snapshot))
    finally:
        ended.set()
        publishing.join()
        writer.ended.set()
        writer.join()
    assert numbers == sorted(numbers)


def n_trials(back, snapshot):
    """Trials of a restored run, whose parts have to go together."""
    names = set(snapshot.files)
    assert not any(name.endswith(("-journal", "-wal", "-shm", ".tmp", ".lock")) for name in names)
    if "history.sqlite" not in names:
        return 0
    with closing(sqlite3.connect(back / "history.sqlite")) as history:
        assert history.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        has_table = history.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
        count = history.execute("SELECT count(*) FROM trials").fetchone()[0] if has_table else 0
    assert count % 2 == 0  # whole transactions
    # What a batch rests on was there before it, and the files of a folder go together.
    assert int((back / "latency.json").read_text()) >= count // 2 - 1
    assert len({path.read_text() for path in (back / "supernet").iterdir()}) == 1
    return count
