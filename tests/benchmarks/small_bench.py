"""A small bench, made up, where everything can be checked.

The conftest file puts this folder on the path.
"""

from __future__ import annotations

import numpy as np

from rlnas.additive import AdditiveModel
from rlnas.space import ChoiceSpace, LayerConfig, ModelShape
from rlnas.tabular import BenchLatency, TabularBench

OPTIONS = (LayerConfig(0, 0), LayerConfig(2, 8), LayerConfig(4, 16))


def made_up(name: str, seed: int, n_layers: int) -> TabularBench:
    """Of 3 options a layer; the latency is 1 without any of them, and 1 or 3 more for each."""
    space = ChoiceSpace(n_layers, OPTIONS)
    rng = np.random.default_rng(seed)
    skill = 0.1 + np.indices(space.nvec).reshape(n_layers, -1).T @ rng.dirichlet(np.ones(n_layers)) / 3
    right = skill[:, None] + rng.normal(0, 0.2, (len(skill), 200)) > rng.random(200)
    latency = AdditiveModel(1.0, (np.array([0.0, 1.0, 3.0]),) * n_layers)
    return TabularBench(
        name=name,
        space=space,
        shape=ModelShape(n_layers, 4, 16, 8),
        n_items=200,
        chance=0.02,
        right=np.packbits(right, axis=1),
        kept=AdditiveModel(0.0, (np.array([0.0, 0.6, 1.0]),) * n_layers),
        n_params=AdditiveModel(10.0, (np.array([0.0, 5.0, 9.0]),) * n_layers),
        latencies={"made up": BenchLatency(space, latency, 0.0, "ms")},
        recipe={},
    )
