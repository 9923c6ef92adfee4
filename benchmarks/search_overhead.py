"""What a search by PPO spends on anything but judging subnets: policy, environment, history.

Real MiniLM on sst2, 872 search items, the default space, no racing, a history on disk.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from benchmarks.record import make_parser, record
from benchmarks.sst2 import load_searched, operations_latency
from rlnas import LatencyTarget, LayerwiseSpace, search
from rlnas.controllers.ppo import PPOController
from rlnas.evaluation import SupernetEvaluator

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rlnas.metrics import Metrics
    from rlnas.space import SubnetConfig


class _Timed:
    """An evaluator with a stopwatch."""

    def __init__(self, evaluator: SupernetEvaluator) -> None:
        self.evaluator = evaluator
        self.latency, self.importance = evaluator.latency, evaluator.importance
        self.seconds = 0.0

    def __call__(self, configs: Sequence[SubnetConfig]) -> list[Metrics]:
        start = time.perf_counter()
        metrics = self.evaluator(configs)
        self.seconds += time.perf_counter() - start
        return metrics


def main() -> None:
    """Run one search and record where its time went."""
    parser = make_parser(__doc__, "search_overhead.jsonl")
    parser.add_argument("--data", type=Path, required=True, help="folder that holds the folder sst2")
    parser.add_argument("--cache", type=Path, default=Path("runs/cache"), help="trained weights, kept")
    parser.add_argument("--items", type=int, default=872, help="search items")
    parser.add_argument("--budget", type=int, default=200, help="trials")
    options = parser.parse_args()
    if options.quick:
        options.items, options.budget = 218, 32
    torch.set_num_threads(1)
    supernet, task = load_searched(options.data, options.cache, options.items)
    timed = _Timed(SupernetEvaluator(supernet, task, operations_latency(supernet, task)))
    space = LayerwiseSpace.for_model(supernet.shape)
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        result = search(
            space, timed, LatencyTarget(ratio=0.5), PPOController(), budget=options.budget, path=folder
        )
        total = time.perf_counter() - start
    cost = timed.evaluator.cost
    figures = {
        "overhead_share": 1 - timed.seconds / total,
        "seconds": total,
        "seconds_evaluation": timed.seconds,
        "n_trials": len(result.trials),
        "n_episodes": len(result.episode_rewards),
        "stop_reason": result.stop_reason,
        "masks_over_spent": cost.masked_flops / cost.flops,
    }
    record("search_overhead", options, figures)


if __name__ == "__main__":
    main()
