from __future__ import annotations

import numpy as np
import pytest
import tiny
import torch
from transformers import AutoModelForSequenceClassification

from rlnas.errors import EvaluationError
from rlnas.supernet import Supernet
from rlnas.supernet.encoding import EncodedSplit
from rlnas.supernet.inference import predict, to_predictions


def test_classes_are_those_of_the_largest_logit():
    predictions = to_predictions(torch.tensor([[0.1, 2.0, -1.0], [3.0, 2.0, 1.0]]))
    assert predictions.tolist() == [1, 0]
    assert predictions.dtype == np.int64


def test_one_output_is_the_value_itself():
    predictions = to_predictions(torch.tensor([[0.5], [-1.25]], dtype=torch.bfloat16))
    assert predictions.tolist() == [0.5, -1.25]
    assert predictions.dtype == np.float32


@pytest.mark.parametrize("names", [tiny.LABELS, ()], ids=["classes", "values"])
@pytest.mark.parametrize("batch_size", [1, 5, 100])
def test_predictions_come_in_the_order_of_the_split(checkpoints, names, batch_size):
    task = tiny.make_task(names, pairs=True)
    supernet = Supernet.from_pretrained(checkpoints["bert"], task)
    predictions = predict(supernet.model, supernet.encode(task.search), batch_size)
    for index in range(len(task.search)):
        alone = tiny.one_batch(supernet, task.search.take([index]))
        with torch.inference_mode():
            expected = to_predictions(supernet.forward(supernet.shape.full, alone))
        np.testing.assert_allclose(predictions[[index]], expected, atol=1e-5)


def test_any_classifier_of_transformers_will_do(checkpoints, family):
    task = tiny.make_task(pairs=True)
    supernet = Supernet.from_pretrained(checkpoints[family], task)
    theirs = AutoModelForSequenceClassification.from_pretrained(checkpoints[family]).eval()
    encoded = supernet.encode(task.search)
    assert np.array_equal(predict(theirs, encoded), predict(supernet.model, encoded))


def test_nothing_to_predict_is_refused(bert):
    with pytest.raises(ValueError, match="predict needs at least one item, but the split is empty"):
        predict(bert.model, EncodedSplit((), None, np.zeros(0, dtype=np.int64), 0))


@pytest.mark.parametrize("names", [tiny.LABELS, ()], ids=["classes", "values"])
def test_a_logit_that_is_no_number_is_refused(checkpoints, names):
    task = tiny.make_task(names)
    supernet = Supernet.from_pretrained(checkpoints["bert"], task)
    with torch.no_grad():
        supernet.model.head.out.bias[0] = float("nan")
    n_items = len(task.search)
    with pytest.raises(EvaluationError, match=f"{n_items} of {n_items} predictions of mine are not finite"):
        predict(supernet.model, supernet.encode(task.search), name="mine")
