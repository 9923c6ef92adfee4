"""A task on disk: one parquet file per part and a small JSON file, restored exactly."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rlnas.data.files import quiet_datasets, read_files, reason
from rlnas.errors import DataError, RunFolderError
from rlnas.task import Split, Task

if TYPE_CHECKING:
    from datasets import Dataset

DESCRIPTION = "task.json"
PARTS = ("train", "search", "final")
FORMAT = 1


def write_task(task: Task, folder: str | Path) -> None:
    """Write a task into a folder, which is made if it is missing.

    Each file appears under its name only when it is complete, the description last.

    Raises:
        RunFolderError: If the folder cannot be written.
    """
    folder = Path(folder)
    description = {
        "format": FORMAT,
        "name": task.name,
        "metric": task.metric,
        "label_names": list(task.label_names),
        "notes": list(task.notes),
        "folds": None if task.folds is None else task.folds.tolist(),
        "parts": {
            part: {"name": split.name, "n_items": len(split)} for part, split in _parts(task).items()
        },
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".task-", dir=folder) as draft, quiet_datasets():
            for part, split in _parts(task).items():
                _table(split, task.label_names).to_parquet(Path(draft, f"{part}.parquet"))
            text = json.dumps(description, indent=2, ensure_ascii=False)
            Path(draft, DESCRIPTION).write_text(text, encoding="utf-8")
            for name in (*(f"{part}.parquet" for part in PARTS), DESCRIPTION):
                os.replace(Path(draft, name), folder / name)
    except OSError as error:
        message = f"the task cannot be written to folder={str(folder)!r}: {reason(error)}"
        raise RunFolderError(message) from error


def read_task(folder: str | Path) -> Task:
    """The task that `write_task` wrote.

    Raises:
        DataError: If the folder holds no task, or a damaged one.
    """
    folder = Path(folder)
    path = folder / DESCRIPTION
    if not path.is_file():
        raise DataError(f"folder={str(folder)!r} holds no stored task: {DESCRIPTION} is missing")
    try:
        description = json.loads(path.read_text(encoding="utf-8"))
        if description["format"] != FORMAT:
            raise DataError(f"{path} has format={description['format']}, but this version reads {FORMAT}")
        names = tuple(map(str, description["label_names"]))
        folds = description.get("folds")  # not in files of earlier versions
        parts = {part: _read_part(folder, part, description["parts"][part], names) for part in PARTS}
        return Task(
            name=str(description["name"]),
            train=parts["train"],
            search=parts["search"],
            final=parts["final"],
            label_names=names,
            metric=description["metric"],
            notes=tuple(map(str, description["notes"])),
            folds=None if folds is None else np.array(folds, dtype=np.int64),
        )
    except DataError:
        raise
    except (KeyError, TypeError, ValueError, OSError) as error:
        message = f"{path} is damaged ({type(error).__name__}: {reason(error)}); write it anew"
        raise DataError(message) from error


def _parts(task: Task) -> dict[str, Split]:
    return {"train": task.train, "search": task.search, "final": task.final}


def _table(split: Split, names: tuple[str, ...]) -> Dataset:
    from datasets import ClassLabel, Dataset, Features, Value

    columns: dict[str, Any] = {"text": list(split.texts)}
    features: dict[str, Any] = {"text": Value("string")}
    if split.text_pairs is not None:
        columns["text_pair"] = list(split.text_pairs)
        features["text_pair"] = Value("string")
    columns["label"] = split.labels
    features["label"] = ClassLabel(names=list(names)) if names else Value("float32")
    return Dataset.from_dict(columns, features=Features(features))


def _read_part(folder: Path, part: str, facts: dict[str, Any], names: tuple[str, ...]) -> Split:
    path = folder / f"{part}.parquet"
    if not path.is_file():
        raise DataError(f"folder={str(folder)!r} holds a task without {path.name}; write it anew")
    columns = read_files([path])[:]
    pairs = columns.get("text_pair")
    split = Split(
        name=str(facts["name"]),
        texts=tuple(columns["text"]),
        text_pairs=None if pairs is None else tuple(pairs),
        labels=np.array(columns["label"], dtype=np.int64 if names else np.float32),
    )
    if len(split) != facts["n_items"]:
        raise DataError(
            f"{path} has {len(split)} items, but {DESCRIPTION} says {facts['n_items']}; write it anew"
        )
    return split
