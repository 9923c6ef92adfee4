"""Which search method finds the best subnet within a budget of true evaluations.

On rlnas-bench, where every subnet is known: methods see one random half of the items, and their choice
is judged on the other half. Regret at a target is the best accuracy within that latency, minus that of
the choice. The choice is made for every method in the same way: of what it has evaluated within the
target, the best by the accuracies that a surrogate expects, fitted to these trials alone (as `rlnas search`
chooses); the best by what was seen stands beside it as ``observed``. All budgets are prefixes of
one history. Searches for fewer trials would begin alike, but for plain PPO, which plans its exploration
for the whole budget, and for surrogates, whose start takes no more than half of it. Every cell (task,
method, seed, part) is kept in ``--cells`` as soon as it is done: a run that was stopped goes on, and parts
can be run apart, also at the same time.

Parts: ``single``, one search for one target; ``one``, one search for seven targets; ``each``, a search
for each of the seven. Plain PPO knows one target only, also where seven are served.
"""

from __future__ import annotations

import itertools
import json
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from benchmarks.arenas import Arena, KnowingEvaluator, area, full_ms, load_arenas
from benchmarks.quality_figures import figures_of, write_plots
from benchmarks.record import make_parser, record
from benchmarks.search_methods import METHODS, PROPOSERS, QUICK, Proposer
from rlnas import LatencyTarget, search
from rlnas.controllers.surrogate import expected_accuracies
from rlnas.pareto import is_pareto_optimal

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    import numpy.typing as npt

    from rlnas.history import Result
    from rlnas.metrics import Metrics
    from rlnas.protocols import Controller, LatencyModel
    from rlnas.space import SearchSpace, SubnetConfig
    from rlnas.trial import Trial

    FloatArray = npt.NDArray[np.float64]

BENCH = Path(__file__).parent / "data" / "rlnas_bench"
CHECKPOINTS = (25, 50, 100, 150, 250, 350, 500)
"""Numbers of trials at which a history is looked at; a search for `MAX_BUDGET` trials has all of them."""
MAX_BUDGET = 500
TARGETS = (0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8)
PARTS = ("single", "one", "each")
QUICK_SETTINGS = {"seeds": 3, "budget": 100, "parts": ["single", "one"]}


def main() -> None:
    """Run the cells that are missing, then say what all of them come to."""
    options = _options()
    torch.set_num_threads(1)
    arenas = load_arenas(options.bench, options.tasks, options.latency)
    arenas = arenas[:1] if options.quick else arenas
    seeds = range(options.first_seed, options.first_seed + options.seeds)
    wanted = list(itertools.product(arenas, options.parts, seeds, options.methods))
    done = read_cells(options.cells)
    for number, (arena, part, seed, method) in enumerate(wanted, start=1):
        settings = _settings(arena, part, seed, method, options)
        key = json.dumps(settings)
        if key not in done:
            done[key] = {
                **settings,
                **_cell(arena, part, seed, method, options),
                "commit": options.commit,
            }
            append_cell(options.cells, done[key])
            print(f"{number}/{len(wanted)}: {_summary(done[key])}", flush=True)
    if options.cells_only:
        print(json.dumps({"cells": len(wanted)}))
        return
    cells = [done[json.dumps(_settings(a, p, s, m, options))] for a, p, s, m in wanted]
    figures = figures_of(cells, [n for n in CHECKPOINTS if n <= options.budget])
    write_plots(figures, options.plots or options.out.parent)
    record("search_quality", options, figures)


def _options() -> argparse.Namespace:
    parser = make_parser(__doc__, "search_quality.jsonl")
    parser.add_argument("--tasks", nargs="+", help="by default all in --bench; with --quick the first one")
    parser.add_argument("--methods", nargs="+", choices=METHODS, help="by default all")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--seeds", type=int, default=20, help="number of seeds")
    parser.add_argument("--first-seed", type=int, default=100, help="the first of them")
    parser.add_argument("--target", type=float, default=0.5, help="of the single target, as a ratio")
    parser.add_argument("--budget", type=int, default=MAX_BUDGET, help="true evaluations of a search")
    parser.add_argument("--latency", help="name of the latency; by default the first of each bench")
    parser.add_argument("--bench", type=Path, default=BENCH, help="folder of the benches")
    parser.add_argument("--cells", type=Path, default=Path("runs/cache/search_quality.jsonl"))
    parser.add_argument("--cells-only", action="store_true", help="run cells, but say nothing about them")
    parser.add_argument("--plots", type=Path, help="folder of the plots; by default beside --out")
    options = parser.parse_args()
    if options.quick:
        vars(options).update(QUICK_SETTINGS)
    if options.budget < CHECKPOINTS[0]:
        parser.error(f"--budget must be at least {CHECKPOINTS[0]} trials, but got {options.budget}")
    if options.methods is None:
        options.methods = [m for m in METHODS if not options.quick or m in QUICK]
    return options


