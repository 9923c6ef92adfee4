"""Several evaluators with the same workers: folds, precisions, and what is put where workers find it."""

from __future__ import annotations

import sys
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest

sys.path.append(str(Path(__file__).parents[1] / "supernet"))  # folders of tests are no packages

import tiny

from rlnas.evaluation import FoldedEvaluator, PrecisionEvaluator, SupernetEvaluator
from rlnas.scale import Cluster, Crew, RayEvaluator
from rlnas.scale import crew as crews
from rlnas.supernet import Supernet
from rlnas.supernet.arrays import SupernetArrays

TASK = tiny.make_task(n=24)
PRECISIONS = ("float32", "bfloat16", "int8", "int8_ffn")


def latency(configs):
    """Milliseconds: the heads that are kept."""
    return [float(sum(layer.num_attention_heads for layer in config.layers)) for config in configs]


def supernet(folder, seed):
    found = Supernet.from_pretrained(tiny.write_checkpoint(folder / str(seed), "bert"), TASK)
    tiny.make_weights_matter(found.model, seed)
    return found


@pytest.fixture(scope="module")
def berts(tmp_path_factory):
    return [supernet(tmp_path_factory.mktemp("berts"), seed) for seed in range(3)]


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.usefixtures("cluster")
def test_folds_are_judged_as_in_one_process(berts):
    task = replace(TASK, search=TASK.train, folds=np.array([0, 1, 2] * 8))
    evaluator = partial(FoldedEvaluator, berts[0], berts, task, latency, precision="float32")
    configs = tiny.random_configs(berts[0], 12)
    alone = evaluator()
    with closing(evaluator(make=partial(RayEvaluator, cluster=Crew(Cluster())))) as judge:
        assert judge(configs) == alone(configs)
        np.testing.assert_array_equal(judge.predict(configs), alone.predict(configs))
        assert (judge.cost.n_configs, judge.cost.n_items) == (alone.cost.n_configs, alone.cost.n_items)
        assert judge.traversal.startswith("3 folds, 2 workers, depth first")


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.usefixtures("cluster")
def test_precisions_are_judged_as_in_one_process(berts):
    evaluator = partial(PrecisionEvaluator, berts[0], TASK, latency, PRECISIONS)
    plain = tiny.random_configs(berts[0], 16)
    configs = [replace(config, precision=PRECISIONS[row % 4]) for row, config in enumerate(plain)]
    alone = evaluator()
    with closing(evaluator(make=partial(RayEvaluator, cluster=Crew(Cluster())))) as judge:
        assert judge(configs) == alone(configs)
        np.testing.assert_array_equal(judge.predict(configs), alone.predict(configs))


class Store:
    """Ray as far as putting goes."""

    def __init__(self):
        self.held = []

    def put(self, value):
        self.held.append(value)
        return len(self.held) - 1

    def remote(self, **_needs):
        return lambda make: make


def test_weights_are_put_once_for_each_number_format_when_there_is_work(berts, monkeypatch):
    store = Store()
    monkeypatch.setattr(crews, "connect", lambda _: store)
    crew = Crew(Cluster())
    PrecisionEvaluator(berts[0], TASK, latency, PRECISIONS, make=partial(RayEvaluator, cluster=crew))
    RayEvaluator(berts[1], TASK, latency, crew, precision="float32")
    assert store.held == []
    pool = crew.pool
    weights = [value.dtype for value in store.held if isinstance(value, SupernetArrays)]
    assert weights == ["float32", "bfloat16", "float32"]
    (judgings,) = (value for value in store.held if isinstance(value, list))
    assert [judging.precision for judging in judgings] == [*PRECISIONS, "float32"]
    assert [judging.weights for judging in judgings] == [0, 1, 0, 0, 2]
    assert crew.pool is pool
    crew.close()
    assert crew.pool is not pool


def test_another_split_is_judged_where_it_is_given(berts, monkeypatch):
    store = Store()
    monkeypatch.setattr(crews, "connect", lambda _: store)
    evaluator = RayEvaluator(berts[0], TASK, latency, Cluster(), split=TASK.final, precision="float32")
    assert evaluator.pool.n_workers == 2
    (judging,) = next(value for value in store.held if isinstance(value, list))
    assert judging.task.search is TASK.final
    assert isinstance(evaluator, SupernetEvaluator)
