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
    """The flags that describe a workload, and the device; None stands for what is not given."""
    group = parser.add_argument_group("workload (what the device will be asked)")
    group.add_argument("--device", default="auto", help="cpu, cuda, cuda:1, ... or auto")
    group.add_argument("--batch-size", type=int, help="texts in a request; by default 1")
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
        help="how the model is run: plain PyTorch, torch.compile, a replayed CUDA graph (GPU only), or "
        "ONNX Runtime (comes with rlnas[onnx]); by default eager",
    )
    group.add_argument(
        "--statistic",
        choices=STATISTICS,
        help="which latency counts: that of the usual request, or of the slowest one in a hundred; "
        "by default median",
    )


def device_and_workload(
    options: argparse.Namespace, usual: Workload | None = None, timed_on: str | None = None
) -> tuple[str, Workload]:
    """The device and what it will be asked, but for lengths that come from a task.

    Args:
        options: The flags.
        usual: Stands for what they do not say; None for the defaults, the number format among them
            that suits the device.
        timed_on: Kind of the device that will be asked, if that is another machine's: then what runs there
            is not checked here.

    Raises:
        DeviceError: If there is no such device, or it does not run the mode or the number format.
        MissingDependencyError: If a package that the mode needs is not installed.
        DataError: If the tail of a task's lengths is asked for.
        ValueError: If a number is outside its range.
    """
    from rlnas.latency import resolve_device
    from rlnas.runtime import check_mode

    device = resolve_device(options.device)
    rest = Workload() if usual is None else usual
    mode = options.mode or rest.mode
    seq_len, lengths = _texts(options, rest)
    workload = Workload(
        batch_size=rest.batch_size if options.batch_size is None else options.batch_size,
        seq_len=seq_len,
        dtype=options.dtype or (_usual_dtype(timed_on or device, mode) if usual is None else usual.dtype),
        mode=mode,
        statistic=options.statistic or rest.statistic,
        lengths=lengths,
    )
    if options.lengths == TASK_LENGTHS and workload.statistic != "median":  # before the task is read
        raise DataError(
            f"--statistic={workload.statistic} is for texts of one length, so --lengths={TASK_LENGTHS} "
            "does not go with it; give the length that matters (--seq-len), or --statistic=median"
        )
    if timed_on is None:
        check_mode(workload.mode, device, workload.dtype)
    return device, workload


def _usual_dtype(device: str, mode: str) -> str:
    if device.startswith("cuda"):
        return "float16" if mode == "onnxruntime" else "bfloat16"
    return "float32"


def _texts(options: argparse.Namespace, rest: Workload) -> tuple[int, tuple[int, ...]]:
    """Tokens of the longest text, and of all where they differ; either flag says it for both."""
    if options.lengths not in (None, TASK_LENGTHS):
        lengths = parse_lengths(options.lengths)
        return max(lengths) if options.seq_len is None else options.seq_len, lengths
    if options.seq_len is not None:
        return options.seq_len, ()
    return rest.seq_len, rest.lengths if options.lengths is None else ()


def check_lengths(options: argparse.Namespace) -> None:
    """Refuse lengths from a task that is not named.

    Raises:
        DataError: If it is not.
    """
    if options.lengths == TASK_LENGTHS and options.task is None:
        raise DataError(f"--lengths={TASK_LENGTHS} takes the lengths of a task's texts; name one (--task)")
