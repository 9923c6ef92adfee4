"""The search of a container, or another host's part in it: a process of its own, as on the command line.

The process that watches it copies and hashes files meanwhile, and what else goes on in a process shows in
the processor time by which latencies are measured.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from typing import IO, TYPE_CHECKING, cast

from rlnas.errors import ERROR_LINE

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

GRACE_SECONDS = 10.0
"""Time that a search has to end by itself once it is asked to."""

_BAR_SECONDS = "30"


class Child:
    """A running ``rlnas search``; what it writes goes where this process writes.

    Args:
        arguments: Of the command line, without ``rlnas``.
        environ: Variables of the process.
        module: What runs in the place of ``rlnas``.
    """

    def __init__(self, arguments: Sequence[str], environ: Mapping[str, str], module: str = "rlnas") -> None:
        # Bars are for terminals; a log needs few of their lines.
        environ = {"TQDM_MININTERVAL": _BAR_SECONDS, **environ}
        command = [sys.executable, "-m", module, *arguments]
        # A group of its own, so that what it has started ends with it.
        self._process = subprocess.Popen(command, stderr=subprocess.PIPE, env=environ, process_group=0)
        self._last = self._reason = ""
        self._echo = threading.Thread(
            target=self._repeat, args=(cast("IO[bytes]", self._process.stderr),), daemon=True
        )
        self._echo.start()

    def wait(self, seconds: float) -> int | None:
        """Exit code of the process if it ends within so many seconds, else None."""
        try:
            code = self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return None
        self._echo.join(GRACE_SECONDS)  # what it has started may hold its output open for longer
        return code

    def end(self) -> None:
        """Stop the process and all that it has started, whatever they do: what is committed stays."""
        self._signal(signal.SIGTERM)
        self.wait(GRACE_SECONDS)
        self._signal(signal.SIGKILL)
        self.wait(GRACE_SECONDS)

    def failure(self, code: int) -> str:
        """Why the process ended with a code other than 0, a sentence."""
        if code < 0:
            name = signal.Signals(-code).name
            reason = ", perhaps for want of memory" if name == "SIGKILL" else ""
            return f"the search was ended by {name}{reason}; launch it again with --resume"
        return self._reason or self._last or f"the search ended with exit code {code}"

    def _signal(self, number: int) -> None:
        with suppress(ProcessLookupError):  # all have ended
            os.killpg(self._process.pid, number)

    def _repeat(self, lines: IO[bytes]) -> None:
        """Pass on what the process says, and remember its last line and its last sentence of an error."""
        with lines:
            for line in lines:
                os.write(2, line)
                text = line.decode(errors="replace").rsplit("\r", 1)[-1].strip()
                self._last = text or self._last
                if text.startswith(ERROR_LINE):
                    self._reason = text.removeprefix(ERROR_LINE)
