"""Write tables into README.md, between their marks: of a finished run, or of a benchmark's last line."""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path
from typing import Any

from rlnas.report import format_table, read_summary

EVALUATION = Path(__file__).parent / "results" / "evaluation.jsonl"
LISTS = {
    "random": "256 random ones",
    "ppo25": "256 that PPO proposes after 25 % of a search",
    "ppo75": "256 that PPO proposes after 75 % of a search",
    "all": "all 4,096 of the space",
}


def main() -> None:
    """Replace what stands between the marks."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--table", choices=["demo", "evaluation"], default="demo", help="which table")
    parser.add_argument("--run", type=Path, default=Path("runs/demo"), help="run folder of the demo table")
    parser.add_argument("--results", type=Path, default=EVALUATION, help="results of the benchmark")
    parser.add_argument("--readme", type=Path, default=Path("README.md"))
    options = parser.parse_args()
    if options.table == "demo":
        block = f"```\n{format_table(read_summary(options.run))}\n```"
    else:
        lines = map(json.loads, options.results.read_text(encoding="utf-8").splitlines())
        block = evaluation_table([line for line in lines if "us_per_token_all" in line["figures"]][-1])
    start = f"<!-- {options.table} table: written by benchmarks/readme_table.py -->"
    end = f"<!-- end of {options.table} table -->"
    text = options.readme.read_text(encoding="utf-8")
    if text.count(start) != 1 or text.count(end) != 1:
        parser.error(f"{options.readme} does not hold the two marks of {options.table} once each")
    pattern = re.compile(re.escape(start) + ".*" + re.escape(end), re.DOTALL)
    block = f"{start}\n{block}\n{end}"
    options.readme.write_text(pattern.sub(lambda _: block, text), encoding="utf-8")
    print(json.dumps({"n_lines": block.count("\n") + 1}))


def evaluation_table(line: dict[str, Any]) -> str:
    """Microseconds per subnet and token of every way, and how much cheaper the last one is."""
    figures = line["figures"]
    rows = [
        "| subnets of a 4-option space | masks | extracted | rlnas | against masks | against extracted |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for name, words in LISTS.items():
        times = figures[f"us_per_token_{name}"]
        cells = [f"{times[way]:.0f}" for way in ("masks", "extracted", "rlnas")]
        cells += [f"{figures[f'vs_{rival}_{name}']:.1f} x" for rival in ("masks", "extracted")]
        rows.append(f"| {words} | {' | '.join(cells)} |")
    note = (
        f"\nMicroseconds of one thread per subnet and token, and medians of {line['settings']['repeats']} "
        f"interleaved ratios; masks in float32, the others in {figures['precision']}; "
        f"{figures['n_items']} search items of sst2, MiniLM, {line['device']}, commit "
        f"{line['commit']}."
    )
    return "\n".join([*rows, note])


if __name__ == "__main__":
    main()
