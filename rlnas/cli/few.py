"""What to do where labelled items are few: the flags of `search`."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse


def add_few_flags(parser: argparse.ArgumentParser) -> None:
    """The flags for small tasks."""
    group = parser.add_argument_group("few labelled items")
    group.add_argument(
        "--shots",
        type=int,
        metavar="N",
        help="take N labelled items in all, for training and search together, a stratified sample; the "
        "final split stays whole. By default all",
    )
    group.add_argument(
        "--folds",
        type=int,
        metavar="K",
        help="let every item serve training and search in turn: K supernets, each trained without the "
        "items that it judges. 0 carves a search split. By default 5 below 1,333 labelled items, else 0",
    )
    group.add_argument(
        "--min-steps",
        type=int,
        metavar="N",
        help="further passes until each training has taken N steps; by default 40 with folds, else 0",
    )
    group.add_argument(
        "--from-run",
        metavar="RUN",
        help="start from the shared weights of an earlier run on another task, with a new classifier",
    )
