"""The knapsack: the exact optimum of importance that adds up, under latencies that add up.

What a subnet keeps of the full model's importance and what it takes in time are sums over the
positions of the space, so the best subnet for a latency is the solution of a multiple-choice
knapsack. Dynamic programming over the states that nothing dominates finds it, for all latencies at
once and without rounding them. It is what Kwon et al. meant to compute from Fisher information.

References:
    W. Kwon et al. A fast post-training pruning framework for transformers. NeurIPS 2022.
    G. L. Nemhauser, Z. Ullmann. Discrete dynamic programming and capital allocation. Management
    Science 15(9), 1969.
"""

from __future__ import annotations

import heapq
import math
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np

from rlnas.additive import AdditiveModel, SplitModel, seen_sums
from rlnas.controllers.feasible import FeasibleSampler, draw_unseen
from rlnas.errors import ControllerError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rlnas.controllers.start import InformedStart
    from rlnas.env import FloatArray, IntArray
    from rlnas.protocols import Evaluate, Problem

MAX_STATES = 20_000
"""States kept for each position; of more, the ones of almost equal value are merged."""

N_LATENCIES = 8
"""Latencies whose optima are proposed where a problem has no target."""

_ROUNDING = 1e-12  # of sums that are taken in another order, relative to the numbers in them
_TIE_DIGITS = 9


@dataclass(frozen=True, slots=True, eq=False)
class Frontier:
    """The solutions of a knapsack that nothing dominates, for every capacity at once.

    Attributes:
        costs: Shape ``(k,)``, ascending.
        values: Shape ``(k,)``, ascending: the most that each cost can buy.
        actions: Shape ``(k, p)``: the option chosen at each position.
        gap: How far any value may be below the true optimum; 0.0 where the solution is exact.
    """

    costs: FloatArray
    values: FloatArray
    actions: IntArray
    gap: float

    def best(self, capacity: float) -> int | None:
        """Index of the best solution that costs at most `capacity`; None if none is that cheap."""
        index = int(np.searchsorted(self.costs, capacity, side="right")) - 1
        return None if index < 0 else index


def solve_knapsack(
    parts_value: Sequence[FloatArray],
    parts_cost: Sequence[FloatArray],
    capacity: float = math.inf,
    max_states: int = MAX_STATES,
) -> Frontier:
    """Choose one option at each of p positions: the most value for every cost up to a capacity.

    Exact, as long as no position leaves more than `max_states` states that nothing dominates.
    Beyond that, states of almost equal value are merged into the cheapest of them, so that costs
    stay true and feasible; ``Frontier.gap`` says how much value that may have lost.

    Args:
        parts_value: For each position i an array of shape ``(n_i,)``: what its options are worth.
        parts_cost: The same for what they cost; any finite numbers.
        capacity: Largest sum of costs that is of interest.
        max_states: States kept for each position, at least 2.

    Raises:
        ValueError: If the parts do not match, are not finite, or `max_states` is below 2.
    """
    states = _suffix_states(parts_value, parts_cost, capacity, max_states)
    first = states[0]
    rows = np.arange(len(first.costs))
    columns = []
    for state in states[:-1]:
        columns.append(state.options[rows])
        rows = state.nexts[rows]
    return Frontier(first.costs, first.values, np.stack(columns, axis=1), sum(s.gap for s in states))


