"""The command line: names become objects here, and errors become one line.

There is a file per command (``search``, ``calibrate``, ...), one per group of flags that commands share
(``checkpoint``, ``task``, ``workload``), and ``program``, which runs a command. Heavy packages are
imported inside functions, so that ``--help`` answers at once.
"""

from __future__ import annotations

from rlnas.cli.checkpoint import MINILM_PACKAGE, minilm_path
from rlnas.cli.job import make_controller, make_racing
from rlnas.cli.program import main
from rlnas.cli.rewards import make_reward

__all__ = ["MINILM_PACKAGE", "main", "make_controller", "make_racing", "make_reward", "minilm_path"]
