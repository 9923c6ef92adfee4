"""The durable record of a choice: one row per trial and rung, in a file that is replaced in one step."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rlnas.auto.candidates import Candidate
from rlnas.errors import RunFolderError
from rlnas.run.folder import read_json, remedy_of, write_json

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class Judgement:
    """What a model is worth on the search split.

    Attributes:
        score: The task's metric.
        loss: Mean loss of the task, cross entropy in nats or squared error. It tells models apart of which
            the metric says the same, as early in a training that still names one class only.
    """

    score: float
    loss: float


@dataclass(frozen=True, slots=True)
class Look:
    """A trial judged at a rung.

    Attributes:
        candidate: The trial.
        rung: Number of the rung, from 0.
        found: What it is worth there; None where the training failed, as by too high a rate.
        cost: Passes of the reference that it took, from the rung before.
    """

    candidate: Candidate
    rung: int
    found: Judgement | None
    cost: float

    @property
    def score(self) -> float | None:
        """The task's metric on the search split; None where the training failed."""
        return None if self.found is None else self.found.score

    @property
    def loss(self) -> float | None:
        """The mean loss there; None where the training failed."""
        return None if self.found is None else self.found.loss

    @property
    def order(self) -> tuple[float, float, float, int]:
        """Better looks at one rung have lower ones: by score, by loss, by cost, then by age."""
        found = self.found or Judgement(-math.inf, math.inf)
        return (-found.score, found.loss, self.cost, self.candidate.number)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        found = {"score": self.score, "loss": self.loss}
        return {**self.candidate.to_dict(), "rung": self.rung, **found, "cost": self.cost}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Look:
        """Inverse of `to_dict`."""
        rung, score, loss, cost = (values.pop(name) for name in ("rung", "score", "loss", "cost"))
        found = None if score is None else Judgement(float(score), float(loss))
        return cls(Candidate(**values), int(rung), found, float(cost))


class Record:
    """The looks of a choice, in a file or in memory.

    Args:
        path: A JSON file, read if it is there; None keeps the record in memory.

    Raises:
        RunFolderError: If the file is damaged.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._path = path
        self._looks: list[Look] = []
        if path is not None and path.is_file():
            try:
                self._looks = [Look.from_dict(row) for row in read_json(path)["looks"]]
            except (KeyError, TypeError, ValueError, AttributeError) as error:
                raise RunFolderError(f"{str(path)!r} is damaged ({error}); {remedy_of(path)}") from error

    @property
    def looks(self) -> tuple[Look, ...]:
        """All looks in their order."""
        return tuple(self._looks)

    def at(self, rung: int) -> dict[int, Look]:
        """The looks at a rung, by the number of their trial."""
        return {look.candidate.number: look for look in self._looks if look.rung == rung}

    def append(self, look: Look) -> None:
        """Add a look; it is in the file when this returns.

        Raises:
            RunFolderError: If the file cannot be written.
        """
        self._looks.append(look)
        if self._path is not None:
            write_json(self._path, {"looks": [each.to_dict() for each in self._looks]})
