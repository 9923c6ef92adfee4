"""`python -m rlnas` is the command `rlnas`."""

import sys

from rlnas.cli import main

if __name__ == "__main__":
    sys.exit(main())
