from __future__ import annotations

import json
import shutil

import pytest
import tiny
import torch
from safetensors.torch import load_file, save_file

from rlnas.errors import CheckpointError
from rlnas.space import LayerConfig, SubnetConfig
from rlnas.supernet import Supernet
from rlnas.supernet.own_checkpoint import is_own, load_own
from rlnas.supernet.training import prepare


@pytest.fixture
def folder(supernet, tmp_path):
    """A full model as a run leaves it: in order, with its state beside it."""
    supernet.fine_tuned = True
    prepare(supernet, tiny.make_task().train, 8, 0)
    supernet.save(tmp_path / "full")
    return tmp_path / "full"


def logits(supernet, task):
    batch = tiny.one_batch(supernet, task.search)
    with torch.no_grad():
        return supernet.forward(supernet.shape.full, batch)


def test_a_full_model_of_ours_is_a_checkpoint_and_answers_the_same(supernet, folder):
    task = tiny.make_task()
    again = Supernet.from_pretrained(folder, task)
    assert is_own(folder)
    assert again.fine_tuned
    assert again.importance is None  # of weights that are to be ordered anew
    assert torch.equal(logits(again, task), logits(supernet, task))
    assert again.label_names == supernet.label_names


def test_outputs_come_in_the_tasks_order_of_labels(folder, supernet):
    names = tiny.LABELS[::-1]
    task = tiny.make_task(names)
    again = Supernet.from_pretrained(folder, task)
    assert again.fine_tuned
    assert again.label_names == names
    assert torch.equal(logits(again, task), logits(supernet, task).flip(1))


@pytest.mark.parametrize("names", [("no", "yes"), ()], ids=["classes", "regression"])
def test_another_task_gets_a_new_head_on_the_same_encoder(folder, supernet, names):
    task = tiny.make_task(names)
    again = Supernet.from_pretrained(folder, task, seed=3)
    assert not again.fine_tuned
    assert again.is_regression == (not names)
    assert again.model.head.out.weight.shape == (max(1, len(names)), tiny.HIDDEN)
    for name, weight in supernet.model.state_dict().items():
        if not name.startswith("head."):
            assert torch.equal(again.model.state_dict()[name], weight)
    same, other = (Supernet.from_pretrained(folder, task, seed=seed) for seed in (3, 4))
    assert torch.equal(same.model.head.out.weight, again.model.head.out.weight)
    assert not torch.equal(other.model.head.out.weight, again.model.head.out.weight)


def test_labels_of_other_names_count_as_untrained(folder):
    assert not Supernet.from_pretrained(folder, tiny.make_task(("one", "two", "three"))).fine_tuned


def test_another_pooling_needs_a_new_head(folder, supernet):
    other = "mean" if supernet.model.config.pooling == "cls" else "cls"
    again = Supernet.from_pretrained(folder, tiny.make_task(), pooling=other)
    assert again.model.config.pooling == other
    assert not again.fine_tuned


def test_without_a_task_the_labels_are_kept(folder, supernet):
    assert Supernet.from_pretrained(folder, None).label_names == supernet.label_names


def test_an_unknown_pooling_is_refused(folder):
    with pytest.raises(CheckpointError, match="pooling must be one of cls, mean, but got pooling='max'"):
        load_own(folder, None, "max", seed=0)


def test_a_subnet_is_no_full_model(supernet, tmp_path):
    layers = (LayerConfig(2, 16), *supernet.shape.full.layers[1:])
    supernet.extract(SubnetConfig(layers)).save_pretrained(tmp_path / "small")
    supernet.tokenizer.save_pretrained(tmp_path / "small")
    with pytest.raises(CheckpointError, match=r"is a subnet \(2h16 4h48 4h48\), and a search starts"):
        Supernet.from_pretrained(tmp_path / "small", None)


def test_a_missing_weight_is_named(folder):
    weights = load_file(folder / "model.safetensors")
    del weights["layers.0.ffn.inner.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=r"lacks the weight 'layers\.0\.ffn\.inner\.weight'"):
        load_own(folder, None, None, seed=0)


def test_damaged_weights_are_told_in_one_line(folder):
    (folder / "model.safetensors").write_bytes(b"no weights")
    with pytest.raises(CheckpointError, match=r"cannot read the model '.*full': "):
        load_own(folder, None, None, seed=0)


@pytest.mark.parametrize("text", ["{", "[]", json.dumps({"model_type": "bert"})])
def test_other_folders_are_not_ours(tmp_path, text):
    (tmp_path / "config.json").write_text(text)
    assert not is_own(tmp_path)


def test_what_is_not_there_is_not_ours(folder):
    shutil.rmtree(folder)
    assert not is_own(folder)
    assert not is_own("bert-base-uncased")
