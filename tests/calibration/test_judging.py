"""A table is judged on what it has not seen, beside what is simpler."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from rlnas.calibration.judging import judge_table, tail_ratio
from rlnas.calibration.plan import Plan
from rlnas.latency import DeviceInfo, LatencyTable, Timing
from rlnas.latency.correction import count_flops
from rlnas.space import LayerConfig, LayerwiseSpace, ModelShape, SubnetConfig
from rlnas.workload import Workload

SHAPE = ModelShape(num_hidden_layers=4, num_attention_heads=4, intermediate_size=64, hidden_size=16)
WORKLOAD = Workload(1, 16)
TABLE = LatencyTable(
    workload=WORKLOAD,
    device=DeviceInfo("cpu", "Fake CPU"),
    shape=SHAPE,
    attention_ms={heads: 0.5 + heads for heads in (1, 2, 3, 4)},
    ffn_ms={units: 1 + units / 16 for units in (16, 32, 48, 64)},
    floor_ms=0.7,
)


def make_plan(n_models: int, n_held_out: int) -> Plan:
    space, rng = LayerwiseSpace.for_model(SHAPE), np.random.default_rng(0)
    configs = [space.sample(rng) for _ in range(n_models + n_held_out)]
    held_out = configs[n_models:]
    floor = SubnetConfig((LayerConfig(0, 0),) * 4)
    return Plan(floor, [], configs[:n_models], held_out, held_out[::5])


def timings_of(plan: Plan, ms: list[float]) -> list[Timing]:
    assert len(ms) == len(plan.subnets)
    return [Timing((one,) * 6) for one in ms]


def judged(plan: Plan, ms: list[float], table: LatencyTable = TABLE):
    timings = timings_of(plan, ms)
    return judge_table(table, plan, timings, timings)


def test_a_right_table_has_no_error_and_its_controls_do():
    plan = make_plan(12, 20)
    error = judged(plan, TABLE(plan.subnets).tolist())
    assert error.mape == pytest.approx(0)
    assert (error.n_held_out, error.leave_one_out, error.noise) == (20, False, 0)
    assert error.controls["blocks"].mape > error.controls["flops"].mape > 0.01


def test_flops_are_the_better_prediction_where_they_are_the_truth():
    plan = make_plan(12, 30)
    rng = np.random.default_rng(0)
    wrong = replace(TABLE, ffn_ms={units: ms * rng.uniform(0.5, 2) for units, ms in TABLE.ffn_ms.items()})
    ms = [1 + 1e-5 * count_flops(config, SHAPE, WORKLOAD) for config in plan.subnets]
    error = judged(plan, ms, wrong)
    assert error.controls["flops"].mape == pytest.approx(0, abs=1e-9)
    assert error.worse_than == "flops"


def test_without_held_out_models_each_is_predicted_from_the_others():
    plan = make_plan(16, 0)
    ms = TABLE(plan.models)
    ms[3] *= 2  # no fit to the others sees this coming
    error = judged(plan, ms.tolist())
    assert error.leave_one_out
    assert error.n_held_out == 16
    assert error.table.worst == pytest.approx(0.5, abs=0.03)


def test_few_models_are_judged_without_controls():
    plan = make_plan(3, 0)
    assert judged(plan, TABLE(plan.models).tolist()).controls == {}


def test_noise_is_the_difference_of_repeats():
    plan = make_plan(12, 10)
    ms = TABLE(plan.subnets)
    ms[-2:] *= 1.1
    assert judged(plan, ms.tolist()).noise == pytest.approx(0.1 / 1.05)


def test_the_tail_ratio_is_that_of_all_models_together():
    steady, restless = Timing((1.0,) * 99 + (3.0,)), Timing((10.0,) * 97 + (20.0,) * 3)
    assert tail_ratio([steady]) == pytest.approx(1.02)
    assert tail_ratio([steady, restless]) == pytest.approx(2.0)
    assert tail_ratio([Timing((5.0,) * 10)]) == 1.0
