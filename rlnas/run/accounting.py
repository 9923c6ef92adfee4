"""What the evaluations of a search have cost, over all processes that worked on it."""

from __future__ import annotations

from dataclasses import asdict, fields
from typing import TYPE_CHECKING

from rlnas.errors import RunFolderError
from rlnas.evaluation import EvaluationCost
from rlnas.run.folder import read_json, write_json

if TYPE_CHECKING:
    from rlnas.run.folder import RunFolder


def read_cost(folder: RunFolder) -> EvaluationCost:
    """What was spent on the history in the folder; nothing where there is none.

    Raises:
        RunFolderError: If the file is damaged.
    """
    if not (folder.evaluation.is_file() and folder.history.is_file()):
        return EvaluationCost()
    values = read_json(folder.evaluation)
    wanted = {entry.name for entry in fields(EvaluationCost)}
    if values.keys() != wanted or not all(type(value) is int for value in values.values()):
        raise RunFolderError(
            f"{str(folder.evaluation)!r} is damaged: it must hold whole numbers for "
            f"{', '.join(sorted(wanted))}, but holds {str(values)[:60]}; delete it and go on with --resume"
        )
    return EvaluationCost(**values)


def write_cost(folder: RunFolder, cost: EvaluationCost) -> None:
    """Keep what was spent so far, in one step.

    Raises:
        RunFolderError: If the file cannot be written.
    """
    write_json(folder.evaluation, asdict(cost))
