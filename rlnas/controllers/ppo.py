"""Proximal policy optimisation (Schulman et al. 2017, https://arxiv.org/abs/1707.06347).

The policy, its updates, its log and its saved file are those of stable-baselines3; here is
what makes a search of it: updates from whole episodes, rewards in one unit, and randomness of
its own.
"""

from __future__ import annotations

import importlib.util
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from stable_baselines3 import PPO
from stable_baselines3.common.logger import Logger, configure
from stable_baselines3.common.vec_env import VecEnv, VecEnvWrapper

from rlnas.controllers.randomness import Randomness
from rlnas.controllers.vec_env import SubnetVecEnv

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from stable_baselines3.common.vec_env.base_vec_env import VecEnvObs, VecEnvStepReturn

    from rlnas.protocols import Evaluate, Problem
    from rlnas.space import SubnetConfig
    from rlnas.trial import Trial

_ENDLESS = 2**62  # steps; `evaluate` ends the search, not the learner


@dataclass(frozen=True, slots=True)
class PPOController:
    """PPO over `rlnas.env`: each episode builds one subnet.

    The first episodes come from an untrained, almost uniform policy: random architectures.
    Repeats are free, so the policy goes on learning from them until the search ends.

    Equal seeds give equal proposals on one machine, whatever else the process does: the
    policy draws from generators of its own, runs on one thread, and leaves the caller's
    generators and thread count as they were, also while `evaluate` runs.

    Attributes:
        n_envs: Episodes that run at once, are evaluated as one batch and make one update of
            the policy, at least 2.
        n_minibatches: Parts that the steps of an update are cut into; divides `n_envs`.
        n_epochs: Passes over the episodes of an update. An update from repeats alone makes one
            pass only: it costs most of the time and teaches least.
        learning_rate: Step size of Adam.
        ent_coef: Weight at the start of the entropy bonus, which keeps the policy exploring: of
            the mean entropy over an episode's n steps it is ``ent_coef / n`` spreads of the
            rewards of random subnets. It fades with the square of the budget that is left.
        gamma: Discount per step; 1 since only the last step is rewarded.
        gae_lambda: Bias against variance of the advantages, in [0, 1]; 1 since an episode has
            no other chance than the policy's own.
        clip_range: How far an update may move the probability of an action.
        target_kl: Ends an update early beyond this divergence; None never does.
        hidden_sizes: Widths of the hidden layers of policy and value network.
        hard_budget: Whether actions are clipped to the problem's latency target.
        device: Where the policy lives; it is too small to gain from a GPU.
        save_path: Where the trained policy is saved (SB3's zip) when the search ends, however
            it ends; None saves nothing.
        log_dir: Folder of ``progress.csv`` (and of TensorBoard's event file, if it is
            installed); None logs nothing.

    Raises:
        ValueError: If `n_envs` or `n_minibatches` is out of range.
    """

    n_envs: int = 16
    n_minibatches: int = 2
    n_epochs: int = 10
    learning_rate: float = 2e-3
    ent_coef: float = 0.5
    gamma: float = 1.0
    gae_lambda: float = 1.0
    clip_range: float = 0.2
    target_kl: float | None = None
    hidden_sizes: tuple[int, ...] = (64, 64)
    hard_budget: bool = True
    device: str = "cpu"
    # A history is resumed by equal settings only, wherever its folder has gone meanwhile.
    save_path: Path | None = field(default=None, repr=False)
    log_dir: Path | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if self.n_envs < 2:
            raise ValueError(f"n_envs must be at least 2, but got n_envs={self.n_envs}")
        if self.n_minibatches < 1 or self.n_envs % self.n_minibatches:
            raise ValueError(
                f"n_minibatches must divide n_envs={self.n_envs}, "
                f"but got n_minibatches={self.n_minibatches}"
            )

    def search(self, problem: Problem, evaluate: Evaluate, budget: int, seed: int) -> None:
        """Train the policy on its own proposals until `evaluate` ends the search.

        Args:
            problem: What is known beforehand.
            evaluate: Judges configs; what it raises passes through.
            budget: Number of trials over which exploration fades.
            seed: Any integer; equal seeds give equal proposals.

        Raises:
            InfeasibleTargetError: If the budget is hard and even the smallest subnet breaks it.
        """
        randomness = Randomness()
        n_positions = len(problem.space.nvec)
        n_seen = 0

        def judge(configs: Sequence[SubnetConfig]) -> list[Trial]:
            nonlocal n_seen
            # A search that resumes skips evaluations: they must not touch the policy's randomness.
            with randomness.outside():
                trials = evaluate(configs)
            n_trials = 1 + max(trial.number for trial in trials)
            model.n_epochs = self.n_epochs if n_trials > n_seen else 1
            n_seen = max(n_seen, n_trials)
            model.ent_coef = self.ent_coef / n_positions * max(0.0, 1.0 - n_seen / budget) ** 2
            return trials

        environment = _UnitRewards(SubnetVecEnv(problem, judge, self.n_envs, self.hard_budget))
        with randomness.inside():
            model = self._model(environment, n_positions, seed)
            try:
                model.learn(total_timesteps=_ENDLESS)
            finally:
                model.logger.close()
                if self.save_path is not None:
                    self.save_path.parent.mkdir(parents=True, exist_ok=True)
                    model.save(self.save_path)

    def _model(self, environment: VecEnv, n_positions: int, seed: int) -> PPO:
        model = PPO(
            "MlpPolicy",
            environment,
            n_steps=n_positions,
            batch_size=n_positions * self.n_envs // self.n_minibatches,
            n_epochs=self.n_epochs,
            learning_rate=self.learning_rate,
            ent_coef=self.ent_coef / n_positions,
            gamma=self.gamma,
            gae_lambda=self.gae_lambda,
            clip_range=self.clip_range,
            target_kl=self.target_kl,
            normalize_advantage=False,  # see _UnitRewards
            policy_kwargs={"net_arch": list(self.hidden_sizes)},
            device=self.device,
            seed=seed % 2**32,
        )
        model.set_logger(_logger(self.log_dir))
        return model


class _UnitRewards(VecEnvWrapper):
    """Rewards in units of their spread in the first batch, whose subnets are random.

    The entropy bonus then has a stated worth throughout a search. Advantages normalised batch
    by batch, as is usual, would weigh it less and less as the rewards draw together, and the
    policy would settle on one subnet, often not the best, long before the budget is spent.
    """

    def __init__(self, venv: VecEnv) -> None:
        super().__init__(venv)
        self._center, self._spread = math.nan, math.nan

    def reset(self) -> VecEnvObs:
        """As the environments inside."""
        return self.venv.reset()

    def step_wait(self) -> VecEnvStepReturn:
        """As the environments inside, but for the last rewards of episodes."""
        observations, rewards, dones, infos = self.venv.step_wait()
        if dones.all():
            if math.isnan(self._center):
                self._center = float(rewards.mean())
                self._spread = float(rewards.std()) if np.ptp(rewards) else 1.0
            rewards = (rewards - self._center) / self._spread
        return observations, rewards, dones, infos


def _logger(folder: Path | None) -> Logger:
    """SB3's logger: silent, or into a folder."""
    if folder is None:
        return Logger(folder=None, output_formats=[])
    formats = ["csv"]
    if importlib.util.find_spec("tensorboard") is not None:
        formats.append("tensorboard")
    return configure(str(folder), formats)
