from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import tiny
import torch

from rlnas.errors import EvaluationError, InvalidSubnetError
from rlnas.evaluation import SupernetEvaluator, evaluator
from rlnas.protocols import InformedEvaluator
from rlnas.scores import score, score_interval
from rlnas.space import LayerConfig, LayerwiseSpace, SubnetConfig
from rlnas.supernet import Supernet
from rlnas.supernet.inference import predict
from rlnas.testing import check_evaluator

TASK = tiny.make_task(n=40)


def latency(configs):
    """Milliseconds: a tenth of the heads that are kept."""
    return [sum(layer.num_attention_heads for layer in config.layers) / 10 for config in configs]


def make_evaluator(supernet, task=TASK, **settings):
    return SupernetEvaluator(supernet, task, latency, **({"precision": "float32"} | settings))


def test_predictions_equal_those_of_the_extracted_models(supernet):
    configs = tiny.random_configs(supernet, 12)
    found = make_evaluator(supernet).predict(configs)
    encoded = supernet.encode(TASK.search)
    for config, predictions in zip(configs, found, strict=True):
        assert np.array_equal(predictions, predict(supernet.extract(config), encoded))
        assert predictions.dtype == np.int64
    assert len({tuple(predictions) for predictions in found}) > 3


def test_values_of_a_regression_equal_those_of_the_extracted_models(checkpoints):
    task = tiny.make_task((), n=40)
    supernet = Supernet.from_pretrained(checkpoints["bert"], task)
    configs = tiny.random_configs(supernet, 10)
    found = make_evaluator(supernet, task).predict(configs)
    for config, predictions in zip(configs, found, strict=True):
        expected = predict(supernet.extract(config), supernet.encode(task.search))
        np.testing.assert_allclose(predictions, expected, atol=1e-5)
        assert predictions.dtype == np.float32


def test_a_config_s_result_does_not_depend_on_its_batch(checkpoints):
    """Bit for bit, which only values show."""
    task = tiny.make_task((), n=40)
    supernet = Supernet.from_pretrained(checkpoints["bert"], task)
    judge = make_evaluator(supernet, task)
    configs = tiny.random_configs(supernet, 30)
    together = judge.predict(configs)
    for index in (0, 7, 29):
        assert np.array_equal(judge.predict([configs[index]])[0], together[index])
    backwards = judge.predict(configs[::-1])[::-1]
    assert all(np.array_equal(a, b) for a, b in zip(together, backwards, strict=True))


def test_metrics_hold_what_their_names_say(supernet):
    configs = tiny.random_configs(supernet, 4)
    judge = make_evaluator(supernet)
    for config, metrics in zip(configs, judge(configs), strict=True):
        extracted = supernet.extract(config)
        predictions = predict(extracted, supernet.encode(TASK.search))
        assert metrics.accuracy == np.mean(predictions == TASK.search.labels)
        assert metrics.n_params == sum(parameter.numel() for parameter in extracted.parameters())
        assert metrics.n_items == 40
        assert metrics.latency_ms == latency([config])[0]
        assert metrics.accuracy_ci == score_interval("accuracy", TASK.search.labels, predictions)


