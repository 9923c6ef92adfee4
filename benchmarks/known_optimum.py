"""PPO and random search on a tabular task whose optimum is known.

"Best found" proves nothing on a small table, as every method finds it: what tells them apart is
what they propose at the end. The gap is the optimum's reward minus the mean reward of the last 64
episodes, repeats included.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.record import make_parser, record
from rlnas import LatencyTarget, LayerwiseSpace, ModelShape, search
from rlnas.controllers.evolution import EvolutionController
from rlnas.controllers.ppo import PPOController
from rlnas.controllers.random import RandomController
from rlnas.tabular import additive_task

if TYPE_CHECKING:
    import argparse

    from rlnas.protocols import Controller

CONTROLLERS: dict[str, Controller] = {
    "ppo": PPOController(),
    "evolution": EvolutionController(),
    "random": RandomController(),
}
LAST = 64


def main() -> None:
    """Run every controller with every seed and record the gaps."""
    parser = make_parser(__doc__, "known_optimum.jsonl")
    parser.add_argument("--budget", type=int, default=500, help="trials of each search")
    parser.add_argument("--seeds", type=int, default=10, help="number of seeds")
    parser.add_argument("--first-seed", type=int, default=100, help="the first of them")
    options = parser.parse_args()
    first = options.first_seed
    seeds = range(first, first + (2 if options.quick else options.seeds))
    figures = {name: _gaps(controller, options, seeds) for name, controller in CONTROLLERS.items()}
    for name, row in figures.items():
        print(
            f"{name:<10} last {LAST} episodes: mean gap {row['mean_gap']:.4f}, worst {row['worst_gap']:.4f}"
        )
    record("known_optimum", options, figures)


def _gaps(controller: Controller, options: argparse.Namespace, seeds: range) -> dict[str, Any]:
    gaps, counts = [], []
    for seed in seeds:
        # Six positions of five options, as three layers of a small BERT have: 15,625 subnets.
        space = LayerwiseSpace.for_model(ModelShape(3, 12, 1536, 384))
        task = additive_task(space, seed=seed)
        result = search(space, task, LatencyTarget(ratio=0.5), controller, budget=options.budget, seed=seed)
        reference_ms = float(task.latency([space.largest()])[0])
        optimum = task.optimum(LatencyTarget(ratio=0.5).resolve(reference_ms))[1]
        gaps.append(optimum - float(np.mean(result.episode_rewards[-LAST:])))
        counts.append(len(result.trials))
    return {"mean_gap": float(np.mean(gaps)), "worst_gap": max(gaps), "gaps": gaps, "n_trials": counts}


if __name__ == "__main__":
    main()
