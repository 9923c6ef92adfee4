"""What all methods of the compression benchmark share on one task with one seed.

The task, whose final split is validation and test pooled: neither the search nor any training sees them.
The fine-tuned full model, which every method starts from and learns from. The latency table, and a
stopwatch that remembers what it has measured: latency depends on the sizes alone.
"""

from __future__ import annotations

import json
import os
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from multiprocessing import get_context
from typing import TYPE_CHECKING, Any

import numpy as np
from datasets import concatenate_datasets, load_dataset

from rlnas import LatencyTarget, LayerwiseSpace, Workload
from rlnas.calibration import Effort, calibrate
from rlnas.cli import minilm_path
from rlnas.controllers.surrogate import AutoController
from rlnas.data import load_task
from rlnas.latency import LatencyTable, clock_for, compare, timing_conditions
from rlnas.run import DataSource, Job, Schedule, run_job
from rlnas.supernet import FullTrainer, Supernet
from rlnas.supernet.optimisation import Optimisation
from rlnas.supernet.timing import TimedModel

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from rlnas.space import SubnetConfig
    from rlnas.supernet.modeling_subnet import SubnetModel
    from rlnas.task import Task

METRICS = {"cola": "matthews"}
"""Of the tasks that are not scored by their accuracy."""

LEARNING_RATE = 2e-4
FINISHING_RATE = 1e-4
"""Of a compressed model: at the full model's rate those that have lost little get worse."""

VERSION = 2
"""Of the methods and of their training: cells of others are not to be mixed with these."""

STEPS = 12
"""Widths of a block on offer, to the search and to its rivals: so many equal parts of the full one."""

WORKLOAD = Workload(batch_size=1, seq_len=64)


@dataclass(frozen=True, slots=True)
class Budget:
    """How much of everything; the same for all methods.

    Attributes:
        train_items: Training items at most.
        search_items: Search items.
        final_items: Items of the final split at most, a random choice; None for all.
        full_epochs: Passes of the full model.
        epochs: Passes of a compressed model that is finished.
        trials: Subnets that a search may judge.
        models: Subnets that correct the latency table.
        seconds: Bound on each timing.
    """

    train_items: int = 8000
    search_items: int = 872
    final_items: int | None = None
    full_epochs: int = 3
    epochs: int = 3
    trials: int = 200
    models: int = 16
    seconds: float = 10.0

    @property
    def name(self) -> str:
        """Tells folders of different budgets apart."""
        final = "all" if self.final_items is None else self.final_items
        sizes = (self.train_items, self.search_items, final, self.full_epochs, self.epochs, self.trials)
        return "-".join(map(str, (*sizes, f"v{VERSION}")))


class Stopwatch:
    """Latencies of subnets over the full model's, each measured once and kept in a file.

    They are measured in a process that does nothing else: a training in the same one moves the
    ratios by some percent.

    Args:
        supernet: Folder of one of these sizes.
        path: JSON lines.
        device: Where they run.
        seconds: Bound on each measurement.
    """

    def __init__(self, supernet: Path, path: Path, device: str, seconds: float) -> None:
        self._supernet, self._path, self._device, self._seconds = supernet, path, device, seconds
        self._process = ProcessPoolExecutor(1, get_context("spawn"))
        lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
        # Of several processes that have measured the same, the first counts for all.
        self._known = {line["config"]: line for line in map(json.loads, reversed(lines))}

    def measure(self, config: SubnetConfig) -> dict[str, Any]:
        """Ratio, its interval, and both medians with their spreads in milliseconds."""
        key = config.to_json()
        if key not in self._known:
            work = self._process.submit(
                _measure, self._supernet, config, WORKLOAD, self._device, self._seconds
            )
            self._known[key] = {"config": key, **work.result()}
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(self._known[key]) + "\n")
        return {name: value for name, value in self._known[key].items() if name != "config"}


def _measure(
    supernet: Path, config: SubnetConfig, workload: Workload, device: str, seconds: float
) -> dict[str, Any]:
    timer = TimedModel(Supernet.load(supernet, device=device), workload, device)
    full, subnet = (timer.model_calls(one) for one in (timer.shape.full, config))
    with timing_conditions():
        timed = compare(full, subnet, clock_for(device), n_rounds=200, max_seconds=seconds)
    return {
        "ratio": timed.ratio,
        "ratio_ci": list(timed.ratio_ci),
        "full_ms": timed.first.median_ms,
        "full_spread_ms": timed.first.spread_ms,
        "subnet_ms": timed.second.median_ms,
        "subnet_spread_ms": timed.second.spread_ms,
    }


