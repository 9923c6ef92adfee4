"""An earlier run's weights serve another task, if they fit and have not seen its items."""

from __future__ import annotations

import shutil

import pytest
import torch
from world import LABELS, NUM_HEADS, make_rows, write_checkpoint, write_csv, write_task

from rlnas.data import load_task
from rlnas.errors import CheckpointError, DataError
from rlnas.run.folder import RunFolder
from rlnas.run.training import furthest_supernet, load_supernet
from rlnas.run.transfer import describe_start, transferred
from rlnas.supernet import Supernet

NAMES = ("never", "often", "always")


@pytest.fixture(scope="module")
def other(tmp_path_factory):
    """A task of three classes whose texts the world has not."""
    folder = tmp_path_factory.mktemp("other")
    rows = [(f"{text} {index}", NAMES[index % 3]) for index, (text, _) in enumerate(make_rows(60, 11))]
    write_csv(folder / "train.csv", ("text", "label"), rows)
    return load_task(folder)


@pytest.fixture(scope="module")
def checkpoint(world, other):
    return load_supernet(world.job(), other)


def test_the_encoder_is_that_of_the_run_and_the_classifier_is_new(finished, checkpoint, other):
    start = transferred(str(finished), checkpoint, other, seed=0)
    earlier = Supernet.load(finished / "supernet")
    own = dict(start.model.named_parameters())
    for name, parameter in earlier.model.named_parameters():
        if not name.startswith("head.out."):
            assert torch.equal(parameter, own[name]), name
    assert start.label_names == tuple(sorted(NAMES))
    assert not start.fine_tuned
    assert start.max_seq_len == checkpoint.max_seq_len


def test_a_job_starts_from_the_run_that_it_names(world, finished, other, tmp_path):
    start = furthest_supernet(world.job(from_run=str(finished)), other, RunFolder(tmp_path))
    earlier = Supernet.load(finished / "supernet")
    assert torch.equal(start.model.embeddings.norm.weight, earlier.model.embeddings.norm.weight)
    plain = furthest_supernet(world.job(), other, RunFolder(tmp_path))
    assert not torch.equal(start.blocks[0][1].inner.weight, plain.blocks[0][1].inner.weight)


def test_a_saved_supernet_serves_as_well(finished, checkpoint, other, tmp_path):
    shutil.copytree(finished / "supernet", tmp_path / "saved")
    transferred(str(tmp_path / "saved"), checkpoint, other, seed=0)
    assert describe_start(str(tmp_path / "saved")) == {"run": "saved", "task": None}
    assert describe_start(str(finished)) == {"run": "finished", "task": "reviews"}


def test_a_run_that_has_seen_the_items_is_refused(world, finished, checkpoint, tmp_path):
    write_task(tmp_path / "same")
    (tmp_path / "same" / "validation.csv").unlink()
    task = load_task(tmp_path / "same")
    with pytest.raises(DataError, match=r"was trained on \d+ of the \d+ items of this task's search split"):
        transferred(str(finished), checkpoint, task, seed=0)
    with pytest.raises(DataError, match=r"was trained on \d+ of"):
        transferred(str(finished / "supernet"), checkpoint, task, seed=0)
    assert describe_start(str(finished / "supernet")) == {"run": "finished", "task": "reviews"}


def test_a_run_without_weights_is_refused(checkpoint, other, tmp_path):
    with pytest.raises(CheckpointError, match="holds no shared weights to start from; name the folder"):
        transferred(str(tmp_path), checkpoint, other, seed=0)


def test_weights_of_other_sizes_or_pooling_are_refused(world, finished, other, tmp_path):
    folder = write_checkpoint(tmp_path / "wide", LABELS, num_heads=NUM_HEADS // 2)
    with pytest.raises(CheckpointError, match=r"has other sizes than the checkpoint: ModelShape.*--model"):
        transferred(str(finished), Supernet.from_pretrained(folder, other), other, seed=0)
    pooled = Supernet.from_pretrained(world.model, other, pooling="mean")
    with pytest.raises(CheckpointError, match="has other pooling than the checkpoint: cls, not mean"):
        transferred(str(finished), pooled, other, seed=0)
