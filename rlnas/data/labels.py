"""Labels of any form as class indices, or as values to predict."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from rlnas.data.columns import check_rows, read_values
from rlnas.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt
    from datasets import Dataset

_OPTION = "label_column"
UNLABELLED = -1


@dataclass(frozen=True, slots=True)
class LabelCoding:
    """How the labels of one column are coded, learnt from the training split.

    Attributes:
        column: Name of the label column.
        names: Class names in the order of the class indices; empty for regression.
        has_class_label: Whether the training column carries its names (`datasets.ClassLabel`), so
            that bare integers are indices into them.
    """

    column: str
    names: tuple[str, ...]
    has_class_label: bool = False

    @classmethod
    def learn(cls, table: Dataset, column: str, *, is_regression: bool | None = None) -> LabelCoding:
        """The coding of a training split.

        Floats are values to predict; integers, strings and booleans are classes, sorted, unless
        the column carries the class names in their order.

        Args:
            table: The training rows.
            column: Name of the label column.
            is_regression: True to take integers as values to predict; None to go by the type.

        Raises:
            DataError: If labels are missing, of an impossible type, or all of one class.
        """
        values = read_values(table, column, _OPTION, "train")
        kind = _kind(table, column)
        if kind == "float" or (is_regression and kind == "integer"):
            return cls(column, ())
        if kind == "other":
            raise DataError(
                f"the label column {column!r} holds {table.features[column]}, which is neither a class nor "
                "a number; name another with --label-column (label_column=)"
            )
        present = sorted({value for value in values if kind != "class" or value != UNLABELLED})
        names = table.features[column].names if kind == "class" else [str(value) for value in present]
        if len(present) < 2:
            label = _name(names, present[0]) if kind == "class" and present else "".join(map(str, present))
            raise DataError(
                f"all {len(values)} train items have the label {label!r} in column {column!r}; "
                "classification needs at least two classes"
            )
        return cls(column, tuple(names), has_class_label=kind == "class")

    def encode(self, table: Dataset, split: str) -> npt.NDArray[np.generic]:
        """Labels of a split: int64 class indices, or float32 values.

        Rows that a `datasets.ClassLabel` column marks as unlabelled are -1.

        Raises:
            DataError: If labels are missing, not finite, or of a class that the training split lacks.
        """
        values = read_values(table, self.column, _OPTION, split)
        kind = _kind(table, self.column)
        if not self.names:
            return self._encode_numbers(values, kind, split)
        if kind == "class":
            names = table.features[self.column].names
            keys = [None if value == UNLABELLED else _name(names, value) for value in values]
        elif self.has_class_label and kind == "integer":
            keys = [_name(self.names, value) for value in values]
        else:
            keys = [str(value) for value in values]
        index: dict[str | None, int] = {name: position for position, name in enumerate(self.names)}
        index[None] = UNLABELLED
        for key in keys:
            if key not in index:
                raise DataError(
                    f"the {split} split has the label {key!r} in column {self.column!r}, which is not "
                    f"among the classes of the train split: {_few(self.names)}"
                )
        return np.array([index[key] for key in keys], dtype=np.int64)

    def _encode_numbers(self, values: Sequence[Any], kind: str, split: str) -> npt.NDArray[np.float32]:
        if kind not in ("float", "integer"):
            raise DataError(
                f"the labels of the {split} split in column {self.column!r} are no numbers, "
                f"e.g. {values[0]!r}, but those of the train split are"
            )
        labels = np.array(values, dtype=np.float32)
        check_rows(
            (~np.isfinite(labels)).tolist(), f"{split} split", f"no finite number in column {self.column!r}"
        )
        return labels


def is_labelled(table: Dataset, column: str) -> bool:
    """Whether a split has labels: the column is there and not wholly empty or -1 (the hub's GLUE tests)."""
    if column not in table.column_names:
        return False
    values = table.select_columns([column])[:][column]
    # An empty split counts as labelled, so that it is refused as empty and not passed over.
    return not values or any(value is not None and value != UNLABELLED for value in values)


def _kind(table: Dataset, column: str) -> str:
    """Class (an integer that carries names), integer (or boolean), string, float or other."""
    feature = table.features[column]
    if hasattr(feature, "names"):
        return "class"
    dtype = str(getattr(feature, "dtype", "other"))
    if dtype.startswith(("int", "uint", "bool")):
        return "integer"
    if "string" in dtype:
        return "string"
    return "float" if dtype.startswith("float") else "other"


def _name(names: Sequence[str], value: int) -> str:
    """Name of a class index; an index out of range stands for itself, to be refused by name."""
    return names[value] if 0 <= value < len(names) else str(value)


def _few(names: Sequence[str]) -> str:
    shown = ", ".join(map(repr, names[:5]))
    return shown if len(names) <= 5 else f"{shown} and {len(names) - 5} more"
