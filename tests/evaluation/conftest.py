"""Fixtures of tiny models."""

from __future__ import annotations

import copy
import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[1] / "supernet"))  # folders of tests are no packages

import tiny
from tiny import bert, checkpoints, family, loaded, supernet

from rlnas.supernet import Supernet

__all__ = ["bert", "checkpoints", "family", "loaded", "supernet"]


@pytest.fixture(scope="session")
def wide_loaded(tmp_path_factory):
    """Three layers of 4 heads of 32 and 128 units."""
    sizes = {"hidden_size": 128, "num_attention_heads": 4, "intermediate_size": 128}
    folder = tiny.write_checkpoint(tmp_path_factory.mktemp("wide"), "bert", **sizes)
    return Supernet.from_pretrained(folder, tiny.make_task(n=60))


@pytest.fixture
def wide(wide_loaded):
    """A BERT with many widths that are multiples of 32, so that halves of blocks are shared."""
    return Supernet(copy.deepcopy(wide_loaded.model), wide_loaded.tokenizer)