def test_the_interval_is_wilsons(bert):
    (metrics,) = make_evaluator(bert)([bert.shape.full])
    p, n, z = metrics.accuracy, metrics.n_items, 1.959964
    centre = (p + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * np.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    assert metrics.accuracy_ci == pytest.approx((centre - half, centre + half), abs=1e-6)


@pytest.mark.parametrize(
    ("names", "metric"),
    [
        (("a", "b"), "f1"),
        (("a", "b"), "matthews"),
        ((), "pearson"),
        ((), "spearman"),
        (tiny.LABELS, "accuracy"),
    ],
)
def test_the_accuracy_is_the_metric_of_the_task(checkpoints, names, metric):
    task = replace(tiny.make_task(names, n=40, pairs=True), metric=metric)
    supernet = Supernet.from_pretrained(checkpoints["bert"], task)
    judge = make_evaluator(supernet, task)
    config = tiny.random_configs(supernet, 3)[2]
    (metrics,), (predictions,) = judge([config]), judge.predict([config])
    assert metrics.accuracy == score(metric, task.search.labels, predictions)
    assert (metrics.accuracy_ci is None) == (metric != "accuracy")


class Poison:
    """Nothing may so much as look at it."""

    def __getattribute__(self, name):
        raise AssertionError(f"the final split was touched: {name}")

    def __len__(self):
        raise AssertionError("the final split was measured")


def test_the_final_split_is_never_touched(bert):
    configs = tiny.random_configs(bert, 10)
    clean = make_evaluator(bert)(configs)
    assert make_evaluator(bert, replace(TASK, final=Poison()))(configs) == clean
    garbage = replace(TASK.final, texts=("?",) * 40, labels=np.full(40, -1))
    assert make_evaluator(bert, replace(TASK, final=garbage))(configs) == clean
    other_search = replace(TASK, search=TASK.final)
    assert make_evaluator(bert, other_search)(configs) != clean


def test_another_split_is_judged_where_asked_for(bert):
    on_train = make_evaluator(bert, split=TASK.train)([bert.shape.full])
    assert on_train == make_evaluator(bert, replace(TASK, search=TASK.train))([bert.shape.full])
    assert on_train[0].n_items == len(TASK.train)


def test_the_batch_size_of_items_does_not_change_the_predictions(bert):
    configs = tiny.random_configs(bert, 10)
    first, *others = (make_evaluator(bert, batch_size=size).predict(configs) for size in (1, 7, 100))
    for other in others:
        assert all(np.array_equal(a, b) for a, b in zip(first, other, strict=True))


def test_later_changes_to_the_supernet_do_not_show(bert):
    judge = make_evaluator(bert)
    before = judge([bert.shape.full])
    with torch.no_grad():
        for parameter in bert.model.parameters():
            parameter.zero_()
    assert judge([bert.shape.full]) == before


def test_bfloat16_weights_answer_nearly_alike(supernet):
    configs = tiny.random_configs(supernet, 20)
    exact, rounded = (
        make_evaluator(supernet, precision=name).predict(configs) for name in ("float32", "bfloat16")
    )
    agreement = np.mean(np.stack(exact) == np.stack(rounded))
    assert agreement > 0.9
    assert {parameter.dtype for parameter in supernet.model.parameters()} == {torch.float32}


@pytest.mark.parametrize(("gains", "precision"), [(True, "bfloat16"), (False, "float32")])
def test_the_number_format_follows_the_device_unless_told(bert, monkeypatch, gains, precision):
    monkeypatch.setattr(evaluator, "gains_from_bfloat16", lambda _device: gains)
    assert make_evaluator(bert, precision="auto").precision == precision


def test_an_unknown_precision_is_refused(bert):
    with pytest.raises(
        ValueError,
        match="precision must be auto or one of float32, bfloat16, float16, but got precision='int8'",
    ):
        make_evaluator(bert, precision="int8")


def test_importance_is_that_of_the_blocks_in_the_order_of_the_space(bert):
    judge = make_evaluator(bert)
    assert judge.importance is None
    bert.block_importance = np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
    assert judge.importance.tolist() == [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]
    assert len(judge.importance) == len(LayerwiseSpace.for_model(bert.shape).nvec)


def test_it_is_an_evaluator_by_the_laws(bert):
    judge = make_evaluator(bert)
    assert isinstance(judge, InformedEvaluator)
    assert judge.latency is latency
    assert judge([]) == []
    check_evaluator(judge, LayerwiseSpace.for_model(bert.shape))


def test_a_config_that_does_not_fit_is_refused(bert):
    too_wide = SubnetConfig((LayerConfig(4, 48), LayerConfig(4, 48), LayerConfig(4, 96)))
    with pytest.raises(InvalidSubnetError, match="intermediate_size of layer 2 may be at most 48"):
        make_evaluator(bert)([bert.shape.full, too_wide])


def test_predictions_that_are_not_finite_are_refused(checkpoints):
    for names in (tiny.LABELS, ()):
        task = tiny.make_task(names)
        supernet = Supernet.from_pretrained(checkpoints["bert"], task)
        supernet.model.head.out.bias.data[0] = float("nan")
        with pytest.raises(
            EvaluationError, match="the subnet 4h48 4h48 4h48 predicts values that are not"
        ) as caught:
            make_evaluator(supernet, task)([supernet.shape.full])
        assert caught.value.config == supernet.shape.full
