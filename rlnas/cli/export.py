"""``rlnas export``: write a subnet of a run as a model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from rlnas.cli.command import add_command

if TYPE_CHECKING:
    import argparse

    from rlnas.cli.command import Commands
    from rlnas.deploy.forms import Form


def add_export(commands: Commands) -> None:
    """Add the command."""
    parser = add_command(
        commands,
        "export",
        run_export,
        "write a subnet of a run as a model that transformers loads",
        "By default the chosen subnet as it was trained last, by `rlnas finetune` where that was done; "
        "with --trial any other of the history, with the shared weights. Each form is checked against the "
        "model after writing, and none needs rlnas. The folder of transformers is that of a stock class "
        "where the subnet is a model of its family; else it carries its model file.",
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
    parser.add_argument(
        "--formats",
        default="hf",
        metavar="F,F",
        help="forms to write: hf (a folder of transformers, always), onnx, onnx-int8 (its loss is measured "
        "on the search items), torch (torch.export), or all",
    )
    parser.add_argument("--out", type=Path, default=Path("small-bert"), help="folder to write")


def run_export(options: argparse.Namespace) -> None:
    """Write the chosen subnet, or the one that the flags name."""
    from rlnas.run.export import export_chosen, export_trial

    names = _names(options.formats)
    if options.trial is not None and (options.delivered or options.target_ratio is not None):
        raise ValueError(
            f"--trial={options.trial} is a subnet with the shared weights, but --target-ratio and "
            "--delivered name one of the models that the run has delivered; drop either"
        )
    if options.trial is None:
        source, forms = export_chosen(
            options.folder, options.out, options.target_ratio, names, delivered=options.delivered
        )
        print(f"copied: {source}")
    else:
        config, forms = export_trial(options.folder, options.trial, options.out, names)
        print(json.dumps(config.to_dict()))
    print(f"model: {options.out}")
    _print_forms(forms, options.out)


def _names(formats: str) -> list[str]:
    """The formats of a list with commas."""
    return [name.strip() for name in formats.split(",") if name.strip()]


def _print_forms(forms: list[Form], folder: Path) -> None:
    """One line for each: its file, its size, and what it is or how it was checked."""
    for form in forms:
        size = (folder / form.file).stat().st_size / 1e6
        print(f"{form.file}, {size:.1f} MB: {form.note}")
