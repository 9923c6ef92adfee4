"""What a run is asked to do."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING

from rlnas.workload import Workload

if TYPE_CHECKING:
    from rlnas.protocols import Controller, Reward


@dataclass(frozen=True, slots=True)
class DataSource:
    """Where the task comes from; see `rlnas.data.load_task`.

    Attributes:
        source: ``"pydocs"``, a hub name, a folder or a file.
        text_column: Column of the texts, or None to find it by name.
        pair_column: Column of the second texts, likewise.
        label_column: Column of the labels, likewise.
        metric: The task's metric, or None for its usual one.
        max_train_items: Training items at most, or None for all.
        search_items: Size of the search split, or None for the default.
    """

    source: str = "pydocs"
    text_column: str | None = None
    pair_column: str | None = None
    label_column: str | None = None
    metric: str | None = None
    max_train_items: int | None = None
    search_items: int | None = None


@dataclass(frozen=True, slots=True)
class Schedule:
    """How the weights are trained.

    Attributes:
        full_epochs: Passes of the full model alone, before weights are shared; skipped for a
            checkpoint that is fine-tuned on the task.
        epochs: Passes with shared weights.
        finish_epochs: Passes of the chosen subnet alone, at the end.
        batch_size: Items per step.
        learning_rate: Peak learning rate of the encoder.
        freeze_embeddings: Whether the embeddings stay as they are.
    """

    full_epochs: int = 1
    epochs: int = 2
    finish_epochs: int = 1
    batch_size: int = 32
    learning_rate: float = 1e-4
    freeze_embeddings: bool = False

    def __post_init__(self) -> None:
        for name in ("full_epochs", "epochs", "finish_epochs"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must be at least 0, but got {name}={getattr(self, name)}")

    @property
    def total_epochs(self) -> int:
        """Item passes that the chosen subnet has behind it; the baseline gets as many."""
        return self.full_epochs + self.epochs + self.finish_epochs


@dataclass(frozen=True, slots=True)
class Job:
    """One run, complete: equal jobs give equal histories on one machine.

    Attributes:
        model: A hub name or a folder.
        reward: Turns metrics into a number.
        controller: Proposes subnets.
        data: Where the task comes from.
        workload: What the device will be asked; texts are cut to its length in training too.
        device: A torch device that is there.
        schedule: How the weights are trained.
        budget: Subnets that may be evaluated.
        seed: Of everything random.
        pooling: ``"cls"``, ``"mean"``, or None for what the checkpoint was made for.
        keep_last_layer: Whether the last layer's blocks may only shrink, not go.
        latency_table: File of a latency table to use instead of calibrating, or None.
        allow_foreign_table: Whether that table may be of another device or workload.
        trust_remote_code: Whether code inside the checkpoint may run.
    """

    model: str
    reward: Reward
    controller: Controller
    data: DataSource = field(default_factory=DataSource)
    workload: Workload = field(default_factory=Workload)
    device: str = "cpu"
    schedule: Schedule = field(default_factory=Schedule)
    budget: int = 200
    seed: int = 0
    pooling: str | None = None
    keep_last_layer: bool = False
    latency_table: str | None = None
    allow_foreign_table: bool = False
    trust_remote_code: bool = False

    def settings(self) -> dict[str, str]:
        """Every setting as text; all but the budget must be equal when a run is resumed."""
        values: dict[str, str] = {}
        for entry in fields(self):
            value = getattr(self, entry.name)
            if isinstance(value, DataSource | Schedule | Workload):
                values |= {part.name: str(getattr(value, part.name)) for part in fields(value)}
            else:
                # A function's repr holds its address, which is another in every process.
                values[entry.name] = re.sub(r" at 0x[0-9a-fA-F]+", "", str(value))
        return values
