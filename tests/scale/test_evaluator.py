from __future__ import annotations

import os
import signal
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

# Folders of tests are no packages.
sys.path += [str(Path(__file__).parents[1] / "supernet"), str(Path(__file__).parents[2])]

import tiny

from rlnas.evaluation import Racing, SupernetEvaluator
from rlnas.protocols import InformedEvaluator, RecallingEvaluator, WeighingEvaluator
from rlnas.scale import Cluster, RayEvaluator
from rlnas.space import LayerwiseSpace
from rlnas.supernet import Supernet
from rlnas.testing import check_evaluator

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

TASK = tiny.make_task(n=40)


def latency(configs):
    """Milliseconds: a tenth of the heads that are kept."""
    return [sum(layer.num_attention_heads for layer in config.layers) / 10 for config in configs]


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    folder = tiny.write_checkpoint(tmp_path_factory.mktemp("bert") / "model", "bert")
    return Supernet.from_pretrained(folder, TASK)


@pytest.fixture
def judge(cluster, bert):
    evaluator = RayEvaluator(bert, TASK, latency, Cluster(), precision="float32")
    yield evaluator
    evaluator.pool.close()


def test_metrics_and_costs_are_those_of_one_process(judge, bert):
    alone = SupernetEvaluator(bert, TASK, latency, precision="float32")
    configs = tiny.random_configs(bert, 30)
    assert judge(configs) == alone(configs)
    for one, other in zip(judge.predict(configs), alone.predict(configs), strict=True):
        assert np.array_equal(one, other)
    same = ("n_configs", "n_items", "n_tokens", "masked_flops")
    assert [getattr(judge.cost, name) for name in same] == [getattr(alone.cost, name) for name in same]
    assert judge.cost.flops >= alone.cost.flops  # a common beginning may be computed by two
    assert judge.traversal.startswith("2 workers, depth first")


def test_it_is_all_that_the_evaluator_of_one_process_is(judge, bert):
    for protocol in (InformedEvaluator, RecallingEvaluator, WeighingEvaluator):
        assert isinstance(judge, protocol)
    check_evaluator(judge, LayerwiseSpace.for_model(bert.shape))
    assert judge([]) == []


@pytest.mark.usefixtures("cluster")
def test_races_are_decided_as_in_one_process(bert):
    racing = Racing(confidence=0.6, chunk_items=8)
    alone = SupernetEvaluator(bert, TASK, latency, precision="float32", racing=racing)
    judge = RayEvaluator(bert, TASK, latency, Cluster(), precision="float32", racing=racing)
    configs = tiny.random_configs(bert, 30)
    try:
        for start in (0, 15):
            assert judge(configs[start : start + 15]) == alone(configs[start : start + 15])
    finally:
        judge.pool.close()


def test_killed_workers_change_nothing(judge, bert):
    from benchmarks.workers import own_workers  # which needs Ray

    configs = tiny.random_configs(bert, 60)
    expected = SupernetEvaluator(bert, TASK, latency, precision="float32")(configs)
    judge(configs[:2])  # so that workers are there
    stopped = threading.Event()

    def kill():
        while not stopped.is_set() and judge.pool.n_lost < 3:
            if processes := own_workers():
                os.kill(processes[0], signal.SIGKILL)
            time.sleep(0.5)

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        for _ in range(4):
            assert judge(configs) == expected
    finally:
        stopped.set()
        killer.join()
    assert judge.pool.n_lost >= 1
