"""Whether training on several ranks is what one process does, goes on exactly, and ends cleanly.

For each model:

``same``     without dropout, each loss of the first steps on N ranks beside that of one process with the
             same global batches and subnets, the last of each pass ragged; a tiny model also in
             micro-batches.
``resumed``  with dropout, one rank is killed in the middle of the training, which goes on from its
             checkpoint: are the weights those of an unbroken one, bit for bit?

And for the training of a run, as `rlnas search --nproc N` has it, on a tiny model:

``starts``   how many of so many starts end without error or abort, and how long one takes.
"""

from __future__ import annotations

import os
import shutil
import signal
import statistics
import subprocess
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from benchmarks.random_checkpoint import write_checkpoint
from benchmarks.ranks import Training, start, task_of, train
from benchmarks.record import make_parser, record
from rlnas.cli import minilm_path
from rlnas.controllers.random import RandomController
from rlnas.data import write_task
from rlnas.errors import TrainingError
from rlnas.rewards import LatencyTarget
from rlnas.run import Job, Schedule, Torchrun
from rlnas.run.folder import RunFolder
from rlnas.run.torchrun import train_by_torchrun
from rlnas.run.training import load_supernet
from rlnas.space import LayerwiseSpace
from rlnas.supernet import Supernet
from rlnas.workload import Workload

if TYPE_CHECKING:
    import argparse

MAX_SEQ_LEN = 16
BATCH_SIZE = 16
TRAIN_ITEMS = 250  # 15 batches of 16, and one of 10
N_BATCHES = 16


def main() -> None:
    """Train, compare, and record."""
    parser = make_parser(__doc__, "distributed.jsonl")
    parser.add_argument("--models", nargs="*", default=["tiny", "minilm"], choices=["tiny", "minilm"])
    parser.add_argument("--nproc", type=int, default=2, help="ranks")
    parser.add_argument("--steps", type=int, default=100, help="steps whose losses are compared")
    parser.add_argument("--starts", type=int, default=30, help="trainings of a run that are started")
    parser.add_argument("--device", default="cpu", help="cpu, or cuda for a GPU of each rank's own")
    options = parser.parse_args()
    if options.quick:
        options.models, options.steps, options.starts = ["tiny"], 16, 1
    torch.set_num_threads(1)
    root = Path(tempfile.mkdtemp())
    try:
        figures: dict[str, Any] = {name: _model(options, name, root / name) for name in options.models}
        if options.starts:
            figures["starts"] = _starts(options, root / "starts")
    finally:
        shutil.rmtree(root, ignore_errors=True)
    record("distributed", options, figures, options.device)


def _model(options: argparse.Namespace, name: str, folder: Path) -> dict[str, Any]:
    """Both laws for one model."""
    task = task_of(TRAIN_ITEMS)
    checkpoint = _tiny(folder / "checkpoint") if name == "tiny" else minilm_path()
    supernet = Supernet.from_pretrained(checkpoint, task, max_seq_len=MAX_SEQ_LEN)
    supernet.save(folder / "supernet")
    training = Training(
        supernet=str(folder / "supernet"),
        train_items=TRAIN_ITEMS,
        epochs=-(-options.steps // N_BATCHES),
        batch_size=BATCH_SIZE,
        device=options.device,
    )
    alone = training.run()["losses"][: options.steps]
    figures: dict[str, Any] = {"n_steps": options.steps}
    ways = {"same": 1}
    if name == "tiny" and not options.quick:
        ways["same_in_micro_batches"] = 3
    for way, micro_batches in ways.items():
        ranks = train(replace(training, micro_batches=micro_batches), options.nproc, folder / way)
        losses = ranks[0]["losses"][: options.steps]
        figures[way] = {
            "max_relative_difference": max(abs(a - b) / abs(b) for a, b in zip(losses, alone, strict=True)),
            "ranks_agree": len({rank["weights"] for rank in ranks}) == 1,
            "first_loss": losses[0],
            "last_loss": losses[-1],
        }
        print(f"{name}, {way}: {figures[way]}", flush=True)
    figures["resumed"] = _resumed(options, replace(training, epochs=1, dropout=0.1), folder / "resumed")
    print(f"{name}, resumed: {figures['resumed']}", flush=True)
    return figures


def _tiny(folder: Path) -> Path:
    write_checkpoint("tiny", folder)
    return folder


def _resumed(options: argparse.Namespace, training: Training, folder: Path) -> dict[str, Any]:
    """Kill a rank in the middle, go on, and compare with an unbroken training."""
    unbroken = train(training, options.nproc, folder / "unbroken")
    checkpoint = folder / "broken.pt"
    broken = replace(training, checkpoint=str(checkpoint))
    process = start(broken, options.nproc, folder / "broken")
    n_saved, seen = 0, 0
    while n_saved < N_BATCHES // 2 and process.poll() is None:
        changed = checkpoint.stat().st_mtime_ns if checkpoint.is_file() else 0
        n_saved, seen = n_saved + (changed != seen), changed
        time.sleep(0.002)
    os.kill(_rank_of(process.pid), signal.SIGKILL)
    code = process.wait()
    resumed = train(broken, options.nproc, folder / "broken")
    n_steps, n_left = len(unbroken[0]["losses"]), len(resumed[0]["losses"])
    return {
        "exit_code_after_kill": code,
        "n_steps": n_steps,
        "went_on_behind_step": n_steps - n_left,
        "weights_equal": {r["weights"] for r in resumed} == {r["weights"] for r in unbroken},
        "losses_equal": resumed[0]["losses"] == unbroken[0]["losses"][-n_left:],
    }


def _rank_of(torchrun: int) -> int:
    """The process of the last rank."""
    answer = subprocess.run(
        ["ps", "-o", "pid=", "--ppid", str(torchrun)], capture_output=True, text=True, check=True
    )
    return max(int(pid) for pid in answer.stdout.split())


def _starts(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Train for a run again and again."""
    task = task_of(64)
    job = Job(
        model=str(_tiny(folder / "checkpoint")),
        reward=LatencyTarget(ratio=0.5),
        controller=RandomController(),
        workload=Workload(seq_len=MAX_SEQ_LEN),
        device=options.device,
        schedule=Schedule(full_epochs=1, epochs=1),
        torchrun=Torchrun(options.nproc),
    )
    failures, seconds = [], []
    for number in range(options.starts):
        run = RunFolder(folder / str(number))
        run.data.mkdir(parents=True)
        write_task(task, run.data)
        supernet = load_supernet(job, task)
        space = LayerwiseSpace.for_model(supernet.shape)
        started = time.monotonic()
        try:
            train_by_torchrun(job, Torchrun(options.nproc), supernet, space, run, progress=False)
        except TrainingError as error:
            failures.append(str(error))
        seconds.append(time.monotonic() - started)
        print(f"start {number}: {seconds[-1]:.1f} s, {len(failures)} failures so far", flush=True)
    return {
        "n": options.starts,
        "n_clean": options.starts - len(failures),
        "failures": failures,
        "median_seconds": statistics.median(seconds) if seconds else None,
    }


if __name__ == "__main__":
    main()
