"""Finding the columns of a table that hold the texts and the labels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rlnas.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from datasets import Dataset

# Names that the well-known public tasks use, the most telling first.
PAIR_NAMES = (
    ("text", "text_pair"),
    ("sentence1", "sentence2"),
    ("question1", "question2"),
    ("premise", "hypothesis"),
    ("question", "sentence"),
    ("question", "passage"),
    ("query", "passage"),
    ("text1", "text2"),
    ("text_a", "text_b"),
)
TEXT_NAMES = (
    *("text", "sentence", "sentence1", "question", "question1", "premise", "content", "review", "comment"),
    *("tweet", "message", "utterance", "sms", "query", "document", "body", "title", "description", "text1"),
    "text_a",
)
LABEL_NAMES = (
    *("label", "labels", "target", "class", "category", "intent", "topic", "sentiment", "score"),
    *("similarity", "y"),
)
_STRINGS = ("string", "large_string", "string_view")


@dataclass(frozen=True, slots=True)
class Columns:
    """Names of the columns in use; `pair` is None for single-text tasks."""

    text: str
    pair: str | None
    label: str


def find_columns(
    names: Sequence[str], *, text: str | None = None, pair: str | None = None, label: str | None = None
) -> Columns:
    """The columns to use, those given or else those with a known name.

    Known pairs such as sentence1 and sentence2 make a pair task, unless `text` is given without `pair`.

    Args:
        names: The columns that are there.
        text: Column of the (first) text, or None to find it by name.
        pair: Column of the second text, or None.
        label: Column of the labels, or None to find it by name.

    Raises:
        DataError: If a column is missing, or one column is to serve twice.
    """
    for given, option in ((text, "text_column"), (pair, "pair_column"), (label, "label_column")):
        if given is not None and given not in names:
            raise DataError(f"{option}={given!r} is not among the columns {_listed(names)}")
    if label is None:
        label = _first_known(LABEL_NAMES, [name for name in names if name not in (text, pair)])
    if label is None:
        raise _missing("label", names)
    free = [name for name in names if name != label]
    if text is None and pair is None:
        text, pair = _known_pair(free)
    if text is None:
        text = _first_known(TEXT_NAMES, [name for name in free if name != pair])
    if text is None:
        raise _missing("text", names)
    columns = Columns(text, pair, label)
    if len({text, pair, label}) < 3:
        raise DataError(f"text, pair and label need a column each, but got {columns}")
    return columns


def read_texts(table: Dataset, column: str, option: str, split: str) -> tuple[str, ...]:
    """The texts of a column.

    Args:
        table: Rows of one split.
        column: Name of the column.
        option: Option that names another column, for messages.
        split: Name of the split, for messages.

    Raises:
        DataError: If the column is missing, holds something else than text, or has empty cells.
    """
    values = read_values(table, column, option, split)
    dtype = str(getattr(table.features[column], "dtype", table.features[column]))
    if dtype not in _STRINGS:
        raise DataError(
            f"the text column {column!r} of the {split} split holds {dtype}, not text; "
            f"name another with {_flag(option)} ({option}=)"
        )
    return tuple(values)


def read_values(table: Dataset, column: str, option: str, split: str) -> list[Any]:
    """The values of a column, none of them missing.

    Raises:
        DataError: If the column is missing, or has empty cells.
    """
    if column not in table.column_names:
        raise DataError(
            f"the {split} split has no column {column!r}, only {_listed(table.column_names)}; "
            f"rename it there, or name another with {_flag(option)} ({option}=)"
        )
    values: list[Any] = table.select_columns([column])[:][column]
    check_rows([value is None for value in values], f"{split} split", f"no value in column {column!r}")
    return values


def check_rows(is_bad: Sequence[bool], where: str, fault: str) -> None:
    """Refuse bad rows, with their number and the first of them.

    Raises:
        DataError: If any row is bad.
    """
    n_bad = sum(is_bad)
    if n_bad:
        raise DataError(
            f"{n_bad} of the {len(is_bad)} rows of the {where} have {fault}, the first is row "
            f"{list(is_bad).index(True) + 1}; mend or remove them"
        )


def _known_pair(names: Sequence[str]) -> tuple[str | None, str | None]:
    lower = {name.lower(): name for name in names}
    for first, second in PAIR_NAMES:
        if first in lower and second in lower:
            return lower[first], lower[second]
    return None, None


def _first_known(known: Sequence[str], names: Sequence[str]) -> str | None:
    lower = {name.lower(): name for name in names}
    return next((lower[name] for name in known if name in lower), None)


def _missing(role: str, names: Sequence[str]) -> DataError:
    option = f"{role}_column"
    if len(names) == 1 and ";" in names[0]:
        return DataError(
            f"the only column is {names[0]!r}; separate columns by commas, or by tabs in a .tsv"
        )
    return DataError(
        f"no {role} column found among {_listed(names)}; name it with {_flag(option)} ({option}=)"
    )


def _flag(option: str) -> str:
    return "--" + option.replace("_", "-")


def _listed(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names)) if names else "no columns at all"
