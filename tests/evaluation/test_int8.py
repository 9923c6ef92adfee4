"""Products in int8, against their definition and against ONNX Runtime."""

from __future__ import annotations

import numpy as np
import pytest
import tiny
import torch
from torch import nn

from rlnas.deploy.onnx_file import OnnxModel, write_in_precision
from rlnas.evaluation import SupernetEvaluator
from rlnas.evaluation import int8 as int8_module
from rlnas.evaluation.int8 import RoundedLinear, RoundedRows
from rlnas.evaluation.packing import Layout, Run

LAYOUT = Layout((Run(0, 2, 3), Run(6, 1, 4)), torch.tensor([0, 3, 6, 10]), 10)


def rows(width: int = 12) -> torch.Tensor:
    """Activations whose items differ in range."""
    generator = torch.Generator().manual_seed(0)
    scale = torch.tensor([1.0] * 3 + [10.0] * 3 + [0.1] * 4)[:, None]
    return scale * torch.randn(10, width, generator=generator) + 0.5


def test_every_item_has_a_scale_of_its_own_and_is_off_by_half_a_step_at_most():
    rounded = RoundedRows.of(rows(), LAYOUT)
    assert rounded.scale.unique().numel() == 3
    back = (rounded.values.float() - rounded.zero) * rounded.scale
    assert ((back - rows()).abs() <= 0.5001 * rounded.scale).all()


def test_zero_stays_zero_and_constant_zeros_do_not_divide_by_zero():
    activations = rows()
    activations[:3] = 0.0
    activations[7] = 0.0
    rounded = RoundedRows.of(activations, LAYOUT)
    back = (rounded.values.float() - rounded.zero) * rounded.scale
    assert torch.equal(back[:3], torch.zeros(3, 12))
    assert torch.equal(back[7], torch.zeros(12))


@pytest.mark.parametrize("has_units", [False, True])
def test_a_product_is_that_of_the_rounded_numbers(monkeypatch, has_units):
    monkeypatch.setattr(int8_module, "multiplies_integers", lambda device: has_units)
    linear, activations = nn.Linear(12, 7), rows()
    rounded, weights = RoundedRows.of(activations, LAYOUT), RoundedLinear.of(linear)
    left = (rounded.values.float() - rounded.zero) * rounded.scale
    right = weights.values.float() * weights.scale
    torch.testing.assert_close(weights(rounded), left @ right + linear.bias, atol=1e-4, rtol=1e-4)
    assert (right.t() - linear.weight).abs().max() <= weights.scale.max() * 0.5001


def test_the_first_outputs_are_those_of_the_whole_layer_and_fewer_inputs_have_their_own_scale():
    linear, rounded = nn.Linear(12, 7), RoundedRows.of(rows(), LAYOUT)
    with torch.no_grad():
        linear.weight[:, 11] *= 100
    whole = RoundedLinear.of(linear)
    assert torch.equal(whole.first(3)(rounded), whole(rounded)[:, :3])
    assert (RoundedLinear.of(linear, 11).scale < whole.scale).all()


def served_logits(supernet, task, config, precision, path):
    """ONNX Runtime's answers to the texts one by one."""
    write_in_precision(supernet.extract(config), path, precision)
    served, encoded = OnnxModel(path), supernet.encode(task.search)
    requests = [np.asarray(ids, dtype=np.int64)[None] for ids in encoded.input_ids]
    return np.concatenate([served(ids, np.ones_like(ids)) for ids in requests])


@pytest.mark.parametrize("precision", ["int8", pytest.param("int8_ffn", marks=pytest.mark.slow)])
def test_simulated_answers_are_those_of_onnx_runtime(bert, tmp_path, precision):
    """What may be left are activations on the edge between two integers."""
    pytest.importorskip("onnxruntime")
    task, config = tiny.make_task(n=40), tiny.random_configs(bert, 3)[2]
    engine = served_logits(bert, task, config, precision, tmp_path / "model.onnx")
    latency = lambda configs: [1.0] * len(configs)  # noqa: E731
    exact, simulated = (
        SupernetEvaluator(bert, task, latency, precision=name).logits([config])[0]
        for name in ("float32", precision)
    )
    left, changed = np.abs(simulated - engine).mean(), np.abs(exact - engine).mean()
    assert left < 0.05 * changed
    assert (simulated.argmax(axis=1) == engine.argmax(axis=1)).mean() == 1.0


@pytest.mark.parametrize("precision", ["int8", "int8_attention"])
def test_a_config_answers_the_same_whatever_its_batch(wide, precision):
    task = tiny.make_task(n=60)
    evaluator = SupernetEvaluator(wide, task, lambda configs: [1.0] * len(configs), precision=precision)
    configs = tiny.random_configs(wide, 8)
    together = evaluator.logits(configs)
    for config, found in zip(configs, together, strict=True):
        assert np.array_equal(evaluator.logits([config])[0], found)
