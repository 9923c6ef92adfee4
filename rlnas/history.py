"""The durable record of a search, and what a search returns.

The record is one SQLite file, so that anybody can query it::

    sqlite3 runs/sst2/history.sqlite "select accuracy, latency_ms from trials order by reward"

(Trials that were raced out are among them; ``json_extract(metrics, '$.raced_out')`` is 1 for those.)

Each batch is one transaction. A process that is killed loses at most the batch that was
being evaluated, never one that a controller has seen.
"""

from __future__ import annotations

import json
import math
import sqlite3
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from rlnas.errors import HistoryError, RLNASError, RunFolderError
from rlnas.metrics import Metrics
from rlnas.pareto import hypervolume, is_pareto_optimal
from rlnas.space import SubnetConfig
from rlnas.trial import Trial

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from types import TracebackType

    import numpy.typing as npt

FILE_NAME = "history.sqlite"

PLANNED_BUDGET = "planned_budget"
FIRST_STAYS = frozenset({PLANNED_BUDGET})
"""Settings that need not be equal on a resume: the first ones stay."""

_TABLES = (
    "CREATE TABLE IF NOT EXISTS settings (key TEXT PRIMARY KEY, value TEXT NOT NULL)",
    "CREATE TABLE IF NOT EXISTS trials (number INTEGER PRIMARY KEY, config TEXT NOT NULL UNIQUE, "
    "metrics TEXT NOT NULL, reward REAL NOT NULL, accuracy REAL, latency_ms REAL, n_params INTEGER)",
)
_INSERT = "INSERT INTO trials VALUES (?, ?, ?, ?, ?, ?, ?)"
_SELECT = "SELECT number, config, metrics, reward FROM trials ORDER BY number"
_FOLDER_FAULTS = frozenset(
    {
        sqlite3.SQLITE_PERM,
        sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_CANTOPEN,
    }
)


class History:
    """The trials of a search, in their order, in a file or in memory.

    Make one with `History.open` to write or `History.read` to look at a finished or running
    search. It is a context manager that closes the file.
    """

    def __init__(
        self,
        trials: Sequence[Trial],
        settings: Mapping[str, str],
        connections: Sequence[sqlite3.Connection] = (),
        file: Path | None = None,
        *,
        read_only: bool = False,
    ) -> None:
        self._trials = list(trials)
        self._settings = dict(settings)
        self._connections = tuple(connections)  # the data, then the lock
        self._file = file
        self._read_only = read_only

    @classmethod
    def open(cls, path: Path | None, settings: Mapping[str, str], *, resume: bool) -> History:
        """Start a record, or go on with one.

        Args:
            path: Run folder, made if absent (the file in it is ``history.sqlite``), or the file
                itself if its name ends in ``.sqlite``; None keeps the record in memory.
            settings: What must be equal for the record to be continued, but for `FIRST_STAYS`.
            resume: Whether trials that are already there are continued.

        Raises:
            HistoryError: If the file is damaged, is being written by another process, holds
                trials although `resume` is False, or holds trials of other settings.
            RunFolderError: If the folder cannot be written.
        """
        if path is None:
            return cls((), settings)
        file = _file_of(path)
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RunFolderError(f"cannot make the run folder {file.parent} ({error.strerror})") from error
        lock = hold(file)
        connection = None
        try:
            with _named_faults(file):
                connection = sqlite3.connect(file, isolation_level=None)
                for statement in _TABLES:
                    connection.execute(statement)
                trials = _load_trials(connection, file)
                stored = dict(connection.execute("SELECT key, value FROM settings"))
                _check_resumable(file, trials, stored, settings, resume=resume)
                settings = {
                    **settings,
                    **{key: stored[key] for key in FIRST_STAYS if trials and key in stored},
                }
                with _transaction(connection):
                    connection.execute("DELETE FROM settings")
                    connection.executemany("INSERT INTO settings VALUES (?, ?)", settings.items())
        except BaseException:
            for opened in (connection, lock):
                if opened is not None:
                    opened.close()
            raise
        return cls(trials, settings, (connection, lock), file)

    @classmethod
    def read(cls, path: Path) -> History:
        """The record as it is now, read only; the search may still be running.

        Args:
            path: Run folder, or the file itself if its name ends in ``.sqlite``.

        Raises:
            HistoryError: If the file is damaged.
            RunFolderError: If there is no record or it cannot be read.
        """
        file = _file_of(path)
        if not file.is_file():
            raise RunFolderError(f"there is no history at {file}; a search writes it into its run folder")
        # Not mode=ro: after a kill the first reader has to roll the unfinished batch back.
        address = f"{file.resolve().as_uri()}?mode=rw"
        with _named_faults(file), closing(sqlite3.connect(address, uri=True)) as connection:
            trials = _load_trials(connection, file)
            settings = dict(connection.execute("SELECT key, value FROM settings"))
        return cls(trials, settings, file=file, read_only=True)

    @property
    def trials(self) -> tuple[Trial, ...]:
        """All trials in the order of their numbers."""
        return tuple(self._trials)

    @property
    def settings(self) -> dict[str, str]:
        """What the search was started with."""
        return dict(self._settings)

    def append(self, trials: Sequence[Trial]) -> None:
        """Add a batch: either all of it is stored or nothing.

        Raises:
            HistoryError: If the record is read only, a number does not follow the last one, or
                a config is already there.
            RunFolderError: If the file cannot be written, e.g. because the disk is full.
        """
        if self._read_only:
            raise HistoryError(f"the history at {self._file} is read only or closed; use History.open")
        known = {trial.config for trial in self._trials}
        for expected, trial in enumerate(trials, start=len(self._trials)):
            if trial.number != expected:
                raise HistoryError(f"the next trial must have number={expected}, but got {trial.number}")
            if trial.config in known:
                raise HistoryError(f"trial {trial.number} repeats a config of the history: {trial.config}")
            known.add(trial.config)
        if self._connections and self._file is not None:
            with _named_faults(self._file), _transaction(self._connections[0]):
                self._connections[0].executemany(_INSERT, [_row(trial) for trial in trials])
        self._trials.extend(trials)

    def close(self) -> None:
        """Close the file and let other writers in; the trials stay readable."""
        for connection in self._connections:
            connection.close()
        self._connections = ()
        self._read_only = self._read_only or self._file is not None

    def __enter__(self) -> History:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


