"""``python -m rlnas.run.rank RUN``: one of the processes that train the shared weights of a run together.

torchrun starts it, on the node of the run as on others, see `docs/guides/torchrun.md`.
"""

from __future__ import annotations

import argparse
import os
import sys
import traceback
from contextlib import redirect_stderr
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlnas.data import read_task
from rlnas.errors import ERROR_LINE, RLNASError
from rlnas.run.child import end_with_parent, training_job
from rlnas.run.folder import RunFolder, read_json
from rlnas.run.sending import check_empty, send_training
from rlnas.run.training import furthest_supernet, train_supernet
from rlnas.space import LayerOptions, LayerwiseSpace
from rlnas.supernet.ranks import joined

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


def train_rank(folder: RunFolder, receive: str | None = None) -> None:
    """Do this rank's part of a run's training; the first rank writes the weights.

    Args:
        folder: That of the run; on a node that does not see it an empty one, in which the first rank puts
            what is needed.
        receive: Device of the training on such a node; None where the folder is the run's.

    Raises:
        RunFolderError: If no training is going on in the folder, or it has to be empty and is not.
        RLNASError: One of its kinds, as of `rlnas.run.training.train_supernet`.
    """
    if receive is not None:
        check_empty(folder)
    with joined(receive or read_json(folder.training)["job"]["device"]) as ranks:
        writes = os.environ.get("LOCAL_RANK") == "0"
        send_training(folder, ranks, receives=receive is not None, writes=writes)
        values = read_json(folder.training)
        job = replace(training_job(values["job"]), device=ranks.device)
        task = read_task(folder.data)
        supernet = furthest_supernet(job, task, folder)
        ranks.wait()  # before the first one removes what others read
        with redirect_stderr(sys.stdout):  # where the run shows the bars of the first rank
            train_supernet(
                job,
                supernet,
                _space(values["space"]),
                task,
                folder,
                progress=values["progress"],
                ranks=ranks,
            )


def _space(values: Mapping[str, Any]) -> LayerwiseSpace:
    return LayerwiseSpace(
        tuple(LayerOptions(*(tuple(options) for options in layer.values())) for layer in values["layers"])
    )


def main(arguments: Sequence[str]) -> int:
    """Train; what goes wrong is one line on stderr, or a traceback where it is no error of ours.

    Returns:
        0, 2 for an error of ours, 1 for another one.
    """
    parser = argparse.ArgumentParser(prog="torchrun ... -m rlnas.run.rank", description=__doc__)
    parser.add_argument("run", type=Path, help="folder of the run, or an empty one with --receive")
    parser.add_argument(
        "--receive",
        metavar="DEVICE",
        help="on a node that does not see the run's folder: let the first process send what is needed; the "
        "device of the training, cpu or cuda",
    )
    parser.add_argument("--with-parent", action="store_true", help="end when standard input does")
    options = parser.parse_args(arguments)
    if options.with_parent:
        end_with_parent()
    try:
        train_rank(RunFolder(options.run), options.receive)
    except (RLNASError, OSError) as error:
        print(f"{ERROR_LINE}{error}", file=sys.stderr)
        return 2
    except Exception:
        traceback.print_exc()
        return 1
    return 0


if __name__ == "__main__":
    code = main(sys.argv[1:])
    sys.stdout.flush()
    sys.stderr.flush()
    # Threads of gloo may outlive the interpreter and abort a process whose work is done and written.
    os._exit(code)
