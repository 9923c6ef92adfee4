"""What the device will be asked: its flags, and the workload that they describe."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rlnas.errors import DataError
from rlnas.workload import DTYPES, MODES, STATISTICS, Workload, parse_lengths

if TYPE_CHECKING:
    import argparse

TASK_LENGTHS = "task"
"""As `--lengths`: those of the task's texts."""


def add_workload_flags(parser: argparse.ArgumentParser) -> None:
    """The flags that describe a workload, and the device."""
    group = parser.add_argument_group("workload (what the device will be asked)")
    group.add_argument("--device", default="auto", help="cpu, cuda, cuda:1, ... or auto")
    group.add_argument("--batch-size", type=int, default=1, help="texts in a request")
    group.add_argument(
        "--seq-len",
        type=int,
        help="tokens of a text; longer texts are cut; by default 128, or the longest of --lengths",
    )
    group.add_argument(
        "--lengths",
        metavar="LIST",
        help="tokens of the texts, where they differ: 16,32,128 for as many of each, 16:3,128:1 for three "
        "of 16 to one of 128, or `task` for those of the task's training texts",
    )
    group.add_argument(
        "--dtype",
        choices=DTYPES,
        help="number format; by default float32 on a CPU, bfloat16 on a GPU, and float16 on a GPU with "
        "--mode=onnxruntime",
    )
    group.add_argument(
        "--mode",
        choices=MODES,
        default="eager",
        help="how the model is run: plain PyTorch, torch.compile, a replayed CUDA graph (GPU only), or "
        "ONNX Runtime (comes with rlnas[onnx])",
    )
    group.add_argument(
        "--statistic",
        choices=STATISTICS,
        default="median",
        help="which latency counts: that of the usual request, or of the slowest one in a hundred",
    )


def device_and_workload(options: argparse.Namespace) -> tuple[str, Workload]:
    """The device and what it will be asked, but for lengths that come from a task.

    Raises:
        DeviceError: If there is no such device, or it does not run the mode or the number format.
        MissingDependencyError: If a package that the mode needs is not installed.
        ValueError: If a number is outside its range.
    """
    from rlnas.latency import resolve_device
    from rlnas.runtime import check_mode

    device = resolve_device(options.device)
    usual = "float32"
    if device.startswith("cuda"):
        usual = "float16" if options.mode == "onnxruntime" else "bfloat16"
    given = options.lengths not in (None, TASK_LENGTHS)
    lengths = parse_lengths(options.lengths) if given else ()
    workload = Workload(
        batch_size=options.batch_size,
        seq_len=max(lengths, default=128) if options.seq_len is None else options.seq_len,
        dtype=options.dtype or usual,
        mode=options.mode,
        statistic=options.statistic,
        lengths=lengths,
    )
    check_mode(workload.mode, device, workload.dtype)
    return device, workload


def check_lengths(options: argparse.Namespace) -> None:
    """Refuse lengths from a task that is not named.

    Raises:
        DataError: If it is not.
    """
    if options.lengths == TASK_LENGTHS and options.task is None:
        raise DataError(f"--lengths={TASK_LENGTHS} takes the lengths of a task's texts; name one (--task)")