@dataclass(frozen=True, slots=True, eq=False)
class Result:
    """What a search found.

    Trials that were raced out (`Metrics.raced_out`) are among `trials`, but never the best nor on
    the front: their accuracy is an estimate.

    Attributes:
        trials: All judged configs in their order.
        episode_rewards: Shape ``(n,)``: the reward of every proposal in order, repeats included.
        stop_reason: Why the search ended, a sentence without its full stop.
    """

    trials: tuple[Trial, ...]
    episode_rewards: npt.NDArray[np.float64]
    stop_reason: str

    @property
    def best(self) -> Trial:
        """The trial of highest reward that was not raced out; the first of equal ones.

        Raises:
            HistoryError: If there is no such trial.
        """
        if not self.trials:
            raise HistoryError("this search has no best trial because it has no trial at all")
        complete = self._complete()
        if not complete:
            raise HistoryError(
                f"this search has no best trial because all {len(self.trials)} were raced out; "
                "let the evaluator judge at least one on all items"
            )
        return max(complete, key=lambda trial: trial.reward)

    def best_for(self, reward: Callable[[Metrics], float]) -> Trial:
        """The trial that another reward puts first, e.g. the same one at another target.

        Args:
            reward: Turns metrics into a number.

        Raises:
            HistoryError: If there is no trial, or all were raced out.
        """
        scored = replace(
            self,
            trials=tuple(replace(t, reward=float(reward(t.metrics))) for t in self.trials),
        )
        number = scored.best.number
        return next(trial for trial in self.trials if trial.number == number)

    @property
    def n_raced_out(self) -> int:
        """Trials that left a race early; their accuracy is an estimate on fewer items."""
        return sum(trial.metrics.raced_out for trial in self.trials)

    @property
    def pareto_front(self) -> tuple[Trial, ...]:
        """The trials that no other beats in both accuracy and latency, by ascending latency.

        Trials without a latency and those that were raced out are left out.
        """
        complete = self._complete()
        optimal = is_pareto_optimal(_costs(complete))
        front = [trial for trial, is_optimal in zip(complete, optimal, strict=True) if is_optimal]
        return tuple(sorted(front, key=lambda trial: trial.metrics.latency_ms))

    def hypervolume(self, ref_point: tuple[float, float]) -> float:
        """Area between the Pareto front and the worst corner that counts.

        Args:
            ref_point: Latency in ms and accuracy of that corner; slower or less accurate
                trials add nothing.

        Returns:
            The area in ms (times accuracy, which has no unit), at least 0.
        """
        latency_ms, accuracy = ref_point
        return hypervolume(_costs(self._complete()), (latency_ms, -accuracy))

    def _complete(self) -> list[Trial]:
        return [trial for trial in self.trials if not trial.metrics.raced_out]


