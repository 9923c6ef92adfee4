"""Where candidates for a true evaluation come from: the policy, or a search on the surrogate.

The others are what the policy has to be compared with: the same model, the same choice of what to
evaluate, but its best subnets found by local search, by evolution, or by a knapsack of main effects.
"""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Protocol

import numpy as np

from rlnas.additive import AdditiveModel, SplitModel, seen_sums
from rlnas.controllers.knapsack import ranked

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rlnas.controllers.feasible import FeasibleSampler
    from rlnas.controllers.surrogate.knowledge import Knowledge
    from rlnas.controllers.surrogate.policy import PolicyTrainer
    from rlnas.env import FloatArray, IntArray
    from rlnas.protocols import Evaluate
    from rlnas.space import SubnetConfig
    from rlnas.trial import Trial

N_PARENTS = 8
"""Known subnets of highest predicted reward from which local search and evolution start."""

N_DRAWN = 4
"""Episodes of the policy for each candidate that is asked of it."""


class Proposer(Protocol):
    """Looks for subnets that the surrogate thinks well of."""

    def train(self, n_steps: int, *, explores: bool = True) -> None:
        """Learn from what was fitted last; `explores` while more is to be evaluated."""

    def propose(self, target_ms: float, n: int) -> IntArray:
        """Some n candidates for a target (NaN: none), shape ``(k, p)``; none is slower."""

    def explore(self, evaluate: Evaluate) -> list[Trial]:
        """Go on without a surrogate: propose a batch, have it judged, learn from it."""


class PolicyProposer:
    """Samples of the policy that were not judged yet."""

    def __init__(self, trainer: PolicyTrainer, knowledge: Knowledge) -> None:
        self._trainer = trainer
        self._knowledge = knowledge

    def train(self, n_steps: int, *, explores: bool = True) -> None:
        """Train the policy on the surrogate."""
        self._trainer.train(n_steps, explores=explores)

    def propose(self, target_ms: float, n: int) -> IntArray:
        """Of the greedy episode and `N_DRAWN` times n drawn ones, the n of highest predicted reward."""
        policy = self._trainer.policy
        greedy = policy.sample([target_ms], greedy=True)
        drawn = np.concatenate([greedy, policy.sample([target_ms] * (N_DRAWN * n))])
        distinct = np.unique(drawn, axis=0)
        novel = distinct[[not self._knowledge.is_known(action) for action in distinct]]
        rewards = self._knowledge.rewards(novel, np.full(len(novel), target_ms))
        return novel[np.argsort(-rewards, kind="stable")[:n]]

    def explore(self, evaluate: Evaluate) -> list[Trial]:
        """One rollout of plain PPO."""
        return self._trainer.explore(evaluate)


class _OnSurrogate:
    """What local search and evolution share: known parents, bounds, and going on without a model."""

    def __init__(
        self, knowledge: Knowledge, nvec: Sequence[int], sampler: FeasibleSampler, n_blind: int, seed: int
    ) -> None:
        self._knowledge = knowledge
        self._nvec = np.asarray(nvec, dtype=np.int64)
        self._sampler = sampler
        self._n_blind = n_blind
        self._seed = seed
        self._rng = np.random.default_rng(seed)

    def train(self, n_steps: int, *, explores: bool = True) -> None:
        """There is nothing to train."""

    def explore(self, evaluate: Evaluate) -> list[Trial]:
        """Mutants of the best known subnets."""
        best = sorted(self._knowledge.trials, key=lambda trial: -trial.reward)[:N_PARENTS]
        space = self._knowledge.space
        parents = np.array([space.encode(trial.config) for trial in best], dtype=np.int64)
        children = self._mutated(parents[self._rng.integers(len(parents), size=self._n_blind)])
        return evaluate([space.decode(a) for a in self._sampler.repair(children).tolist()])

    def _parents(self, target_ms: float, n: int) -> IntArray:
        """Known subnets within a target, those of highest predicted reward; the smallest where none is."""
        actions = self._within(self._knowledge.actions, target_ms)
        if not len(actions):
            return np.zeros((1, len(self._nvec)), dtype=np.int64)
        rewards = self._rewards(actions, target_ms)
        return actions[np.argsort(-rewards, kind="stable")[:n]]

    def _within(self, actions: IntArray, target_ms: float) -> IntArray:
        latencies = self._knowledge.budget.predict(actions)
        return actions[~(latencies > target_ms)]  # a comparison with NaN is false

    def _rewards(self, actions: IntArray, target_ms: float) -> FloatArray:
        return self._knowledge.rewards(actions, np.full(len(actions), target_ms))

    def _mutated(self, actions: IntArray) -> IntArray:
        """Copies with at least one position, and one in p on average, drawn anew."""
        mutated = actions.copy()
        chosen = self._rng.random(mutated.shape) < 1.0 / len(self._nvec)
        chosen[np.arange(len(mutated)), self._rng.integers(len(self._nvec), size=len(mutated))] = True
        drawn = self._rng.integers(self._nvec, size=mutated.shape)
        return np.where(chosen, drawn, mutated)


