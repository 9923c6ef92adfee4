"""A PPO policy that builds subnets for any latency target, trained on a surrogate.

Its environment is the one of `rlnas.env`, each episode with a target of its own. Rewards count from
what the history already reaches at that target, so that one policy learns from easy and from hard
targets alike.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from itertools import cycle, islice
from typing import TYPE_CHECKING

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from stable_baselines3 import PPO
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.vec_env import VecEnvWrapper

from rlnas.controllers.randomness import GlobalState, Randomness
from rlnas.controllers.vec_env import SubnetVecEnv
from rlnas.env import EpisodeDynamics, Guide
from rlnas.errors import CheckpointError, ControllerError, RunFolderError
from rlnas.protocols import TargetedReward

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from stable_baselines3.common.policies import ActorCriticPolicy
    from stable_baselines3.common.vec_env.base_vec_env import VecEnvObs, VecEnvStepReturn

    from rlnas.controllers.surrogate.knowledge import Knowledge
    from rlnas.env import FloatArray, IntArray
    from rlnas.protocols import Evaluate, Problem
    from rlnas.space import SubnetConfig
    from rlnas.trial import Trial

WEIGHTS, SETTINGS = "policy.safetensors", "policy.json"
WORTH = "guide.worth"

MAX_SIZE = 4096
"""Widest layer that a saved policy may have; ours have 64."""

N_SAMPLED = 64
"""Episodes among which `TargetPolicy.propose` looks for further proposals."""

N_SOUNDED = 256
"""Episodes by which `PolicyTrainer` sounds how much its policy still knows that was not judged."""

LEAST_NOVEL = 1 / 8
"""Share of them that shall be distinct subnets which were not judged: else entropy counts for more."""

MAX_WEIGHING = 16.0
"""How many times `PolicySettings.ent_coef` entropy may then count."""


@dataclass(frozen=True, slots=True)
class PolicySettings:
    """How the policy is trained.

    Attributes:
        n_envs: Episodes of one rollout on the surrogate, at least 2.
        n_true_envs: Episodes of one rollout on true evaluations, where there is no surrogate, at least 2.
        n_epochs: Passes over a rollout.
        learning_rate: Step size of Adam.
        ent_coef: Weight of the entropy bonus: the mean entropy over an episode's n steps is worth
            ``ent_coef / n`` spreads of the rewards of the first rollout. While a search goes on it doubles,
            up to sixteenfold, for as long as the policy proposes too little that was not judged.
        clip_range: How far an update may move the probability of an action.
        hidden_sizes: Widths of the hidden layers of policy and value network.
        own_share: Share of episodes whose target is one that the search serves; the others draw it
            between the smallest and the full subnet's latency, so that the policy answers any.

    Raises:
        ValueError: If a number of episodes or a share is out of range.
    """

    n_envs: int = 64
    n_true_envs: int = 16
    n_epochs: int = 4
    learning_rate: float = 3e-3
    ent_coef: float = 0.06
    clip_range: float = 0.2
    hidden_sizes: tuple[int, ...] = (64, 64)
    own_share: float = 0.5

    def __post_init__(self) -> None:
        for name in ("n_envs", "n_true_envs"):
            value = getattr(self, name)
            if value < 2:
                raise ValueError(f"{name} must be at least 2, but got {name}={value}")
        if not 0 <= self.own_share <= 1:
            raise ValueError(f"own_share must be in [0, 1], but got own_share={self.own_share}")


class TargetPolicy:
    """A trained policy: asked for a target, it builds subnets that keep to it.

    Args:
        model: The PPO of stable-baselines3.
        problem: The space and what is known about latency.
        guide: What its observations say of options.
        knows_targets: Whether it was trained for a reward that serves any target.
    """

    def __init__(self, model: PPO, problem: Problem, guide: Guide, knows_targets: bool = True) -> None:
        self.model = model
        self.knows_targets = knows_targets
        self._problem = problem
        self._guide = guide

    def sample(self, targets_ms: Sequence[float], *, greedy: bool = False) -> IntArray:
        """One episode per target; NaN means none.

        Args:
            targets_ms: Latency targets of the n episodes.
            greedy: Whether each step takes the likeliest option instead of drawing one.

        Returns:
            Actions, shape ``(n, p)``.
        """
        dynamics = EpisodeDynamics(self._problem, len(targets_ms), add_up=True, guide=self._guide)
        observations = dynamics.reset([None if np.isnan(t) else t for t in targets_ms])
        while not dynamics.is_over:
            actions, _ = self.model.predict(observations, deterministic=greedy)
            dynamics.step(actions)
            observations = dynamics.observe()
        return dynamics.actions.copy()

    def propose(self, target_ms: float, n: int = 1) -> list[SubnetConfig]:
        """Subnets for a target, from the policy alone: the greedy one, then those drawn most often.

        Args:
            target_ms: At least the latency of the space's smallest subnet.
            n: Most subnets to give; distinct ones may be fewer.

        Raises:
            ControllerError: If the policy was trained for a reward that does not serve any target.
            InfeasibleTargetError: If the smallest subnet is slower.
        """
        if not self.knows_targets and target_ms != self._problem.target_ms:
            raise ControllerError(
                f"this policy cannot be asked for target_ms={target_ms:g}: its search had a reward that "
                "serves no other target than its own; search with --reward=latency-target"
            )
        with Randomness().inside(seed=0):  # equal policies propose the same
            greedy = self.sample([target_ms], greedy=True)
            drawn = self.sample([target_ms] * N_SAMPLED) if n > 1 else greedy
        distinct, counts = np.unique(drawn, axis=0, return_counts=True)
        ordered = [greedy[0], *distinct[np.argsort(-counts, kind="stable")]]
        actions = list({action.tobytes(): action for action in ordered}.values())[:n]
        return [self._problem.space.decode(action.tolist()) for action in actions]

    def save(self, folder: Path) -> None:
        """Write weights (safetensors) and sizes (JSON) into a folder.

        Raises:
            RunFolderError: If the folder cannot be written.
        """
        state = {name: tensor.contiguous() for name, tensor in self.model.policy.state_dict().items()}
        settings = {
            "nvec": list(self._problem.space.nvec),
            "knows_targets": [int(self.knows_targets)],
            "hidden_sizes": list(self.model.policy_kwargs["net_arch"]),
        }
        try:
            folder.mkdir(parents=True, exist_ok=True)
            save_file({**state, WORTH: torch.from_numpy(self._guide.worth)}, folder / WEIGHTS)
            (folder / SETTINGS).write_text(json.dumps(settings) + "\n", encoding="utf-8")
        except (OSError, SafetensorError) as error:
            raise RunFolderError(f"cannot write the policy into {str(folder)!r}: {error}") from error

    @classmethod
    def load(cls, folder: Path, problem: Problem) -> TargetPolicy:
        """Read a saved policy, for the space that it was trained on.

        Raises:
            CheckpointError: If there is none, it is damaged, or it is of another space.
        """
        settings, state = _read_for(folder, problem)
        guide = Guide(problem)
        guide.worth = _checked_worth(state, guide, folder)
        env = _RewardsAboveHistory(SubnetVecEnv(problem, lambda configs: [], 2, guide=guide))
        with Randomness().inside():  # new weights are drawn before they are replaced
            model = make_ppo(env, PolicySettings(hidden_sizes=settings["hidden_sizes"]), seed=0)
        _take_over(model, state, folder)
        return cls(model, problem, guide, knows_targets=settings["knows_targets"] == (1,))


def _read_for(folder: Path, problem: Problem) -> tuple[dict[str, tuple[int, ...]], dict[str, torch.Tensor]]:
    """A saved policy that is for the problem's space."""
    settings, state = read_policy(folder)
    if settings["nvec"] != tuple(problem.space.nvec):
        raise CheckpointError(
            f"the policy in {str(folder)!r} is for a space of nvec={settings['nvec']}, "
            f"not {tuple(problem.space.nvec)}; search again in this space"
        )
    return settings, state


