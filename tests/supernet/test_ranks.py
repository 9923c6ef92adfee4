from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import rank_program
import tiny
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import distributed

from rlnas.errors import DeviceError, TrainingError
from rlnas.supernet import SandwichTrainer, ranks
from rlnas.supernet.ranks import Ranks, device_of_rank, joined

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.timeout(180)  # on a busy machine three processes that import torch take long


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """The checkpoints of `rank_program`."""
    folder = tmp_path_factory.mktemp("models")
    for name, rate in (("plain", 0.0), ("dropout", 0.1)):
        rates = {"hidden_dropout_prob": rate, "attention_probs_dropout_prob": rate}
        tiny.write_checkpoint(folder / name, "bert", **rates)
    return folder


@pytest.fixture(scope="module")
def found(models, tmp_path_factory):
    """What two ranks have found, under a torchrun that has ended well."""
    out = tmp_path_factory.mktemp("found")
    line = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    line += ["--log-dir", os.devnull, str(Path(rank_program.__file__)), str(models), str(out)]
    subprocess.run(line, check=True, timeout=170, env={**os.environ, "PYTHONPATH": str(ROOT)})
    return [json.loads((out / f"rank-{rank}.json").read_text()) for rank in (0, 1)]


# Two ranks


def test_both_ranks_end_with_the_same_bits_and_tell_the_same_losses(found):
    assert found[0] == found[1]


@pytest.mark.parametrize("name", ["same", "micro"])
def test_every_loss_is_that_of_one_process_with_the_same_batches_and_subnets(found, models, name):
    supernet = rank_program.load(models, "plain")
    alone = rank_program.SAME.share(supernet, rank_program.SPLIT, progress=False)
    assert len(alone) == rank_program.N_STEPS
    assert found[0][name]["losses"] == pytest.approx(alone, rel=1e-5)


def test_so_is_every_loss_of_the_full_model(found, models):
    alone = rank_program.fine_tune(rank_program.load(models, "plain"))
    assert found[0]["full"]["losses"] == pytest.approx(alone, rel=1e-5)


def test_different_subnets_are_another_training(found):
    same, different = (found[0][name]["losses"] for name in ("same", "different"))
    assert different[0] == same[0]  # before the first step, the largest subnet is the same
    assert different[1:] != pytest.approx(same[1:], rel=1e-4)


def test_a_resumed_training_ends_with_the_bits_of_an_unbroken_one(found):
    unbroken, resumed = found[0]["unbroken"], found[0]["resumed"]
    assert resumed["weights"] == unbroken["weights"]
    assert resumed["losses"] == unbroken["losses"][rank_program.N_BROKEN :]


def test_all_ranks_get_what_the_first_one_sends_and_hear_what_holds_on_any(found):
    for each in found:
        assert each["sent"] == ["\x00one", ""]
        assert each["any"] == [True, True, False]


def test_a_rank_that_does_not_see_the_checkpoint_is_noticed(found):
    assert found[0]["refusal"] == (
        "the ranks read checkpoints of different steps, from 0 to 2; give all nodes the same folder"
    )


# One rank


def test_a_group_of_one_is_one_process_bit_for_bit(models, monkeypatch):
    monkeypatch.setenv("LOCAL_RANK", "0")
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "1")
    begin = distributed.init_process_group
    monkeypatch.setattr(
        distributed,
        "init_process_group",
        lambda backend, **_: begin(backend, store=distributed.HashStore(), rank=0, world_size=1),
    )
    group, alone = (rank_program.load(models, "dropout") for _ in range(2))
    with joined("cpu") as own:
        assert (own.rank, own.size, own.device, own.is_first) == (0, 1, "cpu", True)
        rank_program.SAME.share(group, rank_program.SPLIT, progress=False, ranks=own)
    assert not distributed.is_initialized()
    rank_program.SAME.share(alone, rank_program.SPLIT, progress=False)
    assert rank_program.digest(group) == rank_program.digest(alone)


# Shares


@given(n=st.integers(0, 40), size=st.integers(1, 6))
def test_shares_are_a_partition_of_almost_equal_parts(n, size):
    shares = [Ranks(rank, size, "cpu").share_of(np.arange(n)) for rank in range(size)]
    assert sorted(np.concatenate(shares)) == list(range(n))
    lengths = [len(share) for share in shares]
    assert max(lengths) - min(lengths) <= 1


# Refusals, and devices


def test_a_process_that_torchrun_has_not_started_is_told_so(monkeypatch):
    monkeypatch.delenv("RANK", raising=False)
    with (
        pytest.raises(TrainingError, match=r"one of no group \(RANK is not set\); start it by torchrun"),
        joined("cpu"),
    ):
        pass


def test_ranks_that_cannot_meet_are_reported(monkeypatch):
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.setenv(name, "1")

    def fail(*_, **__):
        raise torch.distributed.DistNetworkError("no route to host")

    monkeypatch.setattr(distributed, "init_process_group", fail)
    with (
        pytest.raises(
            TrainingError, match="the processes of the training cannot reach each other: no route"
        ),
        joined("cpu"),
    ):
        pass


def test_each_process_of_a_node_has_a_gpu_of_its_own(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    assert [device_of_rank("cuda", rank) for rank in range(4)] == [f"cuda:{n}" for n in range(4)]
    assert [device_of_rank("cuda:2", rank) for rank in range(2)] == ["cuda:2", "cuda:3"]
    assert device_of_rank("cpu", 9) == "cpu"
    with pytest.raises(
        DeviceError,
        match=r"process 2 of this node needs the GPU cuda:4, but there are 4; start one .*--nproc",
    ):
        device_of_rank("cuda:2", 2)


def test_a_gpu_is_not_looked_for_where_there_is_no_cuda(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(DeviceError, match="needs the GPU cuda:0, but there are 0"):
        device_of_rank("cuda", 0)


def test_ranks_on_gpus_talk_by_nccl_each_on_its_own(monkeypatch):
    told = {}
    for name, value in (("RANK", "5"), ("WORLD_SIZE", "8"), ("LOCAL_RANK", "1")):
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: told.update(current=device))
    monkeypatch.setattr(
        distributed, "init_process_group", lambda backend, **how: told.update(how, backend=backend)
    )
    monkeypatch.setattr(distributed, "get_rank", lambda: 5)
    monkeypatch.setattr(distributed, "get_world_size", lambda: 8)
    monkeypatch.setattr(Ranks, "wait", lambda _: None)
    monkeypatch.setattr(distributed, "destroy_process_group", lambda: told.update(left=True))
    with joined("cuda") as own:
        assert own == Ranks(5, 8, "cuda:1")
    assert told == {
        "current": "cuda:1",
        "backend": "nccl",
        "timeout": ranks.WAIT,
        "device_id": torch.device("cuda:1"),
        "left": True,
    }


def test_only_known_ways_to_draw_subnets_are_taken():
    with pytest.raises(
        ValueError, match="rank_subnets must be same or different, but got rank_subnets='own'"
    ):
        SandwichTrainer(rank_subnets="own")
