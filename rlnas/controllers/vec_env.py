"""Many episodes at once for stable-baselines3, their ends evaluated as one batch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from gymnasium import spaces
from stable_baselines3.common.vec_env import VecEnv

from rlnas.env import EpisodeDynamics, Guide, Observation, episode_summary, observation_space

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import gymnasium
    import numpy.typing as npt
    from stable_baselines3.common.vec_env.base_vec_env import VecEnvIndices, VecEnvStepReturn

    from rlnas.protocols import Evaluate, Problem


class SubnetVecEnv(VecEnv):
    """n episodes of `rlnas.env.SubnetEnv` in lockstep: the same transitions, one batch per end.

    All episodes start and end together. At the end ``infos`` holds, beside what `SubnetEnv`
    says, ``terminal_observation`` and ``episode`` (``r``: the reward, ``l``: the steps), so
    the logger of stable-baselines3 shows ``rollout/ep_rew_mean``.

    The episodes share one state, so attributes belong to the whole; there are no single
    environments to call or wrap.

    Args:
        problem: The space, what is known about latency, and the reward.
        evaluate: Judges configs; called once per n episodes.
        n_envs: Number of episodes n.
        hard_budget: Whether actions are clipped to the target.
        draw_targets: Given n, the latency targets in milliseconds of n new episodes, None
            meaning the problem's own, as all have by default.
        add_up: See `rlnas.env.EpisodeDynamics`.
        guide: See `rlnas.env.EpisodeDynamics`.

    Attributes:
        ended_targets_ms: Shape ``(n,)``: latency targets of the episodes that ended last; NaN without.

    Raises:
        InfeasibleTargetError: If the budget is hard and even the smallest subnet breaks it.
    """

    render_mode: str | None = None

    def __init__(
        self,
        problem: Problem,
        evaluate: Evaluate,
        n_envs: int = 16,
        hard_budget: bool = True,
        *,
        draw_targets: Callable[[int], Sequence[float | None]] | None = None,
        add_up: bool = False,
        guide: Guide | None = None,
    ) -> None:
        self._evaluate = evaluate
        self._draw_targets = draw_targets
        self._dynamics = EpisodeDynamics(problem, n_envs, hard_budget, add_up=add_up, guide=guide)
        self._actions: npt.NDArray[np.int64] = np.zeros(n_envs, dtype=np.int64)
        self.ended_targets_ms = self._dynamics.targets_ms
        super().__init__(
            n_envs, observation_space(self._dynamics), spaces.Discrete(self._dynamics.n_actions)
        )

    @property
    def n_positions(self) -> int:
        """Steps of an episode."""
        return self._dynamics.n_positions

    @property
    def actions(self) -> npt.NDArray[np.int64]:
        """The decisions of the episodes so far, shape ``(n, p)``; 0 where nothing is decided yet."""
        return self._dynamics.actions

    def reset(self) -> Observation:
        """Start all episodes; the options of ``set_options`` (``target_ms``) hold for these only."""
        drawn = self._drawn()
        asked = [
            options.get("target_ms", target) for options, target in zip(self._options, drawn, strict=True)
        ]
        observations = self._dynamics.reset(asked)
        self.reset_infos = [{} for _ in range(self.num_envs)]
        self._reset_seeds()
        self._reset_options()
        return observations

    def step_async(self, actions: npt.NDArray[np.int64]) -> None:
        """Take note of the actions, shape ``(n,)``."""
        self._actions = actions

    def step_wait(self) -> VecEnvStepReturn:
        """Decide one position in every episode; at the end evaluate them and start anew."""
        clipped = self._dynamics.step(self._actions)
        infos: list[dict[str, Any]] = [
            {"clipped": bool(flag), "TimeLimit.truncated": False} for flag in clipped
        ]
        rewards = np.zeros(self.num_envs)
        observations = self._dynamics.observe()
        dones = np.full(self.num_envs, self._dynamics.is_over)
        if self._dynamics.is_over:
            trials, rewards = self._dynamics.score(self._evaluate)
            for info, trial, reward, last in zip(infos, trials, rewards, observations, strict=True):
                info |= episode_summary(trial)
                info["terminal_observation"] = last
                info["episode"] = {"r": float(reward), "l": self._dynamics.n_positions}
            self.ended_targets_ms = self._dynamics.targets_ms
            observations = self._dynamics.reset(self._drawn())
        return observations, rewards.astype(np.float32), dones, infos

    def _drawn(self) -> Sequence[float | None]:
        return [None] * self.num_envs if self._draw_targets is None else self._draw_targets(self.num_envs)

    def close(self) -> None:
        """Nothing to release."""

    def get_attr(self, attr_name: str, indices: VecEnvIndices = None) -> list[Any]:
        """The attribute of the whole, once per index.

        Raises:
            AttributeError: If there is no such attribute.
        """
        return [getattr(self, attr_name) for _ in self._get_indices(indices)]

    def set_attr(self, attr_name: str, value: object, indices: VecEnvIndices = None) -> None:
        """Set an attribute of the whole, whatever the indices."""
        setattr(self, attr_name, value)

    def env_method(
        self, method_name: str, *method_args: object, indices: VecEnvIndices = None, **method_kwargs: object
    ) -> list[Any]:
        """There are no single environments.

        Raises:
            AttributeError: Always.
        """
        raise AttributeError(
            f"a SubnetVecEnv has no single environments to call {method_name!r} on; "
            "use DummyVecEnv over SubnetEnv for that"
        )

    def env_is_wrapped(
        self, wrapper_class: type[gymnasium.Wrapper[Any, Any, Any, Any]], indices: VecEnvIndices = None
    ) -> list[bool]:
        """No episode is wrapped in anything."""
        return [False for _ in self._get_indices(indices)]

    def get_images(self) -> Sequence[None]:
        """There is nothing to see."""
        return [None] * self.num_envs
