from __future__ import annotations

import itertools

import numpy as np
import pytest

from rlnas.controllers.surrogate.features import Features
from rlnas.space import LayerOptions, LayerwiseSpace, ModelShape, UniformSpace
from rlnas.tabular import additive_task

LAYERWISE = LayerwiseSpace((LayerOptions((0, 1, 2, 4), (0, 8, 16)),) * 3)
UNIFORM = UniformSpace.for_model(ModelShape(4, 4, 8, 8))  # sizes are no sum over its positions
SPACES = pytest.mark.parametrize("space", [LAYERWISE, UNIFORM], ids=["layerwise", "uniform"])


def all_actions(space) -> np.ndarray:
    return np.array(list(itertools.product(*(range(n) for n in space.nvec))), dtype=np.int64)


def shares(space, action) -> tuple[np.ndarray, np.ndarray]:
    sizes = [
        [(layer.num_attention_heads, layer.intermediate_size) for layer in config.layers]
        for config in (space.decode(action.tolist()), space.largest())
    ]
    kept, full = np.array(sizes, dtype=float)
    return kept[:, 0] / full[:, 0], kept[:, 1] / full[:, 1]


@SPACES
def test_the_columns_are_those_that_are_documented(space) -> None:
    n_layers = len(space.largest().layers)
    actions = all_actions(space)[::7]
    rows = Features(space)(actions)
    n_choices = sum(n - 1 for n in space.nvec)
    assert rows.shape == (len(actions), n_choices + n_layers + 2 * (n_layers - 1) + 3)
    for action, row in zip(actions, rows, strict=True):
        heads, units = shares(space, action)
        width = (heads + units) / 2
        kept = (width > 0).astype(float)
        chosen = [
            option == entry for n, entry in zip(space.nvec, action, strict=True) for option in range(1, n)
        ]
        expected = [
            *chosen,
            *(heads * units),
            *(kept[1:] * kept[:-1]),
            *(width[1:] * width[:-1]),
            *(kept.mean(), kept.mean() ** 2, width.mean()),
        ]
        np.testing.assert_allclose(row, expected, atol=1e-12)


@SPACES
def test_different_subnets_have_different_features(space) -> None:
    rows = Features(space)(all_actions(space))
    assert len(np.unique(rows.round(9), axis=0)) == len(rows)


def test_importance_kept_adds_its_share_and_the_root_of_it() -> None:
    task = additive_task(LAYERWISE)

    def kept(configs):
        return [4.0 * (metrics.accuracy - 0.2) for metrics in task(configs)]

    actions = all_actions(LAYERWISE)[::11]
    plain, informed = Features(LAYERWISE)(actions), Features(LAYERWISE, kept)(actions)
    np.testing.assert_array_equal(informed[:, :-2], plain)
    share = np.array(kept([LAYERWISE.decode(action.tolist()) for action in actions])) / 2.8
    np.testing.assert_allclose(informed[:, -2], share, atol=1e-9)
    np.testing.assert_allclose(informed[:, -1], np.sqrt(share.clip(0)), atol=1e-4)


def test_importance_that_is_all_nothing_is_survived() -> None:
    rows = Features(LAYERWISE, lambda configs: [0.0] * len(configs))(all_actions(LAYERWISE)[:5])
    np.testing.assert_array_equal(rows[:, -2:], 0.0)


def test_a_single_layer_has_no_neighbours() -> None:
    space = LayerwiseSpace((LayerOptions((0, 2, 4), (0, 16)),))
    assert Features(space)(all_actions(space)).shape == (6, 3 + 1 + 3)
