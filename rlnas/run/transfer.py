"""A start from the shared weights of an earlier run, made for another task."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from rlnas.data import read_task
from rlnas.data.splits import normal_items
from rlnas.errors import CheckpointError, DataError, RLNASError
from rlnas.run.folder import RunFolder
from rlnas.supernet import Supernet

if TYPE_CHECKING:
    from rlnas.task import Split, Task


def transferred(run: str, checkpoint: Supernet, task: Task, *, seed: int) -> Supernet:
    """The encoder of an earlier run's supernet, with an untrained classifier for this task.

    It has learnt already to work with parts of itself, which takes more items than a small task has.

    Args:
        run: Folder of the earlier run, or of a supernet that `Supernet.save` wrote.
        checkpoint: What this run would start from without it; sizes and vocabulary have to be the same.
        task: The new task.
        seed: For the classifier's weights.

    Raises:
        CheckpointError: If there are no shared weights, or they do not fit the checkpoint.
        DataError: If the earlier run was trained on items that this one is judged on.
    """
    folder = _folder_of(run)
    place = folder.supernet if folder.supernet.is_dir() else folder.path
    try:
        earlier = Supernet.load(place, device=str(checkpoint.device))
    except RLNASError as error:
        raise CheckpointError(
            f"from_run={run} holds no shared weights to start from; name the folder of a run (its --out): "
            f"{error}"
        ) from error
    for what, own, theirs in (
        ("sizes", checkpoint.shape, earlier.shape),
        ("pooling", checkpoint.model.config.pooling, earlier.model.config.pooling),
        ("tokens in its vocabulary", len(checkpoint.tokenizer), len(earlier.tokenizer)),
    ):
        if own != theirs:
            raise CheckpointError(
                f"from_run={run} has other {what} than the checkpoint: {theirs}, not {own}; name the "
                "checkpoint that it began with (--model), or another run"
            )
    if folder.data.is_dir():
        _check_apart(run, read_task(folder.data), task)
    start = earlier.for_task(task, seed=seed)
    start.max_seq_len = checkpoint.max_seq_len
    return start


def _check_apart(run: str, earlier: Task, task: Task) -> None:
    """Refuse weights that have seen the items which are to judge them."""
    known = {item for split in (earlier.train, earlier.search) for item in normal_items(split)}
    for split in _judging(task):
        n_known = sum(item in known for item in normal_items(split))
        if n_known:
            raise DataError(
                f"from_run={run} was trained on {n_known} of the {len(split)} items of this task's "
                f"{split.name} split, so every figure would flatter; start from a run on other data"
            )


def _judging(task: Task) -> tuple[Split, Split]:
    return task.search, task.final


def _folder_of(run: str) -> RunFolder:
    """The run, also where its shared weights are named: what they were trained on is known all the same."""
    path = Path(run).resolve()
    owner = RunFolder(path.parent)
    return owner if owner.supernet == path and owner.config.is_file() else RunFolder(Path(run))


def describe_start(run: str) -> dict[str, str | None]:
    """The earlier run, as ``from_run`` in ``summary.json``: its folder's name and its task."""
    folder = _folder_of(run)
    data = folder.data
    return {"run": folder.path.resolve().name, "task": read_task(data).name if data.is_dir() else None}
