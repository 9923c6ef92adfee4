"""MiniLM on sst2 with shared weights, trained once and kept, for the benchmarks of evaluation."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from rlnas.cli import minilm_path
from rlnas.data import load_task
from rlnas.supernet import Supernet
from rlnas.supernet.optimisation import Optimisation
from rlnas.supernet.training import SandwichTrainer

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from rlnas.space import SubnetConfig
    from rlnas.task import Task

TRAIN_ITEMS = 8000
SEARCH_ITEMS = 5000
MAX_SEQ_LEN = 64
FOLDER = "sst2-minilm"
"""In the cache, of the trained supernet."""


def load_searched(data: Path, cache: Path, n_items: int) -> tuple[Supernet, Task]:
    """The supernet and its task, whose search part is cut to a random choice of `n_items`.

    Args:
        data: Folder that holds the folder ``sst2``.
        cache: Where the trained supernet is kept; the first call takes some minutes.
        n_items: Search items, at most `SEARCH_ITEMS`.
    """
    task = load_task(data / "sst2", max_train_items=TRAIN_ITEMS, search_items=SEARCH_ITEMS)
    folder = cache / FOLDER
    if not folder.is_dir():
        _train(task, folder)
    order = np.random.default_rng(0).permutation(len(task.search))
    return Supernet.load(folder), replace(task, search=task.search.take(np.sort(order[:n_items])))


def _train(task: Task, folder: Path) -> None:
    print("training the shared weights once; they are kept in", folder.name, flush=True)
    torch.set_num_threads(1)
    supernet = Supernet.from_pretrained(minilm_path(), task, max_seq_len=MAX_SEQ_LEN)
    optimisation = Optimisation(epochs=2, learning_rate=2e-4)
    SandwichTrainer(epochs=2, optimisation=optimisation).train(supernet, task)
    temporary = folder.with_name(folder.name + ".tmp")
    supernet.save(temporary)
    os.replace(temporary, folder)


def operations_latency(supernet: Supernet, task: Task) -> Callable[[Sequence[SubnetConfig]], list[float]]:
    """A latency that counts matrix products, in units of the full model: no device is timed here."""
    shape = supernet.shape
    hidden = shape.hidden_size
    head = hidden // shape.num_attention_heads
    length = float(np.mean(supernet.encode(task.search).lengths))

    def operations(config: SubnetConfig) -> float:
        return sum(
            (8 * hidden + 4 * length) * head * layer.num_attention_heads
            + 4 * hidden * layer.intermediate_size
            for layer in config.layers
        )

    # Embeddings and head take about one twentieth of the full model's time on a CPU.
    full = operations(shape.full)
    return lambda configs: [0.05 + 0.95 * operations(config) / full for config in configs]
