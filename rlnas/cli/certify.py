"""``rlnas certify``: measure a model beside its baseline."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from rlnas.cli.command import add_command
from rlnas.cli.output import make_room
from rlnas.cli.report import check_finished
from rlnas.cli.task import add_task_flags, check_task_flags, load_task_of
from rlnas.cli.workload import TASK_LENGTHS, add_workload_flags, check_lengths, device_and_workload
from rlnas.errors import CheckpointError

if TYPE_CHECKING:
    import argparse

    from rlnas.cli.command import Commands
    from rlnas.run.folder import RunFolder
    from rlnas.workload import Workload

logger = logging.getLogger(__name__)

MISSED = 1


def add_certify(commands: Commands) -> None:
    """Add the command."""
    parser = add_command(
        commands,
        "certify",
        run_certify,
        "measure a model beside its baseline, and say whether a target is met",
        "Times both in the same rounds on this device, and with --task scores both on its final split. "
        "Takes any two encoders of transformers for sequence classification, or a finished run: then "
        "workload and target are those of the run, as far as no flag says otherwise. "
        "Exit code: 0 if the target is met or none is given, 1 if it is missed, 2 for bad input.",
    )
    parser.add_argument(
        "model", metavar="MODEL", help="hub name or folder of a model, or folder of a finished run"
    )
    parser.add_argument(
        "--baseline",
        metavar="MODEL",
        help="what it is compared with, a hub name or a folder; by default the full model of the run",
    )
    add_task_flags(parser, "; without it latency alone is certified", None)
    add_workload_flags(parser)
    parser.add_argument(
        "--target-ratio",
        type=float,
        help="latency to reach, as a fraction of the baseline's; up to 5 %% above it counts as met",
    )
    parser.add_argument(
        "--trust-remote-code",
        action="store_true",
        help="let code inside the models run on this machine",
    )
    parser.add_argument(
        "--seed", type=int, default=0, help="seed of the order of timings and of the intervals"
    )
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the certificate as JSON too")


def run_certify(options: argparse.Namespace) -> int:
    """Measure, print the certificate, and write it where it is wanted.

    Returns:
        0, or 1 if the target is missed.
    """
    from rlnas.deploy import certify
    from rlnas.deploy.loading import read_tokenizer
    from rlnas.run.folder import write_json
    from rlnas.run.job import check_seed
    from rlnas.supernet.encoding import with_lengths_of

    check_seed(options.seed)
    check_lengths(options)
    check_task_flags(options)
    model, baseline = _models(options.model, options.baseline)
    usual, target_ratio = _of_run(options)
    device, workload = device_and_workload(options, usual)
    if options.out is not None:
        make_room(options.out, "certificate.json")
    task = None if options.task is None else load_task_of(options)
    if task is not None and options.lengths == TASK_LENGTHS:
        tokenizer = read_tokenizer(baseline, trust_remote_code=options.trust_remote_code)
        workload = with_lengths_of(workload, tokenizer, task.train)
    certificate = certify(
        model,
        baseline=baseline,
        task=task,
        workload=workload,
        device=device,
        target_ratio=target_ratio,
        max_seq_len=workload.seq_len,
        seed=options.seed,
        trust_remote_code=options.trust_remote_code,
    )
    print(certificate)
    if options.out is not None:
        write_json(options.out, certificate.to_dict())
        print(f"certificate: {options.out}")
    return MISSED if certificate.target_met is False else 0


def _models(model: str, baseline: str | None) -> tuple[str, str]:
    """What is certified and what it is compared with; a run stands for its chosen and its full model.

    Raises:
        RunFolderError: If a run is not finished.
        CheckpointError: If there is no baseline.
    """
    own, other = _finished_run(model), None if baseline is None else _finished_run(baseline)
    if baseline is None and own is None:
        raise CheckpointError(f"nothing to compare {model!r} with; name the full model (--baseline)")
    full = other if baseline is not None else own
    return model if own is None else str(own.best), str(baseline if full is None else full.full)


def _of_run(options: argparse.Namespace) -> tuple[Workload | None, float | None]:
    """What stands for flags of the workload that are not given, and the target."""
    from rlnas.report import read_summary
    from rlnas.workload import Workload

    if _finished_run(options.model) is None:
        return None, options.target_ratio
    summary = read_summary(options.model)
    workload = Workload(**summary["workload"])
    target = None if summary.get("prediction") else summary.get("target_ratio")  # that one is for elsewhere
    logger.info(
        "taken from the run where no flag says otherwise: %s, %s",
        workload,
        "no target" if target is None else f"target {target:g}",
    )
    return workload, target if options.target_ratio is None else options.target_ratio


def _finished_run(path: str) -> RunFolder | None:
    from rlnas.run.folder import RunFolder

    folder = RunFolder(Path(path))
    if not folder.history.is_file():
        return None
    check_finished(folder)
    return folder
