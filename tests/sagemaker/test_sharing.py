from __future__ import annotations

import os

import pytest

from rlnas.errors import RequestError
from rlnas.sagemaker.sharing import Machine, Sharing, share

SMALL, LARGE, GPUS = Machine(2), Machine(32), Machine(32, 4)
PLACES = {"ray_address": "10.0.0.1:3", "rdzv_endpoint": "10.0.0.1:2"}


def flags(given, n_hosts=2, machine=SMALL, **how):
    return share(given, n_hosts, machine, **PLACES, **how).flags


def test_a_machine_is_read_as_it_is_or_as_the_toolkit_counts_it(tmp_path):
    for name in ("nvidia0", "nvidia1", "nvidiactl", "null"):
        (tmp_path / name).touch()
    assert Machine.read({}, tmp_path) == Machine(len(os.sched_getaffinity(0)), 2)
    assert Machine.read({"SM_NUM_CPUS": "8", "SM_NUM_GPUS": "0"}, tmp_path) == Machine(8, 0)
    assert Machine.read({"SM_NUM_CPUS": "0"}, tmp_path).n_cpus == len(os.sched_getaffinity(0))


def test_one_host_shares_nothing():
    assert share({"ray": "local", "workers": "3"}, 1, LARGE) == Sharing()


TRAINING = ("--nproc=1", "--nnodes=2", "--rdzv-endpoint=10.0.0.1:2")


def test_hosts_without_gpus_have_a_worker_for_each_core_up_to_eight():
    assert flags({}) == (
        *("--workers=3", "--worker-cpus=1", "--worker-gpus=0", "--ray=10.0.0.1:3"),
        *TRAINING,
    )
    assert flags({}, machine=LARGE)[:2] == ("--workers=12", "--worker-cpus=4")
    assert flags({"worker-cpus": "8"}, machine=LARGE)[0] == "--workers=6"
    assert share({}, 2, LARGE).node_cpus == (16, 32)  # the search and the baseline have the other half
    assert share({}, 2, Machine(1)).node_cpus == (1, 1)


def test_hosts_with_gpus_have_a_worker_and_a_process_for_each():
    assert flags({}, 3, GPUS) == (
        *("--workers=12", "--worker-cpus=1", "--worker-gpus=1", "--ray=10.0.0.1:3"),
        *("--nproc=4", "--nnodes=3", "--rdzv-endpoint=10.0.0.1:2"),
    )
    assert flags({"worker-cpus": "16"}, 3, GPUS)[0] == "--workers=6"
    assert flags({"device": "cpu"}, 2, GPUS)[0] == "--workers=12"
    assert "--nproc=1" in flags({"device": "cpu"}, 2, GPUS)
    assert "--nproc=2" in flags({"device": "cuda:2"}, 2, GPUS)


def test_what_the_user_says_wins():
    given = {"ray": "auto", "workers": "5", "worker-cpus": "2", "nproc": "2", "nnodes": "2"}
    assert flags(given) == (
        *("--worker-gpus=0", "--ray=10.0.0.1:3"),
        *("--nproc=2", "--nnodes=2", "--rdzv-endpoint=10.0.0.1:2"),
    )
    assert share(given, 2, SMALL).nproc == 2
    assert share({"nproc": "two"}, 2, SMALL).nproc is None  # which the search refuses


@pytest.mark.parametrize("address", ["local", "10.1.1.1:6379"])
def test_another_cluster_takes_the_place_of_the_hosts(address):
    sharing = share({"ray": address, "latency-resource": "edge", "folds": "0"}, 2, SMALL, **PLACES)
    assert sharing.flags == TRAINING
    assert sharing.node_cpus is None


def test_the_first_host_may_train_alone():
    for given, how in (({"nnodes": "1"}, {}), ({}, {"trains_alone": True})):
        sharing = share(given, 2, SMALL, **how)
        assert sharing.nproc is None
        assert not any("nproc" in flag or "nnodes" in flag for flag in sharing.flags)
    assert flags({"nproc": "1"}, trains_alone=True)[-3:] == TRAINING


@pytest.mark.parametrize(
    ("given", "n_hosts", "message"),
    [
        ({"rdzv-endpoint": "a:1"}, 2, "--rdzv-endpoint=a:1 is set in the container"),
        ({"nnodes": "3"}, 2, "--nnodes=3 does not go with --instance-count 2; leave it out to train"),
        ({"nnodes": "2"}, 1, "--nnodes=2 does not go with --instance-count 1"),
        ({"ray": "auto"}, 1, "--ray=auto is the cluster that the hosts of a job make, but there is one"),
        ({"latency-resource": "edge"}, 2, "--latency-resource=edge is of no host of the job: latency is"),
    ],
)
def test_what_does_not_go_with_so_many_hosts_is_refused(given, n_hosts, message):
    with pytest.raises(RequestError, match=message):
        share(given, n_hosts, SMALL)
