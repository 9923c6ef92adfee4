"""What a training container runs: the search, its checkpoints, and what it leaves behind."""

from __future__ import annotations

import shutil
import signal
import traceback
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rlnas.errors import ERROR_LINE, ContainerError, HistoryError, RLNASError, RunFolderError
from rlnas.history import FILE_NAME, History
from rlnas.report import models_of, read_summary
from rlnas.sagemaker.checkpoints import restore
from rlnas.sagemaker.child import Child
from rlnas.sagemaker.contract import Container, base_of, write_failure
from rlnas.sagemaker.helping import help_first
from rlnas.sagemaker.hosts import LAST_PORT, PORT, PORT_VARIABLE
from rlnas.sagemaker.hyperparameters import to_arguments
from rlnas.sagemaker.leading import Lead
from rlnas.sagemaker.meeting import Meeting
from rlnas.sagemaker.metrics import final_line, search_line
from rlnas.sagemaker.publisher import Publisher
from rlnas.sagemaker.sharing import Machine

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from rlnas.sagemaker.hyperparameters import Flags

STOPPED = 143
"""Exit code of a process that SIGTERM has ended: a job that was stopped is not done."""

FAILED = 1
POLL_SECONDS = 0.5
"""Time between two looks at the run folder."""


@dataclass(slots=True)
class Stop:
    """Whether SageMaker has asked this process to end."""

    asked: bool = False


def train(flags: Flags, environ: Mapping[str, str]) -> int:
    """Do what a training container is for.

    The first host searches, or goes on with what the checkpoint folder holds; the others judge subnets for
    it, and train along. While the search works, snapshots of its run folder go into the checkpoint folder.
    SIGTERM ends the search and takes a last snapshot.

    Args:
        flags: Those of ``rlnas search``.
        environ: The variables of the process, of which some stand in for files; see
            `rlnas.sagemaker.contract`.

    Returns:
        0, 143 after SIGTERM, or 1 after a failure, whose reason lies in ``output/failure``.
    """
    with _stoppable() as stop:
        try:
            container = Container.read(environ)
            port = _port(environ)
            machine = Machine.read(environ)
            if not container.hosts.is_first:
                help_first(container.hosts, port, machine, lambda: stop.asked, environ)
                return STOPPED if stop.asked else 0
            with Meeting(container.hosts, port, lambda: stop.asked) as meeting:
                code = _lead(container, flags, environ, stop, (meeting, port, machine))
                meeting.failed = code != 0
                return code
        except RLNASError as error:
            return _failed(base_of(environ), str(error))
        except Exception as error:  # the last one who can say why
            traceback.print_exc()
            return _failed(base_of(environ), f"{type(error).__name__}: {error}")


def _lead(
    container: Container,
    flags: Flags,
    environ: Mapping[str, str],
    stop: Stop,
    others: tuple[Meeting, int, Machine],
) -> int:
    arguments = to_arguments(container.hyperparameters, flags, container.channels)
    snapshot = restore(container.checkpoints, container.run)
    if snapshot is not None:
        print(f"going on with {snapshot.name} of an earlier job", flush=True)
    lead = Lead(container, *others)
    command = ["search", *arguments, *lead.sharing.flags, "--out", str(container.run), "--resume"]
    with lead.cluster(lambda: stop.asked) as variables:
        return _search(container, lead, Child(command, {**environ, **variables}), stop)


def _search(container: Container, lead: Lead, child: Child, stop: Stop) -> int:
    publisher = Publisher(container.run, container.checkpoints)
    n_told, code, trouble = 0, None, None
    try:
        while trouble is None and not stop.asked and (code := child.wait(POLL_SECONDS)) is None:
            if publisher.publish():
                n_told = _tell(container.run, n_told)
            trouble = lead.look()
    finally:
        child.end()
    publisher.publish()
    if code and not stop.asked and trouble is None:
        trouble = lead.explained(child.failure(code))
    if stop.asked and code != 0:
        print("stopped; what was scored is in the checkpoints", flush=True)
        return STOPPED
    if trouble is not None:
        return _failed(container.base, trouble)
    _tell(container.run, n_told)
    deliver(container)
    return 0


def deliver(container: Container) -> None:
    """Put what a finished run has made where SageMaker takes it from.

    The model's files, or a folder of them for each target, become the model artefact; summary and report
    the other one.

    Raises:
        RunFolderError: If the run is not finished, or something cannot be written.
    """
    run, summary = container.run, read_summary(container.run)
    try:
        for model in models_of(summary):
            place = model.get("folder")
            target = container.model / Path(place).name if place else container.model
            shutil.copytree(run / (place or "best"), target, dirs_exist_ok=True)
        container.output_data.mkdir(parents=True, exist_ok=True)
        for name in ("summary.json", "report.html"):
            shutil.copy(run / name, container.output_data)
    except OSError as error:
        raise RunFolderError(
            f"cannot deliver the model of {str(run)!r} to {str(container.model)!r}: {error}"
        ) from error
    print(final_line(summary), flush=True)


def _tell(run: Path, n_told: int) -> int:
    """Print how far the search is, where it has come further; the number of trials."""
    if not (run / FILE_NAME).is_file():
        return n_told
    try:
        with History.read(run) as history:
            trials = history.trials
    except (HistoryError, RunFolderError):  # being made
        return n_told
    line = search_line(trials)
    if len(trials) > n_told and line is not None:
        print(line, flush=True)
        return len(trials)
    return n_told


def _failed(base: Path, reason: str) -> int:
    write_failure(base, reason)
    print(f"{ERROR_LINE}{reason}".encode(errors="replace").decode(), flush=True)
    return FAILED


def _port(environ: Mapping[str, str]) -> int:
    text = environ.get(PORT_VARIABLE, str(PORT))
    if not (text.isdecimal() and 0 < int(text) <= LAST_PORT):
        raise ContainerError(f"{PORT_VARIABLE} must be a port from 1 to {LAST_PORT}, but is {text!r}")
    return int(text)


@contextmanager
def _stoppable() -> Iterator[Stop]:
    """Let SIGTERM ask for the end instead of being it."""
    stop = Stop()

    def ask(_signal: int, _frame: object) -> None:
        stop.asked = True

    before = signal.signal(signal.SIGTERM, ask)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})  # blocked since the process began
    try:
        yield stop
    finally:
        signal.signal(signal.SIGTERM, before)
