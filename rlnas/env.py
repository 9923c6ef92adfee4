"""The environment: a subnet is built position by position, within a latency budget.

A Markov decision process with one subnet per episode. One step decides one position of the
space; the reward comes with the last one. An action that would break a hard budget is
clipped to the largest option that fits, as AMC does (He et al. 2018,
https://arxiv.org/abs/1802.03494), so no episode ends above it.

`EpisodeDynamics` holds all of it, for n episodes in lockstep. `SubnetEnv` puts Gymnasium's
interface around one episode; `rlnas.controllers.vec_env.SubnetVecEnv` puts that of
stable-baselines3 around many.

**Observation**, a flat vector for p positions, every entry within ``±OBSERVATION_LIMIT``:

===============  =====================================================================
entries          meaning
===============  =====================================================================
``0 .. p-1``     one-hot position at hand; all 0 at the end of an episode
``p .. 2p-1``    ``(option + 1) / number of options`` of each decided position, else 0
``2p``           latency spent: what the decisions so far added to the cheapest subnet
``2p + 1``       latency left below the target; 0 without a target
``2p + 2``       latency of the cheapest way to finish
``2p + 3``       the target relative to the full model's latency; 0 without a target
``2p + 4``       importance of the block at hand relative to the greatest; 0 if unknown
===============  =====================================================================

With a `Guide`, its values follow: what each option at hand is thought to be worth, and what it costs.

The three latencies are relative to the target, or to the full model where there is none;
all are 0 where no latency is known.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import gymnasium
import numpy as np
import numpy.typing as npt
from gymnasium import spaces

from rlnas.additive import AdditiveModel, SplitModel, exact_sums, seen_sums
from rlnas.errors import InfeasibleTargetError, LatencyTableError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rlnas.protocols import Evaluate, Problem
    from rlnas.space import SubnetConfig
    from rlnas.trial import Trial

BoolArray = npt.NDArray[np.bool_]
IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]
Observation = npt.NDArray[np.float32]

ENV_ID = "rlnas/Subnet-v0"
OBSERVATION_LIMIT = 10.0
_N_SCALARS = 5
_TINY_MS = 1e-9  # keeps quotients finite where a latency model says 0


class LatencyBudget:
    """Predicted latencies of actions, and the least that may be asked for.

    Attributes:
        floor_ms: Latency of the space's smallest subnet; NaN where no latency is known.
        reference_ms: Latency of the full model (the problem's, else that of the largest
            subnet); NaN where no latency is known.
    """

    def __init__(self, problem: Problem) -> None:
        self._space = problem.space
        self._latency = problem.latency
        self._sums: AdditiveModel | SplitModel | None = None
        self.floor_ms = math.nan
        self.reference_ms = math.nan
        if problem.latency is not None:
            largest = np.asarray(problem.space.nvec, dtype=np.int64) - 1
            floor_ms, largest_ms = self.predict(np.stack([np.zeros_like(largest), largest]))
            self.floor_ms = float(floor_ms)
            self.reference_ms = float(largest_ms) if problem.reference_ms is None else problem.reference_ms

    def add_up(self) -> None:
        """Predict by sums from now on, where the model is one: the same but for rounding, far faster."""
        if self._latency is not None:
            self._sums = exact_sums(self._space, self._latency)

    @property
    def adds_up(self) -> bool:
        """Whether latencies are predicted by sums."""
        return self._sums is not None

    @property
    def is_known(self) -> bool:
        """Whether latencies can be predicted at all."""
        return self._latency is not None

    def predict(self, actions: IntArray) -> FloatArray:
        """Milliseconds of each action, in one call of the latency model.

        Args:
            actions: Shape ``(k, p)``, within the space's ``nvec``.

        Returns:
            Shape ``(k,)``; NaN where no latency is known.

        Raises:
            LatencyTableError: If the latency model returns anything but k finite numbers.
        """
        if self._latency is None:
            return np.full(len(actions), math.nan)
        if self._sums is not None:
            return self._sums.predict(actions)
        configs = [self._space.decode(action) for action in actions.tolist()]
        latencies = np.asarray(self._latency(configs), dtype=np.float64)
        if latencies.shape != (len(actions),) or not np.isfinite(latencies).all():
            raise LatencyTableError(
                f"a latency model returns one finite number per config, here {len(actions)}, "
                f"but got {np.array2string(latencies, threshold=8)}"
            )
        return latencies

    def check(self, target_ms: float, hard: bool) -> None:
        """Make sure that a target makes sense and, if it is hard, that some subnet meets it.

        Raises:
            InfeasibleTargetError: If the target is no positive number, or is hard and below
                the floor; the message names both.
        """
        if not 0.0 < target_ms < math.inf:
            raise InfeasibleTargetError(
                f"target_ms must be a positive number of milliseconds, but got target_ms={target_ms}"
            )
        if hard and self.is_known and target_ms < self.floor_ms:
            raise InfeasibleTargetError(
                f"target_ms={target_ms:g} cannot be met: the smallest subnet of the space takes "
                f"{self.floor_ms:g} ms; raise the target to that or offer smaller options"
            )


class Guide:
    """What is thought beforehand of each option of each position: its worth, and what it costs.

    With these in sight a policy can learn one rule for all positions, e.g. to take what pays; without,
    it has to find out for each position by itself.

    Args:
        problem: The space and its latency model; where that is no sum over positions, costs are those
            beside the largest member, or with the first option of the last position if they add up there.

    Attributes:
        worth: Shape ``(p, a)``, a the most options of any position, as actions count them: what an option
            adds to the accuracy, or to the importance kept, in any unit. Zeros to begin with.
        cost_ms: The same for the latency.
    """

    def __init__(self, problem: Problem) -> None:
        nvec = problem.space.nvec
        self._rows = [np.arange(max(nvec)) * n // max(nvec) for n in nvec]
        self.worth = np.zeros((len(nvec), max(nvec)))
        self.cost_ms = np.zeros((len(nvec), max(nvec)))
        if problem.latency is not None:
            self.cost_ms = self._spread(seen_sums(problem.space, problem.latency).parts)
        if problem.kept_importance is not None:
            self.learn(AdditiveModel.probe(problem.space, problem.kept_importance).parts)

    @property
    def n_values(self) -> int:
        """Entries of an observation, ``2 a + 2``."""
        return 2 * self.worth.shape[1] + 2

    def learn(self, parts: Sequence[FloatArray]) -> None:
        """Take other worths, for each position an array with one entry per option."""
        self.worth = self._spread(parts)

    def observe(self, position: int, left_ms: FloatArray) -> FloatArray:
        """What is seen at a position: worths, costs, and how much of either is to come.

        Args:
            position: The position at hand.
            left_ms: Shape ``(n,)``: latency that the episodes may still spend.

        Returns:
            Shape ``(n, 2 a + 2)``: worths relative to what positions are worth on average; the share of all
            worth that later positions have; costs relative to what is left; and so the cost of all that
            is still to be decided.
        """
        highest = self.worth.max(axis=1)
        total = float(highest.sum()) or 1.0
        worth = self.worth[position] * len(highest) / total
        left = np.maximum(left_ms, _TINY_MS)[:, None]
        to_come = np.array([highest[position + 1 :].sum() / total])
        seen = np.concatenate([worth, to_come])
        costs = np.concatenate([self.cost_ms[position], [self.cost_ms[position:].max(axis=1).sum()]])
        return np.concatenate([np.repeat(seen[None], len(left), axis=0), costs / left], axis=1)

    def _spread(self, parts: Sequence[FloatArray]) -> FloatArray:
        """As actions count options."""
        return np.stack([part[row] for part, row in zip(parts, self._rows, strict=True)])


class EpisodeDynamics:
    """Episodes that run in lockstep: the one dynamics behind both environments.

    A latency model need not add up over positions: the latency of an unfinished episode is
    that of its decisions with the smallest option everywhere else, which option 0 at the
    next position leaves as it is. So an episode that starts within its target can always
    stay there, whatever the model.

    Args:
        problem: The space, what is known about latency, and the reward.
        n_episodes: Number of episodes n.
        hard_budget: Whether actions are clipped to the target, where target and latency
            are known.
        add_up: Whether latencies are predicted by sums, where the model is one: faster, but rounded
            otherwise, which matters only for a target that is met exactly.
        guide: Adds its values to the observations, where one is given.

    Attributes:
        n_episodes: Number of episodes n.
        targets_ms: Shape ``(n,)``: the latency target of each episode; NaN without one.
        n_positions: Steps of an episode, p.
        n_actions: Number of actions, the most options that any position has.
        observation_size: Entries of an observation, ``2 p + 5`` and those of the guide.
        position: Position that the next step decides; p at the end.

    Raises:
        InfeasibleTargetError: If the budget is hard and even the smallest subnet breaks it.
    """

    def __init__(
        self,
        problem: Problem,
        n_episodes: int = 1,
        hard_budget: bool = True,
        *,
        add_up: bool = False,
        guide: Guide | None = None,
    ) -> None:
        self._problem = problem
        self._guide = guide
        self._hard_budget = hard_budget
        self._budget = LatencyBudget(problem)
        if add_up:
            self._budget.add_up()
        self._nvec = np.asarray(problem.space.nvec, dtype=np.int64)
        self._known_ms: dict[bytes, float] = {}
        self._importance = _relative_importance(problem, len(self._nvec))
        self.n_episodes = n_episodes
        self.n_positions = len(self._nvec)
        self.n_actions = int(self._nvec.max())
        self.observation_size = 2 * self.n_positions + _N_SCALARS
        if guide is not None:
            self.observation_size += guide.n_values
        self.reset()

    @property
    def is_over(self) -> bool:
        """Whether every position is decided."""
        return self.position == self.n_positions

    def reset(self, targets_ms: Sequence[float | None] | None = None) -> Observation:
        """Start all episodes anew.

        Args:
            targets_ms: Latency target of each of the n episodes; None means the problem's.

        Returns:
            The first observations, shape ``(n, observation_size)``.

        Raises:
            InfeasibleTargetError: If a target is not positive, or the budget is hard and the
                target below the floor.
            RewardError: If a target is not the problem's and the reward knows no other.
        """
        chosen = [None] * self.n_episodes if targets_ms is None else targets_ms
        own = self._problem.target_ms
        targets = [own if target is None else float(target) for target in chosen]
        for target in targets:
            if target is not None:
                self._budget.check(target, self._hard_budget)
            if target is not None and target != own:
                self._problem.reward_for(target)
        self.targets_ms = np.array([math.nan if t is None else t for t in targets])
        self._actions = np.zeros((self.n_episodes, self.n_positions), dtype=np.int64)
        self._finish_ms = np.full(self.n_episodes, self._budget.floor_ms)
        self.position = 0
        return self.observe()

    def step(self, actions: npt.ArrayLike) -> BoolArray:
        """Decide the position at hand in every episode.

        Args:
            actions: Shape ``(n,)``; anything outside ``[0, n_actions)`` counts as the nearest
                action and NaN as 0. Action a means option ``a * options // n_actions``.

        Returns:
            Shape ``(n,)``: whether the budget made the option smaller.
        """
        raw = np.asarray(actions, dtype=np.float64).reshape(self.n_episodes)
        bounded = np.nan_to_num(raw, nan=0.0).clip(0, self.n_actions - 1).astype(np.int64)
        wanted = bounded * self._nvec[self.position] // self.n_actions
        taken = self._fit(wanted)
        self._actions[:, self.position] = taken
        self.position += 1
        clipped: BoolArray = taken < wanted
        return clipped

    def _fit(self, wanted: IntArray) -> IntArray:
        """The largest options up to `wanted` that keep to the targets; updates the latencies."""
        taken = wanted.copy()
        if not self._budget.is_known:
            return taken
        # A comparison with NaN is false: episodes without a target are never clipped.
        limits_ms = self.targets_ms if self._hard_budget else np.full(self.n_episodes, math.inf)
        unsettled = np.flatnonzero(taken > 0)  # option 0 is what the latency already assumes
        while len(unsettled):
            tried = self._actions[unsettled]
            tried[:, self.position] = taken[unsettled]
            latencies = self._predict(tried)
            breaks = latencies > limits_ms[unsettled]
            self._finish_ms[unsettled[~breaks]] = latencies[~breaks]
            taken[unsettled[breaks]] -= 1
            unsettled = unsettled[breaks & (taken[unsettled] > 0)]
        return taken

    def _predict(self, actions: IntArray) -> FloatArray:
        """Latencies, remembered: a policy that has made up its mind takes the same steps again."""
        if self._budget.adds_up:
            return self._budget.predict(actions)
        keys = [action.tobytes() for action in actions]
        new = {key: row for row, key in enumerate(keys) if key not in self._known_ms}
        if new:
            predicted = self._budget.predict(actions[list(new.values())])
            self._known_ms.update(zip(new, predicted.tolist(), strict=True))
        return np.array([self._known_ms[key] for key in keys])

    def observe(self) -> Observation:
        """Observations as the module's table says, shape ``(n, observation_size)``."""
        position, p = self.position, self.n_positions
        observations = np.zeros((self.n_episodes, self.observation_size))
        if not self.is_over:
            observations[:, position] = 1.0
            observations[:, 2 * p + 4] = self._importance[position]
            if self._guide is not None:
                known = np.where(np.isnan(self.targets_ms), self._budget.reference_ms, self.targets_ms)
                left_ms = np.nan_to_num(known - self._finish_ms)
                observations[:, 2 * p + _N_SCALARS :] = self._guide.observe(position, left_ms)
        observations[:, p : p + position] = (self._actions[:, :position] + 1) / self._nvec[:position]
        if self._budget.is_known:
            floor_ms, reference_ms = self._budget.floor_ms, self._budget.reference_ms
            reference_ms = max(reference_ms, _TINY_MS)
            scale = np.where(np.isnan(self.targets_ms), reference_ms, self.targets_ms)
            spent_ms, left_ms = self._finish_ms - floor_ms, self.targets_ms - self._finish_ms
            latencies = np.stack([spent_ms / scale, left_ms / scale, self._finish_ms / scale])
            observations[:, 2 * p : 2 * p + 3] = latencies.T
            observations[:, 2 * p + 3] = self.targets_ms / reference_ms
        limited = np.nan_to_num(observations, nan=0.0).clip(-OBSERVATION_LIMIT, OBSERVATION_LIMIT)
        return limited.astype(np.float32)

    @property
    def actions(self) -> IntArray:
        """The decisions of each episode, shape ``(n, p)``; 0 where nothing is decided yet."""
        return self._actions

    def configs(self) -> list[SubnetConfig]:
        """The subnet of each episode, with the smallest option where nothing is decided yet."""
        return [self._problem.space.decode(action) for action in self._actions.tolist()]

    def score(self, evaluate: Evaluate) -> tuple[list[Trial], FloatArray]:
        """Have all subnets evaluated as one batch.

        Returns:
            The trials, and the rewards under each episode's own target, shape ``(n,)``.
        """
        trials = evaluate(self.configs())
        rewards = [
            trial.reward
            if np.isnan(target) or target == self._problem.target_ms
            else float(self._problem.reward_for(float(target))(trial.metrics))
            for trial, target in zip(trials, self.targets_ms, strict=True)
        ]
        return trials, np.array(rewards)


