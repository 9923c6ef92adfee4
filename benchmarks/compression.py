"""Compressed models at equal measured latency: rlnas beside four other ways.

For each task and seed MiniLM is fine-tuned once, and every method compresses this full model to the same
measured latencies. What is trained gets the same training: distilled from the full model, as many passes
over the same items, and the search split chooses among their weights. All are judged on the final split,
validation and test pooled, which nothing else sees. It runs cell by cell and keeps each, so that it can
be stopped and goes on where it was. Full sizes are for a GPU.

A win: the lower end of the paired difference to a rival is above -0.5 points, its mean not below 0, and
rlnas is no slower than the target or than the rival, within the tolerance of a certificate. Intervals are
over the items that both are judged on, given the seeds: that other seeds would train otherwise is not in
them. Nobody trains on the search items: the search sees them, and in each training they choose among its
weights.
"""

from __future__ import annotations

import importlib.util
import itertools
import json
import os
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from benchmarks import compression_methods as methods
from benchmarks.compression_figures import COUNTED, FREE, FULL, SUBJECT, TRAINED, figures_of, lines_of
from benchmarks.compression_study import Budget, Study
from benchmarks.record import make_parser, record
from rlnas.supernet.inference import predict

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

    from rlnas.space import SubnetConfig
    from rlnas.supernet.modeling_subnet import SubnetModel

    Make = Callable[[], tuple[SubnetConfig, SubnetModel]]

SHOWN = ("rte", "mrpc")
TARGETS = (0.7, 0.5, 0.35)
RIVALS = {
    "truncation": methods.truncation,
    "uniform": methods.uniform,
    "knapsack": methods.knapsack,
    "torch-pruning": methods.torch_pruning,
}
ONE_PASS = "one pass"
VARIANTS = (
    (SUBJECT, FREE),
    ("knapsack", FREE),
    (SUBJECT, ONE_PASS),
    (SUBJECT, TRAINED),
    *((rival, TRAINED) for rival in RIVALS),
)
"""Methods with their trainings, in the order in which they are done."""

QUICK = Budget(
    train_items=96,
    search_items=64,
    final_items=200,
    full_epochs=1,
    epochs=1,
    trials=16,
    models=2,
    seconds=0.5,
)


def main() -> None:
    """Do what cells are lacking, and record what all come to."""
    options = _options()
    if options.threads:
        torch.set_num_threads(options.threads)
    cells = _kept_cells(options) if options.kept else _all_cells(options)
    figures = figures_of(cells)
    for line in lines_of(figures):
        print(line)
    record("compression", replace_paths(options), figures, options.device)


def _all_cells(options: argparse.Namespace) -> list[dict[str, Any]]:
    """The cells that are asked for; those that are not kept are done."""
    cells = []
    for seed, name in itertools.product(range(options.seeds), options.tasks):
        study = Study(name, seed, options.data, options.cache, options.budget, options.device)
        if not (study.data / name).is_dir():
            raise SystemExit(f"--data={options.data} holds no folder {name!r}; name that of all tasks")
        bench = _Bench(study, tuple(options.targets), str(options.commit))
        cells.append(bench.full())
        for target, (method, training) in itertools.product(options.targets, options.variants):
            cells.append(bench.cell(target, method, training))
    return cells


def _kept_cells(options: argparse.Namespace) -> list[dict[str, Any]]:
    """The cells that were done so far, of the tasks and seeds that are asked for."""
    paths = sorted((options.cache / options.budget.name).glob("*/cells/*.json"))
    cells = [json.loads(path.read_text(encoding="utf-8")) for path in paths]
    chosen = [c for c in cells if c["task"] in options.tasks and c["seed"] < options.seeds]
    if not chosen:
        raise SystemExit(f"--cache={options.cache} keeps no cell of this budget; run without --kept first")
    return chosen


