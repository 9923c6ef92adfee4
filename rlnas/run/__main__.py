"""``python -m rlnas.run FOLDER`` trains the baseline of a run; the run itself starts it."""

from __future__ import annotations

import sys

from rlnas.run.baseline import train_baseline_of
from rlnas.run.child import end_with_parent

if __name__ == "__main__":
    end_with_parent()
    sys.exit(train_baseline_of(sys.argv[1]))