def _costs(trials: Sequence[Trial]) -> npt.NDArray[np.float64]:
    costs = [(trial.metrics.latency_ms, -trial.metrics.accuracy) for trial in trials]
    return np.array(costs, dtype=np.float64).reshape(len(costs), 2)


def _file_of(path: Path) -> Path:
    path = Path(path)
    return path if path.suffix == ".sqlite" else path / FILE_NAME


def hold(file: Path) -> sqlite3.Connection:
    """Keep other processes from writing, until the connection is closed or the process ends.

    The lock is a file of its own (``.lock``), so that others may read meanwhile.

    Raises:
        HistoryError: If another process holds it.
        RunFolderError: If the folder cannot be written.
    """
    lock_file = file.with_suffix(".lock")
    with _named_faults(lock_file):
        connection = sqlite3.connect(lock_file, isolation_level=None, timeout=0.0)
        try:
            connection.execute("BEGIN EXCLUSIVE")
        except sqlite3.Error as error:
            connection.close()
            if _code(error) == sqlite3.SQLITE_BUSY:
                raise HistoryError(
                    f"another process is writing to {file}; wait for it to end or take another run folder"
                ) from error
            raise
    return connection


def _code(error: sqlite3.Error) -> int:
    return getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF


@contextmanager
def _named_faults(file: Path) -> Iterator[None]:
    """Say what a fault of SQLite means for `file`."""
    try:
        yield
    except sqlite3.Error as error:
        if _code(error) in _FOLDER_FAULTS:
            raise RunFolderError(f"cannot read or write {file} ({error})") from error
        raise HistoryError(
            f"{file} is not a sound history ({error}); move it away or choose another run folder"
        ) from error


@contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[None]:
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:  # some faults have rolled back already
            connection.execute("ROLLBACK")
        raise


def _row(trial: Trial) -> tuple[object, ...]:
    metrics = trial.metrics
    latency_ms = None if math.isnan(metrics.latency_ms) else metrics.latency_ms
    text = json.dumps(metrics.to_dict(), sort_keys=True)
    return (
        trial.number,
        trial.config.to_json(),
        text,
        trial.reward,
        metrics.accuracy,
        latency_ms,
        metrics.n_params,
    )


def _load_trials(connection: sqlite3.Connection, file: Path) -> list[Trial]:
    trials: list[Trial] = []
    for number, config, metrics, reward in connection.execute(_SELECT):
        try:
            if number != len(trials):
                raise ValueError(f"expected number {len(trials)}")
            trials.append(
                Trial(
                    number=number,
                    config=SubnetConfig.from_json(config),
                    metrics=Metrics.from_dict(json.loads(metrics)),
                    reward=float(reward),
                )
            )
        except (RLNASError, ValueError, TypeError, KeyError, AttributeError) as error:
            raise HistoryError(
                f"{file} is not a sound history (trial {number}: {error}); "
                "move it away or choose another run folder"
            ) from error
    return trials


def _check_resumable(
    file: Path,
    trials: Sequence[Trial],
    stored: Mapping[str, str],
    given: Mapping[str, str],
    *,
    resume: bool,
) -> None:
    if not trials:
        return
    if not resume:
        raise HistoryError(
            f"{file} already holds {len(trials)} trials; "
            "pass resume=True (--resume) to go on with them, or choose another folder"
        )
    for key in sorted({*stored, *given} - FIRST_STAYS):
        if stored.get(key) != given.get(key):
            raise HistoryError(
                f"{file} was made with {key}={stored.get(key)}, but this search has "
                f"{key}={given.get(key)}; use the stored setting or choose another folder"
            )
