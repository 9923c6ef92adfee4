"""A run folder as it is kept in the checkpoint folder: snapshots that survive being copied at any moment.

SageMaker copies that folder to S3 file by file while it changes, and may be cut off in between. Whether it
removes there what was removed here, it does not say: a copy may hold old snapshots too. So no file here is
ever changed: ``files/`` holds contents under their SHA-256, and ``snapshot-NNNNNNNN.json``, which appears
after all of its contents, lists the paths of one moment. Whatever mixture of moments a copy holds, a
snapshot in it is either whole or known not to be.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from rlnas.errors import RunFolderError

if TYPE_CHECKING:
    from collections.abc import Mapping

FILES = "files"
IGNORED = ".sagemaker-ignore"
"""Ends the names of files that SageMaker does not copy."""

MARKERS = (".sagemaker-uploading", ".sagemaker-uploaded")
"""End the names of files that SageMaker puts beside those that it copies."""

SNAPSHOT = re.compile(r"snapshot-(\d{8})\.json")
DIGEST = re.compile(r"[0-9a-f]{64}")
_CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class StoredFile:
    """Content of a file.

    Attributes:
        digest: Its SHA-256 in hexadecimal, which is its name in ``files/``.
        size: Its bytes.
    """

    digest: str
    size: int


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A run folder at one moment.

    Attributes:
        number: Later ones have larger numbers.
        files: By path inside the run folder, with ``/`` between its parts.
    """

    number: int
    files: Mapping[str, StoredFile]

    @property
    def name(self) -> str:
        """Of its file."""
        return f"snapshot-{self.number:08d}.json"

    def to_json(self) -> str:
        """Text for its file."""
        files = {path: [stored.digest, stored.size] for path, stored in sorted(self.files.items())}
        return json.dumps({"files": files}, indent=1) + "\n"


def read_snapshots(folder: Path) -> list[Snapshot]:
    """The snapshots in a checkpoint folder, latest first; files that are damaged are left out."""
    if not folder.is_dir():
        return []
    found = []
    for path in folder.iterdir():
        match = SNAPSHOT.fullmatch(path.name)
        if match is not None and (files := _read_files(path)) is not None:
            found.append(Snapshot(int(match[1]), files))
    return sorted(found, key=lambda snapshot: snapshot.number, reverse=True)


def restore(folder: Path, run: Path) -> Snapshot | None:
    """Make the run folder of the latest whole snapshot.

    Args:
        folder: The checkpoint folder, or a copy of it from any moment.
        run: The run folder; what stands there is removed.

    Returns:
        The snapshot, or None where none has been whole yet; then there is no run folder either. A copy that
        was cut off at the very beginning still lists the first snapshot and lacks parts of it.

    Raises:
        RunFolderError: If there are later snapshots and none of them is whole, or the run folder cannot be
            written.
    """
    temporary = run.with_name(f".{run.name}.restoring")
    snapshots, lacking = read_snapshots(folder), ""
    try:
        shutil.rmtree(run, ignore_errors=True)
        for snapshot in snapshots:
            shutil.rmtree(temporary, ignore_errors=True)
            temporary.mkdir(parents=True)
            missing = _fill(temporary, snapshot, folder / FILES)
            if missing is None:
                os.replace(temporary, run)
                return snapshot
            lacking = lacking or missing
    except OSError as error:
        raise RunFolderError(f"cannot restore a run into {str(run)!r}: {error.strerror}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    if snapshots and snapshots[-1].number > 0:
        raise RunFolderError(
            f"the checkpoints in {str(folder)!r} hold no whole snapshot (the latest lacks {lacking}); put "
            "back a copy that is whole, or begin a new run under another name"
        )
    return None


def digest_of(path: Path) -> str:
    """SHA-256 of a file in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def copy_with_digest(source: Path, target: Path) -> StoredFile:
    """Copy a file and say what was copied, in one pass.

    Raises:
        OSError: If either cannot be opened or written.
    """
    digest, size = hashlib.sha256(), 0
    with source.open("rb") as original, target.open("wb") as copy:
        while chunk := original.read(_CHUNK):
            digest.update(chunk)
            copy.write(chunk)
            size += len(chunk)
    return StoredFile(digest.hexdigest(), size)


def _fill(run: Path, snapshot: Snapshot, contents: Path) -> str | None:
    """Copy the files of a snapshot; the path of the first one that is not there whole, or None."""
    for path, stored in snapshot.files.items():
        source, target = contents / stored.digest, run / path
        if not source.is_file() or source.stat().st_size != stored.size:
            return path
        target.parent.mkdir(parents=True, exist_ok=True)
        if copy_with_digest(source, target) != stored:
            return path
    return None


def _read_files(path: Path) -> dict[str, StoredFile] | None:
    """What a snapshot lists, or None for a file that no publisher has written."""
    try:
        listed: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))["files"]
        files = {name: StoredFile(str(digest), int(size)) for name, (digest, size) in listed.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    sound = all(_is_inside(name) and DIGEST.fullmatch(stored.digest) for name, stored in files.items())
    return files if sound else None


def _is_inside(name: str) -> bool:
    """Whether a path stays inside the folder that it is joined to."""
    path = PurePosixPath(name)
    return bool(path.parts) and not path.is_absolute() and ".." not in path.parts
