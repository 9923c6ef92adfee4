"""Files that commands write."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rlnas.errors import RunFolderError

if TYPE_CHECKING:
    from pathlib import Path


def make_room(out: Path, example: str) -> None:
    """Make the folder of a file that is to be written.

    Args:
        out: The file, as `--out` names it.
        example: A name for it.

    Raises:
        RunFolderError: If that cannot be, or the file is a folder.
    """
    if out.is_dir():
        raise RunFolderError(f"--out={out} is a folder; name a file, such as {out / example}")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunFolderError(f"cannot make the folder of {str(out)!r}: {error.strerror}") from error
