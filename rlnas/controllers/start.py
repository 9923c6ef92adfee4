"""The informed start: what a person would try first, before anything was evaluated."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from rlnas.controllers.feasible import FeasibleSampler, draw_unseen
from rlnas.controllers.knapsack import KnownSums
from rlnas.env import LatencyBudget
from rlnas.precision_space import PrecisionSpace

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from rlnas.env import IntArray
    from rlnas.protocols import Problem
    from rlnas.space import SearchSpace

DEPTHS = (1.0, 3 / 4, 2 / 3, 1 / 2, 1 / 3, 1 / 4)
"""Shares of the layers that uniform members keep, evenly spread as in `UniformSpace`, or the first."""

WIDTHS = (1.0, 3 / 4, 1 / 2, 1 / 4)
"""Ranks of the options that uniform members take in every layer kept, relative to the largest."""

MAX_WIDTHS = 3
"""Positions of a layer that uniform members choose apart; of more, all take the same rank."""


@dataclass(frozen=True, slots=True)
class InformedStart:
    """Which subnets to evaluate first.

    In this order, each once: the largest that fits; the smallest; those that keep most importance
    at a spread of latencies; uniform ones; random ones. None is slower than the largest target.

    Attributes:
        n_knapsack: Optima of importance under latency, where both are known, at least 0: at the
            targets of the search, then at latencies spread evenly below the largest.
        n_uniform: Members with the same options in every layer that is kept, at least 0: for each
            target those that come closest to it from below.
        n_random: Random members, at least 0, for each target in turn.

    Raises:
        ValueError: If a number is negative.
    """

    n_knapsack: int = 8
    n_uniform: int = 8
    n_random: int = 16

    def __post_init__(self) -> None:
        for name in ("n_knapsack", "n_uniform", "n_random"):
            value = getattr(self, name)
            if value < 0:
                raise ValueError(f"{name} must be at least 0, but got {name}={value}")

    def actions(self, problem: Problem, rng: np.random.Generator, limit: int | None = None) -> IntArray:
        """The members to begin with.

        Args:
            problem: What is known beforehand.
            rng: Draws the random ones; and where latencies do not add up, repairs optima.
            limit: Largest number of members; None for all.

        Returns:
            Distinct actions, shape ``(k, p)``.

        Raises:
            InfeasibleTargetError: If even the smallest subnet is slower than a target.
        """
        sampler = FeasibleSampler(problem, rng)
        targets_ms = _targets_ms(problem, max(1, self.n_knapsack))
        nvec = np.asarray(problem.space.nvec, dtype=np.int64)
        found = [
            _largest_that_fits(nvec, sampler)[None],
            np.zeros((1, len(nvec)), dtype=np.int64),
            sampler.repair(_optima(problem, targets_ms[: self.n_knapsack])),
            _closest(
                problem, sampler, targets_ms[: len(problem.served_targets_ms) or None], self.n_uniform
            ),
        ]
        known = {action.tobytes(): action for action in np.concatenate(found)}
        random = self._random(problem, sampler, set(known))
        distinct = {**known, **{action.tobytes(): action for action in random}}
        return np.stack(list(distinct.values())[:limit])

    def _random(self, problem: Problem, sampler: FeasibleSampler, proposed: set[bytes]) -> IntArray:
        bounds = np.array(problem.served_targets_ms or (np.inf,))
        in_turn = itertools.cycle(bounds)

        def draw(n_actions: int) -> IntArray:
            return sampler.sample(n_actions, np.array(list(itertools.islice(in_turn, n_actions))))

        return draw_unseen(draw, self.n_random, proposed)


def _targets_ms(problem: Problem, n_targets: int) -> list[float]:
    """The targets to serve, the largest first, then others spread evenly below it; none if unknown."""
    budget = LatencyBudget(problem)
    if not budget.is_known:
        return []
    served = problem.served_targets_ms[::-1]
    top_ms = served[0] if served else budget.reference_ms
    spread = np.linspace(top_ms, budget.floor_ms, n_targets + 1)[:-1].tolist()
    return [*served, *(target_ms for target_ms in spread if target_ms not in served)]


def _largest_that_fits(nvec: IntArray, sampler: FeasibleSampler) -> IntArray:
    """Shrunk evenly, the later position first, until it is not slower than the largest target."""
    action = nvec - 1
    while action.any() and not sampler.fits(action[None])[0]:
        ranks = action / np.maximum(1, nvec - 1)
        action[len(ranks) - 1 - int(np.argmax(ranks[::-1]))] -= 1
    return action


def _optima(problem: Problem, targets_ms: Iterable[float]) -> IntArray:
    sums = KnownSums.of(problem)
    targets = list(targets_ms)
    if sums is None or not targets:
        return np.zeros((0, len(problem.space.nvec)), dtype=np.int64)
    frontier = sums.frontier(max(targets))
    rows = [row for target_ms in targets if (row := frontier.best(target_ms)) is not None]
    return frontier.actions[rows]


def _closest(
    problem: Problem, sampler: FeasibleSampler, targets_ms: Iterable[float], n_actions: int
) -> IntArray:
    """Uniform members that fit, the slowest below each target in turn; any where there is none."""
    distinct = {action.tobytes(): action for action in _uniform(problem.space)}
    actions = np.stack(list(distinct.values()))
    actions = actions[sampler.fits(actions)]
    latencies_ms = LatencyBudget(problem).predict(actions)
    slowest_first = np.argsort(-latencies_ms, kind="stable")
    by_target = [slowest_first[latencies_ms[slowest_first] <= target_ms] for target_ms in targets_ms]
    if not by_target:
        return actions[np.linspace(0, len(actions) - 1, min(n_actions, len(actions))).astype(np.int64)]
    in_turn = (row for rows in itertools.zip_longest(*by_target) for row in rows if row is not None)
    return actions[list(dict.fromkeys(in_turn))[:n_actions]]


def _uniform(space: SearchSpace) -> Iterator[IntArray]:
    """Members that take the same share of the options in every layer they keep.

    A space whose positions do not come in equal groups, one for each layer, counts as one layer. Where
    the precision is chosen too, each of them comes in every precision.
    """
    if isinstance(space, PrecisionSpace):
        for action in _uniform(space.inner):
            for option in range(len(space.precisions)):
                yield np.append(action, option)
        return
    nvec = np.asarray(space.nvec, dtype=np.int64)
    n_layers = len(space.smallest().layers)
    n_layers = n_layers if len(nvec) % n_layers == 0 else 1
    layers = (nvec - 1).reshape(n_layers, -1)
    n_widths = layers.shape[1] if layers.shape[1] <= MAX_WIDTHS else 1
    for depth in DEPTHS:
        n_kept = max(1, round(depth * n_layers))
        spread = {-(-n_layers * (step + 1) // n_kept) - 1 for step in range(n_kept)}
        for kept in (spread, set(range(n_kept))):
            mask = np.array([[layer in kept] for layer in range(n_layers)])
            for widths in itertools.product(WIDTHS, repeat=n_widths):
                yield (np.rint(layers * np.array(widths)) * mask).astype(np.int64).ravel()
