"""Models and tokenizers are read as others wrote them."""

from __future__ import annotations

import re
import shutil
from typing import TYPE_CHECKING

import pytest

from rlnas.deploy.certify import certify
from rlnas.deploy.export import export
from rlnas.deploy.loading import load, positions, read_tokenizer
from rlnas.errors import CheckpointError
from rlnas.space import LayerConfig, SubnetConfig
from rlnas.workload import Workload

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from rlnas.supernet.supernet import Supernet
    from rlnas.task import Task

    Supernets = Callable[[str, Task], Supernet]
    Checkpoints = Callable[[str, Task], Path]

SUBNET = SubnetConfig((LayerConfig(1, 24), LayerConfig(0, 0), LayerConfig(2, 0)))
QUICK = {"workload": Workload(batch_size=2, seq_len=8), "n_rounds": 2, "max_seconds": 0.01}


def test_a_tokenizer_is_read_as_certify_reads_it(
    supernets: Supernets, checkpoint: Checkpoints, task: Task, tmp_path: Path
):
    export(supernets("bert", task), SUBNET, tmp_path / "model")
    texts = list(task.final.texts)
    expected = supernets("bert", task).tokenizer(texts)["input_ids"]
    for folder in (tmp_path / "model", checkpoint("bert", task)):
        assert read_tokenizer(folder)(texts)["input_ids"] == expected


def test_a_tokenizer_that_is_missing_is_named(tmp_path: Path, checkpoint: Checkpoints, task: Task):
    with pytest.raises(CheckpointError, match=re.escape(f"cannot read the tokenizer of '{tmp_path}'")):
        read_tokenizer(tmp_path)
    shutil.copytree(checkpoint("bert", task), tmp_path / "model")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / "model" / name).unlink()
    with pytest.raises(CheckpointError, match="holds no vocabulary"):
        certify(tmp_path / "model", baseline=tmp_path / "model", task=task, **QUICK)


@pytest.mark.parametrize("name", ["/no/such", "./none", "../none", "~/none", "data/models/none"])
def test_a_folder_that_is_not_there_is_not_asked_of_the_hub(name: str):
    message = re.escape(f"there is no folder '{name}'; check the path, or give a hub name such as")
    with pytest.raises(CheckpointError, match=message):
        load(name, False, is_judged=False)
    with pytest.raises(CheckpointError, match=message):
        read_tokenizer(name)


@pytest.mark.parametrize("family", ["bert", "roberta"])
def test_a_model_takes_as_many_tokens_as_it_has_positions(
    checkpoint: Checkpoints, supernets: Supernets, task: Task, family: str
):
    loaded = load(checkpoint(family, task), False, is_judged=False)
    assert loaded.tokenizer is None
    assert positions(loaded.module) == loaded.max_seq_len == supernets(family, task).max_positions
