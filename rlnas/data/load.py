"""From a source to a `Task`: read, find the columns, code the labels, carve the parts."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from rlnas.data.columns import find_columns, read_texts
from rlnas.data.files import SUFFIXES, nearest, read_files, read_folder
from rlnas.data.folds import FEW_ITEMS, OUT_OF_FOLD, USUAL_FOLDS, assign_folds
from rlnas.data.hub import GLUE_TASKS, hub_metric, is_hub_name, read_hub
from rlnas.data.labels import UNLABELLED, LabelCoding, is_labelled
from rlnas.data.pydocs import read_pydocs
from rlnas.data.shots import draw_shots
from rlnas.data.splits import PartSize, carve, subsample, without_items_of
from rlnas.data.store import DESCRIPTION
from rlnas.errors import DataError
from rlnas.task import METRICS, REGRESSION_METRICS, Split, Task

if TYPE_CHECKING:
    from collections.abc import Mapping

    from datasets import Dataset

    from rlnas.data.columns import Columns

PYDOCS = "pydocs"
KNOWN_TASKS = (PYDOCS, *(f"glue/{name}" for name in GLUE_TASKS))
FINAL_SIZE = PartSize(default_share=0.2)
# The final part of a source that brings none is the same for every seed, so that figures compare.
FINAL_SEED = 0


@dataclass(frozen=True, slots=True)
class _Parting:
    """How the training rows are parted."""

    search_size: PartSize
    max_train_items: int | None
    seed: int
    shots: int | None = None
    folds: int | None = 0

    def __post_init__(self) -> None:
        if self.folds is not None and self.folds not in (0, 1):
            self._check_folds(self.folds)
        if self.max_train_items is not None and self.max_train_items < 1:
            raise DataError(
                f"max_train_items must be at least 1, but got max_train_items={self.max_train_items}"
            )

    def _check_folds(self, folds: int) -> None:
        if self.search_size.is_given:
            raise DataError(
                f"folds={folds} lets every item serve training and search in turn, so there is no search "
                "part of a size of its own; drop folds, or search_items and search_fraction"
            )
        if self.max_train_items is not None:
            raise DataError(
                f"folds={folds} trains on all labelled items in turn, but "
                f"max_train_items={self.max_train_items} was given; say shots={self.max_train_items}"
            )

    def folds_for(self, n_items: int) -> int:
        """The number of folds for so many labelled items, 0 where a search part is carved."""
        if self.folds is not None:
            return 0 if self.folds == 1 else self.folds
        is_parted = self.search_size.is_given or self.max_train_items is not None
        return USUAL_FOLDS if n_items < FEW_ITEMS and not is_parted else 0


def load_task(
    source: str | Path,
    *,
    text_column: str | None = None,
    pair_column: str | None = None,
    label_column: str | None = None,
    metric: str | None = None,
    search_fraction: float | None = None,
    search_items: int | None = None,
    max_train_items: int | None = None,
    shots: int | None = None,
    folds: int | None = 0,
    seed: int = 0,
) -> Task:
    """Load a labelled text task and part it into train, search and final.

    Final is the test split where it has labels, else the validation split, else carved from the
    training data (the same for every seed). Search is carved from the training data. No text of a
    carved part stands in, or contains, a text of the rest; `Task.notes` says what that cost.

    Args:
        source: ``"pydocs"`` (docstrings of the running interpreter's standard library), a local folder
            with files named train, validation (or dev) and test, a local file, or a hub name such as
            ``"glue/sst2"``. Files are parquet, csv, tsv, json or json lines.
        text_column: Column of the (first) text; found by name if None.
        pair_column: Column of the second text; with `text_column` given and this None: single texts.
        label_column: Column of the labels; found by name if None. Floats are values to predict, all
            else are classes.
        metric: One of `rlnas.task.METRICS`; by default spearman for values, accuracy for classes, and
            Matthews for ``glue/cola``. With spearman or pearson, integers are values to predict.
        search_fraction: Share of the training rows to carve for the search, in (0, 1).
        search_items: Number of items to carve instead; by default 15 % of the texts that stand in no
            other text, at least 200 and at most 2,000, but not more than a third of them.
        max_train_items: Most items to train on, a stratified sample; all if None.
        shots: Labelled items in all, for training and search together: a stratified sample of the rows
            beside the final part, which stays whole. All if None.
        folds: With 0 or 1 the search part is carved. With more, nothing is carved: train and search are the
            same items, and `Task.fold` gives the parts that they take turns in. None takes 5 folds where
            there are fewer than 1,333 labelled items, of which 200 would be more than 15 %, unless
            `search_items`, `search_fraction` or `max_train_items` is given.
        seed: Equal seeds give equal parts.

    Raises:
        DataError: If the source cannot be found, reached or read, or cannot serve as a task.
    """
    parting = _Parting(_search_size(search_fraction, search_items), max_train_items, seed, shots, folds)
    if metric is not None and metric not in METRICS:
        raise DataError(f"metric must be one of {', '.join(METRICS)}, but got metric={metric!r}")
    if source == PYDOCS:
        if any((text_column, pair_column, label_column)):
            raise DataError(f"source={PYDOCS!r} has no columns to choose; leave out the column options")
        train, label_names = read_pydocs()
        metric = metric or "accuracy"
        return _finish(PYDOCS, train, None, label_names, metric, parting, [])
    name, tables = _read(source)
    for split, table in tables.items():
        if len(table) == 0:
            raise DataError(f"the {split} split of source={str(source)!r} is empty; give at least one row")
    columns = find_columns(
        tables["train"].column_names, text=text_column, pair=pair_column, label=label_column
    )
    wants_numbers = metric in REGRESSION_METRICS
    coding = LabelCoding.learn(tables["train"], columns.label, is_regression=wants_numbers)
    notes: list[str] = []
    train = _split(tables["train"], "train", columns, coding, notes)
    final = _given_final(tables, columns, coding, notes)
    metric = metric or _default_metric(name, source, coding)
    return _finish(name, train, final, coding.names, metric, parting, notes)


def _search_size(fraction: float | None, n_items: int | None) -> PartSize:
    if fraction is not None and n_items is not None:
        raise DataError(
            f"give search_fraction or search_items, not both: got search_fraction={fraction} and "
            f"search_items={n_items}"
        )
    if fraction is not None and not 0 < fraction < 1:
        raise DataError(f"search_fraction must be between 0 and 1, but got search_fraction={fraction}")
    if n_items is not None and n_items < 1:
        raise DataError(f"search_items must be at least 1, but got search_items={n_items}")
    return PartSize(n_items=n_items, fraction=fraction)


def _read(source: str | Path) -> tuple[str, dict[str, Dataset]]:
    """Name and tables of a source: what is on disk first, then the hub."""
    path = Path(source).expanduser()
    if path.is_dir():
        if (path / DESCRIPTION).exists():
            raise DataError(
                f"source={str(source)!r} is a task that is parted already; read it with read_task"
            )
        return path.resolve().name, read_folder(path)
    if path.exists():
        return path.stem, {"train": read_files([path])}
    if _looks_like_path(source, path):
        raise DataError(f"source={str(source)!r} does not exist{nearest(path, KNOWN_TASKS)}")
    try:
        return str(source), read_hub(str(source))
    except DataError as error:
        raise DataError(f"{error}{nearest(path, KNOWN_TASKS)}") from error


def _looks_like_path(source: str | Path, path: Path) -> bool:
    text = str(source)
    in_local_folder = len(path.parts) > 1 and Path(path.parts[0]).is_dir()
    has_suffix = path.suffix.lower() in SUFFIXES
    return isinstance(source, os.PathLike) or has_suffix or in_local_folder or not is_hub_name(text)


def _split(table: Dataset, name: str, columns: Columns, coding: LabelCoding, notes: list[str]) -> Split:
    texts = read_texts(table, columns.text, "text_column", name)
    pairs = None if columns.pair is None else read_texts(table, columns.pair, "pair_column", name)
    labels = coding.encode(table, name)
    split = Split(name, texts, pairs, labels)
    labelled = np.flatnonzero(labels != UNLABELLED) if coding.names else np.arange(len(labels))
    if len(labelled) < len(labels):
        n_left_out = len(labels) - len(labelled)
        notes.append(f"{name}: {n_left_out:,} of {len(labels):,} rows have no label; left out")
        split = split.take(labelled)
    return split


def _given_final(
    tables: Mapping[str, Dataset], columns: Columns, coding: LabelCoding, notes: list[str]
) -> Split | None:
    """The test split where it has labels, else the validation split, else None."""
    for name in ("test", "validation"):
        if name in tables:
            if is_labelled(tables[name], columns.label):
                return _split(tables[name], name, columns, coding, notes)
            notes.append(f"{name}: its {len(tables[name]):,} rows have no labels; not used")
    return None


def _default_metric(name: str, source: str | Path, coding: LabelCoding) -> str:
    if not coding.names:
        return "spearman"
    known = hub_metric(str(source)) if name == str(source) else None
    return known or "accuracy"


def _finish(
    name: str,
    train: Split,
    final: Split | None,
    label_names: tuple[str, ...],
    metric: str,
    parting: _Parting,
    notes: list[str],
) -> Task:
    """Carve what is missing and check that the parts fit together."""
    n_classes = len(label_names)
    if final is None:
        part_name = "final" if name == PYDOCS else "final (carved)"
        carved = carve(train, FINAL_SIZE, name=part_name, seed=FINAL_SEED, n_classes=n_classes)
        notes.append(_carving_note(part_name, len(train), len(carved.part), carved.n_dropped))
        train, final = carved.rest, carved.part
    else:
        n_rows = len(train)
        train, n_shared = without_items_of(train, final)
        if n_shared:
            notes.append(f"train: {n_shared:,} of {n_rows:,} rows stand in {final.name} too; left out")
    if parting.shots is not None:
        n_rows = len(train)
        train = draw_shots(train, parting.shots, seed=parting.seed, label_names=label_names)
        notes.append(f"labelled: {len(train):,} items drawn from {n_rows:,} rows, as shots={parting.shots}")
    if n_folds := parting.folds_for(len(train)):
        return _folded(name, train, final, label_names, metric, n_folds, parting.seed, notes)
    carved = carve(train, parting.search_size, name="search", seed=parting.seed, n_classes=n_classes)
    notes.append(_carving_note("search", len(train), len(carved.part), carved.n_dropped))
    for part in (carved.part, final):
        _check_classes(part, carved.rest, label_names)
    train, most = carved.rest, parting.max_train_items
    if most is not None and most < len(train):
        notes.append(f"train: {most:,} of {len(train):,} items sampled")
        train = subsample(train, most, seed=parting.seed, n_classes=n_classes)
    return Task(name, train, carved.part, final, label_names, metric, tuple(notes))


def _folded(
    name: str,
    labelled: Split,
    final: Split,
    label_names: tuple[str, ...],
    metric: str,
    n_folds: int,
    seed: int,
    notes: list[str],
) -> Task:
    """Every labelled item is trained on and, in its turn, searched on."""
    folds = assign_folds(labelled, n_folds, seed=seed, label_names=label_names)
    _check_classes(final, labelled, label_names)
    notes.append(
        f"search: none carved; each of the {len(labelled):,} labelled items is held out once, in "
        f"{n_folds} folds of {np.bincount(folds).min():,} to {np.bincount(folds).max():,}"
    )
    search = replace(labelled, name=OUT_OF_FOLD)
    return Task(name, labelled, search, final, label_names, metric, tuple(notes), folds)


def _carving_note(part: str, n_rows: int, n_part: int, n_dropped: int) -> str:
    return (
        f"{part}: {n_part:,} items carved from {n_rows:,} rows; {n_dropped:,} rows left out because "
        f"their text stands in one of these"
    )


def _check_classes(part: Split, train: Split, label_names: tuple[str, ...]) -> None:
    if not label_names:
        return
    missing = sorted(set(part.labels.tolist()) - set(train.labels.tolist()))
    if missing:
        raise DataError(
            f"the {part.name} split has items of class {label_names[missing[0]]!r}, but no item of that "
            "class is left to train on; give more of them, or remove the class"
        )