@dataclass(frozen=True, eq=False)
class Study:
    """One task with one seed.

    Attributes:
        name: Of the task.
        seed: Of everything random.
        data: Folder of all tasks.
        cache: Where everything is kept.
        budget: How much of everything.
        device: Where everything runs.
    """

    name: str
    seed: int
    data: Path
    cache: Path
    budget: Budget
    device: str

    @property
    def folder(self) -> Path:
        """Of this task, seed and budget."""
        return self.cache / self.budget.name / f"{self.name}-{self.seed}"

    @cached_property
    def task(self) -> Task:
        """The task with its pooled final split."""
        budget = self.budget
        task = load_task(
            self._staged,
            metric=METRICS.get(self.name),
            max_train_items=budget.train_items,
            search_items=budget.search_items,
            seed=self.seed,
        )
        if budget.final_items is None or budget.final_items >= len(task.final):
            return task
        # The same items for every seed, so that differences can be paired over seeds.
        chosen = np.random.default_rng(0).permutation(len(task.final))[: budget.final_items]
        return replace(task, final=task.final.take(np.sort(chosen)))

    @cached_property
    def _staged(self) -> Path:
        """A folder with the training rows, and with validation and test rows as one file."""
        folder = self.cache / "data" / self.name
        if not folder.is_dir():
            source, temporary = self.data / self.name, folder.with_name(f".{self.name}.tmp")
            temporary.mkdir(parents=True, exist_ok=True)
            held_out = [
                _read(source / f"{part}.parquet")
                for part in ("validation", "test")
                if (source / f"{part}.parquet").is_file()
            ]
            _read(source / "train.parquet").to_parquet(temporary / "train.parquet")
            concatenate_datasets(held_out).to_parquet(temporary / "test.parquet")
            os.replace(temporary, folder)
        return folder

    @cached_property
    def _teacher(self) -> Path:
        """The folder of the fine-tuned full model."""
        folder = self.folder / "teacher"
        if not folder.is_dir():
            supernet = Supernet.from_pretrained(
                minilm_path(),
                self.task,
                max_seq_len=WORKLOAD.seq_len,
                device=self.device,
                seed=self.seed,
            )
            full = Optimisation(epochs=self.budget.full_epochs, learning_rate=LEARNING_RATE, seed=self.seed)
            FullTrainer(full).train(supernet, self.task)
            temporary = folder.with_name(".teacher.tmp")
            supernet.save(temporary)
            os.replace(temporary, folder)
        return folder

    def optimisation(self, epochs: int) -> Optimisation:
        """The training that all methods get."""
        return Optimisation(epochs=epochs, learning_rate=FINISHING_RATE, seed=self.seed)

    def search(self, target_ratios: Sequence[float]) -> Path:
        """The folder of the run that searches for all targets at once, without any training."""
        run = self.folder / "search"
        _ = self.latency  # whose file the job names
        job = Job(
            model=str(self._teacher),
            reward=LatencyTarget(ratio=max(target_ratios)),
            controller=AutoController(),
            data=DataSource(
                source=str(self._staged),
                metric=METRICS.get(self.name),
                max_train_items=self.budget.train_items,
                search_items=self.budget.search_items,
            ),
            workload=WORKLOAD,
            device=self.device,
            schedule=Schedule(full_epochs=0, epochs=0, finish_epochs=0),
            target_ratios=tuple(target_ratios),
            budget=self.budget.trials,
            parts=STEPS,
            seed=self.seed,
            latency_table=str(self._table_file),
        )
        run_job(job, run, resume=run.is_dir(), progress=False)
        return run

    @cached_property
    def supernet(self) -> Supernet:
        """The full model with its heads and units in order of importance."""
        from rlnas.supernet.training import prepare

        supernet = Supernet.from_pretrained(
            self._teacher, self.task, max_seq_len=WORKLOAD.seq_len, device=self.device
        )
        prepare(supernet, self.task.train, 256, self.seed)
        return supernet

    def full_model(self) -> SubnetModel:
        """A stand-alone copy of it."""
        return self.supernet.extract(self.supernet.shape.full)

    @property
    def _table_file(self) -> Path:
        return self.folder.parent / f"latency-{self.device.replace(':', '-')}.json"

    @cached_property
    def latency(self) -> LatencyTable:
        """The table; made once for all tasks."""
        if not self._table_file.is_file():
            self._table_file.parent.mkdir(parents=True, exist_ok=True)
            space = LayerwiseSpace.for_model(self.supernet.shape, parts=STEPS)
            effort = Effort(n_models=self.budget.models, max_seconds=4 * self.budget.seconds)
            calibrate(self.supernet, space, WORKLOAD, self.device, effort=effort).save(self._table_file)
        return LatencyTable.load(self._table_file)

    @cached_property
    def stopwatch(self) -> Stopwatch:
        """Measures subnets, once for all tasks."""
        path = self.folder.parent / f"ratios-{self.device.replace(':', '-')}.jsonl"
        return Stopwatch(self._teacher, path, self.device, self.budget.seconds)


def _read(path: Path) -> Any:  # noqa: ANN401 - a Dataset; the package has no types
    return load_dataset("parquet", data_files=str(path), split="train")
