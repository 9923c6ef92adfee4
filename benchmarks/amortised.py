"""What one policy for all targets, and a warm start from another task, are worth.

On rlnas-bench, judged as in `search_quality`: methods see one half of the items, the other half counts.
The method is PPO with a surrogate; what it chooses among its trials is what its surrogate expects to be
the best. Every cell is kept in ``--cells``: a run that was stopped goes on.

Parts: ``new_targets``, one search for seven targets, then a proposal for targets between these, beside a
search made for that target alone; ``warm_start``, for each pair of tasks a search that starts from the
trials and the policy of a search on the other one. The cold run that it is compared with is the
beginning of the longer search on the same task that others start from: budgets are prefixes.
"""

from __future__ import annotations

import itertools
import json
import tempfile
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from benchmarks.arenas import Arena, full_ms, load_arenas
from benchmarks.estimates import interquartile_estimate, interquartile_mean, paired_difference
from benchmarks.record import make_parser, record
from benchmarks.search_methods import METHODS, PROPOSERS, SUBJECT
from benchmarks.search_quality import (
    BENCH,
    Judged,
    append_cell,
    best_within,
    judged_proposal,
    middle,
    reachable,
    read_cells,
)
from rlnas import LatencyTarget, search
from rlnas.controllers.surrogate import SurrogatePPOController, WarmStart

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Mapping, Sequence

    import numpy.typing as npt

    from rlnas.history import Result

    Cell = dict[str, Any]

PARTS = ("new_targets", "warm_start")
NEW_TARGETS = (0.25, 0.45, 0.65)
"""Ratios that the search for seven targets does not serve as such."""
LOOKS = (25, 50, 75, 100, 150, 250)
"""Numbers of trials at which a warm and a cold run are compared."""
STATED = 100
"""Trials in which a warm run should be as good as the whole cold one."""
TOLERANCE = 0.03
"""Latencies further from the target than this miss it."""
OVERALL = "overall"
QUICK = {"seeds": 2, "budget": 64, "warm_budget": 50}


def main() -> None:
    """Run the cells that are missing, then say what all of them come to."""
    options = _options()
    torch.set_num_threads(1)
    arenas = load_arenas(options.bench, options.tasks, options.latency)
    cells = _Cells(options)
    figures: dict[str, Any] = {}
    if "new_targets" in options.parts:
        rows = _new_targets(arenas[:1] if options.quick else arenas, cells, options)
        figures["new_targets"] = new_target_figures(rows)
    if "warm_start" in options.parts:
        pairs = [(a, b) for a, b in itertools.permutations(arenas, 2) if a.space == b.space]
        rows = _warm_starts(pairs[:1] if options.quick else pairs, cells, options)
        figures |= warm_start_figures(rows)
    record("amortised", options, figures)


def _options() -> argparse.Namespace:
    parser = make_parser(__doc__, "amortised.jsonl")
    parser.add_argument("--tasks", nargs="+", help="by default all in --bench")
    parser.add_argument("--parts", nargs="+", choices=PARTS, help="by default all; quick: the first")
    parser.add_argument("--seeds", type=int, default=20, help="number of seeds")
    parser.add_argument("--first-seed", type=int, default=100, help="the first of them")
    parser.add_argument("--budget", type=int, default=500, help="trials of a search, but for warm ones")
    parser.add_argument("--warm-budget", type=int, default=LOOKS[-1], help="trials of a warm search")
    parser.add_argument("--target", type=float, default=0.5, help="of warm and cold searches, as a ratio")
    parser.add_argument("--latency", help="name of the latency; by default the first of each bench")
    parser.add_argument("--bench", type=Path, default=BENCH, help="folder of the benches")
    parser.add_argument("--cells", type=Path, default=Path("runs/cache/amortised.jsonl"))
    options = parser.parse_args()
    if options.quick:
        vars(options).update(QUICK)
    if not LOOKS[0] <= options.warm_budget <= options.budget:
        parser.error(f"--warm-budget must be from {LOOKS[0]} to --budget, as budgets are prefixes")
    options.parts = options.parts or list(PARTS[:1] if options.quick else PARTS)
    return options


