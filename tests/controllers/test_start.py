from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlnas.controllers.knapsack import KnownSums
from rlnas.controllers.start import InformedStart
from rlnas.errors import InfeasibleTargetError
from rlnas.precision_space import PrecisionSpace
from rlnas.protocols import Problem
from rlnas.rewards import LatencyTarget
from rlnas.space import ChoiceSpace, LayerConfig, LayerOptions, LayerwiseSpace, ModelShape, UniformSpace
from rlnas.tabular import additive_task

SHAPE = ModelShape(num_hidden_layers=6, num_attention_heads=12, intermediate_size=1536, hidden_size=384)
PER_BLOCK = LayerwiseSpace.for_model(SHAPE)
PER_LAYER = ChoiceSpace(6, (LayerConfig(0, 0), *(LayerConfig(h, u) for u in (512, 1536) for h in (4, 12))))
SPACES = {"blocks": PER_BLOCK, "layers": PER_LAYER, "uniform": UniformSpace.for_model(SHAPE)}
EACH = pytest.mark.parametrize("space", SPACES.values(), ids=SPACES.keys())
NOTHING = InformedStart(n_knapsack=0, n_uniform=0, n_random=0)


def problem_of(space, *targets_ms: float, **known) -> Problem:
    task = additive_task(space, seed=3)
    defaults = {"latency": task.latency, "importance": task.importance, "reference_ms": 10.0}
    own = targets_ms[0] if targets_ms else None
    reward = LatencyTarget(target_ms=own) if own else (lambda metrics: metrics.accuracy)
    several = targets_ms if len(targets_ms) > 1 else ()
    return Problem(space, reward, target_ms=own, targets_ms=several, **{**defaults, **known})


def actions_of(start: InformedStart, problem: Problem, seed: int = 0, limit: int | None = None) -> list:
    return [tuple(action) for action in start.actions(problem, np.random.default_rng(seed), limit).tolist()]


def latencies_of(problem: Problem, actions: list) -> np.ndarray:
    return np.array(problem.latency([problem.space.decode(action) for action in actions]))


@EACH
@pytest.mark.parametrize("targets_ms", [(), (4.0,), (2.5, 5.0, 8.0)], ids=["none", "one", "three"])
def test_all_are_distinct_members_that_fit_the_largest_target(space, targets_ms):
    problem = problem_of(space, *targets_ms)
    actions = actions_of(InformedStart(), problem)
    assert len(set(actions)) == len(actions) >= 20
    assert latencies_of(problem, actions).max() <= max(targets_ms, default=10.0) + 1e-9
    assert all(space.decode(action) in space for action in actions)


@given(seed=st.integers(0, 2**32 - 1), limit=st.integers(1, 40))
def test_a_limit_cuts_the_end(seed, limit):
    problem = problem_of(PER_LAYER, 5.0)
    everything = actions_of(InformedStart(), problem, seed)
    assert actions_of(InformedStart(), problem, seed, limit) == everything[:limit]


@EACH
def test_without_a_bound_the_largest_and_the_smallest_come_first(space):
    nvec = np.array(space.nvec)
    assert actions_of(NOTHING, problem_of(space)) == [tuple(nvec - 1), (0,) * len(nvec)]


def test_the_largest_that_fits_is_shrunk_evenly():
    problem = problem_of(PER_LAYER, 5.0)
    largest, smallest = actions_of(NOTHING, problem)
    assert max(largest) - min(largest) <= 1
    assert sorted(largest, reverse=True) == list(largest)  # the later layers shrink first
    assert not any(smallest)
    shortest = min(part[-1] / 4 for part in additive_task(PER_LAYER, seed=3).latency_parts)
    assert 5.0 - 2 * 1.3 * 9 / 24 < latencies_of(problem, [largest])[0] <= 5.0
    assert shortest > 0


def test_the_optima_of_the_targets_come_before_those_in_between():
    problem = problem_of(PER_BLOCK, 3.0, 6.0)
    found = actions_of(InformedStart(n_knapsack=5, n_uniform=0, n_random=0), problem)
    frontier = KnownSums.of(problem).frontier(6.0)
    expected = [tuple(frontier.actions[frontier.best(target_ms)].tolist()) for target_ms in (6.0, 3.0)]
    assert found[2:4] == expected
    latencies = latencies_of(problem, found[4:])
    assert ((latencies > 1.0) & (latencies < 6.0)).all()
    assert len(latencies) == 3


