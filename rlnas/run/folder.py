"""The run folder: what lies where, written so that a killed run leaves no half file."""

from __future__ import annotations

import json
import os
import shutil
import time
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlnas.errors import HistoryError, RLNASError, RunFolderError, did_you_mean
from rlnas.history import hold

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

FREE_TO_CHANGE = ("budget", "controls", "allow_foreign_table", "cluster")
"""Settings that a resumed run may have otherwise: it may grow, be compared with controls, and may have
moved to another device."""


def begin(config: Path, settings: Mapping[str, str]) -> None:
    """Make a folder with its settings.

    Raises:
        RunFolderError: If it cannot be written.
    """
    try:
        config.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunFolderError(
            f"cannot make the run folder {str(config.parent)!r}: {error.strerror}"
        ) from error
    write_json(config, dict(settings))


def differing(
    stored: Mapping[str, object], settings: Mapping[str, str], free: Sequence[str] = ()
) -> str | None:
    """The first setting that is not as stored, or None.

    Args:
        stored: As read from a file.
        settings: Those of now.
        free: Settings that may differ.
    """
    for key in dict.fromkeys((*settings, *stored)):
        if key not in free and str(stored.get(key)) != str(settings.get(key)):
            return key
    return None


class RunFolder:
    """Paths of a run.

    Attributes:
        path: The folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config = path / "config.json"
        self.data = path / "data"
        self.finetuned = path / "checkpoints" / "finetuned"
        self.checkpoints = path / "checkpoints"
        self.full_checkpoint = path / "checkpoints" / "full.pt"
        self.shared_checkpoint = path / "checkpoints" / "shared.pt"
        self.supernet = path / "supernet"
        self.folds = path / "folds"
        self.full = path / "full"
        self.baseline = path / "baseline.json"
        self.training = path / "training.json"
        self.latency = path / "latency.json"
        self.precisions = path / "latency"
        self.history = path / "history.sqlite"
        self.evaluation = path / "evaluation.json"
        self.controller = path / "controller.zip"
        self.phases = path / "phases.json"
        self.best = path / "best"
        self.models = path / "models"
        self.finetuning = path / "finetuning"
        self.finetuned_models = path / "finetuned"
        self.policy = path / "policy"
        self.controls = path / "controls"
        self.summary = path / "summary.json"
        self.report = path / "report.html"

    def open(self, settings: Mapping[str, str], *, resume: bool) -> None:
        """Begin a run in this folder, or go on with the one that is there.

        A run that ended before its first result, e.g. by a misspelt task, leaves nothing to go on with.

        Data and a latency table that were put there before are used. Settings that name places inside the
        folder are kept relative to it, so that it may be moved.

        Raises:
            RunFolderError: If the folder cannot be written, holds a run and `resume` is False, or
                holds other things that a run would overwrite.
            HistoryError: If the run that is there had other settings.
        """
        self.check_vacant()
        settings = self.portable(settings)
        results = (self.data, self.checkpoints, self.supernet, self.history, self.summary)
        if self.config.is_file() and any(path.exists() for path in results):
            if not resume:
                raise RunFolderError(
                    f"{str(self.path)!r} already holds a run; go on with it (--resume), "
                    "delete it, or give another folder (--out)"
                )
            self._check_settings(settings)
        elif self.config.is_file():  # of a job that was refused
            self.phases.unlink(missing_ok=True)
        begin(self.config, settings)

    def check_vacant(self) -> None:
        """Refuse what is not a run's: somebody's checkpoint, or a project with folders of these names.

        Raises:
            RunFolderError: If a run would overwrite such things.
        """
        if self.config.is_file():
            taken = [] if "budget" in read_json(self.config) else [self.config]
        else:
            models = (self.best, self.models, self.policy, self.controls, self.folds)
            overwritten = (self.checkpoints, *models, self.summary, self.report, self.controller)
            taken = [path for path in overwritten if path.exists()]
        if taken:
            raise RunFolderError(
                f"{str(taken[0])!r} belongs to no run, and a run would overwrite it; "
                "give another folder (--out)"
            )

    def check(self) -> None:
        """Refuse a folder that holds no run.

        Raises:
            RunFolderError: If there is no run, or its settings are damaged.
        """
        if self.path.is_file():
            raise RunFolderError(f"{str(self.path)!r} is a file; give the folder of a run (its --out)")
        if not self.config.is_file():
            hint = did_you_mean(self.path) or "; give the folder of a run (its --out)"
            raise RunFolderError(f"{str(self.path)!r} holds no run: {str(self.config)!r} is missing{hint}")
        read_json(self.config)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keep other processes from working on the same run meanwhile.

        Raises:
            HistoryError: If another process does.
        """
        with closing(hold(self.path / "run")):
            yield

    def is_finished(self, budget: int) -> bool:
        """Whether the run's summary is there, for no smaller a budget than asked for."""
        return self.summary.is_file() and int(read_json(self.summary).get("budget", 0)) >= budget

    def has_controls(self, names: Sequence[str]) -> bool:
        """Whether the summary of a finished run compares it with all these controls."""
        added = read_json(self.summary).get("added") or {}
        return set(names) <= set(added.get("controls") or ())

    def portable(self, settings: Mapping[str, object]) -> dict[str, str]:
        """The settings, those that name places inside the folder relative to it."""
        own = self.path.resolve()
        texts = {key: str(value) for key, value in settings.items()}
        return {
            key: str(Path(text).relative_to(own)) if Path(text).is_relative_to(own) else text
            for key, text in texts.items()
        }

    def _check_settings(self, settings: Mapping[str, str]) -> None:
        stored = self.portable(read_json(self.config))
        key = differing(stored, settings, FREE_TO_CHANGE)
        if key is not None:
            one, other = (values.get(key, "the default") for values in (stored, settings))
            raise HistoryError(
                f"the run in {str(self.path)!r} was started with {key}={one}, "
                f"not {key}={other}; resume it with the same settings, or give another folder (--out)"
            )

    @contextmanager
    def damage_of(self, path: Path, remedy: str) -> Iterator[None]:
        """Say of a stored result that cannot be read how to go on without it.

        Raises:
            RunFolderError: If the body raises another of our errors.
        """
        try:
            yield
        except RLNASError as error:
            raise RunFolderError(f"{error}; delete {str(path)!r} and add --resume to {remedy}") from error

    @contextmanager
    def needed(self, path: Path) -> Iterator[None]:
        """Say of a folder of a finished run that is missing or damaged how to get it back.

        Raises:
            RunFolderError: If it is missing, or the body raises another of our errors.
        """
        remedy = f"delete {str(self.summary)!r} and repeat the search with --resume to make it anew"
        if not path.is_dir():
            raise RunFolderError(f"{str(path)!r} is missing; {remedy}")
        try:
            yield
        except RLNASError as error:
            raise RunFolderError(f"{error}; delete {str(path)!r}, {remedy}") from error

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Add the seconds that a phase takes to ``phases.json``."""
        start = time.monotonic()
        yield
        seconds = self.seconds()
        seconds[name] = round(seconds.get(name, 0.0) + time.monotonic() - start, 3)
        write_json(self.phases, seconds)

    def seconds(self) -> dict[str, float]:
        """Seconds that each phase has taken so far; what a killed phase took is not in it."""
        return dict(read_json(self.phases)) if self.phases.is_file() else {}


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    """Write a JSON file in one step.

    Raises:
        RunFolderError: If the file cannot be written.
    """
    temporary = path.with_name(path.name + ".tmp")
    try:
        temporary.write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")
        os.replace(temporary, path)
    except OSError as error:
        raise RunFolderError(f"cannot write {str(path)!r}: {error.strerror}") from error


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        RunFolderError: If the file is missing or damaged.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise RunFolderError(f"{str(path)!r} is missing{did_you_mean(path.parent)}") from error
    except (OSError, ValueError) as error:
        raise RunFolderError(f"{str(path)!r} is damaged: {error}; {remedy_of(path)}") from error
    if not isinstance(values, dict):
        raise RunFolderError(f"{str(path)!r} is damaged: it holds no JSON object; {remedy_of(path)}")
    return values


def write_folder(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a folder that appears under its name in one step.

    Until then it is hidden beside its place; what a killed process left there is removed.

    Raises:
        RunFolderError: If the folder cannot be written.
    """
    place = path.resolve()  # "." has no name
    temporary = place.with_name(f".{place.name}.tmp")
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        write(temporary)
        shutil.rmtree(place, ignore_errors=True)
        os.replace(temporary, place)
    except OSError as error:
        raise RunFolderError(f"cannot write the folder {str(path)!r}: {_reason(error)}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _reason(error: OSError) -> str:
    """Of a tree that could not be copied, that of its first file: it comes as a list."""
    if isinstance(error, shutil.Error) and isinstance(error.args[0], list):
        return str(error.args[0][0][2])
    return str(error.strerror or error)


def remedy_of(path: Path) -> str:
    """What to do about a damaged file: some hold what all the rest of the folder rests on."""
    if path.name in ("config.json", "entrants.json", "history.json"):
        return "put it back, or begin anew in another folder (--out)"
    return "delete it and go on with --resume"
