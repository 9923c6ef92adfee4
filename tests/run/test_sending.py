from __future__ import annotations

import os
import queue
import threading

import pytest

from rlnas.errors import RunFolderError
from rlnas.run import sending
from rlnas.run.folder import RunFolder
from rlnas.run.sending import check_empty, send_training
from rlnas.supernet.ranks import Ranks


class Threads(Ranks):
    """Ranks that are threads of this process."""

    barrier: threading.Barrier
    lines: tuple[queue.Queue, ...]
    flags: list[bool]

    def wait(self):
        self.barrier.wait(20)

    def any(self, holds):
        self.flags[self.rank] = holds
        self.wait()
        return any(self.flags)

    def send(self, content=b""):
        if self.is_first:
            for line in self.lines[1:]:
                line.put(bytes(content))
            return content
        return self.lines[self.rank].get(timeout=20)


@pytest.fixture
def send():
    """Lets ranks send and receive, each with its folder, whether it receives, and whether it writes."""

    def call(*members):
        n = len(members)
        Threads.barrier, Threads.flags = threading.Barrier(n), [False] * n
        Threads.lines = tuple(queue.Queue() for _ in members)
        faults = []

        def work(rank, folder, receives, writes):
            try:
                send_training(folder, Threads(rank, n, "cpu"), receives=receives, writes=writes)
            except Exception as error:
                faults.append(error)
                Threads.barrier.abort()

        threads = [
            threading.Thread(target=work, args=(rank, *member)) for rank, member in enumerate(members)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        return faults

    return call


@pytest.fixture
def first(tmp_path):
    """A run in the middle of its second training."""
    folder = RunFolder(tmp_path / "first")
    for path, content in (
        (folder.training, b"{}"),
        (folder.data / "train" / "data.arrow", b"a" * 50_000),
        (folder.shared_checkpoint, os.urandom(100_000)),
        (folder.finetuned / "model.safetensors", b"b"),
        (folder.checkpoints / "baseline.pt", b"not of this training"),
        (folder.path / "history.sqlite", b"nor this"),
    ):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder


def files_of(folder):
    return {
        path.relative_to(folder.path).as_posix(): path.read_bytes()
        for path in folder.path.rglob("*")
        if path.is_file()
    }


@pytest.mark.parametrize("chunk", [10_240, sending.CHUNK])
def test_a_node_gets_what_a_training_needs_and_writes_it_once(first, send, tmp_path, monkeypatch, chunk):
    monkeypatch.setattr(sending, "CHUNK", chunk)
    other = RunFolder(tmp_path / "other" / "run")
    faults = send(
        (first, False, True),
        (first, False, False),
        (other, True, True),
        (RunFolder(tmp_path / "no"), True, False),
    )
    assert faults == []
    wanted = {"training.json", "data/train/data.arrow", "checkpoints/shared.pt"}
    wanted |= {"checkpoints/finetuned/model.safetensors"}
    assert files_of(other) == {name: files_of(first)[name] for name in wanted}
    assert not (tmp_path / "no").exists()


def test_nodes_that_see_the_run_s_folder_get_nothing(first, send, monkeypatch):
    monkeypatch.setattr(Threads, "send", lambda *_: pytest.fail("sent"))
    assert send((first, False, True), (first, False, True)) == []


def test_what_points_out_of_the_folder_is_not_written(first, send, tmp_path):
    (first.data / "out").symlink_to("/etc/passwd")
    other = RunFolder(tmp_path / "other")
    faults = send((first, False, True), (other, True, True))
    assert any("outside" in str(fault) or "absolute" in str(fault) for fault in faults)
    assert not (other.data / "out").exists()


def test_a_folder_that_is_not_empty_takes_no_training(tmp_path):
    check_empty(RunFolder(tmp_path / "absent"))
    check_empty(RunFolder(tmp_path))
    (tmp_path / "mine").touch()
    with pytest.raises(RunFolderError, match=r"is not empty, and what a training needs would be written"):
        check_empty(RunFolder(tmp_path))