def best_first(
    parts_value: Sequence[FloatArray],
    parts_cost: Sequence[FloatArray],
    capacity: float = math.inf,
    max_states: int = MAX_STATES,
) -> Iterator[IntArray]:
    """All choices within a capacity, the most valuable first.

    A search for the best (A*) over prefixes: what a prefix can still become is known from the states
    of its suffix, so hardly a prefix is looked at that does not lead to one of the next solutions.
    In order to within ``Frontier.gap`` and a billionth of the greatest value; what is equal to that
    comes in the order of the options, smallest first.

    Args:
        parts_value: As for `solve_knapsack`.
        parts_cost: As for `solve_knapsack`.
        capacity: Largest sum of costs.
        max_states: As for `solve_knapsack`.

    Yields:
        Actions of shape ``(p,)``.

    Raises:
        ValueError: As `solve_knapsack`.
    """
    states = _suffix_states(parts_value, parts_cost, capacity, max_states)
    limit = capacity + _slack(parts_cost)
    scale = _size(parts_value) or 1.0
    # Entries: negative bound, prefix, value and cost of the prefix. Equal bounds go by the prefix, deep
    # ones first; without rounding, thousands of almost equal ones would be gone through side by side.
    heap: list[tuple[float, tuple[int, ...], float, float]] = [(0.0, (), 0.0, 0.0)]
    while heap:
        _, prefix, value, cost = heapq.heappop(heap)
        position = len(prefix)
        if position == len(parts_value):
            yield np.array(prefix, dtype=np.int64)
            continue
        suffix = states[position + 1]
        for option, (gain, price) in enumerate(
            zip(parts_value[position].tolist(), parts_cost[position].tolist(), strict=True)
        ):
            index = int(np.searchsorted(suffix.costs, limit - cost - price, side="right")) - 1
            if index >= 0:
                bound = round((value + gain + float(suffix.values[index])) / scale, _TIE_DIGITS)
                heapq.heappush(heap, (-bound, (*prefix, option), value + gain, cost + price))


@dataclass(frozen=True, slots=True, eq=False)
class _States:
    """What the positions from one on can come to: costs and values ascend together.

    `options` and `nexts` lead back: the option at this position, and the row in the next one's.
    """

    costs: FloatArray
    values: FloatArray
    options: IntArray
    nexts: IntArray
    gap: float


def _suffix_states(
    parts_value: Sequence[FloatArray],
    parts_cost: Sequence[FloatArray],
    capacity: float,
    max_states: int,
) -> list[_States]:
    """The states of positions ``i, ..., p - 1`` for each i from 0 to p."""
    _check_parts(parts_value, parts_cost, max_states)
    nothing = np.zeros(1, dtype=np.int64)
    states = [_States(np.zeros(1), np.zeros(1), nothing, nothing, 0.0)]
    cheapest = [float(costs.min()) for costs in parts_cost]
    for position in reversed(range(len(parts_value))):
        left = capacity - math.fsum(cheapest[:position]) + (_slack(parts_cost) if position else 0.0)
        grown = _grow(states[-1], parts_value[position], parts_cost[position], left)
        states.append(_merge(grown, max_states))
    return states[::-1]


def _size(parts: Sequence[FloatArray]) -> float:
    return math.fsum(float(np.abs(part).max()) for part in parts)


def _slack(parts_cost: Sequence[FloatArray]) -> float:
    return _ROUNDING * _size(parts_cost)


def _grow(suffix: _States, values: FloatArray, costs: FloatArray, capacity: float) -> _States:
    """The states of one position more that nothing dominates."""
    total_costs = (costs[:, None] + suffix.costs[None]).ravel()
    total_values = (values[:, None] + suffix.values[None]).ravel()
    order = np.lexsort((-total_values, total_costs))
    order = order[total_costs[order] <= capacity]
    best_before = np.maximum.accumulate(np.concatenate([[-np.inf], total_values[order]]))[:-1]
    order = order[total_values[order] > best_before]
    options, nexts = np.divmod(order, len(suffix.costs))
    return _States(total_costs[order], total_values[order], options, nexts, 0.0)


def _merge(states: _States, max_states: int) -> _States:
    """Keep the cheapest state of each of equally wide intervals of value, and the most valuable one."""
    if len(states.costs) <= max_states:
        return states
    low, high = states.values[0], states.values[-1]
    width = float(high - low) / (max_states - 1)
    intervals = np.floor((states.values - low) / width).astype(np.int64)
    _, kept = np.unique(intervals, return_index=True)
    kept = np.union1d(kept, len(intervals) - 1)
    return _States(states.costs[kept], states.values[kept], states.options[kept], states.nexts[kept], width)


