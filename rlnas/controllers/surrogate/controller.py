"""Search with a surrogate: evaluate a batch, fit a light model, look for the next batch on it.

The controllers differ in where candidates come from (`rlnas.controllers.surrogate.proposers`):
a PPO policy for any latency target, local search, evolution, or policy and evolution.

References:
    C. Angermueller et al. Model-based reinforcement learning for biological sequence design
    (DyNA-PPO). ICLR 2020: the policy trains on an ensemble of models between true evaluations, while
    their cross-validation is good.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from rlnas.controllers.feasible import FeasibleSampler
from rlnas.controllers.randomness import Randomness
from rlnas.controllers.start import InformedStart
from rlnas.controllers.surrogate.batch import choose_batch
from rlnas.controllers.surrogate.knowledge import Knowledge
from rlnas.controllers.surrogate.policy import PolicySettings, PolicyTrainer
from rlnas.controllers.surrogate.proposers import (
    BriefEvolutionProposer,
    EvolutionProposer,
    KnapsackProposer,
    LocalProposer,
    MixedProposer,
    PolicyProposer,
)
from rlnas.errors import ControllerError
from rlnas.loop import SearchEnd

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from rlnas.controllers.surrogate.proposers import Proposer
    from rlnas.controllers.surrogate.warm_start import WarmStart
    from rlnas.env import IntArray
    from rlnas.protocols import Evaluate, Problem
    from rlnas.space import SubnetConfig
    from rlnas.trial import Trial

N_WARM = 16
"""Subnets of a warm start that are evaluated first."""


@dataclass(frozen=True, slots=True)
class SurrogateSettings:
    """What all searches with a surrogate share.

    Attributes:
        start: What is evaluated first.
        batch_size: Subnets evaluated between two fits, at least 1.
        gate: Rank correlation in cross-validation that the ensemble needs to be used, in [-1, 1]; below it
            the controller goes on as it would without one.
        pool_size: Candidates from which a batch is chosen, over all targets, at least 1.
        steps_per_trial: Steps that the policy trains on the surrogate for each true evaluation, at least 0.
        final_steps: Steps of its last training, when the search is over, at least 0.

    Raises:
        ValueError: If a number is out of range.
    """

    start: InformedStart = field(default_factory=InformedStart)
    batch_size: int = 16
    gate: float = 0.1
    pool_size: int = 256
    steps_per_trial: int = 384
    final_steps: int = 16_384

    def __post_init__(self) -> None:
        for name in ("batch_size", "pool_size"):
            value = getattr(self, name)
            if value < 1:
                raise ValueError(f"{name} must be at least 1, but got {name}={value}")
        for name in ("steps_per_trial", "final_steps"):
            value = getattr(self, name)
            if value < 0:
                raise ValueError(f"{name} must be at least 0, but got {name}={value}")
        if not -1 <= self.gate <= 1:
            raise ValueError(f"gate must be in [-1, 1], but got gate={self.gate}")


class SurrogateSearch:
    """One search: what it knows, and how it goes on. Controllers make it.

    Args:
        problem: What is known beforehand.
        settings: Of the search.
        seed: Of everything random.
        warm_start: An earlier search to start from, or None.
    """

    def __init__(
        self, problem: Problem, settings: SurrogateSettings, seed: int, warm_start: WarmStart | None = None
    ) -> None:
        self.problem = problem
        self._settings = settings
        self._seed = seed
        self._warm_start = warm_start
        self._n_batches = 0
        self._rng = np.random.default_rng(seed)
        self.sampler = FeasibleSampler(problem, self._rng)
        self.knowledge = Knowledge(problem, settings.gate, seed, warm_start)

    def run(self, evaluate: Evaluate, proposer: Proposer, budget: int) -> None:
        """Propose until `evaluate` ends the search; then train on what is known by then."""
        try:
            n_fitted = 0
            self._begin(evaluate, budget)
            while True:
                is_news = len(self.knowledge) > n_fitted  # else the last fit and training stand
                if is_news:
                    self.knowledge.fit()
                    n_fitted = len(self.knowledge)
                if not self.knowledge.is_trusted:
                    self._go_on_without(evaluate, proposer)
                    continue
                if is_news and len(self.knowledge) != budget:  # then the last training follows at once
                    proposer.train(self._settings.steps_per_trial * self._settings.batch_size)
                self._go_on(evaluate, proposer, budget - len(self.knowledge))
        except SearchEnd as end:
            self.knowledge.learn(end.answers)
            if len(self.knowledge) > n_fitted:
                self.knowledge.fit()
            if self.knowledge.is_trusted:
                proposer.train(self._settings.final_steps, explores=False)
            raise

    def on_surrogate(
        self, kind: type[LocalProposer] | type[EvolutionProposer] | type[KnapsackProposer]
    ) -> Proposer:
        """Local search, evolution or a knapsack on this search's surrogate."""
        return kind(
            self.knowledge, self.problem.space.nvec, self.sampler, self._settings.batch_size, self._seed
        )

    def candidates(self, proposer: Proposer, target_ms: float, n: int) -> IntArray:
        """For a target: what is known, and what is proposed, by descending predicted reward.

        Returns:
            Distinct actions, shape ``(k, p)``, k at most n.
        """
        known = self.knowledge.actions
        within = ~(self.knowledge.budget.predict(known) > target_ms) & self.knowledge.is_complete
        rewards = self.knowledge.expected_rewards(np.full(len(known), target_ms))[within]
        proposed = np.unique(proposer.propose(target_ms, self._settings.pool_size), axis=0)
        proposed = proposed[[not self.knowledge.is_known(action) for action in proposed]]
        predicted = self.knowledge.rewards(proposed, np.full(len(proposed), target_ms))
        pool = np.concatenate([known[within], proposed])
        order = np.argsort(-np.concatenate([rewards, predicted]), kind="stable")
        return pool[order[:n]]

    def _begin(self, evaluate: Evaluate, budget: int) -> None:
        """Evaluate the start, at most half of the budget."""
        limit = max(2, budget // 2)
        actions = self._settings.start.actions(self.problem, self._rng, limit)
        if self._warm_start is not None:
            earlier = self._warm_start.best_actions(self.problem, N_WARM)
            actions = np.concatenate([earlier, actions])[:limit]
        distinct = list({action.tobytes(): action for action in actions}.values())
        self.knowledge.learn(evaluate(self._configs(distinct)))

    def _go_on_without(self, evaluate: Evaluate, proposer: Proposer) -> None:
        """What the proposer does without a surrogate; random subnets where that brings nothing new."""
        n_known = len(self.knowledge)
        self.knowledge.learn(proposer.explore(evaluate))
        if len(self.knowledge) == n_known:
            lacking = self.sampler.sample(self._settings.batch_size)
            self.knowledge.learn(evaluate(self._configs(lacking)))

    def _go_on(self, evaluate: Evaluate, proposer: Proposer, n_left: int) -> None:
        """One batch on the surrogate's advice; random subnets where it has nothing new to advise."""
        settings = self._settings
        # A batch beyond the budget would be cut, and nobody told of its part; a resumed search goes on.
        size = min(settings.batch_size, n_left) if n_left > 0 else settings.batch_size
        targets = self.problem.served_targets_ms or (np.nan,)
        n_each = -(-settings.pool_size // len(targets))
        pools = {float(target): proposer.propose(target, n_each) for target in targets}
        batch = choose_batch(self.knowledge, pools, size, self._n_batches)
        self._n_batches += 1
        lacking = size - len(batch)
        if lacking:
            batch = np.concatenate([batch, self.sampler.sample(lacking)])
        self.knowledge.learn(evaluate(self._configs(batch)))

    def _configs(self, actions: Sequence[IntArray] | IntArray) -> list[SubnetConfig]:
        return [self.problem.space.decode(action.tolist()) for action in actions]


@dataclass(slots=True)
class _SurrogateController:
    """What the controllers share; see `SurrogatePPOController`."""

    settings: SurrogateSettings = field(default_factory=SurrogateSettings)
    policy: PolicySettings = field(default_factory=PolicySettings)
    # A history is resumed by equal settings only, wherever its folder has gone meanwhile.
    save_path: Path | None = field(default=None, repr=False)
    warm_start: WarmStart | None = None
    _search: SurrogateSearch | None = field(default=None, init=False, repr=False, compare=False)
    _proposer: Proposer | None = field(default=None, init=False, repr=False, compare=False)
    _trainer: PolicyTrainer | None = field(default=None, init=False, repr=False, compare=False)

    def search(self, problem: Problem, evaluate: Evaluate, budget: int, seed: int) -> None:
        """Propose batch after batch until `evaluate` ends the search.

        Args:
            problem: What is known beforehand.
            evaluate: Judges configs; what it raises passes through.
            budget: Trials that the search was begun with; the start takes at most half of them.
            seed: Equal seeds give equal proposals; at least 0.

        Raises:
            InfeasibleTargetError: If even the smallest subnet is slower than a target.
            HistoryError: If a warm start does not fit the space.
        """
        randomness = Randomness()

        def judge(configs: Sequence[SubnetConfig]) -> list[Trial]:
            # A search that resumes skips evaluations: they must not touch the policy's randomness.
            with randomness.outside():
                return evaluate(configs)

        with randomness.inside():
            search = SurrogateSearch(problem, self.settings, seed, self.warm_start)
            self._search, self._proposer = search, self._make_proposer(search, seed)
            try:
                search.run(judge, self._proposer, budget)
            finally:
                if self.save_path is not None and self._trainer is not None:
                    self._trainer.policy.save(self.save_path)

    def propose(self, target_ms: float, n: int = 1) -> list[SubnetConfig]:
        """The subnets that seem best for a target, from what the last search has learnt.

        Candidates are what was evaluated and what is proposed now; the surrogate puts them in order.

        Args:
            target_ms: Latency to keep to, at least that of the space's smallest subnet.
            n: Most subnets to give, the best first.

        Raises:
            ControllerError: If nothing was searched yet, or too little for a surrogate, or the reward
                serves no other target than the search's own.
            InfeasibleTargetError: If the smallest subnet is slower.
        """
        search, proposer = self._search, self._proposer
        if search is None or proposer is None or search.knowledge.ensemble is None:
            raise ControllerError(
                f"propose({target_ms:g}) needs a search of at least 10 trials before it; call search first"
            )
        if search.knowledge.models_reward and target_ms != search.problem.target_ms:
            raise ControllerError(
                f"propose({target_ms:g}) asks for another target than {search.problem.target_ms}, that of "
                "the search, but its reward looks at more than accuracy and latency, or nothing predicts "
                "the latency; search for this target"
            )
        search.knowledge.budget.check(target_ms, hard=True)
        with Randomness().inside(seed=0):
            actions = search.candidates(proposer, target_ms, n)
        return [search.problem.space.decode(action) for action in actions.tolist()]

    def propose_from_policy(self, target_ms: float, n: int = 1) -> list[SubnetConfig]:
        """The same from the policy alone, which has forgotten what was evaluated.

        Raises:
            ControllerError: If this controller has trained no policy.
            InfeasibleTargetError: If the smallest subnet is slower.
        """
        if self._trainer is None:
            raise ControllerError(
                f"{type(self).__name__} has trained no policy; search with ppo or auto first"
            )
        return self._trainer.policy.propose(target_ms, n)

    def _make_proposer(self, search: SurrogateSearch, seed: int) -> Proposer:
        raise NotImplementedError

    def _policy_proposer(self, search: SurrogateSearch, seed: int) -> PolicyProposer:
        self._trainer = PolicyTrainer(search.problem, search.knowledge, self.policy, seed)
        if self.warm_start is not None and self.warm_start.policy is not None:
            self._trainer.start_from(self.warm_start.policy)
        return PolicyProposer(self._trainer, search.knowledge)


class SurrogatePPOController(_SurrogateController):
    """PPO that trains on a surrogate between true evaluations, and serves any latency target.

    The informed start is evaluated first. Then, batch by batch: an ensemble of light models is fitted
    to all trials; while its cross-validated rank correlation passes the gate, the policy trains on it,
    each episode with a latency target of its own, and the batch is chosen from its samples; below the
    gate the policy trains on true evaluations alone, as `rlnas.controllers.ppo.PPOController` does.

    Equal seeds give equal proposals on one machine, as for `PPOController`.

    Attributes:
        settings: Of the search with a surrogate.
        policy: Of PPO.
        save_path: Folder for the trained policy (safetensors and JSON), written when the search ends,
            however it ends; None saves nothing.
        warm_start: An earlier run, perhaps on another task: its surrogate is what this one starts from,
            its best subnets are evaluated first, and its policy goes on learning.
    """

    def _make_proposer(self, search: SurrogateSearch, seed: int) -> Proposer:
        return self._policy_proposer(search, seed)


class SurrogateLocalController(_SurrogateController):
    """The same start, surrogate and choice of batches, with candidates from local search instead of PPO."""

    def _make_proposer(self, search: SurrogateSearch, seed: int) -> Proposer:
        return search.on_surrogate(LocalProposer)


class SurrogateEvolutionController(_SurrogateController):
    """The same start, surrogate and choice of batches, with candidates from evolution instead of PPO."""

    def _make_proposer(self, search: SurrogateSearch, seed: int) -> Proposer:
        return search.on_surrogate(EvolutionProposer)


class SurrogateKnapsackController(_SurrogateController):
    """The same with the exact optima of the surrogate's main effects instead of PPO's candidates."""

    def _make_proposer(self, search: SurrogateSearch, seed: int) -> Proposer:
        return search.on_surrogate(KnapsackProposer)


class AutoController(_SurrogateController):
    """Candidates from the policy and from a brief evolution on the surrogate, in one pool."""

    def _make_proposer(self, search: SurrogateSearch, seed: int) -> Proposer:
        return MixedProposer(
            [self._policy_proposer(search, seed), search.on_surrogate(BriefEvolutionProposer)]
        )
