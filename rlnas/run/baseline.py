"""The baseline: the checkpoint fine-tuned alone, with as many item passes as the chosen subnet has.

On a CPU its training runs beside the search, in a process of its own with its own half of the
cores, because that is where most of the waiting is. The process ends when its parent does, however
that ends. Its result is the same either way.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from rlnas.data import read_task
from rlnas.deploy import export
from rlnas.errors import RLNASError, TrainingError
from rlnas.run.child import describe_training, training_job
from rlnas.run.folder import RunFolder, read_json, write_folder, write_json
from rlnas.run.training import load_supernet, optimisation
from rlnas.supernet import FullTrainer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager

    from rlnas.run.job import Job
    from rlnas.task import Task

logger = logging.getLogger(__name__)

WORTH_A_PROCESS = 200
"""Steps of training below which starting a process takes longer than it saves."""


def train_baseline(job: Job, task: Task, folder: RunFolder, *, progress: bool) -> None:
    """Train and export the baseline, unless it lies in the folder.

    Raises:
        TrainingError: If the loss is not a finite number.
    """
    if folder.full.is_dir():
        return
    baseline = load_supernet(job, task)
    epochs = job.schedule.total_epochs
    if baseline.fine_tuned:
        epochs -= job.schedule.full_epochs
    trainer = FullTrainer(optimisation(job, baseline, epochs))
    trainer.train(baseline, task, checkpoint=folder.checkpoints / "baseline.pt", progress=progress)
    # In the code of a subnet that is no plain model, as most are; `certify` brings it to that of others.
    write_folder(folder.full, lambda path: export(baseline, baseline.shape.full, path, plain=False))


@contextmanager
def baseline_beside(job: Job, task: Task, folder: RunFolder) -> Iterator[None]:
    """Train the baseline in another process while the body runs, where that is worth it.

    Raises:
        TrainingError: If the training failed.
    """
    n_steps = job.schedule.total_epochs * len(task.train) // job.schedule.batch_size
    beside = job.device == "cpu" and available_cores() > 1 and n_steps >= WORTH_A_PROCESS
    if not beside or folder.full.is_dir():
        folder.baseline.unlink(missing_ok=True)  # of a run that was killed
        yield
        return
    write_json(folder.baseline, describe_training(job))
    # The pipe is a line of life: it closes when this process ends, and then the other one ends too.
    command = [sys.executable, "-m", "rlnas.run", str(folder.path)]
    with tempfile.TemporaryFile("w+") as messages:
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stderr=messages)
        try:
            yield
            if process.poll() is None:
                logger.info("waiting for the baseline: the checkpoint fine-tuned alone")
            with folder.phase("baseline"):
                code = process.wait()
        finally:
            process.kill()
            process.communicate()
            folder.baseline.unlink(missing_ok=True)
        if code:
            messages.seek(0)
            reason = (messages.read().strip().splitlines() or [f"exit code {code}"])[-1]
            raise TrainingError(f"the baseline could not be trained: {reason}")


def available_cores() -> int:
    """Cores that this process may use, and no more than ``OMP_NUM_THREADS`` says where it is set."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    limit = os.environ.get("OMP_NUM_THREADS", "")
    return min(cores, int(limit)) if limit.isdigit() and int(limit) else cores


def half_the_cores(device: str) -> AbstractContextManager[None]:
    """Use half of the cores on a CPU.

    The other half is the baseline's. More threads than free cores would wait for each other.
    """
    return cores(device, max(1, available_cores() // 2))


@contextmanager
def cores(device: str, n_threads: int) -> Iterator[None]:
    """Use so many cores on a CPU: always the same number, so that a resumed run rounds alike."""
    before = torch.get_num_threads()
    if device == "cpu":
        torch.set_num_threads(n_threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def train_baseline_of(path: str) -> int:
    """Train the baseline of the run in a folder: what the process of `baseline_beside` does.

    Returns:
        0, or 2 with one line of reason on stderr.
    """
    folder = RunFolder(Path(path))
    job = training_job(read_json(folder.baseline))
    try:
        with half_the_cores(job.device):
            train_baseline(job, read_task(folder.data), folder, progress=False)
    except (RLNASError, OSError) as error:
        print(error, file=sys.stderr)
        return 2
    return 0