class _Cells:
    """What was found so far, and where it is kept."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._options = options
        self._done = read_cells(options.cells)

    def get(
        self, arena: Arena, part: str, seed: int, method: str, budget: int, find: Callable[[], Cell]
    ) -> Cell:
        """The cell of these settings; found now if it is missing."""
        settings = {
            "task": arena.name,
            "latency": self._options.latency,
            "part": part,
            "target": self._options.target if part == "warm_start" else None,
            "budget": budget,
            "seed": seed,
            "method": method,
        }
        key = json.dumps(settings)
        if key not in self._done:
            self._done[key] = {**settings, **find(), "commit": self._options.commit}
            append_cell(self._options.cells, self._done[key])
            print(f"{part}: {arena.name}, seed {seed}, {method}", flush=True)
        return self._done[key]


def _seeds(options: argparse.Namespace) -> range:
    return range(options.first_seed, options.first_seed + options.seeds)


def _new_targets(arenas: Sequence[Arena], cells: _Cells, options: argparse.Namespace) -> list[Cell]:
    budget = options.budget
    return [
        cells.get(arena, "new_targets", seed, SUBJECT, budget, partial(_proposed, arena, seed, budget))
        for arena, seed in itertools.product(arenas, _seeds(options))
    ]


def _proposed(arena: Arena, seed: int, budget: int) -> Cell:
    """One search for all targets and its proposals for new ones, beside a search for each of these."""
    served = reachable(arena)
    controller = METHODS[SUBJECT]()
    result = search(
        arena.space,
        arena.evaluator(seed),
        LatencyTarget(ratio=middle(served)),
        controller,
        budget=budget,
        seed=seed,
        target_ratios=served,
    )
    return {
        "targets": {
            str(ratio): {
                **{
                    variant: judged_proposal(arena, seed, controller, result, propose, ratio)
                    for variant, propose in PROPOSERS[SUBJECT].items()
                },
                "own search": _own_search(arena, seed, budget, ratio),
            }
            for ratio in reachable(arena, NEW_TARGETS)
        }
    }


def _own_search(arena: Arena, seed: int, budget: int, ratio: float) -> dict[str, float]:
    """The choice of a search made for one target alone."""
    trials = _search(arena, seed, budget, ratio, SurrogatePPOController())
    target_ms = ratio * full_ms(arena)
    expected = Judged(arena, trials, seed).expected_after(len(trials.trials))
    config = best_within(arena.space, trials.trials, expected, target_ms)
    latency_ms = float(np.asarray(arena.latency([config]))[0])
    return {"accuracy": float(arena.judge([config], seed)[0]), "latency_ratio": latency_ms / target_ms}


def _search(
    arena: Arena, seed: int, budget: int, ratio: float, controller: SurrogatePPOController
) -> Result:
    reward = LatencyTarget(ratio=ratio)
    return search(arena.space, arena.evaluator(seed), reward, controller, budget=budget, seed=seed)


class _Earlier:
    """A search on one task that others start from; done when it is first asked for."""

    def __init__(self, arena: Arena, seed: int, options: argparse.Namespace, folder: Path) -> None:
        self._arena, self._seed, self._options = arena, seed, options
        self._policy = folder / "policy"

    @cached_property
    def _result(self) -> Result:
        controller = SurrogatePPOController(save_path=self._policy)
        return _search(self._arena, self._seed, self._options.budget, self._options.target, controller)

    def cold(self) -> Cell:
        """Regrets in the beginning of this search itself."""
        return self._regrets(self._arena, self._result)

    def warm(self, arena: Arena) -> Cell:
        """Regrets of a search on another task that starts from this one."""
        start = WarmStart.of(self._result.trials, self._policy, name=self._arena.name)
        budget, target = self._options.warm_budget, self._options.target
        result = _search(arena, self._seed, budget, target, SurrogatePPOController(warm_start=start))
        return self._regrets(arena, result)

    def _regrets(self, arena: Arena, result: Result) -> Cell:
        looks = _looks(self._options)
        found = Judged(arena, result, self._seed).choice(self._options.target, looks)
        return {"regret": {n: found["optimum"] - accuracy for n, accuracy in found["smoothed"].items()}}


def _looks(options: argparse.Namespace) -> list[int]:
    return [n for n in LOOKS if n <= options.warm_budget]


def _warm_starts(
    pairs: Sequence[tuple[Arena, Arena]], cells: _Cells, options: argparse.Namespace
) -> list[Cell]:
    """Cold and warm cells; of every pair both, the source named in the method of the warm one."""
    found = []
    part, budget, last = "warm_start", options.budget, _looks(options)[-1]
    arenas = list(dict.fromkeys(arena for pair in pairs for arena in pair))
    for seed, source in itertools.product(_seeds(options), arenas):
        with tempfile.TemporaryDirectory() as folder:
            earlier = _Earlier(source, seed, options, Path(folder))
            cell = cells.get(source, part, seed, f"cold to {last}", budget, earlier.cold)
            found.append({**cell, "source": None})
            for arena in (target for of_pair, target in pairs if of_pair is source):
                method, warm = f"warm from {source.name} after {budget}", partial(earlier.warm, arena)
                cell = cells.get(arena, part, seed, method, options.warm_budget, warm)
                found.append({**cell, "source": source.name})
    return found


def new_target_figures(cells: Sequence[Cell]) -> dict[str, Any]:
    """How proposals for new targets compare with searches for them.

    Args:
        cells: Of the part, the same seeds of every task.

    Returns:
        ``difference_points[variant][scope][ratio]``: accuracy in points of the proposal minus that of the
        choice of the target's own search, ``[interquartile mean, low, high, mean]`` over seeds; the ratio
        ``"all"`` is the mean over ratios. The variant ``policy+history`` is ``propose``. ``latency`` says
        how far proposals, and the choices of own searches, are from their targets.
    """
    variants = list(PROPOSERS[SUBJECT])
    tasks = list(dict.fromkeys(cell["task"] for cell in cells))
    ratios = [str(r) for r in NEW_TARGETS if any(str(r) in cell["targets"] for cell in cells)]
    scopes = {OVERALL: tasks, **{task: [task] for task in tasks}}
    return {
        "difference_points": {
            variant: {
                scope: {
                    name: _described(_differences(cells, chosen, variant, those))
                    for name, those in {**{r: [r] for r in ratios}, "all": ratios}.items()
                }
                for scope, chosen in scopes.items()
            }
            for variant in variants
        },
        "latency": {name: _latency_figures(cells, name) for name in (*variants, "own search")},
        "seconds": {variant: _seconds(cells, variant) for variant in variants},
    }


def _differences(
    cells: Sequence[Cell], tasks: Sequence[str], variant: str, ratios: Sequence[str]
) -> list[list[float]]:
    """Of each task that can meet the targets, a number per seed."""
    by_task = [
        [
            float(
                np.mean(
                    [
                        100 * (found[variant]["accuracy"] - found["own search"]["accuracy"])
                        for ratio in ratios
                        if (found := cell["targets"].get(ratio))
                    ]
                )
            )
            for cell in cells
            if cell["task"] == task and any(ratio in cell["targets"] for ratio in ratios)
        ]
        for task in tasks
    ]
    return [row for row in by_task if row]


def _described(arrays: Sequence[npt.ArrayLike]) -> list[float] | None:
    if not arrays:
        return None
    return [*interquartile_estimate(arrays).to_list(), float(np.mean(np.concatenate(arrays)))]


def _values(cells: Sequence[Cell], name: str, key: str) -> np.ndarray:
    return np.array([found[name][key] for cell in cells for found in cell["targets"].values()])


def _latency_figures(cells: Sequence[Cell], name: str) -> dict[str, float]:
    over = _values(cells, name, "latency_ratio") - 1
    return {
        "mean_over_target": float(over.mean()),
        "lowest_over_target": float(over.min()),
        "highest_over_target": float(over.max()),
        "share_too_slow": float((over > TOLERANCE).mean()),
        "share_missed_either_way": float((np.abs(over) > TOLERANCE).mean()),
    }


def _seconds(cells: Sequence[Cell], variant: str) -> dict[str, float]:
    seconds = _values(cells, variant, "seconds")
    return {"median": float(np.median(seconds)), "largest": float(seconds.max())}


def warm_start_figures(cells: Sequence[Cell]) -> dict[str, Any]:
    """What a warm start saves.

    Args:
        cells: Of the part, each with its ``source``, which is None for a cold one.

    Returns:
        By pair ``source>task``, and over all pairs: ``regret[pair][cold|warm][n]``, an interquartile mean;
        ``regret_detail``, the same as ``[mean, low, high, plain mean]``; ``trials_to_cold_N``, the first
        look at which the warm regret is at most the cold one after all N trials, or None; and
        ``warm_at_M_minus_cold_at_N[pair]``, a paired difference with its interval: below 0 warm is better.
    """
    curves = _curves(cells)
    if not curves:
        print("warm_start needs two tasks of one space; skipped", flush=True)
        return {}
    looks = [int(n) for n in cells[0]["regret"]]
    last, stated = looks[-1], max(n for n in looks if n <= STATED)
    scopes = {OVERALL: list(curves), **{pair: [pair] for pair in curves}}

    def arrays(scope: str, kind: str, n: int) -> list[np.ndarray]:
        # Pairs of one task have the same cold run: they are one row, not several.
        by_task: dict[str, list[list[float]]] = {}
        for pair in scopes[scope]:
            by_task.setdefault(pair.rpartition(">")[2], []).append(curves[pair][kind][n])
        return [np.mean(rows, axis=0) for rows in by_task.values()]

    regret = {
        scope: {
            kind: {n: interquartile_mean(arrays(scope, kind, n)) for n in looks}
            for kind in ("cold", "warm")
        }
        for scope in scopes
    }
    return {
        "regret": regret,
        f"trials_to_cold_{last}": {
            scope: next((n for n in looks if found["warm"][n] <= found["cold"][last]), None)
            for scope, found in regret.items()
        },
        f"warm_at_{stated}_minus_cold_at_{last}": {
            scope: paired_difference(arrays(scope, "warm", stated), arrays(scope, "cold", last)).to_list()
            for scope in scopes
        },
        "regret_detail": {
            scope: {
                kind: {n: _described(arrays(scope, kind, n)) for n in looks} for kind in ("cold", "warm")
            }
            for scope in scopes
        },
    }


def _curves(cells: Sequence[Cell]) -> dict[str, Mapping[str, Mapping[int, list[float]]]]:
    """By pair, cold or warm, and number of trials: regrets in the order of seeds."""
    by_run: dict[tuple[str | None, str], list[Cell]] = {}
    for cell in sorted(cells, key=lambda cell: cell["seed"]):
        by_run.setdefault((cell["source"], cell["task"]), []).append(cell)

    def curve(source: str | None, task: str) -> dict[int, list[float]]:
        runs = [cell["regret"] for cell in by_run[source, task]]
        return {int(n): [regret[n] for regret in runs] for n in runs[0]}

    return {
        f"{source}>{task}": {"cold": curve(None, task), "warm": curve(source, task)}
        for source, task in by_run
        if source is not None
    }


if __name__ == "__main__":
    main()
