from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlnas.controllers.feasible import FeasibleSampler, aims_of, draw_unseen
from rlnas.errors import InfeasibleTargetError, RewardError
from rlnas.metrics import Metrics
from rlnas.protocols import Problem
from rlnas.rewards import LatencyTarget
from rlnas.space import LayerOptions, LayerwiseSpace
from rlnas.trial import Trial

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rlnas.space import SubnetConfig

SPACE = LayerwiseSpace((LayerOptions((0, 1, 2, 3), (0, 1, 2)), LayerOptions((0, 1, 2), (1, 2, 3))))
NVEC = np.array(SPACE.nvec)


def product_ms(configs: Sequence[SubnetConfig]) -> list[float]:
    """Monotone, but not a sum over positions; 1 ms at least, 112 ms at most."""
    return [
        float(np.prod([(1 + x.num_attention_heads) * max(1, x.intermediate_size) for x in config.layers]))
        for config in configs
    ]


def sampler(
    target_ms: float | None, seed: int = 0, latency=product_ms, hard: bool = True
) -> FeasibleSampler:
    reward = (lambda metrics: metrics.accuracy) if target_ms is None else LatencyTarget(target_ms=target_ms)
    return FeasibleSampler(Problem(SPACE, reward, latency, target_ms), np.random.default_rng(seed), hard)


def latencies_of(actions: np.ndarray) -> np.ndarray:
    return np.array(product_ms([SPACE.decode(action) for action in actions.tolist()]))


@given(target_ms=st.floats(1.0, 80.0), seed=st.integers(0, 2**32 - 1))
def test_what_is_drawn_or_repaired_keeps_to_the_target(target_ms: float, seed: int) -> None:
    feasible = sampler(target_ms, seed)
    anything = np.random.default_rng(seed).integers(NVEC, size=(8, len(NVEC)))
    assert (latencies_of(feasible.sample(8)) <= target_ms).all()
    repaired = feasible.repair(anything)
    assert (latencies_of(repaired) <= target_ms).all()
    assert (repaired <= anything).all()
    fits = latencies_of(anything) <= target_ms
    np.testing.assert_array_equal(repaired[fits], anything[fits])


def test_feasible_members_are_drawn_uniformly() -> None:
    target_ms, n_draws = 8.0, 2000
    members = [
        action for action in np.ndindex(*SPACE.nvec) if latencies_of(np.array([action]))[0] <= target_ms
    ]
    drawn, counts = np.unique(sampler(target_ms).sample(n_draws), axis=0, return_counts=True)
    np.testing.assert_array_equal(drawn, members)
    expected = n_draws / len(members)
    assert np.abs(counts - expected).max() < 5 * np.sqrt(expected)


def test_only_the_smallest_is_drawn_where_only_it_fits() -> None:
    assert not sampler(1.0).sample(5)[:, [0, 2]].any()


@pytest.mark.parametrize(
    "free",
    [sampler(None), sampler(2.0, latency=None), sampler(2.0, hard=False)],
    ids=["no target", "no latency", "soft"],
)
def test_everything_is_feasible_without_a_bound(free: FeasibleSampler) -> None:
    largest = NVEC[None] - 1
    np.testing.assert_array_equal(free.repair(largest), largest)
    assert latencies_of(free.sample(200)).max() > 40.0


def test_an_unreachable_target_is_refused() -> None:
    with pytest.raises(InfeasibleTargetError, match=r"target_ms=0\.5 cannot be met.*takes 1 ms"):
        sampler(0.5)


def test_the_input_of_a_repair_is_left_alone() -> None:
    actions = np.tile(NVEC - 1, (3, 1))
    sampler(2.0).repair(actions)
    np.testing.assert_array_equal(actions, np.tile(NVEC - 1, (3, 1)))


def serving(*targets_ms: float, seed: int = 0) -> FeasibleSampler:
    reward = LatencyTarget(target_ms=targets_ms[0])
    problem = Problem(SPACE, reward, product_ms, targets_ms[0], targets_ms=targets_ms)
    return FeasibleSampler(problem, np.random.default_rng(seed))


def test_several_targets_are_bounded_by_the_largest_unless_one_is_named() -> None:
    feasible = serving(2.0, 10.0, 40.0)
    assert 10.0 < latencies_of(feasible.sample(50)).max() <= 40.0
    assert latencies_of(feasible.sample(50, 2.0)).max() <= 2.0
    each = np.array([2.0, 10.0, 40.0] * 20)
    assert (latencies_of(feasible.sample(60, each)) <= each).all()
    largest = np.tile(NVEC - 1, (60, 1))
    assert (latencies_of(feasible.repair(largest, each)) <= each).all()
    assert feasible.fits(largest, 200.0).all()
    assert not feasible.fits(largest).any()


def test_the_least_target_has_to_be_reachable_too() -> None:
    with pytest.raises(InfeasibleTargetError, match=r"target_ms=0\.5 cannot be met"):
        serving(0.5, 10.0)


def test_neighbours_differ_in_one_position_where_they_fit() -> None:
    action = np.array([1, 1, 1, 1])
    free = sampler(None).neighbours(action, 100)
    assert (free != action).sum(axis=1).max() == 1
    assert len(np.unique(free, axis=0)) > 8
    assert latencies_of(sampler(8.0).neighbours(action, 100)).max() <= 8.0


def test_an_aim_is_worth_what_the_reward_says_at_its_target() -> None:
    reward = LatencyTarget(target_ms=4.0)
    aims = aims_of(Problem(SPACE, reward, product_ms, 4.0, targets_ms=(2.0, 4.0)))
    trial = Trial(0, SPACE.smallest(), Metrics(accuracy=0.9, latency_ms=3.0), 0.9)
    assert [aim.target_ms for aim in aims] == [2.0, 4.0]
    assert [aim.worth(trial) for aim in aims] == pytest.approx([0.4, 0.9])


def test_without_a_target_there_is_one_aim_the_reward() -> None:
    (aim,) = aims_of(Problem(SPACE, lambda metrics: metrics.accuracy))
    assert aim.target_ms is None
    assert aim.worth(Trial(0, SPACE.smallest(), Metrics(0.5), 0.25)) == 0.25


def test_a_reward_of_one_target_cannot_serve_others() -> None:
    problem = Problem(SPACE, lambda metrics: metrics.accuracy, product_ms, targets_ms=(2.0, 4.0))
    with pytest.raises(RewardError, match="serves one target only; to ask for target_ms=2"):
        aims_of(problem)


def test_what_was_proposed_is_drawn_again_only_if_nothing_else_comes() -> None:
    drawn = iter([0, 1, 0, 2, 2, 3])
    proposed = {np.array([0]).tobytes()}

    def make(n_actions: int) -> np.ndarray:
        return np.array([[next(drawn)] for _ in range(n_actions)])

    np.testing.assert_array_equal(draw_unseen(make, 3, proposed), [[2], [1], [3]])
    assert len(proposed) == 4
    always = draw_unseen(lambda n: np.zeros((n, 1), dtype=np.int64), 2, proposed)
    np.testing.assert_array_equal(always, [[0], [0]])
