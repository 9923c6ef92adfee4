"""Folders as values that travel between nodes."""

from __future__ import annotations

import shutil
import tempfile
import time
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from rlnas.errors import RLNASError
from rlnas.history import hold

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

Files: TypeAlias = "Mapping[str, bytes]"
"""Contents of a flat folder by file name."""

PREFIX = "rlnas-passing-"
"""How the names of the temporary folders begin."""

MIN_AGE = 60.0
"""Seconds after which a folder that nobody holds has been left behind, not just made."""


def packed(folder: Path) -> dict[str, bytes]:
    """The files of a folder, by name; folders in it are left out."""
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.is_file()}


@contextmanager
def passing_folder() -> Iterator[Path]:
    """An empty folder that only this user may enter, gone with the block.

    What killed processes have left of this kind is removed first: it is held by nobody.
    """
    for left in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        with suppress(OSError, RLNASError):  # gone meanwhile, another user's, or in use
            if not left.is_symlink() and time.time() - left.stat().st_mtime > MIN_AGE:
                with closing(hold(left / "use")):
                    shutil.rmtree(left)
    with tempfile.TemporaryDirectory(prefix=PREFIX) as folder, closing(hold(Path(folder) / "use")):
        inner = Path(folder) / "files"
        inner.mkdir()
        yield inner


@contextmanager
def unpacked(files: Files) -> Iterator[Path]:
    """A `passing_folder` that holds the files, as long as they are read."""
    with passing_folder() as folder:
        for name, content in files.items():
            (folder / name).write_bytes(content)
        yield folder
