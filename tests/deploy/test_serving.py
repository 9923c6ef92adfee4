"""Predictions as served."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from rlnas.deploy.serving import predict_as_served
from rlnas.errors import EvaluationError
from rlnas.evaluation import SupernetEvaluator
from rlnas.supernet.inference import predict


def test_floats_are_those_of_pytorch_and_the_model_stays_as_it_is(supernets, task):
    supernet = supernets("bert", task)
    model, encoded = supernet.extract(supernet.shape.full), supernet.encode(task.final)
    found = predict_as_served(model, encoded, "bfloat16")
    assert model.dtype == torch.float32
    assert np.array_equal(found, predict(model.to(torch.bfloat16), encoded))


def test_answers_that_are_not_finite_are_counted(supernets, task, monkeypatch):
    class Broken:
        def __init__(self, path):
            pass

        def __call__(self, **inputs):
            return np.full((1, 3), np.nan, dtype=np.float32)

    monkeypatch.setattr("rlnas.deploy.serving.write_in_precision", lambda *arguments, **how: None)
    monkeypatch.setattr("rlnas.deploy.serving.OnnxModel", Broken)
    supernet = supernets("bert", task)
    encoded = supernet.encode(task.final.take(np.arange(4)))
    with pytest.raises(EvaluationError, match="4 of 4 predictions of the model in int8 are not finite"):
        predict_as_served(supernet.model, encoded, "int8")


@pytest.mark.slow
def test_those_of_int8_are_what_the_simulation_says(supernets, task):
    pytest.importorskip("onnxruntime")
    supernet, full = supernets("bert", task), supernets("bert", task).shape.full
    found = predict_as_served(supernet.extract(full), supernet.encode(task.final), "int8")
    simulated = SupernetEvaluator(
        supernet, task, lambda configs: [1.0] * len(configs), split=task.final, precision="int8"
    )
    assert np.array_equal(found, simulated.predict([full])[0])
