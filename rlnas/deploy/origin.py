"""Where a model comes from: what its card says beside what its folder holds."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rlnas.space import ModelShape
    from rlnas.task import Task


@dataclass(frozen=True, slots=True)
class BaseModel:
    """The checkpoint that a model was made of, by a name that others know.

    Attributes:
        name: On the hub, or of a Python package.
        on_hub: Whether it is a name of the hub.
    """

    name: str
    on_hub: bool


@dataclass(frozen=True, slots=True)
class DataFacts:
    """The data that a model was made and judged with.

    Attributes:
        task: Name of the task.
        metric: What it is scored by, see `rlnas.task.METRICS`.
        splits: Number of items of the training, the search and the final split.
        names: Where their items come from, e.g. ``("train", "search", "validation")``.
        notes: Sentences on how the splits came about.
        hub_name: The data set's name on the hub, or None.
    """

    task: str
    metric: str
    splits: tuple[int, int, int]
    names: tuple[str, str, str]
    notes: tuple[str, ...] = ()
    hub_name: str | None = None

    @classmethod
    def of(cls, task: Task, hub_name: str | None = None) -> DataFacts:
        """The facts of a task."""
        parts = (task.train, task.search, task.final)
        sizes, names = (len(part) for part in parts), (part.name for part in parts)
        train, search, final = sizes
        first, second, third = names
        return cls(
            task.name, task.metric, (train, search, final), (first, second, third), task.notes, hub_name
        )


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a model comes from, as far as that is known.

    Attributes:
        shape: Sizes of the full model that it is a part of.
        base: What that one was made of.
        data: What it was trained, searched and judged on.
        training: Sentences on how its weights came about.
        certificate: What it was measured to be, as `rlnas.deploy.Certificate.to_dict` gives it.
        versions: Of the packages that made it.
        figures: What else the card says, one line per entry, as plain text.
    """

    shape: ModelShape | None = None
    base: BaseModel | None = None
    data: DataFacts | None = None
    training: tuple[str, ...] = ()
    certificate: Mapping[str, Any] | None = None
    versions: Mapping[str, str] = field(default_factory=dict)
    figures: Mapping[str, object] = field(default_factory=dict)
