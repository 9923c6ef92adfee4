"""Whether judging subnets keeps to the bound on memory that the evaluator states, with 100,000 items.

The items are synthetic. Peak memory is that of this process, from the operating system, and so includes
whatever the libraries take on the way.
"""

from __future__ import annotations

import gc
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from benchmarks.record import make_parser, record
from benchmarks.sst2 import operations_latency
from rlnas import ChoiceSpace
from rlnas.cli import minilm_path
from rlnas.evaluation import SupernetEvaluator
from rlnas.supernet import Supernet
from rlnas.task import Split, Task

if TYPE_CHECKING:
    from rlnas.space import SubnetConfig

WORDS = ("the", "film", "was", "never", "dull", "but", "its", "plot", "made", "no", "sense", "at", "all")


def main() -> None:
    """Judge a few subnets on very many items and record peak and bound."""
    parser = make_parser(__doc__, "memory.jsonl")
    parser.add_argument("--items", type=int, default=100_000, help="items")
    options = parser.parse_args()
    if options.quick:
        options.items = 5_000
    torch.set_num_threads(1)
    supernet = Supernet.from_pretrained(minilm_path(), None)
    task = _task(options.items)
    latency, configs = operations_latency(supernet, task), _configs(supernet)
    evaluator = SupernetEvaluator(supernet, task, latency)
    # What libraries allocate once is no part of the bound.
    few = task.search.take(np.arange(1000))
    SupernetEvaluator(supernet, replace(task, search=few), latency).predict(configs)
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # the peak is what is taken from here on
    before = _kilobytes("VmRSS")
    evaluator.predict(configs)
    grown = 1024 * (_kilobytes("VmHWM") - before)
    bound = evaluator.memory_bound(configs)
    figures = {
        "n_items": options.items,
        "n_configs": len(configs),
        "peak_bytes": grown,
        "bound_bytes": bound,
        "within_bound": grown <= bound,
        "padding_share": evaluator.padding_share,
        "traversal": evaluator.traversal,
    }
    record("memory", options, figures)
    if grown > bound:
        raise SystemExit(1)


def _configs(supernet: Supernet) -> list[SubnetConfig]:
    """All choices of the first layer, nothing after it: wide blocks side by side at little cost."""
    space = ChoiceSpace.for_model(supernet.shape)
    return [space.decode([first] + [0] * (len(space.nvec) - 1)) for first in range(space.nvec[0])]


def _task(n_items: int) -> Task:
    rng = np.random.default_rng(0)
    lengths = rng.integers(2, 14, size=n_items)
    words = rng.choice(WORDS, size=int(lengths.sum()))
    texts = tuple(" ".join(part) for part in np.split(words, np.cumsum(lengths)[:-1]))
    search = Split("texts", texts, None, rng.integers(2, size=n_items))
    few = search.take(np.arange(10))
    return Task("memory", few, search, few, ("one", "two"))


def _kilobytes(field: str) -> int:
    for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
        if line.startswith(field):
            return int(line.split()[1])
    raise SystemExit(f"this system does not tell {field}; the benchmark needs Linux")


if __name__ == "__main__":
    main()
