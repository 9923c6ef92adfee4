"""``rlnas calibrate``: measure a latency table on this device."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from rlnas.cli.checkpoint import add_checkpoint_flags, checkpoint_of
from rlnas.cli.command import add_command
from rlnas.cli.output import make_room
from rlnas.cli.task import add_task_flags, check_task_flags, load_task_of
from rlnas.cli.workload import TASK_LENGTHS, add_workload_flags, check_lengths, device_and_workload
from rlnas.errors import DataError, LatencyTableError
from rlnas.space import QUARTERS

if TYPE_CHECKING:
    import argparse

    from rlnas.cli.command import Commands
    from rlnas.latency import LatencyTable
    from rlnas.supernet import Supernet
    from rlnas.workload import Workload

logger = logging.getLogger(__name__)


def add_calibrate(commands: Commands) -> None:
    """Add the command."""
    parser = add_command(
        commands,
        "calibrate",
        run_calibrate,
        "measure a latency table of a checkpoint on this device",
        "Times attention and FFN blocks of many sizes and some whole subnets. The table predicts the "
        "latency of any subnet, for `rlnas search --latency-table`. "
        "Says what can make a model fast here, fewer blocks or thinner ones, and how wrong the table is on "
        "subnets it was not fitted to, beside counting blocks and counting FLOPs.",
    )
    add_checkpoint_flags(parser)
    add_workload_flags(parser)
    add_task_flags(parser, "; for --lengths=task only", None)
    parser.add_argument(
        "--held-out",
        type=int,
        default=0,
        metavar="N",
        help="judge the table by N further subnets, measured for this alone; with 0 by those that it is "
        "fitted to, each predicted from the others",
    )
    parser.add_argument(
        "--parts",
        type=int,
        default=QUARTERS,
        metavar="N",
        help="time heads and FFN units in so many equal parts of the full numbers, for `rlnas search "
        "--parts` (default: quarters; some sizes between are always timed)",
    )
    parser.add_argument(
        "--alignment", action="store_true", help="find out as well which FFN widths this device likes"
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the choice of subnets to time")
    parser.add_argument("--out", type=Path, default=Path("latency.json"), help="file to write the table to")


def run_calibrate(options: argparse.Namespace) -> None:
    """Calibrate, write the table, and say how good it is."""
    from rlnas.alignment import probe_alignment
    from rlnas.calibration import Effort, probe_blocks
    from rlnas.run.calibration import calibrate_with_bar, time_sentence, warn_of
    from rlnas.run.job import check_seed
    from rlnas.space import LayerwiseSpace
    from rlnas.supernet.timing import TimedModel

    device, workload = device_and_workload(options)
    check_seed(options.seed)
    effort = Effort(n_held_out=options.held_out)
    _check_task(options)
    make_room(options.out, "latency.json")  # before minutes are spent
    supernet, workload = _load(options, device, workload)
    table = calibrate_with_bar(
        supernet,
        LayerwiseSpace.for_model(supernet.shape, parts=options.parts),
        workload,
        device,
        effort=effort,
        extra_blocks=probe_blocks(supernet.shape),
        seed=options.seed,
    )
    table.save(options.out)
    _show(table)
    if options.alignment:
        print(probe_alignment(TimedModel(supernet, workload, device), device, seed=options.seed))
    warn_of(table)
    print(time_sentence(table))
    print(f"table: {options.out}")


def _check_task(options: argparse.Namespace) -> None:
    """Refuse lengths without a task, and a task without a use.

    Raises:
        DataError: If there is either.
    """
    check_lengths(options)
    check_task_flags(options)
    if options.task is not None and options.lengths != TASK_LENGTHS:
        raise DataError(
            f"--task={options.task} is read for the lengths of its texts alone; "
            f"add --lengths={TASK_LENGTHS}, or drop it"
        )


def _load(options: argparse.Namespace, device: str, workload: Workload) -> tuple[Supernet, Workload]:
    """The checkpoint, and the workload with the lengths of the task's texts where these are wanted."""
    from rlnas.supernet import Supernet
    from rlnas.supernet.encoding import with_lengths_of

    supernet = Supernet.from_pretrained(
        checkpoint_of(options),
        None,
        pooling=options.pooling,
        max_seq_len=workload.seq_len,
        device=device,
        trust_remote_code=options.trust_remote_code,
    )
    if options.lengths == TASK_LENGTHS:
        workload = with_lengths_of(workload, supernet.tokenizer, load_task_of(options).train)
    return supernet, workload


def _show(table: LatencyTable) -> None:
    """Print what was measured, what makes a model fast here, and how wrong the table is.

    The table is written by now: one that does not show what makes a model fast may still predict.
    """
    from rlnas.latency.regime import find_regime
    from rlnas.run.calibration import error_lines, table_sentence

    print(table_sentence(table))
    try:
        print(find_regime(table))
    except LatencyTableError as error:
        logger.warning("%s", error)
    if table.error is not None:
        print("\n".join(error_lines(table.error)))
