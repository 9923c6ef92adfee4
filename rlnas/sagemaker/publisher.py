"""Writes snapshots of a run folder that another process is working on."""

from __future__ import annotations

import os
import sqlite3
import time
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING

from rlnas.errors import HistoryError, RunFolderError
from rlnas.sagemaker.checkpoints import (
    DIGEST,
    FILES,
    IGNORED,
    Snapshot,
    StoredFile,
    copy_with_digest,
    digest_of,
    read_snapshots,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

KEEP_SECONDS = 120.0
"""Time for which a snapshot stays after a later one: a copy made meanwhile finds one that is whole."""

KEEP_LATEST = 2
"""Snapshots that stay however old they are."""

ATTEMPTS = 5
_LEFT_OUT = (".tmp", ".lock", "-journal", "-wal", "-shm")
_DATABASE = ".sqlite"
_TICK_NS = 1_000_000_000
"""More than the resolution of times of change."""

State = tuple[int, int, int]
"""Of a file: inode, size, time of its last change."""


class Publisher:
    """Keeps a checkpoint folder in step with a run folder; see `rlnas.sagemaker.checkpoints`.

    The run folder belongs to other processes, which replace its files at any moment. Histories are copied
    first, by SQLite's own backup, which sees committed transactions only: what their trials rest on was
    there before them. Files are listed before and after they are copied. If one came, went, or changed
    together with others of a folder, it is done again.

    Args:
        run: The run folder; need not be there yet.
        folder: The checkpoint folder, made if absent.
        clock: Seconds, for `KEEP_SECONDS`.

    Raises:
        RunFolderError: If the checkpoint folder cannot be written.
    """

    def __init__(self, run: Path, folder: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self._run, self._folder, self._contents = run, folder, folder / FILES
        self._clock = clock
        self._known: dict[str, tuple[State, StoredFile]] = {}
        self._sound: set[str] = set()
        """Contents that are as their names say: seen or written by this process."""
        with _named_faults(folder):
            self._contents.mkdir(parents=True, exist_ok=True)
            for path in [*folder.glob(f".*{IGNORED}"), *self._contents.glob(f".*{IGNORED}")]:
                path.unlink(missing_ok=True)
            snapshots = read_snapshots(folder)
        self._latest = snapshots[0] if snapshots else None
        self._earlier = [(snapshot, clock()) for snapshot in snapshots[1:]]
        """Latest first, each with the time since which there is a later one."""

    def publish(self) -> bool:
        """Write a snapshot of the run folder as it is now, unless nothing has changed.

        Returns:
            Whether there is a new one. False too if the folder changed all the time while it was looked
            at; the next call will find it quieter.

        Raises:
            RunFolderError: If the checkpoint folder cannot be written, e.g. because the disk is full.
        """
        with _named_faults(self._folder):
            files = self._copied()
            if files is None or not files or (self._latest is not None and self._latest.files == files):
                return False
            number = 0 if self._latest is None else self._latest.number + 1
            self._write(Snapshot(number, files))
            self._prune()
        return True

    def _copied(self) -> dict[str, StoredFile] | None:
        """The run folder's files, all of them copied; None if it never stood still."""
        for _ in range(ATTEMPTS):
            before = _states(self._run)
            try:
                files = {name: self._stored(name, before[name]) for name in _histories_first(before)}
            except (FileNotFoundError, _ChangingError):
                continue
            if _still(before, _states(self._run)):
                return files
        return None

    def _stored(self, name: str, state: State) -> StoredFile:
        """The content of a file, copied unless it is there already."""
        known = self._known.get(name)
        if known is not None and known[0] == state:
            return known[1]
        temporary = self._contents / f".{os.getpid()}{IGNORED}"
        if name.endswith(_DATABASE):
            stored = _backup(self._run / name, temporary)
        else:
            stored = copy_with_digest(self._run / name, temporary)
        target = self._contents / stored.digest
        if self._is_there(target, stored):
            temporary.unlink()
        else:
            os.replace(temporary, target)
        self._sound.add(stored.digest)
        if time.time_ns() - state[2] > _TICK_NS:  # else it may change again without showing
            self._known[name] = (state, stored)
        return stored

    def _is_there(self, path: Path, stored: StoredFile) -> bool:
        """Whether a file has this content, which is looked at once."""
        if not path.is_file() or path.stat().st_size != stored.size:
            return False
        return stored.digest in self._sound or digest_of(path) == stored.digest

    def _write(self, snapshot: Snapshot) -> None:
        temporary = self._folder / f".{snapshot.name}{IGNORED}"
        temporary.write_text(snapshot.to_json(), encoding="utf-8")
        os.replace(temporary, self._folder / snapshot.name)
        if self._latest is not None:
            self._earlier.insert(0, (self._latest, self._clock()))
        self._latest = snapshot

    def _prune(self) -> None:
        """Remove old snapshots, and then the contents that none of the others lists."""
        now, kept = self._clock(), []
        for position, (snapshot, since) in enumerate(self._earlier):
            if position < KEEP_LATEST - 1 or now - since < KEEP_SECONDS:
                kept.append((snapshot, since))
            else:
                (self._folder / snapshot.name).unlink(missing_ok=True)
        self._earlier = kept
        listed = [snapshot for snapshot, _ in kept] + ([self._latest] if self._latest else [])
        needed = {stored.digest for snapshot in listed for stored in snapshot.files.values()}
        for path in self._contents.iterdir():
            if DIGEST.fullmatch(path.name) and path.name not in needed:  # markers are SageMaker's own
                path.unlink(missing_ok=True)


class _ChangingError(Exception):
    """A file was replaced or removed while it was looked at."""


def _states(run: Path) -> dict[str, State]:
    """What belongs to a run folder, by path: no locks, journals, or files that are still being written."""
    states = {}
    for place, folders, names in os.walk(run):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in names:
            if name.startswith(".") or name.endswith(_LEFT_OUT):
                continue
            path = os.path.join(place, name)
            try:
                found = os.stat(path)
            except FileNotFoundError:
                continue  # then the folder is not still, which the second look finds
            key = os.path.relpath(path, run).replace(os.sep, "/")
            states[key] = (found.st_ino, found.st_size, found.st_mtime_ns)
    return states


def _histories_first(states: Mapping[str, State]) -> list[str]:
    return sorted(states, key=lambda name: not name.endswith(_DATABASE))


def _still(before: Mapping[str, State], after: Mapping[str, State]) -> bool:
    """Whether two looks saw the same, but for histories and for files that are written by themselves."""
    return before.keys() == after.keys() and all(
        "/" not in name or name.endswith(_DATABASE) or after[name] == state
        for name, state in before.items()
    )


def _backup(source: Path, target: Path) -> StoredFile:
    """Copy the committed part of a database; a transaction that a killed process has left is undone."""
    target.unlink(missing_ok=True)
    try:
        with (
            closing(sqlite3.connect(f"{source.resolve().as_uri()}?mode=rw", uri=True)) as original,
            closing(sqlite3.connect(target)) as copy,
        ):
            copy.execute("PRAGMA journal_mode = OFF")  # its file would be copied along
            original.backup(copy)
    except sqlite3.Error as error:
        if not source.is_file():
            raise _ChangingError from error
        raise HistoryError(f"cannot copy the history {source}: {error}") from error
    return StoredFile(digest_of(target), target.stat().st_size)


@contextmanager
def _named_faults(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if isinstance(error, RunFolderError):
            raise
        raise RunFolderError(f"cannot write checkpoints into {str(folder)!r}: {error.strerror}") from error
