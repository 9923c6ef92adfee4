"""Each item is answered by the supernet that has not seen it, in the order of the task."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest
import tiny

from rlnas.evaluation import FoldedEvaluator, SupernetEvaluator
from rlnas.evaluation.folded import pooled
from rlnas.protocols import InformedEvaluator, WeighingEvaluator
from rlnas.scores import score, wilson_interval
from rlnas.space import LayerwiseSpace
from rlnas.supernet import Supernet
from rlnas.supernet.importance import Importance
from rlnas.testing import check_evaluator

FOLDS = np.array([0, 1, 2] * 8)


def latency(configs):
    return [1.0 + sum(layer.num_attention_heads for layer in config.layers) for config in configs]


@pytest.fixture(scope="module")
def task():
    task = tiny.make_task()
    return replace(task, search=replace(task.train, name="out-of-fold"), folds=FOLDS)


@pytest.fixture
def folds(bert):
    """Supernets that answer differently."""
    supernets = []
    for number in range(3):
        model = copy.deepcopy(bert.model)
        tiny.make_weights_matter(model, seed=number)
        supernets.append(Supernet(model, bert.tokenizer))
    return supernets


@pytest.fixture
def judge(bert, folds, task):
    return FoldedEvaluator(bert, folds, task, latency, precision="float32")


def test_every_item_is_answered_by_the_supernet_of_its_fold(judge, folds, bert, task):
    configs = tiny.random_configs(bert, 5)
    found = judge.predict(configs)
    for number, supernet in enumerate(folds):
        alone = SupernetEvaluator(supernet, task, latency, split=task.train, precision="float32")
        for config, predicted in zip(configs, found, strict=True):
            expected = alone.predict([config])[0]
            np.testing.assert_array_equal(predicted[number == FOLDS], expected[number == FOLDS])


def test_metrics_pool_the_answers_to_all_items(judge, bert, task):
    configs = tiny.random_configs(bert, 4)
    for config, metrics, predicted in zip(configs, judge(configs), judge.predict(configs), strict=True):
        right = predicted == task.search.labels
        assert metrics.accuracy == pytest.approx(right.mean())
        assert metrics.n_items == 24
        assert metrics.accuracy_ci == wilson_interval(int(right.sum()), 24)
        assert metrics.correct == np.packbits(right).tobytes()
        assert metrics.latency_ms == latency([config])[0]
        assert metrics.n_params == bert.n_params(config)


def test_the_labels_of_held_out_items_have_no_part_in_the_answers(judge, bert, folds, task):
    labels = np.asarray(task.train.labels)[::-1].copy()
    turned = replace(task, search=replace(task.search, labels=labels))
    configs = tiny.random_configs(bert, 3)
    other = FoldedEvaluator(bert, folds, turned, latency, precision="float32")
    np.testing.assert_array_equal(judge.predict(configs), other.predict(configs))


def test_other_metrics_are_pooled_too_and_keep_no_single_answers(checkpoints):
    task = tiny.make_task(())
    task = replace(task, search=task.train, folds=FOLDS)
    supernet = Supernet.from_pretrained(checkpoints["bert"], task)
    judge = FoldedEvaluator(supernet, [supernet] * 3, task, latency)
    (metrics,), (predicted,) = judge([supernet.shape.full]), judge.predict([supernet.shape.full])
    assert metrics.accuracy == score("pearson", task.search.labels, predicted)
    assert (metrics.correct, metrics.accuracy_ci, metrics.n_items) == (None, None, 24)


def test_what_controllers_may_know_is_that_of_the_supernet_of_all_items(judge, bert):
    assert isinstance(judge, InformedEvaluator)
    assert isinstance(judge, WeighingEvaluator)
    assert (judge.importance, judge.kept_importance, judge.latency) == (None, None, latency)
    bert.importance = Importance(np.ones((3, 4)), np.ones((3, 48)))
    bert.block_importance = bert.importance.blocks
    np.testing.assert_array_equal(judge.importance, bert.block_importance.reshape(-1))
    assert judge.kept_importance([bert.shape.full]) == [3 * 52]
    check_evaluator(judge, LayerwiseSpace.for_model(bert.shape))


def test_a_subnet_counts_once_and_an_item_once(judge, bert):
    judge(tiny.random_configs(bert, 3))
    assert (judge.cost.n_configs, judge.cost.n_items) == (3, 3 * 24)
    assert judge.precision == "float32"
    assert judge.traversal.startswith("3 folds, depth first")


def test_parts_come_back_in_the_order_of_the_items():
    parts = [[np.array([10, 12])], [np.array([11, 13])]]
    assert pooled(parts, [np.array([0, 2]), np.array([1, 3])])[0].tolist() == [10, 11, 12, 13]


def test_every_fold_needs_its_supernet(bert, task):
    with pytest.raises(ValueError, match="'tiny' has 3 folds and 2 supernets were given"):
        FoldedEvaluator(bert, [bert] * 2, task, latency)
    with pytest.raises(ValueError, match="'tiny' has 0 folds and 1 supernets"):
        FoldedEvaluator(bert, [bert], replace(task, folds=None), latency)


def test_one_supernet_does_not_judge_what_it_was_trained_on(bert, task):
    with pytest.raises(
        ValueError, match="the task 'tiny' has 3 folds, so it is searched on what it trains on"
    ):
        SupernetEvaluator(bert, task, latency)