def _check_parts(
    parts_value: Sequence[FloatArray], parts_cost: Sequence[FloatArray], max_states: int
) -> None:
    shapes = [[np.shape(part) for part in parts] for parts in (parts_value, parts_cost)]
    if (
        shapes[0] != shapes[1]
        or any(len(shape) != 1 or shape[0] < 1 for shape in shapes[0])
        or not shapes[0]
    ):
        raise ValueError(
            "parts_value and parts_cost need one array with one number per option for each position, "
            f"but got shapes {shapes[0]} and {shapes[1]}"
        )
    for name, parts in (("parts_value", parts_value), ("parts_cost", parts_cost)):
        for position, part in enumerate(parts):
            if not np.isfinite(part).all():
                raise ValueError(f"{name} must be finite, but got {part} at position {position}")
    if max_states < 2:
        raise ValueError(f"max_states must be at least 2, but got max_states={max_states}")


@dataclass(frozen=True, slots=True, eq=False)
class KnownSums:
    """What a problem knows beforehand, as sums over its positions.

    Attributes:
        worth: Importance that options keep.
        latency: Milliseconds that they take; where the latency model does not add up, not even with the
            last position given, as seen from the largest subnet.
    """

    worth: AdditiveModel
    latency: AdditiveModel | SplitModel

    @classmethod
    def of(cls, problem: Problem) -> KnownSums | None:
        """The sums, or None where importance or latency is not known.

        Importance is what ``problem.kept_importance`` says; else an option keeps as much of
        ``problem.importance`` as its rank among the options: none the first, all the last.
        """
        if problem.latency is None:
            return None
        if problem.kept_importance is not None:
            worth = AdditiveModel.probe(problem.space, problem.kept_importance)
        elif problem.importance is not None:
            shares = (np.arange(n) / max(1, n - 1) for n in problem.space.nvec)
            parts = tuple(i * share for i, share in zip(problem.importance, shares, strict=True))
            worth = AdditiveModel(0.0, parts)
        else:
            return None
        return cls(worth, seen_sums(problem.space, problem.latency))

    def frontier(self, target_ms: float = math.inf) -> Frontier:
        """The best members for every latency up to a target; costs are the milliseconds of each."""
        if isinstance(self.latency, AdditiveModel):
            return _frontier(self.worth.parts, self.latency, target_ms)
        found = [
            (option, _frontier(_with_last(self.worth.parts, option), sums, target_ms))
            for option, sums in enumerate(self.latency.sums)
        ]
        actions = np.concatenate([_at_last(one.actions, option) for option, one in found])
        costs = np.concatenate([one.costs for _, one in found])
        values = np.concatenate([one.values for _, one in found])
        order = np.lexsort((-values, costs))
        best_before = np.maximum.accumulate(np.concatenate([[-np.inf], values[order]]))[:-1]
        order = order[values[order] > best_before]
        return Frontier(costs[order], values[order], actions[order], max(one.gap for _, one in found))

    def best_first(self, target_ms: float) -> Iterator[IntArray]:
        """The members within a target, the most important first."""
        return ranked(self.worth.parts, self.latency, target_ms)


def ranked(
    worth: Sequence[FloatArray], latency: AdditiveModel | SplitModel, target_ms: float
) -> Iterator[IntArray]:
    """The members within a target, the most valuable first; as `best_first`.

    Args:
        worth: For each position what its options are worth.
        latency: What they take.
        target_ms: Largest latency.
    """
    if isinstance(latency, AdditiveModel):
        return best_first(worth, latency.parts, target_ms - latency.base)

    def value(action: IntArray) -> float:
        return -sum(float(part[option]) for part, option in zip(worth, action.tolist(), strict=True))

    streams = [_ranked_at(worth, sums, option, target_ms) for option, sums in enumerate(latency.sums)]
    return heapq.merge(*streams, key=value)


def _ranked_at(
    worth: Sequence[FloatArray], latency: AdditiveModel, option: int, target_ms: float
) -> Iterator[IntArray]:
    """Those with one option at the last position, under the latency that it has."""
    for action in best_first(_with_last(worth, option), latency.parts, target_ms - latency.base):
        yield _at_last(action[None], option)[0]


def _frontier(worth: Sequence[FloatArray], latency: AdditiveModel, target_ms: float) -> Frontier:
    found = solve_knapsack(worth, latency.parts, target_ms - latency.base)
    return Frontier(found.costs + latency.base, found.values, found.actions, found.gap)


