"""All commands with their flags."""

from __future__ import annotations

import argparse
from importlib.metadata import PackageNotFoundError, version

from rlnas.cli.audit import add_audit
from rlnas.cli.auto import add_auto
from rlnas.cli.calibrate import add_calibrate
from rlnas.cli.certify import add_certify
from rlnas.cli.demo import add_demo
from rlnas.cli.export import add_export
from rlnas.cli.finetune import add_finetune
from rlnas.cli.propose import add_propose
from rlnas.cli.report import add_report
from rlnas.cli.sagemaker import add_sagemaker
from rlnas.cli.search import add_search


def make_parser() -> argparse.ArgumentParser:
    """The parser of the whole command line."""
    parser = argparse.ArgumentParser(
        prog="rlnas",
        description="Shrink a BERT to a latency that is measured on your device.",
        epilog="Start with `rlnas demo`; every command explains itself with --help.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"rlnas {_version()}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    add_demo(commands)
    add_search(commands)
    add_auto(commands)
    add_calibrate(commands)
    add_certify(commands)
    add_finetune(commands)
    add_audit(commands)
    add_report(commands)
    add_export(commands)
    add_propose(commands)
    add_sagemaker(commands)
    return parser


def _version() -> str:
    try:
        return version("rlnas")
    except PackageNotFoundError:  # run from a clone
        return "(not installed)"