class LocalProposer(_OnSurrogate):
    """Steepest ascent on the surrogate: one position, or two in exchange, at a time."""

    def propose(self, target_ms: float, n: int) -> IntArray:
        """The last neighbourhoods of climbs from the best known subnets."""
        at = self._parents(target_ms, N_PARENTS)
        rewards = self._rewards(at, target_ms)
        found = [at[:0]]
        passed: set[bytes] = set()
        while len(at):
            at, rewards, tops = self._step(at, rewards, target_ms)
            found += tops
            # Climbs that meet go on as one.
            fresh = {action.tobytes(): i for i, action in enumerate(at) if action.tobytes() not in passed}
            passed.update(fresh)
            at, rewards = at[list(fresh.values())], rewards[list(fresh.values())]
        visited = np.unique(np.concatenate(found), axis=0)
        rewards = self._rewards(visited, target_ms)
        return visited[np.argsort(-rewards, kind="stable")[:n]]

    def _step(
        self, at: IntArray, rewards: FloatArray, target_ms: float
    ) -> tuple[IntArray, FloatArray, list[IntArray]]:
        """Where climbs go on, what that is worth, and the neighbourhoods of those that are at a top."""
        around = [self._within(self._neighbours(action), target_ms) for action in at]
        cuts = np.cumsum([len(actions) for actions in around])[:-1]
        worths = np.split(self._rewards(np.concatenate(around), target_ms), cuts)
        higher, tops = [], []
        for action, reward, actions, worth in zip(at, rewards, around, worths, strict=True):
            if len(actions) and worth.max() > reward:
                higher.append((actions[worth.argmax()], worth.max()))
            else:
                tops.append(np.concatenate([action[None], actions]))
        actions = np.array([action for action, _ in higher], dtype=np.int64).reshape(-1, at.shape[1])
        return actions, np.array([reward for _, reward in higher]), tops

    def _neighbours(self, action: IntArray) -> IntArray:
        """All that differ in one position, and those with one option more here and one less there."""
        rows = []
        for position, n_options in enumerate(self._nvec):
            changed = np.repeat(action[None], n_options, axis=0)
            changed[:, position] = np.arange(n_options)
            rows.append(changed[np.arange(n_options) != action[position]])
        up, down = np.nonzero(np.ones((len(action), len(action))) - np.eye(len(action)))
        exchanged = np.repeat(action[None], len(up), axis=0)
        exchanged[np.arange(len(up)), up] += 1
        exchanged[np.arange(len(up)), down] -= 1
        inside = ((exchanged >= 0) & (exchanged < self._nvec)).all(axis=1)
        return np.concatenate([*rows, exchanged[inside]])


class EvolutionProposer(_OnSurrogate):
    """Evolution on the surrogate: crossover and mutation, survival of the best."""

    n_generations = 12

    def propose(self, target_ms: float, n: int) -> IntArray:
        """The last population, bred from the best known subnets; the same as long as no trial is new."""
        self._rng = np.random.default_rng((self._seed, len(self._knowledge)))
        population = self._parents(target_ms, n)
        for _ in range(self.n_generations):
            mothers, fathers = (population[self._rng.integers(len(population), size=n)] for _ in range(2))
            crossed = np.where(self._rng.random(mothers.shape) < 0.5, mothers, fathers)
            children = self._within(self._mutated(crossed), target_ms)
            everybody = np.unique(np.concatenate([population, children]), axis=0)
            rewards = self._rewards(everybody, target_ms)
            population = everybody[np.argsort(-rewards, kind="stable")[:n]]
        return population


class BriefEvolutionProposer(EvolutionProposer):
    """The same at half the cost, for a pool to which others contribute."""

    n_generations = 6


class KnapsackProposer(_OnSurrogate):
    """The exact optima of the surrogate's main effects, added up, under the latency target.

    What a policy knows that is guided by these effects, without the policy: it sees no interplay of
    positions, but misses nothing else.
    """

    def propose(self, target_ms: float, n: int) -> IntArray:
        """The n subnets of the greatest sums of main effects, the best first."""
        budget = self._knowledge.budget
        effects = self._knowledge.main_effects()
        latency: AdditiveModel | SplitModel
        latency = AdditiveModel(0.0, tuple(np.zeros(len(part)) for part in effects))
        if budget.is_known:
            latency = seen_sums(self._knowledge.space, self._latencies)
        found = list(islice(ranked(effects, latency, np.inf if np.isnan(target_ms) else target_ms), n))
        shaped = np.array(found, dtype=np.int64).reshape(-1, len(self._nvec))
        # Where latencies do not add up, some are slower.
        return shaped if np.isnan(target_ms) else self._sampler.repair(shaped, target_ms)

    def _latencies(self, configs: Sequence[SubnetConfig]) -> FloatArray:
        space = self._knowledge.space
        return self._knowledge.budget.predict(np.array([space.encode(config) for config in configs]))


class MixedProposer:
    """The candidates of several proposers together; the first one goes on where there is no model."""

    def __init__(self, proposers: Sequence[Proposer]) -> None:
        self._proposers = tuple(proposers)

    def train(self, n_steps: int, *, explores: bool = True) -> None:
        """Let each learn."""
        for proposer in self._proposers:
            proposer.train(n_steps, explores=explores)

    def propose(self, target_ms: float, n: int) -> IntArray:
        """Those of each, at most n of one."""
        return np.concatenate([proposer.propose(target_ms, n) for proposer in self._proposers])

    def explore(self, evaluate: Evaluate) -> list[Trial]:
        """As the first one does."""
        return self._proposers[0].explore(evaluate)