def _checked_worth(state: dict[str, torch.Tensor], guide: Guide, folder: Path) -> FloatArray:
    """Take the guide's worths out of a saved policy."""
    worth = state.pop(WORTH, torch.zeros(0)).numpy()
    if worth.shape != guide.worth.shape:
        raise CheckpointError(
            f"the policy in {str(folder)!r} is damaged: {WORTH!r} has shape {worth.shape}, not "
            f"{guide.worth.shape}; search again"
        )
    return worth


def read_policy(folder: Path) -> tuple[dict[str, tuple[int, ...]], dict[str, torch.Tensor]]:
    """Sizes and weights of a saved policy.

    Raises:
        CheckpointError: If there is none, or it is damaged.
    """
    weights, settings = folder / WEIGHTS, folder / SETTINGS
    for file in (settings, weights):
        if not file.is_file():
            raise CheckpointError(
                f"{str(folder)!r} holds no policy: {file.name} is missing; "
                "the controllers ppo and auto save one when their search ends"
            )
    try:
        values = json.loads(settings.read_text(encoding="utf-8"))
        names = ("nvec", "hidden_sizes", "knows_targets")
        sizes = {name: tuple(int(size) for size in values[name]) for name in names}
        if not all(0 < size <= MAX_SIZE for size in sizes["hidden_sizes"]):
            raise ValueError(f"hidden_sizes must be in [1, {MAX_SIZE}], but got {sizes['hidden_sizes']}")
        return sizes, load_file(weights)
    except KeyError as error:
        raise CheckpointError(
            f"the policy in {str(folder)!r} is damaged: {SETTINGS} lacks {error}; search again"
        ) from error
    except Exception as error:
        raise CheckpointError(f"the policy in {str(folder)!r} is damaged: {error}; search again") from error


