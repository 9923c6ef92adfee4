"""The training of the shared weights in processes of their own, which torchrun starts.

The run goes on with the weights that they leave in its folder. They end when it does, however that ends.
"""

from __future__ import annotations

import logging
import os
import re
import shlex
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING

from rlnas.errors import ERROR_LINE, TrainingError
from rlnas.run.baseline import available_cores
from rlnas.run.child import describe_training
from rlnas.run.folder import write_json
from rlnas.supernet import Supernet
from rlnas.supernet.ranks import device_of_rank

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from rlnas.run.folder import RunFolder
    from rlnas.run.job import Job, Torchrun
    from rlnas.space import LayerwiseSpace

logger = logging.getLogger(__name__)

GRACE_SECONDS = 10.0
"""How long torchrun may take to end its processes before it is killed."""


def check_devices(job: Job) -> None:
    """Refuse more processes than GPUs, before anything is done.

    Raises:
        DeviceError: If there are fewer GPUs from the job's device on.
    """
    if job.torchrun is not None:
        device_of_rank(job.device, job.torchrun.nproc - 1)


def train_by_torchrun(
    job: Job,
    torchrun: Torchrun,
    supernet: Supernet,
    space: LayerwiseSpace,
    folder: RunFolder,
    *,
    progress: bool,
) -> Supernet:
    """What `rlnas.run.training.train_supernet` does, on several ranks; the supernet that comes out.

    Args:
        job: How to train.
        torchrun: On how many.
        supernet: That of the folder, which is returned if it is trained already.
        space: What shares its weights.
        folder: The run; its data lie there.
        progress: Whether to show bars.

    Raises:
        TrainingError: If the processes fail or die.
        RunFolderError: If what they wrote cannot be read.
    """
    if folder.supernet.is_dir():
        folder.training.unlink(missing_ok=True)  # of a run that was killed behind the training
        return supernet
    folder.checkpoints.mkdir(parents=True, exist_ok=True)
    values = {"job": describe_training(job), "space": asdict(space), "progress": progress}
    write_json(folder.training, values)
    log = folder.checkpoints / "torchrun.log"
    logger.info("training: %s on %s", torchrun, job.device.partition(":")[0])
    if torchrun.nnodes > 1:
        line = shlex.join(["torchrun", *command(torchrun, folder.path.resolve(), node_rank=1)])
        logger.info("start this on the other nodes, with their --node-rank:\n%s", line)
    try:
        code = _run(torchrun, job.device, folder.path, log)
    finally:
        folder.training.unlink(missing_ok=True)
    if code:
        raise TrainingError(f"the training on {torchrun} has failed: {reason(log, code)}")
    log.unlink()
    with folder.damage_of(folder.supernet, "train it again"):
        return Supernet.load(folder.supernet, device=job.device)


def command(torchrun: Torchrun, run: Path, node_rank: int = 0) -> list[str]:
    """The command line that trains on one node, without the interpreter.

    Args:
        torchrun: On how many processes and nodes.
        run: Folder of the run.
        node_rank: Number of the node; the run itself is on node 0, whose processes are the first ranks.
    """
    nodes = ["--standalone"]
    if torchrun.nnodes > 1:
        nodes = ["--nnodes", str(torchrun.nnodes), "--node-rank", str(node_rank)]
        nodes += ["--rdzv-backend", "static", "--rdzv-endpoint", str(torchrun.rdzv_endpoint)]
    return [*nodes, "--nproc-per-node", str(torchrun.nproc), "-m", "rlnas.run.rank", str(run)]


def _run(torchrun: Torchrun, device: str, run: Path, log: Path) -> int:
    """Run torchrun to its end, and end it with whatever ends this; its exit code."""
    with started(torchrun, device, run, log) as process:
        return process.wait()


@contextmanager
def started(
    torchrun: Torchrun,
    device: str,
    run: Path,
    log: Path,
    *,
    node_rank: int = 0,
) -> Iterator[subprocess.Popen[bytes]]:
    """Let torchrun work on one node; it ends with the block, or with this process.

    Args:
        torchrun: On how many processes and nodes.
        device: Of the training.
        run: Folder of the run; on other nodes than the first an empty one.
        log: Where it tells what goes wrong, see `reason`.
        node_rank: Number of this node.
    """
    line = [sys.executable, "-m", "torch.distributed.run", "--log-dir", os.devnull]
    line += [*command(torchrun, run, node_rank), "--with-parent"]
    if node_rank:
        line += ["--receive", device]
    threads = {"OMP_NUM_THREADS": str(threads_per_process(torchrun.nproc, device))}
    with log.open("w") as messages:
        process = subprocess.Popen(
            line,
            stdin=subprocess.PIPE,  # a line of life: it closes when this process ends
            stdout=2,  # the bars
            stderr=messages,
            env={**os.environ, **threads},
            start_new_session=True,  # Ctrl-C is for this process, which ends the others
        )
        try:
            yield process
        finally:
            _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.stdin is not None:
        process.stdin.close()  # ends the ranks
    process.terminate()
    try:
        process.wait(GRACE_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def threads_per_process(nproc: int, device: str) -> int:
    """Threads for each of so many processes; on a CPU half of the cores are the baseline's."""
    cores = available_cores() // 2 if device == "cpu" else available_cores()
    return max(1, cores // nproc)


def reason(log: Path, code: int, where: str | None = None) -> str:
    """Why torchrun has failed with an exit code, in one sentence, from what its log holds.

    Args:
        log: Its file.
        code: The exit code.
        where: Where that can be read; by default its path.
    """
    text = log.read_text(errors="replace")
    for line in text.splitlines():
        if line.startswith(ERROR_LINE):
            return line.removeprefix(ERROR_LINE)
    signal = re.search(r"\((SIG\w+)\)", text.rpartition("Root Cause")[2])
    how = f"by {signal[1]}" if signal else f"with exit code {code}"
    why = ", perhaps for want of memory" if signal and signal[1] == "SIGKILL" else ""
    where = where or repr(str(log))
    return f"a process has ended {how}{why} (see {where}); go on from its last checkpoint with --resume"
