from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING

import pytest
import torch

from rlnas.deploy.export import export
from rlnas.deploy.stock import check_code, load_stock, read_config
from rlnas.errors import CheckpointError
from rlnas.space import LayerConfig, SubnetConfig

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from rlnas.supernet.supernet import Supernet
    from rlnas.task import Task

SUBNET = SubnetConfig((LayerConfig(1, 24), LayerConfig(0, 0), LayerConfig(2, 0)))


@pytest.fixture(scope="module")
def exported(supernets: Callable[[str, Task], Supernet], task: Task, tmp_path_factory) -> Path:
    return export(supernets("bert", task), SUBNET, tmp_path_factory.mktemp("exported"))


@pytest.fixture
def folder(exported: Path, tmp_path: Path) -> Path:
    return shutil.copytree(exported, tmp_path / "model")


def test_stock_transformers_run_the_model_file_of_the_folder(exported: Path):
    check_code(exported, trust_remote_code=False)
    model = load_stock(exported, trust_remote_code=False)
    assert type(model).__module__.startswith("transformers_modules.")
    assert not model.training
    assert model.dtype == torch.float32


@pytest.mark.parametrize("code", ["other.SubnetModel", "somebody/repository--modeling_subnet.SubnetModel"])
def test_other_code_runs_only_where_it_is_trusted(folder: Path, code: str):
    config = read_config(folder)
    config["auto_map"]["AutoModelForSequenceClassification"] = code
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=rf"names the code '{code}', .* \(--trust-remote-code\)"):
        check_code(folder, trust_remote_code=False)
    check_code(folder, trust_remote_code=True)


def test_what_transformers_cannot_load_is_named(folder: Path):
    (folder / "model.safetensors").write_bytes(b"nothing")
    with pytest.raises(CheckpointError, match=r"stock transformers cannot load '.*model': .*; export"):
        load_stock(folder, trust_remote_code=False)


def test_a_model_file_that_is_not_ours_is_not_run(folder: Path):
    with (folder / "modeling_subnet.py").open("a") as file:
        file.write("raise SystemExit\n")
    with pytest.raises(CheckpointError, match="stock transformers cannot load "):
        load_stock(folder, trust_remote_code=False)


@pytest.mark.parametrize(
    ("text", "message"),
    [("{", "cannot read '.*config.json': "), ("[]", "config.json' holds no JSON object; ")],
)
def test_a_damaged_config_is_refused(folder: Path, text: str, message: str):
    (folder / "config.json").write_text(text)
    with pytest.raises(CheckpointError, match=message):
        read_config(folder)
