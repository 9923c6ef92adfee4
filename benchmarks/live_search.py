"""Search methods live on sst2: every trial is a true evaluation of a subnet of MiniLM.

The default space, trained shared weights, a latency table measured here. Methods see some of the search
items, the others judge their choices; the final split is not touched. What one method has evaluated is
kept and shared with the others, so that no subnet is computed twice, but it counts for the budget of
each. Searches are kept too: a run that was stopped goes on where it was.

A method's choice is what a surrogate, fitted to its trials, expects to be the best within the target, as
`rlnas search` chooses; the best that it saw stands beside it. Intervals are over the judge's
items: with few seeds they say nothing of what other seeds would find.
"""

from __future__ import annotations

import itertools
import json
import time
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from benchmarks.answers import KeepingEvaluator, KeptAnswers
from benchmarks.estimates import CONFIDENCE, N_RESAMPLES
from benchmarks.race_replay import key_of
from benchmarks.record import make_parser, record
from benchmarks.search_methods import METHODS, SUBJECT
from benchmarks.search_quality import best_within
from benchmarks.sst2 import FOLDER, SEARCH_ITEMS, load_searched
from rlnas import LatencyTarget, LayerwiseSpace, Workload, search
from rlnas.calibration import Effort, calibrate
from rlnas.controllers.surrogate import expected_accuracies
from rlnas.evaluation import SupernetEvaluator
from rlnas.latency import LatencyTable
from rlnas.supernet.importance import Importance, estimate_importance

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping, Sequence

    import numpy.typing as npt

    from rlnas.space import SubnetConfig
    from rlnas.supernet import Supernet
    from rlnas.task import Split, Task

    Bits = npt.NDArray[np.bool_]

WORKLOAD = Workload(1, 32)
N_WEIGHED = 512
"""Training items that importance is estimated on."""
METHOD_NAMES = (SUBJECT, "auto", "knapsack", "nsga2", "random")
QUICK_NAMES = (SUBJECT, "knapsack")
VIEWS = ("chosen", "observed")
QUICK = {"seeds": 1, "budget": 24, "items": 200, "judge_items": 400, "models": 4, "seconds": 2.0}


def main() -> None:
    """Search with every method and seed, judge the choices, and record how they compare."""
    options = _options()
    if options.quick and not (options.cache / FOLDER).is_dir():
        reason = f"{options.cache} holds no trained supernet {FOLDER!r}; run without --quick first"
        print(f"skipped: {reason}")
        print(json.dumps({"skipped": reason}))
        return
    torch.set_num_threads(1)
    live = _Live.make(options)
    rows = []
    for seed, method in itertools.product(
        range(options.first_seed, options.first_seed + options.seeds), options.methods
    ):
        rows.append(live.search(method, seed, options))
        print(_progress(rows[-1]), flush=True)
    figures = live.figures(rows)
    for line in table_lines(figures):
        print(line)
    record("live_search", options, figures)


def _options() -> argparse.Namespace:
    parser = make_parser(__doc__, "live_search.jsonl")
    parser.add_argument("--data", type=Path, required=True, help="folder that holds the folder sst2")
    parser.add_argument("--cache", type=Path, default=Path("runs/cache"), help="trained weights, kept")
    parser.add_argument(
        "--folder", type=Path, help="searches, answers and latencies, kept; by default live in --cache"
    )
    parser.add_argument(
        "--methods", nargs="+", choices=METHODS, help=f"by default {' '.join(METHOD_NAMES)}"
    )
    parser.add_argument("--budget", type=int, default=200, help="true evaluations of a search")
    parser.add_argument("--seeds", type=int, default=3, help="number of seeds")
    parser.add_argument("--first-seed", type=int, default=100, help="the first of them")
    parser.add_argument("--target", type=float, default=0.5, help="as a ratio of the full model's latency")
    parser.add_argument("--items", type=int, default=872, help="search items that methods see")
    parser.add_argument("--judge-items", type=int, help="other search items that judge; by default all")
    parser.add_argument("--models", type=int, default=16, help="subnets that correct the latency table")
    parser.add_argument("--seconds", type=float, default=20.0, help="bound on the timing of that table")
    options = parser.parse_args()
    if options.quick:
        vars(options).update(QUICK)
    options.methods = options.methods or list(QUICK_NAMES if options.quick else METHOD_NAMES)
    # A quick run has other items and another table, and is not to be gone on with by a whole one.
    options.folder = options.folder or options.cache / ("live-quick" if options.quick else "live")
    return options