def _settings(
    arena: Arena, part: str, seed: int, method: str, options: argparse.Namespace
) -> dict[str, Any]:
    """What a cell is found again by; the code is not in it, but each cell names its commit."""
    return {
        "task": arena.name,
        "latency": options.latency,
        "part": part,
        "target": options.target if part == "single" else None,
        "budget": options.budget,
        "seed": seed,
        "method": method,
    }


def read_cells(path: Path) -> dict[str, dict[str, Any]]:
    """Cells by their settings; a last line that was cut short by a kill is left out."""
    cells = {}
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else ():
        try:
            cell = json.loads(line)
        except ValueError:
            continue
        names = ("task", "latency", "part", "target", "budget", "seed", "method")
        cells[json.dumps({name: cell[name] for name in names})] = cell
    return cells


def append_cell(path: Path, cell: dict[str, Any]) -> None:
    """Keep a cell."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab+") as file:
        end = file.seek(0, os.SEEK_END)
        file.seek(max(0, end - 1))
        torn = b"" if file.read(1) in (b"", b"\n") else b"\n"  # a kill cut the line before this one short
        file.write(torn + json.dumps(cell).encode() + b"\n")  # one write: processes may share the file


def _summary(cell: dict[str, Any]) -> str:
    regrets = [
        found["optimum"] - found["smoothed"][str(max(map(int, found["smoothed"])))]
        for found in cell["targets"].values()
    ]
    ms = 1e3 * cell["controller_seconds"] / max(1, cell["n_trials"])
    return (
        f"{cell['task']}, {cell['part']}, seed {cell['seed']}, {cell['method']}: "
        f"regret {np.mean(regrets):.4f}, {ms:.1f} ms a trial"
    )


def _cell(arena: Arena, part: str, seed: int, method: str, options: argparse.Namespace) -> dict[str, Any]:
    """What one method finds with one seed."""
    ratios = reachable(arena)
    if part == "single":
        return _found(arena, seed, method, options.budget, options.target, ())
    if part == "one":
        return _found(arena, seed, method, options.budget, middle(ratios), ratios)
    cells = [_found(arena, seed, method, options.budget, ratio, ()) for ratio in ratios]
    return {
        "targets": {name: found for cell in cells for name, found in cell["targets"].items()},
        "truth": arena.truth(seed),
        "n_trials": sum(cell["n_trials"] for cell in cells),
        "controller_seconds": sum(cell["controller_seconds"] for cell in cells),
    }


def reachable(arena: Arena, ratios: Sequence[float] = TARGETS) -> tuple[float, ...]:
    """The targets that the smallest subnet meets."""
    smallest_ms = float(np.asarray(arena.latency([arena.space.smallest()]))[0])
    return tuple(ratio for ratio in ratios if smallest_ms <= ratio * full_ms(arena))


def middle(ratios: Sequence[float]) -> float:
    """The target of the rewards of a search that serves several."""
    return ratios[len(ratios) // 2]


class _Watch:
    """An evaluator that says what was not spent by the controller."""

    def __init__(self, inner: KnowingEvaluator) -> None:
        self._inner = inner
        self.seconds = 0.0

    @property
    def latency(self) -> LatencyModel:
        return self._inner.latency

    @property
    def importance(self) -> FloatArray | None:
        return self._inner.importance

    def kept_importance(self, configs: Sequence[SubnetConfig], /) -> Sequence[float]:
        return self._inner.kept_importance(configs)

    def __call__(self, configs: Sequence[SubnetConfig], /) -> Sequence[Metrics]:
        started = time.process_time()
        answers = self._inner(configs)
        self.seconds += time.process_time() - started
        return answers


def _found(
    arena: Arena, seed: int, method: str, budget: int, ratio: float, served: Sequence[float]
) -> dict[str, Any]:
    """One search, for one target or for several."""
    evaluator = _Watch(arena.evaluator(seed))
    controller = METHODS[method]()
    started = time.process_time()
    result = search(
        arena.space,
        evaluator,
        LatencyTarget(ratio=ratio),
        controller,
        budget=budget,
        seed=seed,
        target_ratios=served,
    )
    seconds = time.process_time() - started - evaluator.seconds
    looks = [n for n in CHECKPOINTS if n <= budget]
    trials = Judged(arena, result, seed)
    cell = {
        "targets": {str(target): trials.choice(target, looks) for target in served or (ratio,)},
        "area": {str(n): trials.area(n) for n in looks},
        "best_area": arena.best_area(seed),
        "truth": arena.truth(seed),
        "n_trials": len(result.trials),
        "controller_seconds": seconds,
    }
    if served:
        cell["proposed"] = {
            variant: {
                str(target): judged_proposal(arena, seed, controller, result, propose, target)
                for target in served
            }
            for variant, propose in PROPOSERS.get(method, {}).items()
        }
    return cell


def best_within(
    space: SearchSpace, trials: Sequence[Trial], values: FloatArray, target_ms: float
) -> SubnetConfig:
    """The subnet of the highest value within a latency, the earlier of equal ones, else the smallest."""
    within = [i for i, trial in enumerate(trials) if trial.metrics.latency_ms <= target_ms]
    # max gives the first of equal ones
    return trials[max(within, key=values.__getitem__)].config if within else space.smallest()


class Judged:
    """A history in the eyes of the judge."""

    def __init__(self, arena: Arena, result: Result, seed: int) -> None:
        self._arena, self._seed = arena, seed
        self._seen = np.array([trial.metrics.accuracy for trial in result.trials])
        self._ms = np.array([trial.metrics.latency_ms for trial in result.trials])
        self._true = arena.judge([trial.config for trial in result.trials], seed)
        self._expected: dict[int, FloatArray] = {}
        self._trials = result.trials

    def expected_after(self, n: int) -> FloatArray:
        """Accuracies that a surrogate, fitted to the first n trials alone, expects of them."""
        if n not in self._expected:
            kept = self._arena.evaluator(self._seed).kept_importance
            self._expected[n] = expected_accuracies(self._arena.space, self._trials[:n], kept)
        return self._expected[n]

    def choice(self, ratio: float, looks: Sequence[int]) -> dict[str, Any]:
        """Accuracy that counts of what is chosen for a target after some numbers of trials.

        The choice is the best of what a surrogate expects (``smoothed``), or on what methods see
        (``observed``), the earlier of equal ones; without any trial within the target it is the smallest
        subnet. What was seen of the best, and the best that could have been seen, stand beside
        it: how well the method searches, apart from how far what it sees can be trusted.
        """
        target_ms = ratio * full_ms(self._arena)
        fits = self._ms <= target_ms
        smallest_config = self._arena.space.smallest()
        smallest = float(self._arena.judge([smallest_config], self._seed)[0])
        smallest_seen = self._arena.evaluator(self._seed)([smallest_config])[0].accuracy
        observed, smoothed, best, seen = {}, {}, {}, {}
        for n in looks:
            within = np.flatnonzero(fits[:n])
            for values, found in ((self._seen, observed), (self.expected_after(n), smoothed)):
                at = within[values[within].argmax()] if len(within) else None
                found[str(n)] = smallest if at is None else float(self._true[at])
            best[str(n)] = float(self._true[within].max()) if len(within) else smallest
            seen[str(n)] = float(self._seen[within].max()) if len(within) else smallest_seen
        optimum = self._arena.optimum(target_ms, self._seed)
        exhaustive = self._arena.exhaustive(target_ms, self._seed)
        return {
            "observed": observed,
            "smoothed": smoothed,
            "best_seen": best,
            "optimum": optimum,
            "exhaustive": exhaustive,
            "seen": seen,
            "seen_optimum": self._arena.seen_optimum(target_ms, self._seed),
        }

    def area(self, n: int) -> float:
        """Hypervolume, as the judge sees it, of the front that the method sees."""
        costs = np.stack([self._ms[:n], -self._seen[:n]], axis=1)
        front = np.flatnonzero(is_pareto_optimal(costs))
        return area(self._ms[front], self._true[front], self._arena)


def judged_proposal(
    arena: Arena, seed: int, controller: Controller, result: Result, propose: Proposer, ratio: float
) -> dict[str, float]:
    """What a trained method proposes for a target."""
    target_ms = ratio * full_ms(arena)
    started = time.perf_counter()
    config = propose(controller, result, target_ms)
    seconds = time.perf_counter() - started
    latency_ms = float(np.asarray(arena.latency([config]))[0])
    return {
        "accuracy": float(arena.judge([config], seed)[0]),
        "latency_ratio": latency_ms / target_ms,
        "optimum": arena.optimum(target_ms, seed),
        "seconds": seconds,
    }


if __name__ == "__main__":
    main()
