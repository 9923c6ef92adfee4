"""Configs judged each in its precision."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import tiny

from rlnas.errors import InvalidSpaceError, InvalidSubnetError
from rlnas.evaluation import PrecisionEvaluator, SupernetEvaluator
from rlnas.supernet.training import prepare

PRECISIONS = ("float32", "bfloat16", "int8")


def latency(configs):
    """One number per config, by precision."""
    return [1.0 + PRECISIONS.index(config.precision) for config in configs]


@pytest.fixture
def evaluator(bert):
    return PrecisionEvaluator(bert, tiny.make_task(n=30), latency, PRECISIONS)


def test_a_mixed_batch_gets_what_each_precision_gives_in_its_order(bert, evaluator):
    plain = tiny.random_configs(bert, 4)
    configs = [replace(config, precision=p) for config in plain for p in ("int8", "float32", "bfloat16")]
    judged, predicted = evaluator(configs), evaluator.predict(configs)
    for config, metrics, answers in zip(configs, judged, predicted, strict=True):
        own = SupernetEvaluator(bert, tiny.make_task(n=30), latency, precision=config.precision)
        assert metrics == own([config])[0]
        assert metrics.latency_ms == latency([config])[0]
        assert np.array_equal(answers, own.predict([config])[0])
    assert evaluator.cost.n_configs == 2 * len(configs)


def test_importance_has_an_entry_for_the_precision(bert, evaluator):
    assert evaluator.importance is None
    prepare(bert, tiny.make_task().train, 8, 0)
    evaluator = PrecisionEvaluator(bert, tiny.make_task(n=30), latency, PRECISIONS)
    assert evaluator.importance.shape == (2 * tiny.NUM_LAYERS + 1,)
    assert evaluator.importance[-1] == 0
    full = tiny.SHAPE.full
    kept = evaluator.kept_importance([replace(full, precision=p) for p in PRECISIONS])
    assert len(set(kept)) == 1


def test_it_says_what_it_does(evaluator):
    assert evaluator.precision == "float32, bfloat16, int8"
    assert "each precision by itself" in evaluator.traversal
    assert evaluator.latency is latency


@pytest.mark.parametrize("precision", [None, "float16"])
def test_a_config_of_another_precision_is_refused(evaluator, precision):
    with pytest.raises(
        InvalidSubnetError, match=f"float32, bfloat16, int8 here, but got precision={precision!r}"
    ):
        evaluator([replace(tiny.SHAPE.full, precision=precision)])


def test_precisions_are_checked(bert):
    with pytest.raises(InvalidSpaceError, match=r"int8 does twice"):
        PrecisionEvaluator(bert, tiny.make_task(), latency, ("int8", "int8"))
