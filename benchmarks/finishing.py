"""What a longer last training gains: a delivered subnet of MiniLM on sst2, trained further in two ways.

Weights are shared, and the full model is fine-tuned alone, as a run does it. The subnets are delivered as
by a run, after one pass that the shared weights' full model teaches. From there they are fine-tuned with
equally many passes: taught by the full model's answers alone, and by its hidden states as well. The search
split chooses the weights; all figures are of the final split, gains are paired over its items.
"""

from __future__ import annotations

import copy
import os
import shutil
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from benchmarks.record import make_parser, record
from rlnas import LayerConfig, SubnetConfig
from rlnas.cli import minilm_path
from rlnas.data import load_task
from rlnas.scores import difference_interval, score, score_interval
from rlnas.supernet import FullTrainer, SandwichTrainer, SubnetFinisher, Supernet
from rlnas.supernet.inference import predict
from rlnas.supernet.optimisation import Optimisation

if TYPE_CHECKING:
    import argparse

    import numpy.typing as npt

    from rlnas.space import ModelShape
    from rlnas.task import Task

MAX_SEQ_LEN = 64
LEARNING_RATE = 2e-4
SHARED_EPOCHS = 2
HIDDEN_WEIGHTS = {"answers": 0.0, "answers_and_hidden": 1.0}


def main() -> None:
    """Train, deliver, fine-tune, and record what each seed and subnet gained."""
    parser = make_parser(__doc__, "finishing.jsonl")
    parser.add_argument("--data", type=Path, required=True, help="folder that holds the folder sst2")
    parser.add_argument("--model", help="checkpoint; by default MiniLM")
    parser.add_argument("--cache", type=Path, help="folder where trained weights are kept; by default none")
    parser.add_argument("--train-items", type=int, default=3000, help="training items")
    parser.add_argument("--search-items", type=int, default=800, help="search items")
    parser.add_argument("--final-items", type=int, help="final items; by default all")
    parser.add_argument("--passes", type=int, default=3, help="passes of each fine-tuning")
    parser.add_argument(
        "--learning-rate", type=float, default=LEARNING_RATE, help="peak rate of each fine-tuning"
    )
    parser.add_argument(
        "--ways", nargs="+", default=list(HIDDEN_WEIGHTS), choices=list(HIDDEN_WEIGHTS), help="what teaches"
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="of data, training and dropout")
    parser.add_argument(
        "--subnets", nargs="+", default=["mixed"], choices=["mixed", "shallow"], help="which are finished"
    )
    options = parser.parse_args()
    if options.quick:
        options.train_items, options.search_items, options.final_items, options.passes = 64, 32, 64, 1
    torch.set_num_threads(1)
    own = Path(tempfile.mkdtemp())
    try:
        runs = [_run(options, seed, own) for seed in options.seeds]
    finally:
        shutil.rmtree(own, ignore_errors=True)
    record("finishing", options, {"task": "sst2", "split": runs[0]["split"], "runs": runs})


def _run(options: argparse.Namespace, seed: int, own: Path) -> dict[str, Any]:
    task = load_task(
        options.data / "sst2",
        max_train_items=options.train_items,
        search_items=options.search_items,
        seed=seed,
    )
    if options.final_items is not None:
        task = replace(task, final=task.final.take(range(options.final_items)))
    folder = (options.cache or own) / f"sst2-{seed}"
    shared, full = _trained(options, task, seed, folder)
    answers = predict(full.model, full.encode(task.final))
    figures: dict[str, Any] = {
        "seed": seed,
        "split": task.final.name,
        "n_items": len(task.final),
        "full": _figures(task, answers),
    }
    for name in options.subnets:
        figures[name] = _finished(options, task, seed, half(name, shared.shape), shared, full)
        print(f"seed {seed}, {name}: {figures[name]}", flush=True)
    return figures


def half(name: str, shape: ModelShape) -> SubnetConfig:
    """A subnet of half the full model's operations: with narrower layers, or with fewer."""
    heads, units, layers = (
        shape.num_attention_heads,
        shape.intermediate_size,
        range(shape.num_hidden_layers),
    )
    if name == "shallow":
        kept, none = LayerConfig(heads, units), LayerConfig(0, 0)
        return SubnetConfig(tuple(kept if i % 2 == 1 else none for i in layers))
    wide, thin = LayerConfig(heads * 3 // 4, units // 2), LayerConfig(0, units // 2)
    return SubnetConfig(tuple(thin if i % 3 == 1 else wide for i in layers))


def _trained(options: argparse.Namespace, task: Task, seed: int, folder: Path) -> tuple[Supernet, Supernet]:
    """The shared weights, and the full model fine-tuned alone with as many passes as a delivered subnet."""
    model = options.model or minilm_path()
    settings = Optimisation(learning_rate=LEARNING_RATE, seed=seed)
    total = 1 + SHARED_EPOCHS + 1
    trainers = {
        "super": SandwichTrainer(epochs=SHARED_EPOCHS, importance_items=256, optimisation=settings),
        "full": FullTrainer(replace(settings, epochs=total)),
    }
    for name, trainer in trainers.items():
        place = folder.with_name(f"{folder.name}-{name}")
        if not place.is_dir():
            supernet = Supernet.from_pretrained(model, task, max_seq_len=MAX_SEQ_LEN, seed=seed)
            trainer.train(supernet, task, progress=False)
            supernet.save(temporary := place.with_name(f"{place.name}.tmp"))
            os.replace(temporary, place)
    shared, full = (Supernet.load(folder.with_name(f"{folder.name}-{name}")) for name in trainers)
    return shared, full


def _finished(
    options: argparse.Namespace,
    task: Task,
    seed: int,
    config: SubnetConfig,
    shared: Supernet,
    full: Supernet,
) -> dict[str, Any]:
    """A subnet as delivered, and what each way to train it further makes of it."""
    settings = Optimisation(epochs=1, learning_rate=LEARNING_RATE, seed=seed)
    delivered = shared.extract(config)
    SubnetFinisher(settings).finish(delivered, shared, task.train, progress=False)
    encoded = full.encode(task.final)
    before = predict(delivered, encoded)
    figures: dict[str, Any] = {"subnet": str(config), "delivered": _figures(task, before)}
    for name in options.ways:
        subnet = copy.deepcopy(delivered)
        finisher = SubnetFinisher(
            replace(settings, epochs=options.passes, learning_rate=options.learning_rate, seed=seed + 1),
            hidden_weight=HIDDEN_WEIGHTS[name],
            patience=options.passes,
        )
        started = time.process_time()
        finished = finisher.finish(subnet, full, task.train, validation=task.search, progress=False)
        seconds = time.process_time() - started
        figures[name] = {
            **_figures(task, predict(subnet, encoded), before),
            "looks": finished.looks,
            "best_look": finished.best_look,
            "kept_look": finished.kept_look,
            "seconds": seconds,
        }
    return figures


def _figures(
    task: Task, answers: npt.NDArray[Any], before: npt.NDArray[Any] | None = None
) -> dict[str, Any]:
    """Accuracy on the final split, and the gain over other answers, each with its interval."""
    labels = task.final.labels
    values: dict[str, Any] = {
        "accuracy": score("accuracy", labels, answers),
        "accuracy_ci": score_interval("accuracy", labels, answers),
    }
    if before is not None:
        low, high = difference_interval("accuracy", labels, before, answers)
        values["gain_points"] = 100 * (values["accuracy"] - score("accuracy", labels, before))
        values["gain_ci"] = [100 * low, 100 * high]
    return values


if __name__ == "__main__":
    main()