def _relative_importance(problem: Problem, n_positions: int) -> FloatArray:
    if problem.importance is None or not np.any(problem.importance):
        return np.zeros(n_positions)
    importance = np.asarray(problem.importance, dtype=np.float64)
    relative: FloatArray = importance / importance.max()
    return relative


def observation_space(dynamics: EpisodeDynamics) -> spaces.Box[np.float32]:
    """The Gymnasium space of one episode's observations."""
    return spaces.Box(-OBSERVATION_LIMIT, OBSERVATION_LIMIT, (dynamics.observation_size,), np.float32)


def episode_summary(trial: Trial) -> dict[str, Any]:
    """What the last step's ``info`` says of the subnet: ``config`` and its main metrics."""
    return {
        "config": trial.config,
        "accuracy": trial.metrics.accuracy,
        "latency_ms": trial.metrics.latency_ms,
    }


class SubnetEnv(gymnasium.Env[Observation, np.int64]):
    """One subnet per episode, as a Gymnasium environment.

    The environment knows nothing of models: it gets a problem and a function that judges
    configs. Also available as ``gymnasium.make("rlnas/Subnet-v0", problem=..., evaluate=...)``
    once `rlnas.env` is imported.

    ``info["clipped"]`` says of every step whether the budget made its option smaller; the
    last step adds ``config`` (the subnet as it was executed), ``accuracy`` and ``latency_ms``.
    An episode that is over answers further steps with its last observation and no reward.

    Args:
        problem: The space, what is known about latency, and the reward.
        evaluate: Judges configs. `rlnas.loop.SearchEnd`, if it raises that, passes through.
        hard_budget: Whether actions are clipped to the target.

    Raises:
        InfeasibleTargetError: If the budget is hard and even the smallest subnet breaks it.
    """

    def __init__(self, problem: Problem, evaluate: Evaluate, hard_budget: bool = True) -> None:
        self.metadata = {"render_modes": []}
        self._evaluate = evaluate
        self._dynamics = EpisodeDynamics(problem, 1, hard_budget)
        self.observation_space = observation_space(self._dynamics)
        self.action_space = spaces.Discrete(self._dynamics.n_actions)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Start an episode.

        Args:
            seed: For Gymnasium's own generator; the dynamics draws nothing.
            options: ``{"target_ms": x}`` sets the latency target of this episode only. Its
                reward is then that of `Problem.reward_for`.

        Raises:
            InfeasibleTargetError: If the budget is hard and the target is below the floor.
            RewardError: If the problem's reward serves its own target only.
        """
        super().reset(seed=seed)
        target_ms = None if options is None else options.get("target_ms")
        return self._dynamics.reset([target_ms])[0], {}

    def step(self, action: npt.ArrayLike) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Decide the position at hand; any number will do as an action."""
        if self._dynamics.is_over:
            return self._dynamics.observe()[0], 0.0, True, False, {"clipped": False}
        clipped = self._dynamics.step(action)
        info: dict[str, Any] = {"clipped": bool(clipped[0])}
        reward = 0.0
        if self._dynamics.is_over:
            trials, rewards = self._dynamics.score(self._evaluate)
            reward = float(rewards[0])
            info |= episode_summary(trials[0])
        return self._dynamics.observe()[0], reward, self._dynamics.is_over, False, info


if ENV_ID not in gymnasium.registry:
    gymnasium.register(id=ENV_ID, entry_point="rlnas.env:SubnetEnv")
