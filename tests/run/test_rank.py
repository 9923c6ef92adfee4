from __future__ import annotations

import shutil
from contextlib import contextmanager
from dataclasses import asdict

import pytest
import torch
from world import N_SEARCH

from rlnas.data import load_task, read_task, write_task
from rlnas.run import rank
from rlnas.run.child import describe_training
from rlnas.run.folder import RunFolder, write_json
from rlnas.run.rank import main
from rlnas.run.training import furthest_supernet, train_supernet
from rlnas.space import LayerwiseSpace
from rlnas.supernet import Supernet
from rlnas.supernet.ranks import Ranks


class Alone(Ranks):
    """A group of one, without a process group."""

    def add_up(self, values):
        pass

    def align(self, model):
        pass

    def check_same(self, step):
        pass


@pytest.fixture
def group(monkeypatch):
    """Whom a process finds when it joins: by default nobody else."""
    found = [Alone(0, 1, "cpu")]

    @contextmanager
    def joined(device):
        assert device == "cpu"
        yield found[0]

    monkeypatch.setattr(rank, "joined", joined)
    return found


@pytest.fixture
def folder(world, tmp_path):
    """A run whose training is going on."""
    job, task = world.job(), load_task(str(world.data), search_items=N_SEARCH)
    folder = RunFolder(tmp_path / "run")
    folder.data.mkdir(parents=True)
    write_task(task, folder.data)
    space = LayerwiseSpace.for_model(furthest_supernet(job, task, folder).shape, keep_last_layer=True)
    values = {"job": describe_training(job), "space": asdict(space), "progress": False}
    write_json(folder.training, values)
    return folder


def test_the_first_rank_trains_and_writes_what_a_run_would(world, folder, group, tmp_path):
    assert main([str(folder.path)]) == 0
    alone, task = RunFolder(tmp_path / "alone"), read_task(folder.data)
    alone.checkpoints.mkdir(parents=True)
    supernet = furthest_supernet(world.job(), task, alone)
    space = LayerwiseSpace.for_model(supernet.shape, keep_last_layer=True)
    train_supernet(world.job(), supernet, space, task, alone, progress=False)
    weights, same = (Supernet.load(place.supernet).model.state_dict() for place in (folder, alone))
    assert all(torch.equal(weight, same[name]) for name, weight in weights.items())
    assert set(folder.seconds()) == {"finetune", "importance", "share"}
    assert not folder.finetuned.exists()


def test_other_ranks_write_nothing(folder, group):
    group[0] = Alone(1, 2, "cpu")
    before = sorted(folder.path.rglob("*"))
    assert main([str(folder.path)]) == 0
    assert sorted(folder.path.rglob("*")) == before


def test_a_rank_of_a_node_that_does_not_see_the_run_gets_it_first(folder, group, tmp_path, monkeypatch):
    group[0] = Alone(1, 2, "cpu")

    def send(place, ranks, *, receives, writes):
        assert receives
        assert writes
        shutil.copytree(folder.path, place.path)

    monkeypatch.setattr(rank, "send_training", send)
    monkeypatch.setenv("LOCAL_RANK", "0")
    assert main([str(tmp_path / "empty"), "--receive", "cpu"]) == 0
    assert (tmp_path / "empty" / "training.json").is_file()


def test_a_folder_that_is_to_receive_and_is_not_empty_is_refused_before_joining(folder, capsys):
    assert main([str(folder.path), "--receive", "cpu"]) == 2
    assert "is not empty, and what a training needs" in capsys.readouterr().err


def test_a_folder_without_a_training_is_refused_in_one_line(tmp_path, capsys):
    assert main([str(tmp_path)]) == 2
    message = capsys.readouterr().err
    assert message.startswith(f"rlnas: error: '{tmp_path / 'training.json'}' is missing")
    assert message.count("\n") == 1


def test_an_error_that_is_none_of_ours_shows_where_it_came_from(folder, group, capsys, monkeypatch):
    def fail(*_, **__):
        raise RuntimeError("the other rank has gone")

    monkeypatch.setattr(rank, "train_supernet", fail)
    assert main([str(folder.path)]) == 1
    message = capsys.readouterr().err
    assert "Traceback" in message
    assert "the other rank has gone" in message
    assert "rlnas: error" not in message
