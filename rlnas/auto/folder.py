"""Where a choice among models keeps its state: the folder ``arms/`` of a run folder."""

from __future__ import annotations

from contextlib import closing, contextmanager
from typing import TYPE_CHECKING

from rlnas.errors import HistoryError, RunFolderError
from rlnas.history import hold
from rlnas.run.folder import RunFolder, begin, differing, read_json

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path


class AutoFolder:
    """Paths of a choice, and of the run that follows it in the same folder.

    Attributes:
        run: The run folder.
        path: ``arms/`` in it.
    """

    def __init__(self, path: Path) -> None:
        self.run = RunFolder(path)
        self.path = path / "arms"
        self.config = self.path / "config.json"
        self.entrants = self.path / "entrants.json"
        self.record = self.path / "history.json"
        self.paused = self.path / "paused"
        self.winner = self.path / "winner"

    def open(self, settings: Mapping[str, str], *, resume: bool) -> None:
        """Begin a choice in this folder, or go on with the one that is there.

        Raises:
            RunFolderError: If the folder cannot be written, holds a choice and `resume` is False, or holds
                something else that would be overwritten.
            HistoryError: If the choice that is there had other settings.
        """
        if self.config.is_file():
            if self.run.data.is_dir():  # else it was refused, and there is nothing to go on with
                self._check(settings, resume=resume)
            else:
                self.entrants.unlink(missing_ok=True)
        else:
            self.run.check_vacant()
            if self.run.config.is_file() or self.path.exists():
                raise RunFolderError(
                    f"{str(self.run.path)!r} holds a run that did not begin with a choice among models; "
                    "give another folder (--out)"
                )
        begin(self.config, settings)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keep other processes from working on the same choice meanwhile.

        Raises:
            HistoryError: If another process does.
        """
        with closing(hold(self.path / "auto")):
            yield

    def _check(self, settings: Mapping[str, str], *, resume: bool) -> None:
        if not resume:
            raise RunFolderError(
                f"{str(self.run.path)!r} already holds a choice among models; go on with it (--resume), "
                "delete it, or give another folder (--out)"
            )
        stored = read_json(self.config)
        key = differing(stored, settings)
        if key is not None:
            raise HistoryError(
                f"the choice in {str(self.run.path)!r} was begun with {key}={stored.get(key)}, not "
                f"{key}={settings.get(key)}; resume it with the same settings, or give another folder "
                "(--out)"
            )
