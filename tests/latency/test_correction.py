from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode

from rlnas.latency.correction import Correction, count_blocks, count_flops, fit_correction, fit_line
from rlnas.space import LayerConfig, ModelShape, SubnetConfig
from rlnas.workload import Workload

SHAPE = ModelShape(num_hidden_layers=2, num_attention_heads=4, intermediate_size=16, hidden_size=8)


@pytest.fixture
def parts():
    rng = np.random.default_rng(0)
    blocks = rng.uniform(0.5, 10, size=(13, 2))
    return np.column_stack([np.full(13, 0.7), blocks])


def test_a_sum_that_is_right_needs_no_correction(parts):
    assert fit_correction(parts, parts.sum(axis=1)) == Correction()


@settings(max_examples=20, deadline=None)
@given(scale=st.floats(0.5, 3), offset=st.floats(0, 2))
def test_a_scaled_and_shifted_sum_is_recovered(scale, offset):
    rng = np.random.default_rng(1)
    parts = np.column_stack([np.full(13, 0.7), rng.uniform(0.5, 10, size=(13, 2))])
    measured = scale * parts.sum(axis=1) + offset
    correction = fit_correction(parts, measured)
    assert correction(parts) == pytest.approx(measured, rel=1e-6)


def test_a_pure_scale_is_found_as_such(parts):
    correction = fit_correction(parts, 1.3 * parts.sum(axis=1))
    assert correction.form == "scale"
    assert correction.ffn_scale == pytest.approx(1.3)
    assert correction.offset_ms == 0


def test_kinds_that_differ_are_scaled_apart(parts):
    measured = 1.0 + 1.5 * parts[:, 1] + 0.8 * parts[:, 2]
    correction = fit_correction(parts, measured)
    assert correction.form == "per_kind"
    assert (correction.attention_scale, correction.ffn_scale) == pytest.approx((1.5, 0.8))
    assert correction.offset_ms == pytest.approx(0.3)


def test_noise_does_not_buy_a_richer_form(parts):
    rng = np.random.default_rng(2)
    forms = {
        fit_correction(parts, 1.3 * parts.sum(axis=1) * rng.normal(1, 0.01, 13)).form for _ in range(10)
    }
    assert "none" not in forms
    assert "scale" in forms


def test_a_fit_that_would_give_the_floor_no_time_is_not_taken(parts):
    measured = parts.sum(axis=1) - 1.0  # the floor alone would take -0.3 ms
    correction = fit_correction(parts, measured)
    floor = np.array([[0.7, 0.0, 0.0]])
    assert correction(floor)[0] > 0


def test_a_fit_that_would_give_blocks_negative_time_is_not_taken(parts):
    correction = fit_correction(parts, 20 - parts.sum(axis=1) / 2)
    assert correction.attention_scale > 0
    assert correction.ffn_scale > 0


@pytest.mark.parametrize("n_models", [1, 2, 3])
def test_few_models_get_a_simple_correction(parts, n_models):
    measured = 2 * parts.sum(axis=1) + 1
    correction = fit_correction(parts[:n_models], measured[:n_models])
    assert correction.form in ("none", "scale")


def test_the_prediction_of_a_row_does_not_depend_on_its_batch(parts):
    correction = Correction("per_kind", 0.1, 1.0, 1.234567, 0.987654)
    together = correction(parts)
    assert [correction(parts[i : i + 1])[0] for i in range(13)] == together.tolist()


def test_a_line_is_recovered_whatever_the_size_of_its_features():
    features = np.arange(1.0, 14.0)[:, None] * 1e9
    predict = fit_line(features, 3e-9 * features[:, 0] + 1)
    assert predict(np.array([[20e9]])) == pytest.approx([61.0])


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"form": "cubic"}, "form='cubic'"),
        ({"offset_ms": float("nan")}, "offset_ms=nan"),
        ({"ffn_scale": 0.0}, r"ffn_scale=0\.0"),
        ({"attention_scale": -1.0}, r"attention_scale=-1\.0"),
        ({"floor_scale": float("inf")}, "floor_scale=inf"),
    ],
)
def test_an_impossible_correction_is_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        Correction(**fields)


def test_blocks_are_counted():
    config = SubnetConfig((LayerConfig(4, 0), LayerConfig(2, 16)))
    assert count_blocks(config) == (2, 1)


def test_operations_are_those_of_the_products():
    config = SubnetConfig((LayerConfig(2, 16), LayerConfig(0, 0)))
    # Two heads of size 2 over 10 tokens: 4 projections 8 x 4, two products over 10 positions,
    # and an FFN of 8 x 16 twice; two operations per multiply-add, for 10 tokens of 3 texts.
    per_token = 2 * (4 * 8 * 4 + 2 * 10 * 4 + 2 * 8 * 16)
    assert count_flops(config, SHAPE, Workload(batch_size=3, seq_len=10)) == 30 * per_token


def test_operations_agree_with_the_products_of_torch():
    tokens, weights = torch.zeros(2, 10, 8), {"in": torch.zeros(8, 16), "out": torch.zeros(16, 8)}
    with FlopCounterMode(display=False) as counter:
        tokens @ weights["in"] @ weights["out"]
    config = SubnetConfig((LayerConfig(0, 16), LayerConfig(0, 0)))
    assert counter.get_total_flops() == count_flops(config, SHAPE, Workload(batch_size=2, seq_len=10))


def test_operations_of_a_mix_are_the_mean_of_its_requests_with_their_padding():
    config = SubnetConfig((LayerConfig(2, 16), LayerConfig(0, 0)))
    mix = Workload(batch_size=1, seq_len=10, lengths=(4, 10))
    alone = [count_flops(config, SHAPE, Workload(1, length)) for length in (4, 10)]
    assert count_flops(config, SHAPE, mix) == sum(alone) / 2
    padded = Workload(batch_size=2, seq_len=10, lengths=(10,) + (4,) * 9)
    assert count_flops(config, SHAPE, padded) > count_flops(config, SHAPE, Workload(2, 4))
