"""Timing in a process of its own, which has not trained or evaluated anything.

What a process has done before lays its memory out otherwise, and the latencies of large and small models
change by different factors, the same for as long as the process lives. A model is served by a process
that did nothing else, so that is where it is timed. Messages are pickles between this process and its own
child.
"""

from __future__ import annotations

import io
import os
import pickle
import signal
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, ParamSpec, TypeVar, cast

import torch

from rlnas.errors import RunFolderError
from rlnas.run.messages import TIMED, MessagePickler, MessageUnpickler, tried, value_of
from rlnas.supernet import Supernet
from rlnas.supernet.timing import TimedPrecisions

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from rlnas.workload import Workload

P = ParamSpec("P")
T = TypeVar("T")

WORTH_A_PROCESS = 1_000_000
"""Parameters of a model below which starting a process takes longer than it is worth."""


@dataclass(frozen=True, slots=True)
class Setting:
    """What the process needs to time subnets of a supernet.

    Attributes:
        supernet: Folder of the supernet.
        workload: What is asked of the full model.
        precisions: Those that subnets may have.
        device: Where they run.
        n_threads: Of PyTorch, where nothing is timed.
    """

    supernet: Path
    workload: Workload
    precisions: tuple[str, ...]
    device: str
    n_threads: int

    def timed(self) -> TimedPrecisions:
        """The supernet, ready to be timed."""
        supernet = Supernet.load(self.supernet, device=self.device)
        return TimedPrecisions(supernet, self.workload, self.precisions, self.device)


class Apart:
    """Calls functions in a process of its own; here, where the model is small or on a GPU.

    Args:
        timed: See below.
        setting: Of that.
        n_params: Parameters of the full model.

    Attributes:
        timed: What functions get that time; the process has its own in its place.
    """

    def __init__(self, timed: TimedPrecisions, setting: Setting, n_params: int) -> None:
        self.timed = timed
        self._process: subprocess.Popen[bytes] | None = None
        if setting.device == "cpu" and n_params >= WORTH_A_PROCESS:
            command = [sys.executable, "-c", "from rlnas.run.apart import main; main()"]
            self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
            self._send(self._process, setting)

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()

    def call(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """What the function returns or raises.

        Args:
            function: Of a module, by whose name it is found.
            args: May hold `timed`.
            kwargs: Likewise.

        Raises:
            RunFolderError: If the process has died.
        """
        if self._process is None:
            return function(*args, **kwargs)
        self._send(self._process, (function, args, kwargs))
        try:
            answer = pickle.load(cast("IO[bytes]", self._process.stdout))
        except EOFError as error:
            code = self._process.wait()
            raise RunFolderError(
                f"the process that times models has died (exit code {code}), perhaps for want of memory; "
                "go on with --resume"
            ) from error
        result: T = value_of(answer)
        return result

    def _send(self, process: subprocess.Popen[bytes], message: object) -> None:
        requests, buffer = cast("IO[bytes]", process.stdin), io.BytesIO()
        MessagePickler(buffer, lambda obj: TIMED if obj is self.timed else None).dump(message)
        with suppress(BrokenPipeError):  # the answer says that it has died
            requests.write(buffer.getvalue())
            requests.flush()


def serve(requests: IO[bytes], answers: IO[bytes]) -> None:
    """Answer calls until there are no more: what the process does.

    Args:
        requests: A `Setting`, then functions with their arguments.
        answers: For each whether it has returned, and what; or what it has raised.
    """
    setting: Setting = pickle.load(requests)
    torch.set_num_threads(setting.n_threads)
    timed = setting.timed()
    while True:
        try:
            function, args, kwargs = MessageUnpickler(requests, lambda _: timed).load()
        except EOFError:
            return
        pickle.dump(tried(function, *args, **kwargs), answers)
        answers.flush()


def main() -> None:
    """Serve on standard input and output; an interrupt is for the process that started this one."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    channel = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what anything prints is no answer
    serve(sys.stdin.buffer, channel)
