"""Write the table of a finished run into README.md, between its two marks."""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path

from rlnas.report import format_table, read_summary

START = "<!-- demo table: written by benchmarks/readme_table.py -->"
END = "<!-- end of demo table -->"


def main() -> None:
    """Replace what stands between the marks."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--run", type=Path, default=Path("runs/demo"), help="run folder")
    parser.add_argument("--readme", type=Path, default=Path("README.md"))
    options = parser.parse_args()
    summary = read_summary(options.run)
    block = f"{START}\n```\n{format_table(summary)}\n```\n{END}"
    text = options.readme.read_text(encoding="utf-8")
    if text.count(START) != 1 or text.count(END) != 1:
        parser.error(f"{options.readme} does not hold the two marks once each")
    pattern = re.compile(re.escape(START) + ".*" + re.escape(END), re.DOTALL)
    options.readme.write_text(pattern.sub(lambda _: block, text), encoding="utf-8")
    print(json.dumps({"n_lines": block.count("\n") + 1}))


if __name__ == "__main__":
    main()
