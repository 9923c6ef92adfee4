"""The subnets that were certified one after the other, until one met its target."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from rlnas.errors import RunFolderError
from rlnas.run.folder import read_json, write_json

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class Step:
    """What the certificate of one subnet said.

    Attributes:
        trial: Number of the subnet in the history.
        latency_ratio: Its certified latency over the full model's.
        target_met: Whether that meets the target; None where it cannot be told.
    """

    trial: int
    latency_ratio: float
    target_met: bool | None

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)


def read_steps(path: Path, n_trials: int) -> list[Step]:
    """The steps of a delivery that was killed; none of a search that has gone on since.

    Args:
        path: The file that may hold them.
        n_trials: Trials of the search.

    Raises:
        RunFolderError: If the file is damaged.
    """
    if not path.is_file():
        return []
    values = read_json(path)
    try:
        steps = [Step(**step) for step in values["steps"]]
        return steps if values["n_trials"] == n_trials else []
    except (KeyError, TypeError) as error:
        raise RunFolderError(
            f"{str(path)!r} is damaged ({error}); delete it and go on with --resume"
        ) from error


def write_steps(path: Path, steps: Sequence[Step], n_trials: int) -> None:
    """Keep what was certified so far, in one step.

    Raises:
        RunFolderError: If the file cannot be written.
    """
    path.parent.mkdir(exist_ok=True)
    write_json(path, {"n_trials": n_trials, "steps": [step.to_dict() for step in steps]})
