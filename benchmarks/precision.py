"""Architecture and precision chosen together, or one after the other: MiniLM on two tasks.

Three methods with equal budgets, at latencies measured here, relative to the full model in float32:

- ``joint``: one search over architectures and precisions;
- ``float32_then``: one search of architectures in float32, whose winner is served in each precision, and
  the best taken. For each target it looks at the latencies that become the target in one of the precisions;
- ``bfloat16``: one search of architectures in bfloat16.

Each search serves all targets. A choice is what a surrogate expects to be best among the trials within the
target, as in `rlnas search`; it is judged on search items that no method saw, in its precision. Shared
weights as they are: no choice is trained further. With ``--engine`` the choices of the first seed answer
the final split too, in the engine that serves them (ONNX Runtime for int8).

Intervals are over the judge's items: with few seeds they say nothing of what other seeds would find.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from benchmarks.answers import KeepingEvaluator, KeptAnswers
from benchmarks.live_search import paired_points, part_items
from benchmarks.race_replay import key_of
from benchmarks.record import make_parser, record
from rlnas import LatencyTarget, LayerwiseSpace, Workload, search
from rlnas.calibration import Effort, calibrate_precisions
from rlnas.cli import minilm_path
from rlnas.controllers.surrogate import SurrogateEvolutionController, expected_accuracies
from rlnas.data import load_task
from rlnas.deploy.serving import predict_as_served
from rlnas.evaluation import PrecisionEvaluator
from rlnas.latency import PrecisionTables
from rlnas.precision_space import PrecisionSpace
from rlnas.supernet import Supernet
from rlnas.supernet.optimisation import Optimisation
from rlnas.supernet.training import SandwichTrainer

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping, Sequence

    import numpy.typing as npt

    from rlnas.history import Result
    from rlnas.space import SubnetConfig
    from rlnas.task import Split, Task

    Bits = npt.NDArray[np.bool_]

WORKLOAD = Workload(1, 64)
PRECISIONS = ("float32", "bfloat16", "int8")
METHODS = ("joint", "float32_then", "bfloat16")
MAX_SEQ_LEN = 64


@dataclass(frozen=True)
class Recipe:
    """How much of a task is used, and how its shared weights are trained.

    Attributes:
        n_train: Training items.
        n_search: Search items, seen ones and the judge's.
        full_epochs: Passes of the full model.
        epochs: Passes with shared weights.
    """

    n_train: int
    n_search: int
    full_epochs: int
    epochs: int


RECIPES = {"sst2": Recipe(4000, 4000, 1, 2), "clinc150": Recipe(6000, 4000, 3, 3)}
QUICK = {"tasks": ["sst2"], "seeds": 1, "budget": 20, "items": 100, "judge_items": 200, "models": 2}
QUICK |= {"seconds": 1.0, "targets": [0.25]}


def main() -> None:
    """Search, choose, judge, and record how the methods compare."""
    options = _options()
    lacking = [name for name in options.tasks if not (options.cache / f"{name}-minilm").is_dir()]
    if options.quick and lacking:
        reason = f"{options.cache} holds no trained supernet of {lacking[0]}; run without --quick first"
        print(f"skipped: {reason}")
        print(json.dumps({"skipped": reason}))
        return
    torch.set_num_threads(1)
    figures = {}
    for name in options.tasks:
        figures[name] = _Arena.make(name, options).figures(options)
        for line in table_lines(name, figures[name]):
            print(line, flush=True)
    record("precision", options, figures)


def _options() -> argparse.Namespace:
    parser = make_parser(__doc__, "precision.jsonl")
    parser.add_argument("--data", type=Path, required=True, help="folder that holds the tasks' folders")
    parser.add_argument("--cache", type=Path, default=Path("runs/cache"), help="trained weights, tables")
    parser.add_argument("--tasks", nargs="+", choices=RECIPES, default=list(RECIPES), help="which tasks")
    parser.add_argument("--targets", nargs="+", type=float, default=[0.15, 0.25, 0.35, 0.5], help="ratios")
    parser.add_argument("--budget", type=int, default=64, help="true evaluations of a search")
    parser.add_argument("--seeds", type=int, default=2, help="number of seeds")
    parser.add_argument("--items", type=int, default=400, help="search items that methods see")
    parser.add_argument("--judge-items", type=int, default=1200, help="other search items that judge")
    parser.add_argument("--models", type=int, default=6, help="subnets that correct a latency table")
    parser.add_argument("--seconds", type=float, default=15.0, help="bound on the timing of a table")
    parser.add_argument("--engine", action="store_true", help="answer the final split as served, too")
    options = parser.parse_args()
    if options.quick:
        vars(options).update(QUICK)
    return options


def trained(name: str, options: argparse.Namespace) -> tuple[Supernet, Task]:
    """A task and its trained supernet, kept in the cache."""
    recipe, folder = RECIPES[name], options.cache / f"{name}-minilm"
    task = load_task(options.data / name, max_train_items=recipe.n_train, search_items=recipe.n_search)
    if not folder.is_dir():
        print("training the shared weights once; they are kept in", folder.name, flush=True)
        supernet = Supernet.from_pretrained(minilm_path(), task, max_seq_len=MAX_SEQ_LEN)
        trainer = SandwichTrainer(
            epochs=recipe.epochs,
            full_epochs=recipe.full_epochs,
            optimisation=Optimisation(epochs=recipe.epochs, learning_rate=2e-4),
        )
        trainer.train(supernet, task)
        temporary = folder.with_name(folder.name + ".tmp")
        supernet.save(temporary)
        os.replace(temporary, folder)
    return Supernet.load(folder), task


def tables_of(supernet: Supernet, options: argparse.Namespace) -> PrecisionTables:
    """Latencies in every precision: those of the cache, else measured now. Time knows no weights."""
    folder = options.cache / f"latency-{WORKLOAD.batch_size}x{WORKLOAD.seq_len}"
    if not (folder / "precisions.json").is_file():
        effort = Effort(n_models=options.models, max_seconds=options.seconds)
        space = LayerwiseSpace.for_model(supernet.shape)
        calibrate_precisions(supernet, space, WORKLOAD, PRECISIONS, "cpu", effort=effort).save(folder)
    return PrecisionTables.load(folder)


@dataclass(frozen=True, eq=False)
class _Arena:
    """One task: what is known of its subnets, on two sets of items.

    Attributes:
        supernet: The shared weights.
        task: The data.
        inner: Architectures.
        tables: Latencies.
        seen: Answers to the items that methods see.
        judge: Answers to the others.
    """

    supernet: Supernet
    task: Task
    inner: LayerwiseSpace
    tables: PrecisionTables
    seen: KeptAnswers
    judge: KeptAnswers

    @classmethod
    def make(cls, name: str, options: argparse.Namespace) -> _Arena:
        """Load or train the supernet, load or measure its latencies, part the search items."""
        supernet, task = trained(name, options)
        tables = tables_of(supernet, options)
        parts = part_items(task.search, options.items, options.judge_items)
        seen, judge = (_kept(supernet, task, split, tables, options.cache) for split in parts)
        inner = LayerwiseSpace.for_model(supernet.shape)
        return cls(supernet, task, inner, tables, seen, judge)

    def figures(self, options: argparse.Namespace) -> dict[str, Any]:
        """What the judge says of the choices."""
        choices = {
            method: [self.choices(method, seed, options) for seed in range(options.seeds)]
            for method in METHODS
        }
        by_target = {}
        for index, target in enumerate(options.targets):
            chosen = {method: [of_seed[index] for of_seed in choices[method]] for method in METHODS}
            by_target[f"{target:g}"] = self._compared(chosen)
        right = {
            method: self.judge.right([config for of_seed in choices[method] for config in of_seed])
            for method in METHODS
        }
        full = [replace(self.supernet.shape.full, precision=precision) for precision in PRECISIONS]
        return {
            "full_ratios": dict(self.tables.full_ratios),
            "table_mape": {p: t.error and t.error.mape for p, t in self.tables.tables.items()},
            "full_accuracy": dict(
                zip(PRECISIONS, self.judge.right(full).mean(axis=1).tolist(), strict=True)
            ),
            "targets": by_target,
            "all_targets": {
                f"joint_minus_{rival}": paired_points(right["joint"], right[rival]) for rival in METHODS[1:]
            },
            "n_items": self.seen.n_items,
            "n_judge_items": self.judge.n_items,
            **({"engine": self._engine(choices, options)} if options.engine else {}),
        }

    def choices(self, method: str, seed: int, options: argparse.Namespace) -> list[SubnetConfig]:
        """What a method delivers for each target."""
        if method == "joint":
            result, space = self._search(self.tables.by_speed, options.targets, seed, options)
            return [self._best(space, result, target, None) for target in options.targets]
        if method == "bfloat16":
            result, space = self._search(("bfloat16",), options.targets, seed, options)
            return [self._best(space, result, target, None) for target in options.targets]
        ratios = self.tables.full_ratios
        wanted = {min(1.0, round(t / ratio, 4)) for t in options.targets for ratio in ratios.values()}
        result, space = self._search(("float32",), sorted(wanted), seed, options)
        delivered = []
        for target in options.targets:
            winners = [self._best(space, result, target, precision) for precision in PRECISIONS]
            accuracies = self.seen.right(winners).mean(axis=1)
            within = self.tables(winners) <= target * self.tables.reference_ms * (1 + 1e-9)
            delivered.append(winners[int(np.argmax(np.where(within, accuracies, -1.0)))])
        return delivered

    def _search(
        self, precisions: tuple[str, ...], targets: Sequence[float], seed: int, options: argparse.Namespace
    ) -> tuple[Result, PrecisionSpace]:
        space = PrecisionSpace(self.inner, precisions)
        floor = float(self.tables([space.smallest()])[0]) / self.tables.reference_ms
        reachable = [target for target in targets if target > floor]
        result = search(
            space,
            KeepingEvaluator(self.seen),
            LatencyTarget(ratio=max(reachable)),
            SurrogateEvolutionController(),
            budget=options.budget,
            seed=seed,
            reference_ms=self.tables.reference_ms,
            target_ratios=reachable,
        )
        return result, space

    def _best(
        self, space: PrecisionSpace, result: Result, target: float, precision: str | None
    ) -> SubnetConfig:
        """The trial that is expected to be best within the target, in another precision or its own."""
        kept = self.seen.evaluator.kept_importance
        expected = expected_accuracies(space, result.trials, kept)
        configs = [
            trial.config if precision is None else replace(trial.config, precision=precision)
            for trial in result.trials
        ]
        within = self.tables(configs) <= target * self.tables.reference_ms * (1 + 1e-9)
        if not within.any():
            return replace(space.smallest(), precision=precision or space.precisions[0])
        return configs[int(np.argmax(np.where(within, expected, -np.inf)))]

    def _compared(self, chosen: Mapping[str, Sequence[SubnetConfig]]) -> dict[str, Any]:
        right = {method: self.judge.right(configs) for method, configs in chosen.items()}
        full_ms = self.tables.reference_ms
        return {
            "accuracy": {method: float(bits.mean()) for method, bits in right.items()},
            "choices": {
                method: [
                    {"config": config.to_dict(), "ratio": float(self.tables([config])[0]) / full_ms}
                    for config in configs
                ]
                for method, configs in chosen.items()
            },
            **{
                f"joint_minus_{rival}": paired_points(right["joint"], right[rival]) for rival in METHODS[1:]
            },
        }

    def _engine(
        self, choices: Mapping[str, Sequence[Sequence[SubnetConfig]]], options: argparse.Namespace
    ) -> dict[str, Any]:
        """The final split, answered by what serves each choice of the first seed; texts one by one."""
        labels, found = self.task.final.labels, {}
        for method in METHODS:
            rows = [self._served(config) == labels for config in choices[method][0]]
            found[method] = np.stack(rows)
        targets = [f"{target:g}" for target in options.targets]
        return {
            "n_items": len(labels),
            "accuracy": {
                m: dict(zip(targets, rows.mean(axis=1).tolist(), strict=True)) for m, rows in found.items()
            },
            **{
                f"joint_minus_{rival}": paired_points(found["joint"], found[rival]) for rival in METHODS[1:]
            },
        }

    def _served(self, config: SubnetConfig) -> npt.NDArray[np.generic]:
        encoded = self.supernet.encode(self.task.final)
        return predict_as_served(self.supernet.extract(config), encoded, config.precision or "float32")


def _kept(
    supernet: Supernet, task: Task, split: Split, tables: PrecisionTables, cache: Path
) -> KeptAnswers:
    """Answers to a split, in a file that is named after the weights and the items."""
    evaluator = PrecisionEvaluator(supernet, task, tables, PRECISIONS, split=split)
    digest = key_of(supernet, replace(task, search=split), ())[:12]
    return KeptAnswers(evaluator, split, cache / f"precision-{digest}.jsonl")


def table_lines(name: str, figures: Mapping[str, Any]) -> list[str]:
    """A line a target."""
    lines = [f"{name}: target, accuracy of {', '.join(METHODS)}; joint minus the others, points"]
    rows = {**figures["targets"], "all": {**figures["all_targets"], "accuracy": {}}}
    for target, row in rows.items():
        accuracies = " ".join(f"{accuracy:.4f}" for accuracy in row["accuracy"].values())
        gaps = ("{:+.2f} [{:+.2f}, {:+.2f}]".format(*row[f"joint_minus_{rival}"]) for rival in METHODS[1:])
        lines.append(f"  {target:<6} {accuracies:<22} {'  '.join(gaps)}")
    return lines


if __name__ == "__main__":
    main()
