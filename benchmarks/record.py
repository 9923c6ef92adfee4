"""What every benchmark script shares: its two flags, and its JSON line with commit and versions."""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from rlnas.latency import describe_device

PACKAGES = ("rlnas", "torch", "transformers", "stable-baselines3", "gymnasium", "numpy")


def make_parser(description: str | None, results: str) -> argparse.ArgumentParser:
    """A parser that knows ``--quick`` and ``--out``; unknown and shortened flags are errors."""
    parser = argparse.ArgumentParser(
        description=description,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--quick", action="store_true", help="a reduced run of under a minute")
    parser.add_argument(
        "--out", type=Path, default=Path("runs/benchmarks") / results, help="JSON lines to append to"
    )
    # Of the code that runs: by the end of a long run the checkout may have moved on.
    parser.set_defaults(commit=_commit())
    return parser


def record(
    benchmark: str, options: argparse.Namespace, figures: dict[str, Any], device: str = "cpu"
) -> None:
    """Append one line to ``--out`` and print the figures as one JSON object, the last line of output."""
    settings = {
        name: _plain(value) for name, value in vars(options).items() if name not in ("out", "commit")
    }
    line = {
        "benchmark": benchmark,
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "commit": options.commit,
        "versions": {name: _version(name) for name in PACKAGES} | {"python": platform.python_version()},
        "device": str(describe_device(device)),
        "settings": settings,
        "figures": figures,
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    with options.out.open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")
    print(json.dumps(figures), flush=True)


def _plain(value: object) -> object:
    """Paths lose their folders, which say more of the machine than of the benchmark."""
    return value.name if isinstance(value, Path) else value


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _commit() -> str | None:
    """The commit of the checkout, marked ``-dirty`` where files differ from it, but for these results."""
    commit = _git("rev-parse", "--short=12", "HEAD")
    changes = _git("status", "--porcelain", "--untracked-files=no", "--", ".", ":!benchmarks/results")
    return f"{commit}-dirty" if commit and changes else commit


def _git(*arguments: str) -> str | None:
    root = Path(__file__).parents[1]
    try:
        answer = subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, check=False)
    except FileNotFoundError:  # no git on this machine
        return None
    return answer.stdout.strip() or None