@dataclass(frozen=True, eq=False)
class _Live:
    """A supernet, what is known of its subnets, and two sets of items.

    Attributes:
        space: What methods choose from.
        table: Latencies.
        seen: Answers to the items that methods see.
        judge: Answers to the others.
        folder: Keeps the searches.
        digest: Of weights and seen items.
        target: As a ratio of the full model's latency.
    """

    space: LayerwiseSpace
    table: LatencyTable
    seen: KeptAnswers
    judge: KeptAnswers
    folder: Path
    digest: str
    target: float

    @classmethod
    def make(cls, options: argparse.Namespace) -> _Live:
        """Load the supernet, measure what is not measured yet, and part the search items."""
        folder = options.folder
        folder.mkdir(parents=True, exist_ok=True)
        supernet, task = load_searched(options.data, options.cache, SEARCH_ITEMS)
        space = LayerwiseSpace.for_model(supernet.shape)
        table = _measured_table(supernet, space, options)
        weigh(supernet, task, folder)
        seen, judge = part_items(task.search, options.items, options.judge_items)
        kept = [_kept(supernet, task, split, table, folder) for split in (seen, judge)]
        digest = key_of(supernet, replace(task, search=seen), ())[:12]
        return cls(space, table, kept[0], kept[1], folder, digest, options.target)

    @cached_property
    def full_ms(self) -> float:
        """Latency of the full model."""
        return float(self.table([self.space.largest()])[0])

    def search(self, method: str, seed: int, options: argparse.Namespace) -> dict[str, Any]:
        """One search, gone on with if it was begun; what it took, and what it would choose."""
        evaluator, started = KeepingEvaluator(self.seen), time.process_time()
        result = search(
            self.space,
            evaluator,
            LatencyTarget(ratio=self.target),
            METHODS[method](),
            budget=options.budget,
            seed=seed,
            path=self.folder / f"{method}-{seed}",
            resume=True,
            settings={"answers": self.digest},
        )
        controller_seconds = time.process_time() - started - evaluator.seconds
        trials = result.trials
        configs = [trial.config for trial in trials]
        self.seen.right(configs)  # all known by now, unless the answers of an earlier process were lost
        values = {
            "observed": np.array([trial.metrics.accuracy for trial in trials]),
            "chosen": expected_accuracies(self.space, trials, evaluator.kept_importance),
        }
        choices = {
            view: best_within(self.space, trials, of_trials, self.target * self.full_ms)
            for view, of_trials in values.items()
        }
        return {
            "method": method,
            "seed": seed,
            **choices,
            "n_trials": len(trials),
            "controller_ms": 1e3 * controller_seconds / len(trials),
            "evaluation_ms": 1e3 * float(np.mean([self.seen.seconds(config) for config in configs])),
        }

    def figures(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """What the judge says of the choices; see `compared`."""
        full = self.space.largest()
        right = {view: self._by_method(rows, view) for view in VIEWS}
        return {
            **compared(right),
            "choices": [self._described(row) for row in rows],
            **{
                f"{key}_ms": {
                    method: float(np.median([row[f"{key}_ms"] for row in rows if row["method"] == method]))
                    for method in right["chosen"]
                }
                for key in ("controller", "evaluation")
            },
            "full_accuracy": float(self.judge.right([full]).mean()),
            "full_ms": self.full_ms,
            "table_mape": None if self.table.error is None else self.table.error.mape,
            "n_items": self.seen.n_items,
            "n_judge_items": self.judge.n_items,
        }

    def _by_method(self, rows: Sequence[Mapping[str, Any]], view: str) -> dict[str, Bits]:
        """Answers of the choices to the judge's items, shape ``(n_seeds, n_items)`` each."""
        configs: dict[str, list[SubnetConfig]] = {}
        for row in rows:
            configs.setdefault(row["method"], []).append(row[view])
        return {method: self.judge.right(chosen) for method, chosen in configs.items()}

    def _described(self, row: Mapping[str, Any]) -> dict[str, Any]:
        config = row["chosen"]
        return {
            "method": row["method"],
            "seed": row["seed"],
            "n_trials": row["n_trials"],
            "config": config.to_dict(),
            "latency_ratio": float(self.table([config])[0]) / self.full_ms,
            "seen_accuracy": float(self.seen.right([config]).mean()),
            "judged_accuracy": float(self.judge.right([config]).mean()),
        }


def _kept(supernet: Supernet, task: Task, split: Split, table: LatencyTable, folder: Path) -> KeptAnswers:
    """Answers to a split, in a file that is named after the weights, the items and the number format."""
    evaluator = SupernetEvaluator(supernet, task, table, split=split)
    digest = key_of(supernet, replace(task, search=split), ())[:12]
    return KeptAnswers(evaluator, split, folder / f"answers-{digest}-{evaluator.precision}.jsonl")


def part_items(split: Split, n_seen: int, n_judge: int | None) -> tuple[Split, Split]:
    """A random choice of items for methods, and as many as asked for of the others for the judge.

    The choice is that of `benchmarks.sst2.load_searched`.

    Raises:
        SystemExit: If none are left to judge.
    """
    order = np.random.default_rng(0).permutation(len(split))
    rest = order[n_seen:][:n_judge]
    if not len(rest):
        raise SystemExit(f"--items {n_seen} of {len(split)} search items leave none to judge")
    return split.take(np.sort(order[:n_seen])), split.take(np.sort(rest))


def weigh(supernet: Supernet, task: Task, folder: Path) -> None:
    """Tell the supernet what its heads and units are worth, if it does not know; kept in a file.

    The weights were trained for subnets that keep the first heads and units of a layer. Their order must
    stay as it is, even where they would stand in another one by now: what a subnet keeps is what the
    first ones are worth, whatever it is.
    """
    if supernet.importance is not None:
        return
    chosen = np.sort(np.random.default_rng(0).permutation(len(task.train))[:N_WEIGHED])
    split = task.train.take(chosen)
    file = folder / f"importance-{key_of(supernet, replace(task, search=split), ())[:12]}.npz"
    if not file.is_file():
        found = estimate_importance(supernet, split)
        temporary = file.with_name("importance.tmp.npz")
        np.savez(temporary, heads=found.heads, units=found.units)
        temporary.replace(file)
    with np.load(file, allow_pickle=False) as stored:
        supernet.importance = Importance(stored["heads"], stored["units"])


def _measured_table(supernet: Supernet, space: LayerwiseSpace, options: argparse.Namespace) -> LatencyTable:
    file = options.folder / f"latency-{WORKLOAD.batch_size}x{WORKLOAD.seq_len}.json"
    if not file.is_file():
        effort = Effort(n_models=options.models, max_seconds=options.seconds)
        calibrate(supernet, space, WORKLOAD, "cpu", effort=effort).save(file)
    return LatencyTable.load(file, workload=WORKLOAD, shape=supernet.shape)


def compared(right: Mapping[str, Mapping[str, Bits]]) -> dict[str, Any]:
    """Accuracies of the choices, and how the subject's compare with the others'.

    Args:
        right: By view and method, answers of the choices, shape ``(n_seeds, n_items)``.

    Returns:
        ``accuracy[method][view]`` is a mean over seeds; ``difference_points[rival][view]``, of the subject
        minus the rival, ``[points, low, high]``: above 0 the subject is better.
    """
    methods = list(right[VIEWS[0]])
    rivals = [method for method in methods if method != SUBJECT and SUBJECT in methods]
    return {
        "accuracy": {
            method: {view: float(right[view][method].mean()) for view in right} for method in methods
        },
        "difference_points": {
            rival: {view: paired_points(right[view][SUBJECT], right[view][rival]) for view in right}
            for rival in rivals
        },
    }


def paired_points(first: Bits, second: Bits) -> list[float]:
    """Accuracy of `first` minus that of `second` in points, low and high end of its interval.

    A bootstrap over items. The seeds' answers to an item are drawn together, as they are much alike.

    Args:
        first: Shape ``(n_seeds, n_items)``.
        second: The same shape, on the same items.
    """
    by_item = 100 * (first.mean(axis=0) - second.mean(axis=0))
    rng, n_items = np.random.default_rng(0), len(by_item)
    means = [by_item[rng.integers(n_items, size=n_items)].mean() for _ in range(N_RESAMPLES)]
    tail = (1 - CONFIDENCE) / 2
    return [float(by_item.mean()), *np.quantile(means, [tail, 1 - tail]).tolist()]


def table_lines(figures: Mapping[str, Any]) -> list[str]:
    """A line a method."""
    head = f"{'method':<20}{'judged':>8}{'observed':>10}{'controller':>14}{'evaluation':>14}"
    lines = [f"{head}   {SUBJECT} minus it, points"]
    for method, views in figures["accuracy"].items():
        line = f"{method:<20}{views['chosen']:>8.4f}{views['observed']:>10.4f}"
        line += "".join(f"{figures[f'{k}_ms'][method]:>11.1f} ms" for k in ("controller", "evaluation"))
        if method in figures["difference_points"]:
            line += "   {:+.2f} [{:+.2f}, {:+.2f}]".format(*figures["difference_points"][method]["chosen"])
        lines.append(line)
    lines.append(f"{'full model':<20}{figures['full_accuracy']:>8.4f}")
    return lines


def _progress(row: Mapping[str, Any]) -> str:
    costs = ", ".join(f"{key} {row[f'{key}_ms']:.1f} ms each" for key in ("controller", "evaluation"))
    return f"{row['method']}, seed {row['seed']}: {row['n_trials']} trials, {costs}"


if __name__ == "__main__":
    main()
