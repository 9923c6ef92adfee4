"""Which task: its flags, and what they name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rlnas.errors import DataError

if TYPE_CHECKING:
    import argparse

    from rlnas.run import DataSource
    from rlnas.task import Task

DETAILS = ("text_column", "pair_column", "label_column", "metric", "max_train_items", "search_items")
"""What the flags say of a task that is named."""


def add_task_flags(parser: argparse.ArgumentParser, note: str, default: str | None) -> None:
    """The flags that name a task.

    Args:
        parser: Where they are added.
        note: What the help says of `--task` beside the forms that it takes.
        default: The task if none is named, or None.
    """
    task = parser.add_argument_group("task")
    task.add_argument(
        "--task",
        default=default,
        help=f"pydocs, a hub name such as glue/sst2, or a folder or file with data{note}",
    )
    task.add_argument("--text-column", help="column of the texts; found by name if not given")
    task.add_argument("--pair-column", help="column of the second texts; found by name if not given")
    task.add_argument("--label-column", help="column of the labels; found by name if not given")
    task.add_argument(
        "--metric",
        choices=("accuracy", "f1", "matthews", "spearman", "pearson"),
        help="how predictions are scored; by default accuracy for classes and spearman for values",
    )
    task.add_argument(
        "--max-train-items", type=int, metavar="N", help="train on N items at most; by default on all"
    )
    task.add_argument(
        "--search-items",
        type=int,
        metavar="N",
        help="set N items aside that score the subnets of a search; by default 15 %% of the data",
    )


def check_task_flags(options: argparse.Namespace) -> None:
    """Refuse flags that say how to read a task where none is named.

    Raises:
        DataError: If there is one.
    """
    if options.task is not None:
        return
    for name in DETAILS:
        if (value := getattr(options, name)) is not None:
            flag = "--" + name.replace("_", "-")
            raise DataError(
                f"{flag}={value} is for a task, but none is named; name one (--task), or drop the flag"
            )


def data_source_of(options: argparse.Namespace) -> DataSource:
    """The data that the flags name, for a run."""
    from rlnas.run import DataSource

    return DataSource(
        source=options.task,
        text_column=options.text_column,
        pair_column=options.pair_column,
        label_column=options.label_column,
        metric=options.metric,
        max_train_items=options.max_train_items,
        search_items=options.search_items,
    )


def load_task_of(options: argparse.Namespace) -> Task:
    """The task that the flags name, with its texts.

    Raises:
        DataError: If there is no such task, or its data do not suit.
    """
    from rlnas.data import load_task

    return load_task(
        options.task,
        text_column=options.text_column,
        pair_column=options.pair_column,
        label_column=options.label_column,
        metric=options.metric,
        search_items=options.search_items,
        max_train_items=options.max_train_items,
        seed=options.seed,
    )
