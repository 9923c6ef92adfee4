"""What the processes of other nodes need of a run's folder, sent by the first one where none is shared."""

from __future__ import annotations

import tarfile
from typing import TYPE_CHECKING, cast

from rlnas.errors import RunFolderError

if TYPE_CHECKING:
    from typing import IO

    from rlnas.run.folder import RunFolder
    from rlnas.supernet.ranks import Ranks

CHUNK = 2**24
"""Bytes of a message."""


def check_empty(folder: RunFolder) -> None:
    """Refuse to receive a training on top of something else.

    Raises:
        RunFolderError: If there is something in the folder.
    """
    if folder.path.is_dir() and any(folder.path.iterdir()):
        raise RunFolderError(
            f"{str(folder.path)!r} is not empty, and what a training needs would be written into it; give "
            "an empty folder, or leave out --receive where it is the run's"
        )


def send_training(folder: RunFolder, ranks: Ranks, *, receives: bool, writes: bool) -> None:
    """Bring data, description and checkpoints of a training to the nodes that receive them.

    All ranks have to call it. Nothing is sent where nobody receives.

    Args:
        folder: Of the run, on the first rank; where to put it, on those that receive.
        ranks: This rank among the others.
        receives: Whether this rank's node is to get it.
        writes: Whether this rank is the one that writes there.
    """
    if not ranks.any(receives):
        return
    if ranks.is_first:
        with tarfile.open(mode="w|", fileobj=_stream(_Out(ranks)), bufsize=CHUNK) as archive:
            shared = (folder.full_checkpoint, folder.shared_checkpoint, folder.finetuned)
            for path in (folder.training, folder.data, *shared):
                if path.exists():
                    archive.add(path, path.relative_to(folder.path).as_posix())
        ranks.send()
    else:
        incoming = _In(ranks)
        if receives and writes:
            folder.checkpoints.mkdir(parents=True, exist_ok=True)
            with tarfile.open(mode="r|", fileobj=_stream(incoming), bufsize=CHUNK) as archive:
                archive.extractall(folder.path, filter="data")
        while incoming.read():
            pass
    ranks.wait()


class _Out:
    """Sends what is written."""

    def __init__(self, ranks: Ranks) -> None:
        self._ranks = ranks

    def write(self, content: bytes) -> int:
        self._ranks.send(content)
        return len(content)


class _In:
    """Reads what is sent, up to an empty message."""

    def __init__(self, ranks: Ranks) -> None:
        self._ranks, self._ended = ranks, False

    def read(self, _size: int = CHUNK) -> bytes:
        content = b"" if self._ended else self._ranks.send()
        self._ended = not content
        return content


def _stream(end: _Out | _In) -> IO[bytes]:
    """An end as what archives of type ``|`` ask for, which is no more than its one method."""
    return cast("IO[bytes]", end)
