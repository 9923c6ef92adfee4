"""Runs a command; errors become one line and an exit code."""

from __future__ import annotations

import logging
import os
import sys
from typing import TYPE_CHECKING

from rlnas.cli.auto import run_auto
from rlnas.cli.demo import run_demo
from rlnas.cli.finetune import run_finetune
from rlnas.cli.parser import make_parser
from rlnas.cli.search import run_search
from rlnas.errors import ERROR_LINE, RLNASError

if TYPE_CHECKING:
    from collections.abc import Sequence

BAD_INPUT = 2
INTERRUPTED = 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        argv: Arguments without the program's name; by default those of the process.

    Returns:
        0, or 1 if `certify` finds a target missed or an `audit` fails, 2 for bad input, 130 after Ctrl-C.
    """
    options = make_parser().parse_args(argv)
    code = 0
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    logging.getLogger("rlnas").setLevel(logging.INFO)
    # The hub's client repeats what its error says; loggers keep a level that the environment names.
    os.environ.setdefault("HF_HUB_VERBOSITY", "error")
    try:
        code = options.run(options) or 0
        sys.stdout.flush()  # here, where a reader that has gone is told from an error
    except KeyboardInterrupt:
        advice = ""
        if options.run in (run_search, run_auto, run_demo):
            advice = "; nothing scored is lost: go on with --resume"
        elif options.run is run_finetune:
            advice = "; go on with --resume"
        print(f"interrupted{advice}", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:  # the reader of our output has gone, e.g. `rlnas report RUN | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (RLNASError, ValueError, OSError) as error:
        if not isinstance(error, RLNASError | OSError) and os.environ.get("RLNAS_TRACEBACK"):
            raise
        print(f"{ERROR_LINE}{error}", file=sys.stderr)
        return BAD_INPUT
    return code
