"""Folders as values that travel between nodes."""

from __future__ import annotations

import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

Files: TypeAlias = "Mapping[str, bytes]"
"""Contents of a flat folder by file name."""


def packed(folder: Path) -> dict[str, bytes]:
    """The files of a folder, by name; folders in it are left out."""
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.is_file()}


@contextmanager
def unpacked(files: Files) -> Iterator[Path]:
    """A folder that holds the files, as long as they are read; only this user may enter it."""
    with tempfile.TemporaryDirectory(prefix="rlnas-") as folder:
        for name, content in files.items():
            (Path(folder) / name).write_bytes(content)
        yield Path(folder)
