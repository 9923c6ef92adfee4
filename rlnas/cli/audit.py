"""``rlnas audit``: whether all forms of a model agree, and what is claimed of it is true."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from rlnas.cli.command import add_command
from rlnas.cli.output import make_room
from rlnas.cli.report import check_finished
from rlnas.cli.task import add_task_flags, check_task_flags, load_task_of
from rlnas.errors import RunFolderError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from rlnas.cli.command import Commands
    from rlnas.deploy.audit import Scope
    from rlnas.deploy.findings import Audit

logger = logging.getLogger(__name__)

FAILED = 1


def add_audit(commands: Commands) -> None:
    """Add the command."""
    parser = add_command(
        commands,
        "audit",
        run_audit,
        "prove that all forms of a model agree, and that what is claimed of its files is true",
        "Of a run: its models (as delivered, and as `rlnas finetune` has trained them further) as masked, "
        "sliced, extracted, reloaded and ONNX forms on items of the search split, and the claims of its "
        "certificates and summary. Of an exported folder the same, as far as "
        "its supernet, full model and task are given. Of any other sequence classifier of transformers, "
        "such as the work of another pruner: whether heads that are said to be gone are gone, and with "
        "--baseline whether anything was removed at all. "
        "Exit code: 0 if the audit is passed, 1 if it has failed, 2 for bad input.",
    )
    parser.add_argument(
        "model", metavar="MODEL", help="folder of a finished run, or hub name or folder of a model"
    )
    parser.add_argument(
        "--baseline", metavar="MODEL", help="the full model, a hub name or a folder; a run brings its own"
    )
    parser.add_argument(
        "--supernet",
        type=Path,
        metavar="FOLDER",
        help="shared weights that an exported model was cut from, e.g. RUN/supernet; a run brings its own",
    )
    add_task_flags(parser, "; its search split is used. Without it tokens are random", None)
    parser.add_argument(
        "--target-ratio",
        type=float,
        metavar="R",
        help="which model, of a run for several targets; else all",
    )
    parser.add_argument("--items", type=int, default=200, metavar="N", help="items of the task at most")
    parser.add_argument(
        "--no-latency", action="store_true", help="do not measure the certified latency ratio again"
    )
    parser.add_argument("--no-onnx", action="store_true", help="do not compare the ONNX form")
    parser.add_argument(
        "--head-mask",
        action="store_true",
        help="fail if the model ignores head_mask; say so where scores were taken with one",
    )
    parser.add_argument(
        "--trained-further",
        action="store_true",
        help="the model had a last training or a repair, so its weights are not the supernet's; of a run, "
        "and of a model with a certificate that holds their digest, this is known",
    )
    parser.add_argument(
        "--trust-remote-code",
        action="store_true",
        help="let code inside the models run on this machine",
    )
    parser.add_argument(
        "--seed",
        type=int,
        default=0,
        help="seed of the items, of random tokens and of the order of timings",
    )
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the audit as JSON too")


def run_audit(options: argparse.Namespace) -> int:
    """Audit, print what was found, and write it where it is wanted.

    Returns:
        0, or 1 if the audit has failed.
    """
    from rlnas.deploy.audit import Scope
    from rlnas.run.job import check_seed

    check_seed(options.seed)
    check_task_flags(options)
    scope = Scope(
        n_items=options.items,
        latency=not options.no_latency,
        onnx=not options.no_onnx,
        head_mask=options.head_mask,
        trained_further=options.trained_further or None,
        seed=options.seed,
        trust_remote_code=options.trust_remote_code,
    )
    if options.out is not None:
        make_room(options.out, "audit.json")
    audits = _audits(options, scope)
    if options.out is not None:
        _write(options.out, audits)
    print("\n\n".join(map(str, audits)))
    if len(audits) > 1:
        print(f"\n{_verdict(audits)}")
    return 0 if all(audit.passed for audit in audits) else FAILED


def _audits(options: argparse.Namespace, scope: Scope) -> Sequence[Audit]:
    """One of a model, or those of all models of a run.

    Raises:
        RunFolderError: If a run is given what it brings itself, or a model a target.
    """
    from rlnas.deploy.audit import audit
    from rlnas.run.auditing import audit_run
    from rlnas.run.folder import RunFolder
    from rlnas.supernet import Supernet

    folder = RunFolder(Path(options.model))
    if folder.history.is_file():
        for name in ("baseline", "supernet", "task"):
            if getattr(options, name) is not None:
                raise RunFolderError(
                    f"the run in {options.model!r} brings its own {name}, but got "
                    f"--{name}={getattr(options, name)}; drop the flag, or audit the folder of its model"
                )
        check_finished(folder)
        return audit_run(options.model, scope, options.target_ratio)
    if options.target_ratio is not None:
        raise RunFolderError(
            f"{options.model!r} is no run, so it has no model for --target-ratio={options.target_ratio:g}; "
            "drop the flag"
        )
    supernet = None if options.supernet is None else Supernet.load(options.supernet)
    task = None if options.task is None else load_task_of(options)
    return [audit(options.model, supernet=supernet, baseline=options.baseline, task=task, scope=scope)]


def _verdict(audits: Sequence[Audit]) -> str:
    """That of the first model that has failed, or one for all."""
    for audit in audits:
        if not audit.passed:
            return f"{audit.verdict} ({audit.model})"
    return f"audit passed: {len(audits)} models"


def _write(out: Path, audits: Sequence[Audit]) -> None:
    """The audit as JSON, or a list of those of several targets."""
    from rlnas.run.folder import write_json

    values = audits[0].to_dict()
    if len(audits) > 1:
        values = {"passed": all(one.passed for one in audits), "models": [one.to_dict() for one in audits]}
    write_json(out, values)
    logger.info("written: %s", out)
