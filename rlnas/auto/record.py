"""The durable record of a choice: one row per trial and rung, in a file that is replaced in one step."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rlnas.auto.candidates import Candidate
from rlnas.errors import RunFolderError
from rlnas.run.folder import read_json, write_json

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class Look:
    """A trial judged at a rung.

    Attributes:
        candidate: The trial.
        rung: Number of the rung, from 0.
        score: The task's metric on the search split; None where the training failed, as by too high a rate.
        cost: Passes of the reference that it took, from the rung before.
    """

    candidate: Candidate
    rung: int
    score: float | None
    cost: float

    @property
    def order(self) -> tuple[float, float, int]:
        """Better looks at one rung have lower ones: by score, then by cost, then by age."""
        score = -math.inf if self.score is None else self.score
        return (-score, self.cost, self.candidate.number)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {**self.candidate.to_dict(), "rung": self.rung, "score": self.score, "cost": self.cost}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Look:
        """Inverse of `to_dict`."""
        rung, score, cost = (values.pop(name) for name in ("rung", "score", "cost"))
        return cls(Candidate(**values), int(rung), None if score is None else float(score), float(cost))


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
                raise RunFolderError(
                    f"{str(path)!r} is damaged ({error}); delete it and go on with --resume"
                ) from error

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
