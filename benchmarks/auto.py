"""Is the model that `rlnas auto` chooses as good as the best of all trained to their end, at half the cost?

For each task and seed all trials of the choice are trained to the last rung once, and what they scored is
kept: at each rung on the search split, and at the end on the final split. Then the choice is replayed on
these curves; its trials depend on nothing but what it has seen. Its model is compared on the final split
with the best of all trials there, which nobody can know beforehand, and with the one that the search split
would have chosen had all come to their end (the patient choice).

Candidates are MiniLM with mean and with first-token pooling, its first 4 and 3 layers, and one that was
fine-tuned on sst2 before; each with the usual learning rate, and once more as Optuna draws it.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from benchmarks.compression_study import METRICS
from benchmarks.record import make_parser, record
from rlnas import LatencyTarget, Workload
from rlnas.auto import Arm
from rlnas.auto.compute import arm_cost, forward_flops
from rlnas.auto.learner import FullLearner
from rlnas.auto.plan import RUNGS, Plan
from rlnas.auto.race import race
from rlnas.auto.record import Judgement, Record
from rlnas.cli import minilm_path
from rlnas.controllers.random import RandomController
from rlnas.data import load_task
from rlnas.run import Job
from rlnas.run.training import usual_learning_rate
from rlnas.scores import score
from rlnas.supernet import FullTrainer, Supernet
from rlnas.supernet.inference import predict
from rlnas.supernet.optimisation import Optimisation

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from rlnas.auto.candidates import Candidate
    from rlnas.auto.compute import ArmCost
    from rlnas.task import Task

TASKS = ("clinc150", "cola")
EARLIER_TASK = "sst2"
MAX_SEQ_LEN = 64
POINTS = 1.0
"""Loss on the final split that counts as none."""


def main() -> None:
    """Train what is not in the cache, replay the choices, and record them."""
    parser = make_parser(__doc__, "auto.jsonl")
    parser.add_argument("--data", type=Path, required=True, help="folder that holds the tasks and sst2")
    parser.add_argument("--model", help="checkpoint; by default MiniLM")
    parser.add_argument("--cache", type=Path, help="folder where curves are kept; by default none")
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS))
    parser.add_argument(
        "--seeds", type=int, nargs="+", default=list(range(10)), help="of data and training"
    )
    parser.add_argument("--train-items", type=int, default=3000, help="training items")
    parser.add_argument("--search-items", type=int, default=800, help="search items")
    parser.add_argument("--final-items", type=int, default=2000, help="final items at most")
    parser.add_argument("--rungs", type=int, nargs="+", default=list(RUNGS), help="passes of each rung")
    parser.add_argument(
        "--trials-of-each",
        type=int,
        choices=[1, 2],
        default=2,
        help="trials of each model, the usual one first",
    )
    options = parser.parse_args()
    if options.quick:
        sizes = {"train_items": 32, "search_items": 32, "final_items": 64}
        vars(options).update(tasks=options.tasks[-1:], seeds=options.seeds[:1], rungs=[1, 2], **sizes)
    torch.set_num_threads(1)
    own = Path(tempfile.mkdtemp())
    try:
        cells = [_cell(options, own, task, seed) for seed in options.seeds for task in options.tasks]
    finally:
        shutil.rmtree(own, ignore_errors=True)
    record("auto", options, {"cells": cells, **_counts(cells)})


def _cell(options: argparse.Namespace, own: Path, name: str, seed: int) -> dict[str, Any]:
    """One choice, beside training all of its trials to the end."""
    task = load_task(
        options.data / name,
        metric=METRICS.get(name),
        max_train_items=options.train_items,
        search_items=options.search_items,
        seed=seed,
    )
    n_final = min(options.final_items, len(task.final))
    chosen = np.random.default_rng(0).choice(len(task.final), size=n_final, replace=False)
    task = replace(task, final=task.final.take(np.sort(chosen)))
    folder = options.cache or own
    curves = Curves(
        _learner(options, task, seed, folder, own), folder / f"{_stem(options, name)}-{seed}.json"
    )
    costs = curves.costs()
    plan = Plan(tuple(options.rungs), options.trials_of_each * len(costs))
    seen = Record()
    winner = race(plan, curves.rates(), costs, curves, seen, seed)
    rows = {number: row for number, row in curves.rows.items() if number < plan.n_trials}
    best = max(rows, key=lambda number: rows[number]["final"])
    patient = min(rows, key=lambda number: (-rows[number]["scores"][-1], rows[number]["losses"][-1]))
    figures = {
        "task": name,
        "seed": seed,
        "metric": task.metric,
        "n_items": len(task.final),
        "chosen": rows[winner.candidate.number],
        "best": rows[best],
        "patient": rows[patient],
        "loss_points": 100 * (rows[best]["final"] - rows[winner.candidate.number]["final"]),
        "loss_to_patient_points": 100 * (rows[patient]["final"] - rows[winner.candidate.number]["final"]),
        "cost": sum(look.cost for look in seen.looks),
        "cost_to_the_end": sum(costs[row["arm"]].look(plan.rungs[-1]) for row in rows.values()),
    }
    figures["cost_share"] = figures["cost"] / figures["cost_to_the_end"]
    print(f"{name} {seed}: {figures}", flush=True)
    return figures


class Curves:
    """Trains trials to their end, once, and tells what they scored at each rung.

    Args:
        learner: Trains them.
        path: JSON file of the curves.

    Attributes:
        rows: By number of a trial: how it was trained, its score at each rung on the search split, and that
            at the end on the final split.
    """

    def __init__(self, learner: FullLearner, path: Path) -> None:
        self._learner, self._path = learner, path
        stored = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        self.rows: dict[int, dict[str, Any]] = {int(number): row for number, row in stored.items()}

    def judge(self, candidate: Candidate, rung: int) -> Judgement:
        """What a trial was worth at a rung on the search split."""
        if candidate.number not in self.rows:
            self.rows[candidate.number] = self._trained(candidate)
            temporary = self._path.with_suffix(".tmp")
            temporary.write_text(json.dumps(self.rows), encoding="utf-8")
            os.replace(temporary, self._path)
        row = self.rows[candidate.number]
        own = (candidate.arm, candidate.learning_rate, candidate.batch_size)
        if own != (row["arm"], row["learning_rate"], row["batch_size"]):
            raise SystemExit(f"{self._path} holds other trials: {row}, not {candidate}; delete it")
        return Judgement(row["scores"][rung], row["losses"][rung])

    def drop(self, candidate: Candidate) -> None:
        """Nothing: its weights are gone already."""

    def _trained(self, candidate: Candidate) -> dict[str, Any]:
        learner, task, found = self._learner, self._learner.task, []
        for rung in range(len(learner.rungs)):
            supernet = learner.train(candidate, rung)
            found.append(learner.worth(supernet))
        learner.drop(candidate)
        answers = predict(supernet.model, supernet.encode(task.final))
        row = {
            **candidate.to_dict(),
            "scores": [each.score for each in found],
            "losses": [each.loss for each in found],
            "final": score(task.metric, task.final.labels, answers),
        }
        print(row, flush=True)
        return row

    def costs(self) -> dict[str, ArmCost]:
        """What each arm's work costs."""
        models = {name: self._load(name) for name in self._learner.arms}
        splits = (self._learner.task.train, self._learner.task.search)
        lengths = {
            name: [model.encode(split).lengths.tolist() for split in splits]
            for name, model in models.items()
        }
        first = next(iter(models))
        unit = forward_flops(models[first].shape.full, models[first].shape, lengths[first][0])
        return {name: arm_cost(model.shape, *lengths[name], unit) for name, model in models.items()}

    def rates(self) -> dict[str, float]:
        """The usual learning rate of each arm."""
        arms = self._learner.arms
        return {name: usual_learning_rate(self._load(name).shape.hidden_size) for name in arms}

    def _load(self, name: str) -> Supernet:
        return self._learner.arms[name].load(
            self._learner.task, max_seq_len=MAX_SEQ_LEN, device="cpu", seed=self._learner.job.seed
        )