class PolicyTrainer:
    """Trains a policy on predicted or on true rewards.

    Args:
        problem: What is known beforehand.
        knowledge: Predicts rewards.
        settings: Of PPO.
        seed: Of the policy and of the targets that it trains on.

    Attributes:
        policy: As far as it is trained.
    """

    def __init__(self, problem: Problem, knowledge: Knowledge, settings: PolicySettings, seed: int) -> None:
        self._problem = problem
        self._knowledge = knowledge
        self._settings = settings
        self._seed = seed
        self._rng = np.random.default_rng(seed)
        self._range = TargetRange.of(problem, knowledge)
        self.guide = Guide(problem)
        self._env = self._environment(settings.n_envs, self._imagine, settings.own_share)
        self._model = make_ppo(self._env, settings, seed)
        knows_targets = self._range.low < self._range.high
        self.policy = TargetPolicy(self._model, problem, self.guide, knows_targets)
        self._weighing = 1.0

    def start_from(self, folder: Path) -> None:
        """Take over the weights of a saved policy.

        Raises:
            CheckpointError: If there is none, it is damaged, or it is for a space of another size.
        """
        _, state = _read_for(folder, self._problem)
        self.guide.worth = _checked_worth(state, self.guide, folder)
        _take_over(self._model, state, folder)

    def train(self, n_steps: int, *, explores: bool = True) -> None:
        """Train on the surrogate for at least so many steps of episodes.

        Args:
            n_steps: At least 0.
            explores: Whether the search goes on, so that the policy has to keep its breadth: a policy that
                has made up its mind proposes what was judged already.
        """
        if explores:
            self._weighing = self._weighed()
        weighing = self._weighing if explores else 1.0
        self._model.ent_coef = weighing * self._settings.ent_coef / len(self._problem.space.nvec)
        self._range = TargetRange.of(self._problem, self._knowledge)
        self.policy.knows_targets = self._range.low < self._range.high
        self._env.least_spread = 0.1 * self._knowledge.spread
        self._env.reached = self._range.reached(self._knowledge)
        self.guide.learn(self._knowledge.main_effects())
        n_steps_each = self._settings.n_envs * len(self._problem.space.nvec)
        # Starts episodes anew: those that wait for their first step drew targets of the range before.
        self._model.learn(-(-n_steps // n_steps_each) * n_steps_each)

    def _weighed(self) -> float:
        """How many times the entropy bonus counts next: twice as much as before, or half."""
        targets = self._problem.served_targets_ms or (np.nan,)
        sounded = self.policy.sample(list(islice(cycle(targets), N_SOUNDED)))
        n_novel = sum(not self._knowledge.is_known(action) for action in np.unique(sounded, axis=0))
        factor = 2.0 if n_novel < LEAST_NOVEL * N_SOUNDED else 0.5
        return min(MAX_WEIGHING, max(1.0, factor * self._weighing))

    def explore(self, evaluate: Evaluate) -> list[Trial]:
        """One rollout and update on true evaluations: plain PPO."""
        judged: list[Trial] = []

        def judge(configs: Sequence[SubnetConfig]) -> list[Trial]:
            judged.extend(evaluate(configs))
            return judged

        n_envs = self._settings.n_true_envs
        env = self._environment(n_envs, judge, own_share=1.0)  # true evaluations are for these alone
        usual = float(np.mean([trial.reward for trial in self._knowledge.trials] or [0.0]))
        env.reached = lambda targets: np.full(len(targets), usual)
        model = make_ppo(env, self._settings, self._seed, policy=self._model.policy)
        model.learn(n_envs * len(self._problem.space.nvec))
        return judged

    def _environment(self, n_envs: int, judge: Evaluate, own_share: float) -> _RewardsAboveHistory:
        def draw(n: int) -> Sequence[float | None]:
            return self._range.draw(n, own_share, self._rng)

        return _RewardsAboveHistory(
            SubnetVecEnv(self._problem, judge, n_envs, draw_targets=draw, add_up=True, guide=self.guide)
        )

    def _imagine(self, configs: Sequence[SubnetConfig]) -> list[Trial]:
        return self._knowledge.imagine(configs, self._env.subnets.actions)


@dataclass(frozen=True, slots=True)
class TargetRange:
    """The targets that a policy trains on.

    Attributes:
        served: Those that the search is to serve; empty without a target.
        low: Smallest other one, in milliseconds.
        high: Largest other one; `low` where the reward knows no other target.
    """

    served: tuple[float, ...]
    low: float
    high: float

    @classmethod
    def of(cls, problem: Problem, knowledge: Knowledge) -> TargetRange:
        """From just above the smallest subnet to the full model, where the reward serves any target."""
        served, budget = problem.served_targets_ms, knowledge.budget
        if problem.target_ms is None:
            return cls((), np.nan, np.nan)
        if not budget.is_known or knowledge.models_reward or not isinstance(problem.reward, TargetedReward):
            return cls((problem.target_ms,), problem.target_ms, problem.target_ms)
        low = min(budget.floor_ms + 0.02 * (budget.reference_ms - budget.floor_ms), served[0])
        return cls(served, low, max(budget.reference_ms, served[-1]))

    def draw(self, n: int, own_share: float, rng: np.random.Generator) -> list[float | None]:
        """Targets of n episodes."""
        if not self.served:
            return [None] * n
        own = rng.choice(np.array(self.served), size=n)
        other = rng.uniform(self.low, self.high, size=n)
        return [float(t) for t in np.where(rng.random(n) < own_share, own, other)]

    def reached(self, knowledge: Knowledge) -> Callable[[FloatArray], FloatArray]:
        """What the history reaches at any target, as the surrogate sees it."""
        if not self.served:
            best = float(knowledge.best_rewards(np.array([np.nan]))[0])
            return lambda targets: np.full(len(targets), best)
        grid = np.unique(np.concatenate([np.linspace(self.low, self.high, 9), self.served]))
        best_at = knowledge.best_rewards(grid)
        return lambda targets: np.interp(targets, grid, best_at)


class _RewardsAboveHistory(VecEnvWrapper):
    """Rewards minus what the history reaches at each target, in units of their first spread."""

    def __init__(self, venv: SubnetVecEnv) -> None:
        super().__init__(venv)
        self.subnets = venv
        self._spread = 0.0
        self.least_spread = 0.0  # a policy that has made up its mind would make rewards boundless
        self.reached: Callable[[FloatArray], FloatArray] = lambda targets: np.zeros(len(targets))

    def reset(self) -> VecEnvObs:
        """As the environments inside."""
        return self.venv.reset()

    def step_wait(self) -> VecEnvStepReturn:
        """As the environments inside, but for the last rewards of episodes."""
        observations, rewards, dones, infos = self.venv.step_wait()
        if dones.all():
            above = rewards - self.reached(self.subnets.ended_targets_ms)
            if not self._spread:
                self._spread = max(float(above.std()), self.least_spread) or 1.0
            rewards = (above / self._spread).astype(np.float32)
        return observations, rewards, dones, infos


def make_ppo(
    env: _RewardsAboveHistory, settings: PolicySettings, seed: int, policy: ActorCriticPolicy | None = None
) -> PPO:
    """PPO whose updates are made of whole episodes, each one minibatch.

    Args:
        env: Of any number of episodes.
        settings: Of PPO.
        seed: Of new weights.
        policy: Weights and optimiser to go on with, or None for new ones.
    """
    n_positions = env.subnets.n_positions
    # The constructor seeds the global generators, which go on where a policy is taken over.
    callers = GlobalState.capture()
    model = PPO(
        "MlpPolicy",
        env,
        n_steps=n_positions,
        batch_size=n_positions * env.num_envs,
        n_epochs=settings.n_epochs,
        learning_rate=settings.learning_rate,
        ent_coef=settings.ent_coef / n_positions,
        gamma=1.0,
        gae_lambda=1.0,
        clip_range=settings.clip_range,
        normalize_advantage=False,  # rewards have one unit, so the entropy bonus keeps its worth
        policy_kwargs={"net_arch": list(settings.hidden_sizes)},
        device="cpu",
        seed=seed % 2**32,
    )
    model.set_logger(Logger(folder=None, output_formats=[]))
    if policy is not None:
        model.policy = policy
        callers.restore()
    return model


def _take_over(model: PPO, state: dict[str, torch.Tensor], folder: Path) -> None:
    try:
        model.policy.load_state_dict(state)
    except RuntimeError as error:
        first = str(error).splitlines()[0]
        raise CheckpointError(
            f"the policy in {str(folder)!r} does not fit this space: {first}; search anew without it"
        ) from error