def test_the_optima_fit_where_latencies_do_not_add_up():
    def latency(configs):
        return [float(config.num_hidden_layers**2) for config in configs]

    problem = problem_of(PER_LAYER, 9.0, latency=latency)
    actions = actions_of(InformedStart(n_uniform=0, n_random=0), problem)
    assert len(actions) > 3
    assert latencies_of(problem, actions).max() <= 9.0


def test_uniform_members_have_the_same_options_in_every_layer_kept():
    problem = problem_of(PER_BLOCK, 4.0, 6.0)
    uniform = actions_of(InformedStart(n_knapsack=0, n_uniform=8, n_random=0), problem)[2:]
    assert len(uniform) == 8
    for action in uniform:
        config = PER_BLOCK.decode(action)
        assert len({layer for layer in config.layers if not layer.is_dropped}) == 1
    latencies = latencies_of(problem, uniform)
    # The slowest below each target, in turn.
    assert (latencies[1::2] <= 4.0).all()
    assert latencies[0] > 5.5
    assert latencies[1] > 3.5


def test_every_other_layer_is_among_the_uniform_members():
    problem = problem_of(PER_LAYER)
    uniform = actions_of(InformedStart(n_knapsack=4, n_uniform=100, n_random=0), problem)
    assert {(0, 4) * 3, (0, 0, 4) * 2, (4, 4, 4, 0, 0, 0), (2,) * 6} <= set(uniform)


def test_positions_that_are_no_groups_of_layers_take_the_same_rank_all_over():
    class Flat:
        """Twelve positions that all belong to one layer, as far as can be seen."""

        nvec = (3,) * 12

        def __getattr__(self, name):
            return getattr(LayerwiseSpace((LayerOptions((0, 1, 2), (0, 1, 2)),) * 6), name)

        def smallest(self):
            return LayerwiseSpace((LayerOptions((0, 1, 2), (0, 1, 2)),) * 5).smallest()

    problem = Problem(Flat(), lambda metrics: metrics.accuracy)
    actions = actions_of(InformedStart(n_random=0), problem)
    assert set(actions) == {(0,) * 12, (1,) * 12, (2,) * 12}


def test_random_members_fit_each_target_in_turn():
    problem = problem_of(PER_BLOCK, 2.5, 9.0)
    start = InformedStart(n_knapsack=0, n_uniform=0, n_random=20)
    latencies = latencies_of(problem, actions_of(start, problem)[2:])
    assert (latencies[::2] <= 2.5).all()
    assert latencies[1::2].max() > 4.0


def test_nothing_but_the_space_has_to_be_known():
    problem = problem_of(PER_LAYER, 5.0, latency=None, importance=None, reference_ms=None)
    actions = actions_of(InformedStart(), problem)
    assert actions[:2] == [(4,) * 6, (0,) * 6]
    assert len(actions) >= 2 + 6 + 16


def test_equal_generators_give_equal_starts_and_others_do_not():
    problem = problem_of(PER_LAYER, 5.0)
    first, again, other = (actions_of(InformedStart(), problem, seed) for seed in (1, 1, 2))
    assert first == again != other


def test_a_space_smaller_than_the_start_is_all_there_is():
    space = LayerwiseSpace((LayerOptions((0, 1), (0, 1)),))
    assert len(actions_of(InformedStart(), problem_of(space))) == 4


def test_an_unreachable_target_is_refused():
    with pytest.raises(InfeasibleTargetError, match=r"target_ms=0\.5 cannot be met"):
        actions_of(InformedStart(), problem_of(PER_LAYER, 0.5))


@pytest.mark.parametrize("name", ["n_knapsack", "n_uniform", "n_random"])
def test_numbers_are_not_negative(name):
    with pytest.raises(ValueError, match=f"{name}=-1"):
        InformedStart(**{name: -1})


def test_with_a_precision_uniform_members_come_in_each_and_optima_in_the_fastest():
    paces = {"int8": 0.5, "float32": 1.0}
    task = additive_task(PER_BLOCK, seed=3)

    def latency(configs):
        plain = task.latency([replace(config, precision=None) for config in configs])
        return [paces[config.precision] * ms for config, ms in zip(configs, plain, strict=True)]

    space = PrecisionSpace(PER_BLOCK, tuple(paces))
    problem = problem_of(space, 4.0, latency=latency, importance=np.append(task.importance, 0.0))
    uniform = actions_of(replace(NOTHING, n_uniform=8), problem)[2:]
    assert {action[-1] for action in uniform} == {0, 1}
    optima = actions_of(replace(NOTHING, n_knapsack=4), problem)[2:]
    assert optima
    assert {action[-1] for action in optima} == {0}
