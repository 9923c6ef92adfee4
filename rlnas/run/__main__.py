"""``python -m rlnas.run FOLDER`` trains the baseline of a run; the run itself starts it."""

from __future__ import annotations

import os
import sys
import threading

from rlnas.run.baseline import train_baseline_of


def end_with_parent() -> None:
    """Standard input ends when the process that started this one does, however that ends."""
    sys.stdin.read()
    os._exit(1)


if __name__ == "__main__":
    threading.Thread(target=end_with_parent, daemon=True).start()
    sys.exit(train_baseline_of(sys.argv[1]))
