from __future__ import annotations

import pytest

from rlnas.scale.cluster import Cluster, WorkerNeeds


@pytest.mark.parametrize(
    ("needs", "message"),
    [
        ({"n_cpus": 0}, "n_cpus must be at least 1, but got n_cpus=0"),
        ({"n_gpus": -1}, "n_gpus must be 0, a fraction of one, or a whole number, but got n_gpus=-1"),
        ({"n_gpus": 1.5}, r"n_gpus must be 0, .*, but got n_gpus=1\.5"),
        ({"n_gpus": float("nan")}, "n_gpus must be 0, .*, but got n_gpus=nan"),
    ],
)
def test_needs_outside_their_range_are_refused(needs, message):
    with pytest.raises(ValueError, match=message):
        WorkerNeeds(**needs)


@pytest.mark.parametrize("n_gpus", [0, 0.25, 1, 4])
def test_gpus_that_ray_gives(n_gpus):
    assert WorkerNeeds(n_gpus=n_gpus).n_gpus == n_gpus


@pytest.mark.parametrize("name", ["", "CPU", "GPU"])
def test_a_resource_that_tells_no_node_is_refused(name):
    with pytest.raises(ValueError, match=f"latency_resource must be a name .* latency_resource='{name}'"):
        Cluster(latency_resource=name)


def test_a_cluster_without_work_is_refused():
    with pytest.raises(ValueError, match="n_workers must be at least 1, but got n_workers=0"):
        Cluster(n_workers=0)
    assert Cluster(n_workers=0, latency_resource="edge").n_workers == 0
    with pytest.raises(ValueError, match="n_workers must be at least 0, but got n_workers=-1"):
        Cluster(n_workers=-1, latency_resource="edge")


def test_a_device_that_ray_does_not_give_is_refused():
    with pytest.raises(ValueError, match="must be cpu or cuda, but got latency_device='tpu'"):
        Cluster(latency_device="tpu")