def _with_last(parts: Sequence[FloatArray], option: int) -> list[FloatArray]:
    """The parts with one option at the last position."""
    return [*parts[:-1], parts[-1][option : option + 1]]


def _at_last(actions: IntArray, option: int) -> IntArray:
    """The actions with another option at the last position."""
    placed = actions.copy()
    placed[:, -1] = option
    return placed


@dataclass(frozen=True, slots=True)
class KnapsackController:
    """Proposes what keeps most importance within the latency, then the next best, and so on.

    It learns nothing from rewards, and draws nothing at random as long as there is a next best. For
    several targets it takes the best of each in turn; without any, those of latencies spread evenly
    over the space. A latency model that does not add up is taken as seen from the largest subnet,
    and what turns out too slow is repaired.

    Attributes:
        batch_size: Proposals evaluated at once, at least 1.
        start: What to propose before the optima; None for nothing.

    Raises:
        ValueError: If `batch_size` is less than 1.
    """

    batch_size: int = 16
    start: InformedStart | None = None

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, but got batch_size={self.batch_size}")

    def search(self, problem: Problem, evaluate: Evaluate, budget: int, seed: int) -> None:
        """Propose members, best first, until `evaluate` ends the search.

        Args:
            problem: What is known beforehand: latency, and the importance of blocks.
            evaluate: Judges configs; what it raises passes through.
            budget: Not needed: `evaluate` keeps to it.
            seed: Of repairs, of what is drawn when nothing is left, and of an informed start.

        Raises:
            ControllerError: If latency or importance is not known.
            InfeasibleTargetError: If even the smallest subnet is slower than a target.
        """
        del budget
        sums = KnownSums.of(problem)
        if sums is None:
            lacking = "a latency model" if problem.latency is None else "the importance of the blocks"
            raise ControllerError(
                f"{self!r} needs {lacking}, which the problem lacks; give search() "
                f"{'latency=...' if problem.latency is None else 'importance=... or kept_importance=...'}, "
                "an evaluator that brings it, or another controller"
            )
        rng = np.random.default_rng(seed)
        sampler = FeasibleSampler(problem, rng)
        proposed: set[bytes] = set()
        if self.start is not None:
            informed = self.start.actions(problem, rng)
            proposed.update(action.tobytes() for action in informed)
            evaluate([problem.space.decode(action) for action in informed.tolist()])
        candidates = _in_turn(sums, _latencies_to_serve(problem, sums), sampler, proposed)
        while True:
            best = list(islice(candidates, self.batch_size))
            actions = np.stack(best) if best else draw_unseen(sampler.sample, self.batch_size, proposed)
            evaluate([problem.space.decode(action) for action in actions.tolist()])


def _latencies_to_serve(problem: Problem, sums: KnownSums) -> tuple[float, ...]:
    if problem.served_targets_ms:
        return problem.served_targets_ms
    nvec = np.array([[len(part) for part in sums.worth.parts]])
    base_ms, largest_ms = sums.latency.predict(np.concatenate([np.zeros_like(nvec), nvec - 1])).tolist()
    spread = np.linspace(base_ms, max(largest_ms, base_ms), N_LATENCIES + 1)[1:]
    return tuple(spread.tolist())


def _in_turn(
    sums: KnownSums, targets_ms: Sequence[float], sampler: FeasibleSampler, proposed: set[bytes]
) -> Iterator[IntArray]:
    """The best member that was not proposed yet for each target in turn, until none is left."""
    streams = [
        (action for action in _repaired(sums, target_ms, sampler) if action.tobytes() not in proposed)
        for target_ms in targets_ms
    ]
    while streams:
        for stream in tuple(streams):
            action = next(stream, None)
            if action is None:
                streams.remove(stream)
            else:
                proposed.add(action.tobytes())
                yield action


def _repaired(sums: KnownSums, target_ms: float, sampler: FeasibleSampler) -> Iterator[IntArray]:
    for action in sums.best_first(target_ms):
        yield sampler.repair(action[None], target_ms)[0]
