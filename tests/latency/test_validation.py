from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import kendalltau

from rlnas.latency.correction import fit_correction
from rlnas.latency.validation import HeldOutError, PredictionError, judge, leave_one_out

DEPTHS = np.repeat([2, 4, 6, 8], 5)
TRUTH = np.linspace(1.0, 10.0, 20)


def judged(table, measured=TRUTH, **controls) -> HeldOutError:
    return judge({"table": table, **controls}, measured, DEPTHS, leave_one_out=False)


def test_a_perfect_prediction_has_no_error_and_the_right_order():
    error = judged(TRUTH)
    assert (error.mape, error.table.p95, error.table.worst) == (0, 0, 0)
    assert (error.table.tau, error.table.tau_within_depth) == (1, 1)
    assert error.n_held_out == 20
    assert error.warning is None


def test_errors_are_relative_to_the_measurement():
    error = judged(TRUTH * np.repeat([1.1, 0.8], 10)).table
    assert error.mape == pytest.approx(0.15)
    assert error.worst == pytest.approx(0.2)
    assert error.mape <= error.p95 <= error.worst


@settings(max_examples=40, deadline=None)
@given(st.permutations(range(20)))
def test_tau_is_that_of_scipy(order):
    predicted = np.array(order, dtype=float) + 1
    assert judged(predicted).table.tau == pytest.approx(kendalltau(predicted, TRUTH).statistic)


def test_a_count_of_blocks_orders_depths_and_nothing_within():
    error = judged(TRUTH, blocks=DEPTHS.astype(float)).controls["blocks"]
    assert error.tau is not None
    assert error.tau > 0.7
    assert error.tau_within_depth == 0


def test_few_models_have_no_rank_correlation():
    error = judge({"table": TRUTH[:3]}, TRUTH[:3], DEPTHS[:3], leave_one_out=True)
    assert (error.table.tau, error.table.tau_within_depth, error.noise) == (None, None, None)
    assert "tau" not in str(error)


def test_noise_bounds_the_rank_correlation_within_equal_depth():
    def ceiling(noise: float) -> float:
        repeats = np.full(20, noise)
        error = judge(
            {"table": TRUTH}, TRUTH, DEPTHS, repeats=repeats, noise_sd=noise / 2, leave_one_out=False
        )
        assert error.noise == pytest.approx(noise)
        assert error.noise_p95 == pytest.approx(noise)
        assert error.tau_ceiling is not None
        return error.tau_ceiling

    assert ceiling(0.0) == 1
    assert ceiling(0.02) > ceiling(0.5) > 0
    assert ceiling(0.5) < 0.8


def test_the_simulated_ceiling_is_what_a_second_measurement_shows():
    rng, sd, seen = np.random.default_rng(1), 0.08, []
    for _ in range(300):
        seen.append(judged(TRUTH, TRUTH * (1 + sd * rng.standard_normal(20))).table.tau_within_depth)
    error = judge({"table": TRUTH}, TRUTH, DEPTHS, repeats=np.full(4, sd), noise_sd=sd, leave_one_out=False)
    assert error.tau_ceiling == pytest.approx(np.mean(seen), abs=0.03)


def test_a_table_worse_than_a_control_is_warned_of():
    rng = np.random.default_rng(0)
    error = judged(TRUTH * (1 + 0.1 * rng.standard_normal(20)), flops=TRUTH * 1.001, blocks=TRUTH * 1.01)
    assert error.worse_than == "flops"
    assert error.warning is not None
    assert "counting flops predicts latency better here (0.1% off instead of" in error.warning


def test_a_difference_within_noise_is_not_warned_of():
    rng = np.random.default_rng(0)
    noisy = [TRUTH * (1 + 0.05 * rng.standard_normal(20)) for _ in range(2)]
    assert judged(noisy[0], flops=noisy[1]).warning is None


def test_each_model_is_predicted_from_the_others():
    # One model behaves like no other: a fit to it too would look better than it is.
    parts = np.column_stack([np.zeros(6), np.arange(1.0, 7.0), np.arange(1.0, 7.0)])
    measured = parts.sum(axis=1).copy()
    measured[-1] *= 2
    predicted = leave_one_out(fit_correction, parts, measured)
    assert predicted[-1] == pytest.approx(measured[-1] / 2)


def test_an_error_reads_as_one_line_and_survives_json():
    error = HeldOutError(
        13,
        PredictionError(0.023, 0.05, 0.06, 0.98, 0.91),
        {"blocks": PredictionError(0.15, 0.3, 0.4, 0.7, 0.0)},
        noise=0.02,
        leave_one_out=False,
    )
    assert str(error) == (
        "held-out error 2.3% (p95 5.0%, tau 0.98, within equal depth 0.91) on 13 models, measured for this "
        "alone; repeat noise 2.0%; counting blocks 15.0% (p95 30.0%, tau 0.70, within equal depth 0.00)"
    )
    assert HeldOutError.from_dict(error.to_dict()) == error
