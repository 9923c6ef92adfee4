"""Tables from local files: parquet, csv, tsv and json lines.

The `datasets` readers convert every file into their own cache first; here that cache is a
temporary folder, so nothing is written beside the data or into the home folder.
"""

from __future__ import annotations

import csv
import glob
import re
import tempfile
from contextlib import contextmanager
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

from rlnas.errors import DataError, first_line

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from datasets import Dataset

SUFFIXES = (".parquet", ".csv", ".tsv", ".jsonl", ".ndjson", ".json")
SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "dev": "validation",
    "test": "test",
}
# One split in several files, as the hub and `datasets` name them: train-00000-of-00002.parquet.
_SHARD = re.compile(r"(.+)-\d+-of-\d+")


def read_folder(folder: Path) -> dict[str, Dataset]:
    """The splits of a folder by name: train, and validation and test where they are there.

    Raises:
        DataError: If there is no training file, two files claim one split, or one cannot be read.
    """
    paths: dict[str, list[Path]] = {}
    found = sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)
    for path in found:
        shard = _SHARD.fullmatch(path.stem)
        name = SPLIT_NAMES.get((shard.group(1) if shard else path.stem).lower())
        if name is None:
            continue
        others = paths.setdefault(name, [])
        if others and not (shard and _SHARD.fullmatch(others[0].stem)):
            raise DataError(
                f"{folder} has two files for the {name} split, {others[0].name} and {path.name}; keep one"
            )
        others.append(path)
    if "train" not in paths:
        there = ", ".join(path.name for path in found[:10]) or "no such file"
        raise DataError(
            f"{folder} has no training data: expected a file named train with the suffix "
            f"{', '.join(SUFFIXES)}, but found {there}"
        )
    return {name: read_files(shards) for name, shards in paths.items()}


def read_files(paths: Sequence[Path]) -> Dataset:
    """The rows of one file, or of several with the same columns, in memory.

    Raises:
        DataError: If a file cannot be read, or has a suffix that is not in `SUFFIXES`.
    """
    suffix = paths[0].suffix.lower()
    if suffix not in SUFFIXES:
        raise DataError(f"{paths[0]} has the suffix {suffix!r}; allowed are {', '.join(SUFFIXES)}")
    if not any(path.stat().st_size for path in paths):
        raise _empty(paths[0])
    with quiet_datasets(), tempfile.TemporaryDirectory(prefix="rlnas-") as cache:
        try:
            table = _read(suffix, [str(path) for path in paths], cache)
        except Exception as error:  # whatever pyarrow, pandas and datasets raise, it is this file's fault
            fix = "; save it as UTF-8" if "codec can't decode" in reason(error) else ""
            raise DataError(f"{paths[0]} cannot be read as {suffix[1:]}: {reason(error)}{fix}") from error
    if table is None:
        raise _empty(paths[0])
    return table


def _empty(path: Path) -> DataError:
    return DataError(f"{path} is empty; it needs at least one row")


def _read(suffix: str, paths: list[str], cache: str) -> Dataset | None:
    """The rows in memory, or None where there is none."""
    import datasets

    reader, options = "json", dict[str, Any]()
    if suffix == ".parquet":
        # Without a batch size the reader takes that of the first row group, and refuses 0.
        reader, options = "parquet", {"batch_size": 10_000}
    elif suffix in (".csv", ".tsv"):
        # Only an empty cell is missing: "None", "null" and "NA" are words.
        reader, options = "csv", {"keep_default_na": False, "na_values": [""]}
        if suffix == ".tsv":
            # TSV knows no quoting (IANA text/tab-separated-values); GLUE's files have stray quotes.
            options |= {"sep": "\t", "quoting": csv.QUOTE_NONE}
    # The loader takes paths for glob patterns.
    files = [glob.escape(path) for path in paths]
    builder = datasets.load_dataset_builder(reader, data_files=files, cache_dir=cache, **options)
    builder.download_and_prepare()
    if not builder.info.splits["train"].num_examples:
        return None
    return builder.as_dataset(split="train", in_memory=True)


@contextmanager
def quiet_datasets() -> Iterator[None]:
    """Keep `datasets` from drawing progress bars and from logging faults that we raise anyway."""
    import datasets

    had_bars = not datasets.are_progress_bars_disabled()
    verbosity = datasets.logging.get_verbosity()
    datasets.disable_progress_bars()
    datasets.logging.set_verbosity(datasets.logging.CRITICAL)
    try:
        yield
    finally:
        datasets.logging.set_verbosity(verbosity)
        if had_bars:
            datasets.enable_progress_bars()


def reason(error: BaseException) -> str:
    """The first line of the innermost cause, in a length that fits into a message."""
    while error.__cause__ is not None:
        error = error.__cause__
    line = first_line(error)
    return line if len(line) <= 200 else line[:197] + "..."


def nearest(path: Path, known: Sequence[str] = ()) -> str:
    """A hint at the nearest known name, or the nearest existing sibling of a missing path; may be empty."""
    close = get_close_matches(str(path), known, n=1)
    if not close and path.parent.is_dir():
        siblings = [sibling.name for sibling in path.parent.iterdir()]
        close = [str(path.parent / name) for name in get_close_matches(path.name, siblings, n=1)]
    return f"; did you mean {close[0]!r}?" if close and close[0] != str(path) else ""