def _options() -> argparse.Namespace:
    parser = make_parser(__doc__, "compression.jsonl")
    parser.add_argument("--data", type=Path, required=True, help="folder that holds the tasks' folders")
    parser.add_argument("--cache", type=Path, default=Path("runs/cache/compression"), help="cells, kept")
    parser.add_argument("--tasks", nargs="+", choices=(*COUNTED, *SHOWN), help="by default all that count")
    parser.add_argument("--targets", nargs="+", type=float, default=list(TARGETS), help="latency ratios")
    parser.add_argument("--seeds", type=int, default=3, help="number of seeds, from 0")
    parser.add_argument("--methods", nargs="+", choices=(SUBJECT, *RIVALS), help="by default all")
    parser.add_argument("--kept", action="store_true", help="do nothing new: record what cells are kept")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--threads", type=int, default=1, help="of PyTorch; 0 leaves them as they are")
    for field in fields(Budget):
        flag = f"--{field.name.replace('_', '-')}"
        kind = float if field.name == "seconds" else int
        parser.add_argument(flag, type=kind, default=field.default, help="see Budget in compression_study")
    options = parser.parse_args()
    options.budget = Budget(**{field.name: getattr(options, field.name) for field in fields(Budget)})
    if options.quick:
        options.budget, options.seeds, options.targets = QUICK, 1, [0.5]
        options.tasks = options.tasks or ["sms_spam"]
    options.tasks = options.tasks or list(COUNTED)
    chosen = options.methods or [SUBJECT, *RIVALS]
    if "torch-pruning" in chosen and importlib.util.find_spec("torch_pruning") is None:
        print("left out: torch-pruning is not installed; pip install 'rlnas[rivals]'", flush=True)
        chosen = [method for method in chosen if method != "torch-pruning"]
    options.methods = chosen
    variants = [variant for variant in VARIANTS if variant[0] in chosen]
    if options.budget.epochs == 1:  # then one pass is all the training that there is
        variants = [variant for variant in variants if variant[1] != ONE_PASS]
    options.variants = variants
    return options


def replace_paths(options: argparse.Namespace) -> argparse.Namespace:
    """The settings as they are recorded: what was derived from others is left out."""
    for name in ("budget", "variants"):
        delattr(options, name)
    return options


class _Bench:
    """The cells of one task and seed.

    Args:
        study: What they share.
        targets: Latency ratios; one search serves them all.
        commit: Of the code that runs.
    """

    def __init__(self, study: Study, targets: tuple[float, ...], commit: str) -> None:
        self._study, self._targets, self._commit = study, targets, commit

    def full(self) -> dict[str, Any]:
        """The full model as a cell of its own."""
        study = self._study

        def make() -> tuple[SubnetConfig, SubnetModel]:
            return study.supernet.shape.full, study.full_model()

        return self._cell(1.0, FULL, TRAINED, study.budget.full_epochs, make)

    def cell(self, target: float, method: str, training: str) -> dict[str, Any]:
        """One method at one target."""
        epochs = {FREE: 0, ONE_PASS: 1, TRAINED: self._study.budget.epochs}[training]

        def make() -> tuple[SubnetConfig, SubnetModel]:
            config, model = self._compressed(target, method)
            if epochs:
                methods.finished(self._study, model, epochs)
            return config, model

        return self._cell(target, method, training, epochs, make)

    def _compressed(self, target: float, method: str) -> tuple[SubnetConfig, SubnetModel]:
        bounds = [methods.bound_of(self._study, one) for one in self._targets]
        bound = bounds[self._targets.index(target)]
        if method == SUBJECT:
            return methods.searched(self._study, bound, bounds)
        return RIVALS[method](self._study, bound)

    def _cell(self, target: float, method: str, training: str, epochs: int, make: Make) -> dict[str, Any]:
        study = self._study
        name = f"{target:g}-{method}-{training.replace(' ', '-')}.json"
        path = study.folder / "cells" / name
        if path.is_file():
            return dict(json.loads(path.read_text(encoding="utf-8")))
        config, model = make()
        final = study.task.final
        cell = {
            "task": study.name,
            "seed": study.seed,
            "target": target,
            "method": method,
            "training": training,
            "epochs": epochs,
            "metric": study.task.metric,
            "labels": final.labels.tolist(),
            "predictions": predict(model, study.supernet.encode(final)).tolist(),
            "latency": study.stopwatch.measure(config),
            "config": config.to_dict(),
            "commit": self._commit,
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(".tmp")
        temporary.write_text(json.dumps(cell), encoding="utf-8")
        os.replace(temporary, path)
        right = sum(a == b for a, b in zip(cell["labels"], cell["predictions"], strict=True)) / len(final)
        print(
            f"{study.name} seed {study.seed} target {target:g} {method} ({training}): {right:.3f} right, "
            f"ratio {cell['latency']['ratio']:.3f}",
            flush=True,
        )
        return cell


if __name__ == "__main__":
    main()
