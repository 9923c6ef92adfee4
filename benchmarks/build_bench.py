"""Build a table of rlnas-bench: every subnet of a complete product space, judged on every item.

MiniLM, fine-tuned with shared weights on one task; each of its six layers is dropped, or keeps 4 or 12
heads and 512 or 1,536 FFN units: 5^6 = 15,625 subnets. The answers come from the evaluator of the main
job. The prefix tree makes it one to two hours of one core; what is done is kept in ``--cache``, part by
part, and a run that was stopped goes on.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from rlnas import LayerConfig, LayerwiseSpace, SubnetConfig
from rlnas.cli import minilm_path
from rlnas.data import load_task
from rlnas.evaluation import SupernetEvaluator
from rlnas.supernet import Supernet
from rlnas.supernet.optimisation import Optimisation
from rlnas.supernet.training import SandwichTrainer

if TYPE_CHECKING:
    from rlnas.task import Task

OPTIONS = (
    LayerConfig(0, 0),
    LayerConfig(4, 512),
    LayerConfig(12, 512),
    LayerConfig(4, 1536),
    LayerConfig(12, 1536),
)
N_LAYERS = 6
N_FIRST = 3
"""Layers that subnets of one part share."""
N_ITEMS = 2000


@dataclass(frozen=True, slots=True)
class Recipe:
    """How a task is cut and trained.

    Attributes:
        carved_items: Search items that are carved from the training data; the `N_ITEMS` shortest of them
            are judged.
        max_seq_len: Texts are cut to so many word pieces, in training too.
        full_epochs: Passes of the full model alone.
        epochs: Passes with shared weights.
    """

    carved_items: int
    max_seq_len: int
    full_epochs: int
    epochs: int


RECIPES = {
    "sst2": Recipe(carved_items=8000, max_seq_len=16, full_epochs=1, epochs=3),
    "clinc150": Recipe(carved_items=3000, max_seq_len=16, full_epochs=2, epochs=3),
    "ag_news_small": Recipe(carved_items=2000, max_seq_len=12, full_epochs=1, epochs=3),
}


def main() -> None:
    """Train, judge part by part, and write the answers."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--task", choices=RECIPES, required=True)
    parser.add_argument("--data", type=Path, required=True, help="folder that holds the task's folder")
    parser.add_argument("--cache", type=Path, default=Path("runs/cache/bench"), help="what is done already")
    parser.add_argument(
        "--backwards", action="store_true", help="begin with the last part, beside another run"
    )
    options = parser.parse_args()
    torch.set_num_threads(1)
    recipe, cache = RECIPES[options.task], options.cache / options.task
    cache.mkdir(parents=True, exist_ok=True)
    task = load_task(options.data / options.task, search_items=recipe.carved_items)
    supernet = _supernet(task, recipe, cache / "supernet")
    task = _shortest(task, supernet)
    evaluator = SupernetEvaluator(supernet, task, lambda configs: [0.0] * len(configs))
    parts = list(enumerate(itertools.product(range(len(OPTIONS)), repeat=N_FIRST)))
    for part, first in reversed(parts) if options.backwards else parts:
        _judge(part, first, evaluator, task, cache)
    _write_note(options.task, task, supernet, evaluator, recipe, cache)


def _supernet(task: Task, recipe: Recipe, folder: Path) -> Supernet:
    if not folder.is_dir():
        supernet = Supernet.from_pretrained(minilm_path(), task, max_seq_len=recipe.max_seq_len)
        space = LayerwiseSpace.for_model(supernet.shape, (0, 4, 12), (0, 512, 1536))
        SandwichTrainer(
            epochs=recipe.epochs,
            full_epochs=recipe.full_epochs,
            space=space,
            optimisation=Optimisation(learning_rate=2e-4),
        ).train(supernet, task, progress=False)
        temporary = folder.with_name(folder.name + ".tmp")
        supernet.save(temporary)
        os.replace(temporary, folder)
    return Supernet.load(folder)


def _shortest(task: Task, supernet: Supernet) -> Task:
    """The task with the shortest search items alone, in their order."""
    lengths = supernet.encode(task.search).lengths
    chosen = np.sort(np.argsort(lengths, kind="stable")[:N_ITEMS])
    return replace(task, search=task.search.take(chosen))


def _judge(
    part: int, first: tuple[int, ...], evaluator: SupernetEvaluator, task: Task, cache: Path
) -> None:
    """Answers of the subnets that begin with these choices, a bit each, right or wrong."""
    file = cache / f"part-{part:03d}.npy"
    if file.is_file():
        return
    started = time.process_time()
    rest = itertools.product(range(len(OPTIONS)), repeat=N_LAYERS - N_FIRST)
    configs = [SubnetConfig(tuple(OPTIONS[i] for i in (*first, *last))) for last in rest]
    right = np.array([answers == task.search.labels for answers in evaluator.predict(configs)])
    temporary = file.with_suffix(".tmp.npy")
    np.save(temporary, np.packbits(right, axis=1))
    os.replace(temporary, file)
    seconds = time.process_time() - started
    print(
        f"part {part + 1}: accuracy {right.mean(axis=1).min():.3f} to {right.mean(axis=1).max():.3f}, "
        f"{seconds:.0f} s of processor time",
        flush=True,
    )


def _write_note(
    name: str,
    task: Task,
    supernet: Supernet,
    evaluator: SupernetEvaluator,
    recipe: Recipe,
    cache: Path,
) -> None:
    """What the card and the table say of how the answers were made."""
    importance = supernet.block_importance
    note = {
        "task": name,
        "n_items": len(task.search),
        "n_train": len(task.train),
        "n_classes": task.num_labels,
        "mean_length": float(np.mean(supernet.encode(task.search).lengths)),
        "precision": evaluator.precision,
        "importance": None if importance is None else importance.tolist(),
        "max_seq_len": recipe.max_seq_len,
        "full_epochs": recipe.full_epochs,
        "epochs": recipe.epochs,
    }
    (cache / "note.json").write_text(json.dumps(note) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
