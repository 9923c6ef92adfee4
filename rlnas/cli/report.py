"""``rlnas report``: the result of a run, or how far it is."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlnas.cli.command import add_command
from rlnas.errors import RunFolderError

if TYPE_CHECKING:
    import argparse

    from rlnas.cli.command import Commands
    from rlnas.run.folder import RunFolder


def add_report(commands: Commands) -> None:
    """Add the command."""
    parser = add_command(
        commands,
        "report",
        run_report,
        "print the result of a run and write its report.html anew",
        "Of a run that is not finished it says how far it is.",
    )
    parser.add_argument("folder", type=Path, metavar="RUN", help="run folder")


def run_report(options: argparse.Namespace) -> None:
    """Print the result and write the page."""
    from rlnas.report import read_summary, write_report
    from rlnas.run.folder import RunFolder

    folder = RunFolder(options.folder)
    folder.check()
    check_finished(folder)
    summary = read_summary(options.folder)
    write_report(options.folder)
    show_result(summary, options.folder)


def show_result(summary: dict[str, Any], folder: Path) -> None:
    """Print the result of a run and where its files are; of several targets a row for each."""
    from rlnas.report import format_table, models_of
    from rlnas.report.wording import number, verdict

    print(format_table(summary))
    for model in models_of(summary):
        if "folder" in model:
            print(
                f"target {model['target_ratio']:g}: ratio {number(model['latency_ratio'], 3)}, "
                f"met: {verdict(model)}, model: {folder / model['folder']}"
            )
    place = "" if "targets" in summary else f"model: {folder / 'best'}   "
    print(f"{place}report: {folder / 'report.html'}   summary: {folder / 'summary.json'}")


def check_finished(folder: RunFolder) -> None:
    """Refuse a run that is not finished, and say how far it is.

    Raises:
        RunFolderError: If it is not.
    """
    if not folder.summary.is_file():
        raise RunFolderError(f"the run in {str(folder.path)!r} is not finished: {_progress(folder)}")


def _progress(folder: RunFolder) -> str:
    from rlnas.history import History

    done = ", ".join(folder.seconds()) or "none"
    n_trials = 0
    if folder.history.is_file():
        with History.read(folder.path) as history:
            n_trials = len(history.trials)
    return f"{n_trials} subnets are scored, finished phases: {done}; go on with --resume"
