"""``python -m rlnas.run.node``: another node's part in a training, of which it has nothing to begin with.

The first process of the training sends what is needed; see `docs/guides/torchrun.md`.
"""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from rlnas.errors import ERROR_LINE
from rlnas.run.job import Torchrun
from rlnas.run.torchrun import reason, started

if TYPE_CHECKING:
    from collections.abc import Sequence

_LOOK_SECONDS = 0.2


def main(arguments: Sequence[str]) -> int:
    """Train along; what goes wrong is on stderr, its last line says why. SIGTERM ends all that was started.

    Returns:
        0, 2 where the training has failed, or 143 after SIGTERM.
    """
    parser = argparse.ArgumentParser(prog="python -m rlnas.run.node", description=__doc__)
    parser.add_argument("--nproc", type=int, required=True, help="processes of each node")
    parser.add_argument("--nnodes", type=int, required=True, help="nodes in all")
    parser.add_argument("--node-rank", type=int, required=True, help="number of this node, from 1")
    parser.add_argument("--rdzv-endpoint", required=True, help="HOST:PORT where the nodes meet")
    parser.add_argument("--device", required=True, help="of the training, cpu or cuda")
    options = parser.parse_args(arguments)
    stops: list[int] = []  # an exception in the handler might come while a process is being started
    signal.signal(signal.SIGTERM, lambda number, _: stops.append(number))
    torchrun = Torchrun(options.nproc, options.nnodes, options.rdzv_endpoint)
    with tempfile.TemporaryDirectory(prefix="rlnas-") as folder:
        log, run = Path(folder) / "torchrun.log", Path(folder) / "run"
        with started(torchrun, options.device, run, log, node_rank=options.node_rank) as process:
            while (code := process.poll()) is None and not stops:
                time.sleep(_LOOK_SECONDS)
        if stops:
            return 128 + signal.SIGTERM
        if code:
            print(log.read_text(errors="replace"), end="", file=sys.stderr)  # it goes with the folder
            print(f"{ERROR_LINE}{reason(log, code, 'its own words above')}", file=sys.stderr)
            return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
