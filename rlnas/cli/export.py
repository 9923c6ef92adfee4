"""``rlnas export``: write a subnet of a run as a model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from rlnas.cli.command import add_command

if TYPE_CHECKING:
    import argparse

    from rlnas.cli.command import Commands


def add_export(commands: Commands) -> None:
    """Add the command."""
    parser = add_command(
        commands,
        "export",
        run_export,
        "write a subnet of a run as a model that transformers loads",
        "By default the chosen subnet as it was trained last, by `rlnas finetune` where that was done; "
        "with --trial any other of the history, with the shared weights.",
    )
    parser.add_argument("folder", type=Path, metavar="RUN", help="run folder")
    parser.add_argument("--trial", type=int, metavar="N", help="number of a trial, as in the report")
    parser.add_argument(
        "--target-ratio", type=float, metavar="R", help="which model, of a run for several targets"
    )
    parser.add_argument(
        "--delivered",
        action="store_true",
        help="the subnet as the run delivered it, also where `rlnas finetune` has trained it further",
    )
    parser.add_argument("--out", type=Path, default=Path("small-bert"), help="folder to write")


def run_export(options: argparse.Namespace) -> None:
    """Write the chosen subnet, or the one that the flags name."""
    from rlnas.run.export import export_chosen, export_trial

    if options.trial is None:
        source = export_chosen(
            options.folder, options.out, options.target_ratio, delivered=options.delivered
        )
        print(f"copied: {source}")
    else:
        config = export_trial(options.folder, options.trial, options.out)
        print(json.dumps(config.to_dict()))
    print(f"model: {options.out}")
