"""What a search knows so far: its trials, a model of them, and what it predicts of others."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from rlnas.controllers.surrogate.ensemble import N_FOLDS, Ensemble
from rlnas.controllers.surrogate.features import Features
from rlnas.env import LatencyBudget
from rlnas.errors import ControllerError
from rlnas.metrics import Metrics
from rlnas.protocols import Problem
from rlnas.trial import Trial

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy.typing as npt

    from rlnas.controllers.surrogate.warm_start import WarmStart
    from rlnas.env import FloatArray, IntArray
    from rlnas.protocols import Reward
    from rlnas.space import SearchSpace, SubnetConfig

N_AVERAGED = 32
"""Trials over which `Knowledge.main_effects` takes its average, at most."""

N_COMPARED = 64
"""Trials whose answers to single items `item_noise` compares, at most."""

MIN_FITTED = 2 * N_FOLDS
"""Trials below which nothing is fitted."""

NEAR = 1e-9
"""Relative difference up to which a reward counts as computed from accuracy and latency alone."""


class Knowledge:
    """Trials and the ensemble that was fitted to them last.

    The ensemble models the accuracy, and rewards follow from that and from the exact latency. Where
    a reward looks at something else, or at a latency that nothing predicts, the reward itself is
    modelled, and targets make no difference.

    Args:
        problem: What is known beforehand.
        gate: Rank correlation in cross-validation from which the ensemble is trusted, in [-1, 1].
        seed: Of the folds.
        prior: An earlier search whose accuracies the ensemble starts from, or None.

    Attributes:
        models_reward: Whether it is the reward that is modelled.
        ensemble: None before `fit`.
        budget: Latencies of actions, and their bounds.
    """

    def __init__(self, problem: Problem, gate: float, seed: int, prior: WarmStart | None = None) -> None:
        self._problem = problem
        self._gate = gate
        self._seed = seed
        self._prior = None if prior is None else prior.model(problem)
        self._features = Features(problem.space, problem.kept_importance)
        self._trials: dict[bytes, Trial] = {}
        self._actions: list[IntArray] = []
        self._rewards: dict[float, Reward] = {}
        self._line = np.array([0.0, 0.0])
        self._offset = np.zeros(0)
        self.models_reward = False
        self.ensemble: Ensemble | None = None
        self.budget = LatencyBudget(problem)
        self.budget.add_up()

    @property
    def space(self) -> SearchSpace:
        """Where the subnets come from."""
        return self._problem.space

    def __len__(self) -> int:
        return len(self._trials)

    @property
    def trials(self) -> list[Trial]:
        """Distinct trials in the order in which they were learnt."""
        return list(self._trials.values())

    @property
    def actions(self) -> IntArray:
        """Their actions, shape ``(n, p)``."""
        shape = (len(self._actions), len(self._problem.space.nvec))
        return np.array(self._actions, dtype=np.int64).reshape(shape)

    @property
    def is_complete(self) -> npt.NDArray[np.bool_]:
        """Which trials were judged on all items, shape ``(n,)``: others are never the best."""
        return np.array([not trial.metrics.raced_out for trial in self._trials.values()], dtype=bool)

    @property
    def spread(self) -> float:
        """Standard deviation of what is modelled, over the trials."""
        return float(np.std([self._value(trial) for trial in self._trials.values()] or [0.0]))

    @property
    def is_trusted(self) -> bool:
        """Whether the ensemble ranks unseen subnets well enough to train on."""
        return self.ensemble is not None and self.ensemble.rank_correlation >= self._gate

    def learn(self, trials: Sequence[Trial]) -> None:
        """Take note of judged subnets."""
        for trial in trials:
            action = np.array(self._problem.space.encode(trial.config), dtype=np.int64)
            if action.tobytes() not in self._trials:
                self._trials[action.tobytes()] = trial
                self._actions.append(action)
                self.models_reward |= not self._is_reproduced(trial)

    def is_known(self, action: IntArray) -> bool:
        """Whether an action was judged."""
        return action.tobytes() in self._trials

    def fit(self) -> None:
        """Fit the ensemble to all trials."""
        if len(self) < MIN_FITTED:
            return
        actions = self.actions
        values = np.array([self._value(trial) for trial in self._trials.values()])
        offset = np.zeros(len(values))
        if self._prior is not None:
            expected = self._prior(actions)
            flat = np.array([0.0, values.mean()])
            self._line = np.polyfit(expected, values, 1) if np.ptp(expected) else flat
            offset = np.polyval(self._line, expected)
        self._offset = offset
        self.ensemble = Ensemble.fit(self._features(actions), values - offset, self._seed, offset)

    def predict(self, actions: IntArray) -> tuple[FloatArray, FloatArray]:
        """Expected value (accuracy, or reward) of actions and how unsure it is, each of shape ``(k,)``."""
        ensemble = self._fitted()
        if not len(actions):  # scikit-learn refuses to be asked for nothing
            return np.zeros(0), np.zeros(0)
        prediction = ensemble.predict(self._features(actions))
        return prediction.mean + self._expected_before(actions), prediction.std

    def predict_mean(self, actions: IntArray) -> FloatArray:
        """The expected value alone, shape ``(k,)``: far cheaper where many are asked for."""
        ensemble = self._fitted()
        if not len(actions):
            return np.zeros(0)
        return ensemble.mean(self._features(actions)) + self._expected_before(actions)

    def _fitted(self) -> Ensemble:
        if self.ensemble is None:
            raise ControllerError("nothing can be predicted before a fit; call fit first")
        return self.ensemble

    def _expected_before(self, actions: IntArray) -> FloatArray:
        """What the earlier search expects, as far as this one bears it out; 0 without one."""
        if self._prior is None:
            return np.zeros(len(actions))
        return np.polyval(self._line, self._prior(actions))

    def expected(self) -> FloatArray:
        """What the trials' values are thought to be without the luck of their items, shape ``(n,)``.

        What was seen is drawn towards what the other folds predict, the more the larger the noise of the
        items is beside what the model misses (the posterior mean of a normal model). Where that noise is
        not known, or it is rewards that are modelled, what was seen stands.
        """
        if self.ensemble is None:
            raise ControllerError("nothing is expected of trials before a fit; call fit first")
        values = np.array([self._value(trial) for trial in self._trials.values()])
        predicted = self.ensemble.held_out + self._offset
        noise = None if self.models_reward else item_noise(self.trials)
        if not noise:
            return values
        missed = max(0.0, float(np.mean((values - predicted) ** 2)) - noise)
        return predicted + missed / (missed + noise) * (values - predicted)

    def rewards(self, actions: IntArray, targets_ms: FloatArray, optimism: float = 0.0) -> FloatArray:
        """Predicted rewards.

        Args:
            actions: Shape ``(k, p)``.
            targets_ms: Shape ``(k,)``: the target of each; NaN takes the reward as it is.
            optimism: Standard deviations that are added to the expected value.
        """
        if not optimism:
            return self._worth(self.predict_mean(actions), actions, targets_ms)
        mean, std = self.predict(actions)
        return self._worth(mean + optimism * std, actions, targets_ms)

    def expected_rewards(self, targets_ms: FloatArray) -> FloatArray:
        """Rewards that follow from `expected`, of all trials; `targets_ms` has shape ``(n,)``."""
        return self._worth(self.expected(), self.actions, targets_ms)

    def _worth(self, values: FloatArray, actions: IntArray, targets_ms: FloatArray) -> FloatArray:
        if self.models_reward:
            return values
        latencies = self.budget.predict(actions)
        return np.array(
            [
                self._reward(Metrics(value, latency_ms), target_ms)
                for value, latency_ms, target_ms in zip(values, latencies, targets_ms, strict=True)
            ]
        )

    def imagine(self, configs: Sequence[SubnetConfig], actions: IntArray) -> list[Trial]:
        """Predicted trials, numbered -1; their rewards are those of the problem's own target."""
        values = self.predict_mean(actions)
        if self.models_reward:
            pairs = zip(configs, values.tolist(), strict=True)
            return [Trial(-1, config, Metrics(value), value) for config, value in pairs]
        latencies = self.budget.predict(actions)
        metrics = [Metrics(value, latency) for value, latency in zip(values, latencies, strict=True)]
        reward = self._problem.reward
        return [Trial(-1, c, m, float(reward(m))) for c, m in zip(configs, metrics, strict=True)]

    def main_effects(self) -> list[FloatArray]:
        """What each option adds to the predicted value, on average over the best half of the trials.

        Returns:
            For each position an array with one entry per option; the first is 0.
        """
        actions = self.actions
        values = self.predict_mean(actions)
        best = actions[np.argsort(-values, kind="stable")[: max(1, min(N_AVERAGED, len(actions) // 2))]]
        nvec = self._problem.space.nvec
        varied = []
        for position, n_options in enumerate(nvec):
            rows = np.repeat(best[None], n_options, axis=0)
            rows[:, :, position] = np.arange(n_options)[:, None]
            varied.append(rows.reshape(-1, len(nvec)))
        predicted = self.predict_mean(np.concatenate(varied))
        cuts = np.cumsum([len(rows) for rows in varied])[:-1]
        means = [
            part.reshape(n, -1).mean(axis=1)
            for part, n in zip(np.split(predicted, cuts), nvec, strict=True)
        ]
        return [mean - mean[0] for mean in means]

    def best_rewards(self, targets_ms: FloatArray) -> FloatArray:
        """The greatest predicted reward among the trials within each target, shape as `targets_ms`.

        Where no trial is within a target, that of the fastest.
        """
        actions = self.actions
        latencies = self.budget.predict(actions)
        best = []
        for target_ms in targets_ms:
            within = ~(latencies > target_ms)  # NaN: no target or no latency, so everything is
            rows = np.flatnonzero(within) if within.any() else np.array([np.argmin(latencies)])
            best.append(self.rewards(actions[rows], np.full(len(rows), target_ms)).max())
        return np.array(best)

    def _reward(self, metrics: Metrics, target_ms: float) -> float:
        if math.isnan(target_ms):
            return float(self._problem.reward(metrics))
        if target_ms not in self._rewards:
            self._rewards[target_ms] = self._problem.reward_for(float(target_ms))
        return float(self._rewards[target_ms](metrics))

    def _value(self, trial: Trial) -> float:
        return trial.reward if self.models_reward else trial.metrics.accuracy

    def _is_reproduced(self, trial: Trial) -> bool:
        """Whether the reward follows from accuracy and a latency that can be predicted."""
        latency_ms = trial.metrics.latency_ms if self.budget.is_known else math.nan
        bare = Metrics(trial.metrics.accuracy, latency_ms)
        try:
            found = float(self._problem.reward(bare))
        except Exception:
            return False
        return abs(found - trial.reward) <= NEAR * max(1.0, abs(trial.reward))


def expected_rewards(
    problem: Problem, trials: Sequence[Trial], target_ms: float | None = None
) -> FloatArray:
    """What trials are worth once the luck of their items is averaged out.

    The best of many noisy accuracies flatters. A surrogate fitted to all trials looks at each one in the
    light of those that resemble it.

    Args:
        problem: What is known beforehand.
        trials: At least one; of fewer than ten nothing is fitted, and their own rewards are given.
        target_ms: The latency target of the rewards; by default the problem's own.

    Returns:
        Shape ``(n,)``.

    Raises:
        RewardError: If the reward knows no other target.
    """
    target = problem.target_ms if target_ms is None else target_ms
    knowledge = Knowledge(problem, gate=0.0, seed=0)
    knowledge.learn(trials)
    knowledge.fit()
    if knowledge.ensemble is None or not knowledge.is_trusted:
        reward = problem.reward if target is None else problem.reward_for(target)
        return np.array([float(reward(trial.metrics)) for trial in trials])
    rewards = knowledge.expected_rewards(np.full(len(knowledge), math.nan if target is None else target))
    by_config = dict(zip((trial.config for trial in knowledge.trials), rewards, strict=True))
    return np.array([by_config[trial.config] for trial in trials])


def expected_accuracies(
    space: SearchSpace,
    trials: Sequence[Trial],
    kept_importance: Callable[[Sequence[SubnetConfig]], Sequence[float]] | None = None,
) -> FloatArray:
    """Accuracies of trials once the luck of their items is averaged out, see `expected_rewards`.

    Args:
        space: Where they come from.
        trials: At least one.
        kept_importance: Says how much importance configs keep, or None.

    Returns:
        Shape ``(n,)``.
    """
    problem = Problem(space, _accuracy, kept_importance=kept_importance)
    return expected_rewards(problem, trials)


def _accuracy(metrics: Metrics) -> float:
    return metrics.accuracy


def item_noise(trials: Sequence[Trial]) -> float | None:
    """Variance of an accuracy that comes from which items were judged, as far as it tells subnets apart.

    Subnets are judged on the same items, and are right and wrong on mostly the same ones: what counts is
    how often two of them differ.

    Args:
        trials: Of up to `N_COMPARED`, spread evenly, the answers to single items are compared, where they
            were kept.

    Returns:
        Half the variance of the difference of two accuracies, on average over pairs; the binomial variance
        where single answers are not known, and None where not even their number is.
    """
    known = [t.metrics for t in trials if t.metrics.n_items and not t.metrics.raced_out]
    if not known:
        return None
    n_items = known[0].n_items
    spread = np.unique(np.linspace(0, len(known) - 1, min(N_COMPARED, len(known))).astype(int))
    bits = [
        np.unpackbits(np.frombuffer(known[i].correct or b"", dtype=np.uint8), count=n_items)
        for i in spread
        if known[i].correct is not None and known[i].n_items == n_items
    ]
    if len(bits) < 2:
        return float(
            np.mean([metrics.accuracy * (1 - metrics.accuracy) / metrics.n_items for metrics in known])
        )
    right = np.stack(bits).mean(axis=0)
    # Of pairs drawn without replacement: how often one is right where the other one is wrong.
    differing = float(np.mean(2 * right * (1 - right))) * len(bits) / (len(bits) - 1)
    gaps = 2 * float(np.var([row.mean() for row in bits], ddof=1))  # their mean square
    return max(0.0, differing - gaps) / 2 / n_items
