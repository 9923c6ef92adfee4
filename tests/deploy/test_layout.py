from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING

import pytest

from rlnas.deploy.export import export
from rlnas.deploy.layout import claimed_shapes, is_known, read_layout
from rlnas.errors import CheckpointError
from rlnas.space import LayerConfig, SubnetConfig

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from rlnas.supernet.supernet import Supernet
    from rlnas.task import Task

SUBNET = SubnetConfig((LayerConfig(1, 24), LayerConfig(0, 0), LayerConfig(2, 0)))
FAMILIES = ("bert", "roberta", "distilbert", "electra")


@pytest.fixture
def folder(checkpoint: Callable[[str, Task], Path], task: Task, tmp_path: Path) -> Path:
    return shutil.copytree(checkpoint("bert", task), tmp_path / "model")


def claim(folder: Path, **changes: object) -> Path:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    return folder


@pytest.mark.parametrize("family", FAMILIES)
def test_a_stock_class_has_the_same_layout_as_ours(
    supernets: Callable[[str, Task], Supernet],
    checkpoint: Callable[[str, Task], Path],
    task: Task,
    tmp_path: Path,
    family: str,
):
    supernet = supernets(family, task)
    ours = read_layout(export(supernet, supernet.shape.full, tmp_path, plain=False))
    stock = read_layout(checkpoint(family, task))
    assert (ours.is_plain, stock.is_plain) == (False, True)
    for name in ("kept", "head_size", "hidden_size", "embedding_size", "num_labels", "has_dense", "dtype"):
        assert getattr(ours, name) == getattr(stock, name), name
    assert sorted(ours.shapes.values()) == sorted(stock.shapes.values())


def test_dropped_blocks_of_ours_are_zeros(supernets: Callable[[str, Task], Supernet], task: Task, tmp_path):
    layout = read_layout(export(supernets("bert", task), SUBNET, tmp_path))
    assert layout.kept == ((1, 24), (0, 0), (2, 0))


def test_other_families_are_not_known(folder: Path):
    assert is_known(folder)
    assert not is_known(claim(folder, model_type="gpt2"))


def test_a_config_of_no_classifier_is_refused(folder: Path):
    claim(folder, model_type="no_such_type")
    with pytest.raises(CheckpointError, match=r"config.json of '.*model' makes no sequence classifier: "):
        claimed_shapes(str(folder), trust_remote_code=False)


def test_a_config_that_makes_no_subnet_is_refused(folder: Path):
    claim(folder, model_type="rlnas_subnet", hidden_size="wide")
    with pytest.raises(CheckpointError, match=r"config.json of '.*model' makes no subnet: .*; export"):
        read_layout(folder)
