"""The regime is right on three constructed devices, and its figures are the table's own."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlnas.calibration import Effort, calibrate_timeable
from rlnas.calibration.design import probe_blocks
from rlnas.errors import InvalidSpaceError, LatencyLookupError, LatencyTableError
from rlnas.latency.clock import FakeClock
from rlnas.latency.correction import Correction
from rlnas.latency.device import DeviceInfo
from rlnas.latency.regime import MAX_OPTIONS, Regime, find_regime
from rlnas.latency.table import BlockTiming, LatencyTable
from rlnas.latency.timing import Timing
from rlnas.space import LayerConfig, LayerwiseSpace, ModelShape, SubnetConfig
from rlnas.workload import Workload

if TYPE_CHECKING:
    from collections.abc import Callable

SHAPE = ModelShape(num_hidden_layers=6, num_attention_heads=12, intermediate_size=1536, hidden_size=384)
HEADS, UNITS = tuple(range(1, 13)), tuple(range(96, 1537, 96))
FLOOR_MS = 0.5


@dataclass(frozen=True)
class Device:
    """A model whose blocks cost what a function says, by the share of the full block that is kept."""

    clock: FakeClock
    block_ms: Callable[[float], float]
    shape: ModelShape = SHAPE
    stack_size: int = 6

    def _ms(self, kind: str, size: int) -> float:
        full = SHAPE.num_attention_heads if kind == "attention" else SHAPE.intermediate_size
        return self.block_ms(size / full) if size else 0.0

    def block_calls(self, kind, size):
        return [self.clock.call(self.stack_size * self._ms(kind, size))]

    def model_calls(self, config):
        blocks = [
            self._ms("attention", layer.num_attention_heads) + self._ms("ffn", layer.intermediate_size)
            for layer in config.layers
        ]
        return [self.clock.call(FLOOR_MS + math.fsum(blocks))]


def calibrated(block_ms: Callable[[float], float], noise: float = 0.0, seed: int = 0) -> LatencyTable:
    """A table of that device, its clock drifting and noisy."""
    rng = np.random.default_rng(seed)

    def slowdown(now_ms: float) -> float:
        return float((1 + 0.3 * abs(np.sin(now_ms / 1e4))) * rng.lognormal(0, noise))

    clock = FakeClock(slowdown if noise else None)
    return calibrate_timeable(
        Device(clock, block_ms),
        LayerwiseSpace.for_model(SHAPE),
        Workload(1, 32),
        device=DeviceInfo("cpu", "Fake"),
        clock=clock,
        effort=Effort(n_models=6, n_rounds=15),
        extra_blocks=probe_blocks(SHAPE),
        seed=seed,
    )


def launch_bound(share: float) -> float:
    """Kernels so short that the next launch is not ready before; only a little follows the size."""
    return 0.3 + 0.006 * share


def compute_bound(share: float) -> float:
    return 0.02 + 0.38 * share


def stepwise(share: float) -> float:
    """Tiles of a quarter of the full size."""
    return 0.1 * math.ceil(4 * share - 1e-9)


@pytest.mark.parametrize("noise", [0.0, 0.01])
def test_a_launch_bound_device_wants_fewer_blocks_not_thinner_ones(noise):
    regime = find_regime(calibrated(launch_bound, noise))
    assert regime.is_launch_bound
    assert regime.fixed_share > 0.95
    assert regime.heads_gain + regime.units_gain < 0.04
    assert regime.blocks_gain == pytest.approx(12 * 0.306 / (FLOOR_MS + 12 * 0.306), abs=0.01)
    assert (regime.num_attention_heads, regime.intermediate_size) == ((12,), (1536,))


@pytest.mark.parametrize("noise", [0.0, 0.01])
def test_a_compute_bound_device_gains_from_every_width(noise):
    regime = find_regime(calibrated(compute_bound, noise))
    assert not regime.is_launch_bound
    assert regime.fixed_share == pytest.approx(0.05, abs=0.02)
    full_ms = FLOOR_MS + 12 * 0.4
    assert regime.heads_gain == pytest.approx(6 * 0.38 * 11 / 12 / full_ms, abs=0.015)
    assert regime.units_gain == pytest.approx(6 * 0.38 * 15 / 16 / full_ms, abs=0.015)
    assert (regime.num_attention_heads, regime.intermediate_size) == (HEADS, UNITS)


@pytest.mark.parametrize("noise", [0.0, 0.01])
def test_of_steps_the_right_edges_are_worth_having(noise):
    regime = find_regime(calibrated(stepwise, noise))
    assert not regime.is_launch_bound
    assert regime.num_attention_heads == (3, 6, 9, 12)
    assert regime.intermediate_size == (384, 768, 1152, 1536)


def test_the_sentence_says_what_to_do():
    assert str(find_regime(calibrated(launch_bound))) == (
        "launch-bound: 98 % of a full block's time does not depend on its width, so thinner blocks gain up "
        "to 2 % (heads 1 %, FFN units 1 %) and dropped blocks up to 88 % of the full model's 4.17 ms; "
        "the floor, embeddings and head, is 0.5 ms (12 %); "
        "worth having: no fewer than 12 heads; no fewer than 1,536 FFN units"
    )
    compute = str(find_regime(calibrated(compute_bound)))
    assert compute.startswith("compute-bound: 95 % of a full block's time follows its width, so thinner")
    assert compute.endswith("worth having: all 12 numbers of heads; all 16 FFN widths that were timed")
    steps = str(find_regime(calibrated(stepwise)))
    assert steps.endswith("worth having: 3, 6, 9 or 12 heads; 384, 768, 1,152 or 1,536 FFN units")


def make_table(attention_ms: dict[int, float], ffn_ms: dict[int, float], **changes) -> LatencyTable:
    shape = ModelShape(4, max(attention_ms), max(ffn_ms), 64 * max(attention_ms))
    values = {"floor_ms": 0.4, "correction": Correction("per_kind", -0.1, 1.0, 1.3, 0.8), "tail_ratio": 1.1}
    device = DeviceInfo("cpu", "Fake")
    return LatencyTable(Workload(1, 32), device, shape, attention_ms, ffn_ms, **{**values, **changes})


def costs(largest: int) -> st.SearchStrategy[dict[int, float]]:
    return st.dictionaries(st.integers(1, largest), st.floats(0.1, 1e3), min_size=2, max_size=20)


@settings(deadline=None, max_examples=200)
@given(costs(40), costs(4_000), st.floats(0, 0.99))
def test_the_laws_of_a_regime(attention_ms, ffn_ms, tolerance):
    table = make_table(attention_ms, ffn_ms)
    regime = find_regime(table, tolerance=tolerance)
    for share in (regime.fixed_share, regime.heads_gain, regime.units_gain, regime.blocks_gain):
        assert 0 <= share <= 1
    assert regime.heads_gain + regime.units_gain <= regime.blocks_gain + 1e-9
    assert regime.floor_share + regime.blocks_gain == pytest.approx(1)
    for worth, cost_ms in (
        (regime.num_attention_heads, attention_ms),
        (regime.intermediate_size, ffn_ms),
    ):
        assert set(worth) <= set(cost_ms)
        assert list(worth) == sorted(worth)
        assert worth[-1] == max(cost_ms)
        # What is left out has a larger size that is taken and costs at most the tolerance more.
        for size in set(cost_ms) - set(worth):
            larger = min(taken for taken in worth if taken > size)
            assert cost_ms[size] >= (1 - tolerance) * cost_ms[larger]
        kept = [cost_ms[size] for size in worth]
        assert kept == sorted(kept)
    assert json.loads(json.dumps(regime.to_dict())) == regime.to_dict()
    assert "nan" not in str(regime)


@settings(deadline=None, max_examples=50)
@given(costs(40), costs(4_000))
def test_gains_are_what_the_table_predicts_for_the_fastest_of_their_kind(attention_ms, ffn_ms):
    table = make_table(attention_ms, ffn_ms)
    regime = find_regime(table)
    shape = table.shape

    def best(sizes: list[tuple[int, int]]) -> float:
        configs = [SubnetConfig((LayerConfig(*size),) * shape.num_hidden_layers) for size in sizes]
        return float(table(configs).min())

    heads, units = shape.num_attention_heads, shape.intermediate_size
    assert regime.full_ms == best([(heads, units)])
    assert regime.floor_ms == best([(0, 0)])
    assert regime.heads_gain == 1 - best([(size, units) for size in attention_ms]) / regime.full_ms
    assert regime.units_gain == 1 - best([(heads, size) for size in ffn_ms]) / regime.full_ms


def test_the_kinds_count_by_their_corrected_share_of_the_full_model():
    # Attention has a fixed cost only, FFN none; the correction makes them 1.3 and 0.8 * 2.
    table = make_table({1: 1.0, 2: 1.0}, {4: 1.0, 8: 2.0})
    assert find_regime(table).fixed_share == pytest.approx(1.3 / (1.3 + 1.6))


def test_a_size_that_costs_more_than_a_larger_one_does_not_bend_the_line():
    straight = {size: 0.2 + 0.1 * size for size in range(1, 11)}
    bumpy = {**straight, 3: 5.0, 7: 9.0}
    shares = [find_regime(make_table({1: 1.0, 2: 2.0}, ffn)).fixed_share for ffn in (straight, bumpy)]
    assert shares[1] == pytest.approx(shares[0], abs=0.03)


def test_a_kind_of_one_size_says_nothing_about_sizes():
    regime = find_regime(make_table({12: 1.0}, {4: 1.0, 8: 2.0}))
    assert regime.fixed_share == pytest.approx(0)
    assert regime.heads_gain == 0
    assert regime.num_attention_heads == (12,)


def test_noise_makes_sizes_of_nearly_equal_cost_count_as_one():
    table = make_table({1: 1.0, 2: 2.0}, {4: 0.94, 8: 1.0})
    assert find_regime(table).intermediate_size == (4, 8)
    noisy = tuple(
        BlockTiming("ffn", size, Timing(tuple(ms * factor for factor in factors)))
        for size, ms, factors in ((4, 0.94, (0.9, 1.0, 1.1, 1.0)), (8, 1.0, (1.1, 1.0, 1.0, 0.9)))
    )
    assert find_regime(replace(table, block_timings=noisy)).intermediate_size == (8,)


def test_a_space_offers_what_is_worth_having_and_dropping():
    steps = find_regime(calibrated(stepwise)).space(SHAPE)
    assert steps == LayerwiseSpace.for_model(SHAPE, (0, 3, 6, 9, 12), (0, 384, 768, 1152, 1536))
    launches = find_regime(calibrated(launch_bound)).space(SHAPE, keep_last_layer=True)
    assert launches == LayerwiseSpace.for_model(SHAPE, (0, 12), (0, 1536), keep_last_layer=True)


def make_regime(heads: tuple[int, ...], units: tuple[int, ...]) -> Regime:
    return Regime(0.1, 5.0, 0.5, 0.3, 0.4, 0.9, heads, units, len(heads), len(units))


def test_many_sizes_are_spread_evenly():
    space = make_regime(HEADS, UNITS).space(SHAPE)
    assert space.layers[0].num_attention_heads == (0, 3, 5, 8, 10, 12)
    assert space.layers[0].intermediate_size == (0, 384, 672, 960, 1248, 1536)


@given(st.sets(st.integers(1, 11)), st.sets(st.integers(1, 1535), max_size=30))
def test_a_space_always_offers_to_drop_and_to_keep_all(heads, units):
    heads, units = (*sorted(heads), 12), (*sorted(units), 1536)
    options = make_regime(heads, units).space(SHAPE).layers[0]
    for offered, worth in ((options.num_attention_heads, heads), (options.intermediate_size, units)):
        assert offered[0] == 0
        assert offered[-1] == worth[-1]
        assert set(offered[1:]) <= set(worth)
        assert len(offered) == min(MAX_OPTIONS, len(worth) + 1)


def test_long_lists_are_counted_in_the_sentence():
    text = str(replace(make_regime(HEADS[2:], UNITS), n_heads_timed=12))
    assert "worth having: 10 of 12 numbers of heads; all 16 FFN widths that were timed" in text


def test_another_models_shape_is_refused():
    regime = make_regime((12,), (1536,))
    with pytest.raises(
        InvalidSpaceError, match="num_attention_heads=12, but the shape has num_attention_heads=8"
    ):
        regime.space(replace(SHAPE, num_attention_heads=8))
    with pytest.raises(
        InvalidSpaceError, match="intermediate_size=1536, but the shape has intermediate_size=9"
    ):
        regime.space(replace(SHAPE, intermediate_size=9))


@pytest.mark.parametrize("tolerance", [-0.1, 1.0, math.nan])
def test_a_senseless_tolerance_is_refused(tolerance):
    with pytest.raises(ValueError, match=f"tolerance={tolerance}"):
        find_regime(make_table({1: 1.0, 2: 2.0}, {4: 1.0, 8: 2.0}), tolerance=tolerance)


def test_one_size_of_each_kind_is_too_little():
    with pytest.raises(LatencyTableError, match=r"heads=\[12\] and units=\[8\]"):
        find_regime(make_table({12: 1.0}, {8: 2.0}))


def test_a_table_without_the_full_model_is_refused():
    table = replace(make_table({1: 1.0, 2: 2.0}, {4: 1.0, 8: 2.0}), attention_ms={1: 1.0})
    with pytest.raises(LatencyLookupError, match="num_attention_heads=2"):
        find_regime(table)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"floor_ms": 0.0, "correction": Correction()}, "blocks 0 ms"),
        ({"correction": Correction("scale_offset", -90.0)}, "full model -"),
        ({"ffn_ms": {4: 0.0, 8: 0.0}, "attention_ms": {1: 0.0, 2: 0.0}}, "full model 0.44 ms"),
    ],
)
def test_a_table_whose_blocks_or_floor_take_no_time_is_refused(changes, said):
    table = replace(make_table({1: 1.0, 2: 2.0}, {4: 1.0, 8: 2.0}), **changes)
    with pytest.raises(LatencyTableError, match=said):
        find_regime(table)
