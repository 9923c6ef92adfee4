from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import pytest
import torch
from safetensors.torch import save_file

from rlnas.deploy.weights_file import describe_weights, read_weights, weights_digest, weights_files
from rlnas.errors import CheckpointError

if TYPE_CHECKING:
    from pathlib import Path

TENSORS = {"a": torch.ones(2, 3), "b": torch.zeros(4, dtype=torch.bfloat16), "ids": torch.arange(5)}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_file(TENSORS, tmp_path / "model.safetensors")
    return tmp_path


def test_integers_are_no_weights(folder: Path):
    weights = describe_weights(folder)
    assert weights.shapes == {"a": (2, 3), "b": (4,)}
    assert (weights.n_params, weights.dtypes, weights.not_finite) == (10, ("bfloat16", "float32"), {})


def test_numbers_that_are_not_finite_are_counted(folder: Path):
    tensor = torch.ones(2, 3)
    tensor[0, :2] = torch.tensor([float("nan"), float("inf")])
    save_file({"a": tensor, "b": torch.ones(4)}, folder / "model.safetensors")
    assert describe_weights(folder).not_finite == {"a": 2}


def test_the_digest_of_one_file_is_what_others_compute(folder: Path):
    content = (folder / "model.safetensors").read_bytes()
    assert weights_digest(folder) == hashlib.sha256(content).hexdigest()


def test_parts_are_read_in_order(folder: Path):
    (folder / "model.safetensors").rename(folder / "model-00001-of-00002.safetensors")
    save_file({"c": torch.ones(1)}, folder / "model-00002-of-00002.safetensors")
    assert [name for name, _ in read_weights(folder)] == ["a", "b", "ids", "c"]
    parts = b"".join(path.read_bytes() for path in weights_files(folder))
    assert weights_digest(folder) == hashlib.sha256(parts).hexdigest()


def test_other_tensors_of_a_supernet_are_not_its_weights(folder: Path):
    save_file({"heads": torch.ones(1)}, folder / "importance.safetensors")
    assert [path.name for path in weights_files(folder)] == ["model.safetensors"]


def test_a_folder_without_weights_is_refused(tmp_path: Path):
    with pytest.raises(CheckpointError, match=f"{tmp_path.name}' holds no model.safetensors; save"):
        weights_digest(tmp_path)


def test_a_damaged_file_is_refused(folder: Path):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(CheckpointError, match=r"cannot read the weights in .*model.safetensors'.*; write"):
        describe_weights(folder)
