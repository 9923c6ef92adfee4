"""Few blocks and models are timed, and those that tell most."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlnas.calibration.design import N_PROBED, block_options, choose_models, draw_models, probe_blocks
from rlnas.latency.correction import count_blocks, count_flops
from rlnas.space import LayerConfig, LayerOptions, LayerwiseSpace, ModelShape, SubnetConfig
from rlnas.workload import Workload

SHAPE = ModelShape(num_hidden_layers=6, num_attention_heads=4, intermediate_size=64, hidden_size=16)
SPACE = LayerwiseSpace.for_model(SHAPE)
WORKLOAD = Workload(1, 32)


def test_few_heads_are_all_probed_and_widths_in_sixteenths():
    blocks = probe_blocks(ModelShape(6, 12, 1536, 384))
    assert blocks[:12] == [("attention", heads) for heads in range(1, 13)]
    assert blocks[12:] == [("ffn", 96 * part) for part in range(1, 17)]


def test_many_heads_are_thinned_evenly():
    blocks = probe_blocks(ModelShape(24, 32, 4096, 1024))
    assert blocks[:16] == [("attention", heads) for heads in range(2, 33, 2)]


def test_a_tiny_model_is_probed_at_every_size():
    assert probe_blocks(ModelShape(1, 1, 3, 4)) == [("attention", 1), ("ffn", 1), ("ffn", 2), ("ffn", 3)]


@given(heads=st.integers(1, 200), units=st.integers(1, 20_000))
def test_probed_sizes_ascend_evenly_to_the_full_size(heads: int, units: int):
    blocks = probe_blocks(ModelShape(2, heads, units, heads))
    for kind, full in (("attention", heads), ("ffn", units)):
        sizes = [size for found, size in blocks if found == kind]
        steps = [after - before for before, after in pairwise([0, *sizes])]
        assert sizes[-1] == full
        assert len(sizes) == min(full, N_PROBED)
        assert min(steps) >= 1
        assert max(steps) - min(steps) <= 1


def test_the_full_model_can_be_predicted_even_if_the_space_leaves_it_out():
    space = LayerwiseSpace.for_model(SHAPE, (0, 2), (0, 32))
    assert block_options(space, SHAPE) == [("attention", 2), ("attention", 4), ("ffn", 32), ("ffn", 64)]


def test_blocks_that_occur_in_one_layer_only_are_found():
    layers = [LayerOptions((0, 4), (0, 64))] * 5 + [LayerOptions((0, 3, 4), (48, 64))]
    space = LayerwiseSpace(tuple(layers))
    assert block_options(space, SHAPE) == [("attention", 3), ("attention", 4), ("ffn", 48), ("ffn", 64)]


@pytest.mark.parametrize("seed", range(5))
def test_the_chosen_models_span_the_space(seed):
    configs = choose_models(SPACE, SHAPE, WORKLOAD, 16, seed)
    assert len(set(configs)) == len(configs) == 16
    assert configs[0] == SHAPE.full
    assert all(config in SPACE for config in configs)
    cost = [
        count_flops(config, SHAPE, WORKLOAD) / count_flops(SHAPE.full, SHAPE, WORKLOAD)
        for config in configs
    ]
    assert min(cost) > 1 / 7
    assert np.histogram(cost, [0, 0.3, 0.45, 0.6, 1.01])[0].min() >= 1


@pytest.mark.parametrize("seed", range(3))
def test_a_design_tells_more_than_as_many_random_models(seed):
    def worst_variance(configs: list[SubnetConfig]) -> float:
        columns = features([SHAPE.full, *configs])
        information = np.linalg.inv(columns.T @ columns)
        everywhere = features(draw_models(SPACE, 100, 77))
        return float(np.einsum("ij,jk,ik->i", everywhere, information, everywhere).max())

    chosen = choose_models(SPACE, SHAPE, WORKLOAD, 16, seed)
    assert worst_variance(chosen) < worst_variance(draw_models(SPACE, 15, seed))


def features(configs: list[SubnetConfig]) -> np.ndarray:
    rows = [
        [1, *count_blocks(c), *(sum(getattr(layer, name) for layer in c.layers) for name in SIZES)]
        for c in configs
    ]
    return np.array(rows, dtype=float) / [1, 6, 6, 24, 384]


SIZES = ("num_attention_heads", "intermediate_size")


def test_random_models_have_all_depths_and_no_repeats():
    models = draw_models(SPACE, 60, 0, excluded=[SHAPE.full])
    assert len(set(models)) == len(models) == 60
    assert {sum(count_blocks(config)) for config in models} >= set(range(3, 11))
    assert SHAPE.full not in models
    assert models == draw_models(SPACE, 60, 0)


def test_a_small_space_gives_what_it_has():
    space = LayerwiseSpace((LayerOptions((0, 2), (16,)),) + (LayerOptions((0,), (0,)),) * 5)
    assert len(draw_models(space, 10, 0)) == 2
    assert len(choose_models(space, SHAPE, WORKLOAD, 10, 0)) == 3  # and the full model


def test_more_blocks_than_can_be_timed_are_refused():
    wide = ModelShape(num_hidden_layers=2, num_attention_heads=4, intermediate_size=512, hidden_size=16)
    space = LayerwiseSpace.for_model(wide, intermediate_size=range(513))
    with pytest.raises(ValueError, match=r"offers 516 sizes of blocks, but at most 200 .*space\.snapped"):
        block_options(space, wide)


def test_the_choice_follows_from_the_seed():
    assert choose_models(SPACE, SHAPE, WORKLOAD, 13, 0) == choose_models(SPACE, SHAPE, WORKLOAD, 13, 0)
    assert choose_models(SPACE, SHAPE, WORKLOAD, 13, 0) != choose_models(SPACE, SHAPE, WORKLOAD, 13, 1)


def test_one_model_is_the_full_one():
    assert choose_models(SPACE, SHAPE, WORKLOAD, 1, 0) == [SHAPE.full]


def test_no_models_are_refused():
    with pytest.raises(ValueError, match="n_models=0"):
        choose_models(SPACE, SHAPE, WORKLOAD, 0, 0)


def test_the_model_without_blocks_is_the_floor_not_a_model():
    assert SubnetConfig((LayerConfig(0, 0),) * 6) not in choose_models(SPACE, SHAPE, WORKLOAD, 60, 0)
