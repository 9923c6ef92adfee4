from __future__ import annotations

import numpy as np
import pytest

from rlnas.additive import AdditiveModel
from rlnas.space import ChoiceSpace, LayerConfig, ModelShape
from rlnas.tabular.bench import BenchLatency, TabularBench


@pytest.fixture
def bench() -> TabularBench:
    """Three layers of three options: 27 subnets on 44 items; each layer costs 1 or 3 ms, or nothing."""
    space = ChoiceSpace(3, (LayerConfig(0, 0), LayerConfig(2, 8), LayerConfig(4, 16)))
    rng = np.random.default_rng(0)
    skill = np.arange(27)[:, None] / 26 + rng.normal(0, 0.3, (27, 44))
    fast = AdditiveModel(2.0, (np.array([0.0, 1.0, 3.0]),) * 3)
    slow = AdditiveModel(20.0, (np.array([0.0, 10.0, 30.0]),) * 3)
    return TabularBench(
        name="made-up",
        space=space,
        shape=ModelShape(3, 4, 16, 8),
        n_items=44,
        chance=0.5,
        right=np.packbits(skill > rng.random(44), axis=1),
        kept=AdditiveModel(0.0, tuple(np.array([0.0, 0.5, w]) for w in (1.0, 3.0, 2.0))),
        n_params=AdditiveModel(100.0, (np.array([0.0, 10.0, 20.0]),) * 3),
        latencies={
            "fast": BenchLatency(space, fast, 0.05, "ms"),
            "slow": BenchLatency(space, slow, 0.0, "ms"),
        },
        recipe={"epochs": 3},
    )
