"""``rlnas demo``: a search that needs nothing but what pip installs."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from rlnas.cli.command import add_command
from rlnas.cli.search import add_search_flags, run_search

if TYPE_CHECKING:
    from rlnas.cli.command import Commands

DEMO = (
    *("--task", "pydocs", "--max-train-items", "2000", "--search-items", "320", "--seq-len", "64"),
    *("--full-epochs", "1", "--epochs", "1", "--finish-epochs", "2"),
    *("--target-ratio", "0.5", "--budget", "112"),
)


def add_demo(commands: Commands) -> None:
    """Add the command."""
    parser = add_command(
        commands,
        "demo",
        run_demo,
        "the whole path on real weights and real data, without a download",
        "Shrinks MiniLM to half of its latency on this machine, for telling areas of the Python "
        "standard library apart by their docstrings. Takes some minutes on two CPU cores. "
        "Run again, it goes on where it was.",
    )
    parser.add_argument("--out", type=Path, default=Path("runs/demo"), help="run folder")
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1, ... or auto")


def run_demo(options: argparse.Namespace) -> None:
    """Search with the flags of `DEMO`."""
    search = argparse.ArgumentParser(prog="rlnas search")
    add_search_flags(search)
    arguments = [*DEMO, "--device", options.device, "--out", str(options.out), "--resume"]
    run_search(search.parse_args(arguments))
