from __future__ import annotations

import json
from dataclasses import replace

from rlnas.run.child import describe_training, training_job
from rlnas.run.job import Torchrun


def test_a_job_that_was_told_trains_alike(world):
    job = world.job(
        device="cuda:1",
        seed=3,
        pooling="mean",
        from_run="earlier",
        precisions=("float32", "int8"),
        torchrun=Torchrun(2),
    )
    told = training_job(json.loads(json.dumps(describe_training(job))))
    names = ("model", "device", "seed", "pooling", "trust_remote_code", "from_run", "workload")
    for name in (*names, "precisions", "schedule"):
        assert getattr(told, name) == getattr(job, name), name


def test_the_latency_of_the_whole_is_not_told(world):
    job = world.job()
    assert describe_training(job) == describe_training(replace(job, budget=7, latency_table="another"))
