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
    from collections.abc import Sequence

    from rlnas.cli.command import Commands
    from rlnas.deploy import Certificate
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
        "workload and target are those of the run, as far as no flag says otherwise. A model for which a "
        "search has chosen a precision is served in it, unless --dtype or --mode says otherwise. "
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
        help="latency to reach, as a fraction of the baseline's; up to 5 %% above it counts as met. "
        "Of a run for several targets: which of its models; all of them if not given",
    )
    parser.add_argument(
        "--delivered",
        action="store_true",
        help="of a run: the model as it was delivered, also where `rlnas finetune` has trained it further",
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
    from rlnas.run.job import check_seed
    from rlnas.runtime import check_mode
    from rlnas.supernet.encoding import with_lengths_of

    check_seed(options.seed)
    check_lengths(options)
    check_task_flags(options)
    baseline = _baseline(options.model, options.baseline)
    usual, cases = _of_run(options)
    device, workload = device_and_workload(options, usual)
    for _, _, precision in cases:  # which may need another engine than the flags do
        served = workload.in_precision(precision)
        check_mode(served.mode, device, served.dtype)
    if options.out is not None:
        make_room(options.out, "certificate.json")
    task = None if options.task is None else load_task_of(options)
    if task is not None and options.lengths == TASK_LENGTHS:
        tokenizer = read_tokenizer(baseline, trust_remote_code=options.trust_remote_code)
        workload = with_lengths_of(workload, tokenizer, task.train)
    certificates = []
    for model, target_ratio, precision in cases:
        if len(cases) > 1:
            print(f"{model}:")
        certificate = certify(
            model,
            baseline=baseline,
            task=task,
            workload=workload,
            model_workload=None if precision is None else workload.in_precision(precision),
            device=device,
            target_ratio=target_ratio,
            max_seq_len=workload.seq_len,
            seed=options.seed,
            trust_remote_code=options.trust_remote_code,
        )
        print(certificate)
        certificates.append(certificate)
    if options.out is not None:
        _write(options.out, [model for model, *_ in cases], certificates)
    return MISSED if any(one.target_met is False for one in certificates) else 0


def _write(out: Path, models: Sequence[str], certificates: Sequence[Certificate]) -> None:
    """The certificate as JSON, or a list of those of several targets."""
    from rlnas.run.folder import write_json

    values = certificates[0].to_dict()
    if len(certificates) > 1:
        pairs = zip(models, certificates, strict=True)
        values = {
            "targets": [
                {"folder": "/".join(Path(model).parts[-2:]), **one.to_dict()} for model, one in pairs
            ]
        }
    write_json(out, values)
    print(f"certificate: {out}")


def _baseline(model: str, baseline: str | None) -> str:
    """What is compared with; a run stands for its full model.

    Raises:
        RunFolderError: If a run is not finished.
        CheckpointError: If there is no baseline.
    """
    own, other = _finished_run(model), None if baseline is None else _finished_run(baseline)
    if baseline is None and own is None:
        raise CheckpointError(f"nothing to compare {model!r} with; name the full model (--baseline)")
    full = other if baseline is not None else own
    return str(baseline if full is None else full.full)


def _of_run(
    options: argparse.Namespace,
) -> tuple[Workload | None, list[tuple[str, float | None, str | None]]]:
    """What stands for flags of the workload that are not given; models, their targets and precisions."""
    from rlnas.deploy.loading import stored_precision
    from rlnas.run.models import model_path, models_for
    from rlnas.workload import Workload

    folder, says_how = _finished_run(options.model), options.dtype is not None or options.mode is not None
    if folder is None:
        precision = None if says_how else stored_precision(options.model)
        return None, [(options.model, options.target_ratio, precision)]
    models = models_for(folder, options.target_ratio)
    workload = Workload(**models[0]["workload"])
    # One with a prediction is for another device or workload.
    targets = [None if model.get("prediction") else model.get("target_ratio") for model in models]
    known = [f"{target:g}" for target in targets if target is not None]
    logger.info(
        "taken from the run where no flag says otherwise: %s, %s",
        workload,
        f"{'target' if len(known) == 1 else 'targets'} {', '.join(known)}" if known else "no target",
    )
    if "folder" not in models[0] and options.target_ratio is not None:
        targets = [options.target_ratio]
    paths = [str(model_path(folder, model, delivered=options.delivered)) for model in models]
    if any("finetuned" in model for model in models):
        logger.info("measured: %s", ", ".join(paths))
    precisions = [model["best"]["config"].get("precision") for model in models]
    if says_how:  # then both are served so
        precisions = [None] * len(models)
    return workload, list(zip(paths, targets, precisions, strict=True))


def _finished_run(path: str) -> RunFolder | None:
    from rlnas.run.folder import RunFolder

    folder = RunFolder(Path(path))
    if not folder.history.is_file():
        return None
    check_finished(folder)
    return folder