def _learner(options: argparse.Namespace, task: Task, seed: int, folder: Path, own: Path) -> FullLearner:
    model = options.model or minilm_path()
    earlier = str(_earlier(options, model, folder))
    arms = [
        Arm(model, "mean", name="minilm"),
        Arm(model, "cls", name="minilm:cls"),
        Arm(model, "mean", first=4 if options.model is None else 2, name="minilm:first=4"),
        Arm(model, "mean", first=3 if options.model is None else 1, name="minilm:first=3"),
        Arm(earlier, name=f"minilm after {EARLIER_TASK}"),
    ]
    job = Job(
        model=model,
        reward=LatencyTarget(ratio=0.5),
        controller=RandomController(),
        workload=Workload(1, MAX_SEQ_LEN),
        seed=seed,
    )
    named = {arm.name: arm for arm in arms}
    return FullLearner(named, task, job, tuple(options.rungs), own / "paused", progress=False)


def _earlier(options: argparse.Namespace, model: str, folder: Path) -> Path:
    """MiniLM fine-tuned on another task: one pass, the same for all seeds."""
    place = folder / f"{_stem(options, EARLIER_TASK)}-tuned"
    if not place.is_dir():
        task = load_task(
            options.data / EARLIER_TASK,
            max_train_items=options.train_items,
            search_items=options.search_items,
            seed=0,
        )
        supernet = Supernet.from_pretrained(model, task, pooling="mean", max_seq_len=MAX_SEQ_LEN)
        rate = usual_learning_rate(supernet.shape.hidden_size)
        FullTrainer(Optimisation(epochs=1, learning_rate=rate)).train(supernet, task, progress=False)
        supernet.save(temporary := place.with_name(f"{place.name}.tmp"))
        os.replace(temporary, place)
    return place


def _stem(options: argparse.Namespace, name: str) -> str:
    """Tells cells of other sizes apart."""
    sizes = (options.train_items, options.search_items, options.final_items, *options.rungs)
    return f"auto-{name}-{'-'.join(map(str, sizes))}"


def _counts(cells: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """How often the loss was small, and what the choices cost, by task."""
    counts = {}
    for name in dict.fromkeys(cell["task"] for cell in cells):
        own = [cell for cell in cells if cell["task"] == name]
        counts[name] = {
            "seeds": len(own),
            "within_a_point_of_the_best": sum(cell["loss_points"] <= POINTS for cell in own),
            "within_a_point_of_the_patient": sum(cell["loss_to_patient_points"] <= POINTS for cell in own),
            "mean_loss_points": sum(cell["loss_points"] for cell in own) / len(own),
            "mean_loss_to_patient_points": sum(cell["loss_to_patient_points"] for cell in own) / len(own),
            "mean_cost_share": sum(cell["cost_share"] for cell in own) / len(own),
        }
    return counts


if __name__ == "__main__":
    main()
