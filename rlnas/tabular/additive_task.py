"""A task from arithmetic, whose optimum is known.

Whether a controller learns can only be seen where the best answer is known and an evaluation
costs nothing. `additive_task` is such a task with a closed form.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from rlnas.errors import EvaluationError, InvalidSpaceError
from rlnas.metrics import Metrics
from rlnas.protocols import RelativeReward

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from rlnas.protocols import LatencyModel, Reward
    from rlnas.space import SearchSpace, SubnetConfig

MAX_ENUMERATED = 200_000
"""Members of the largest space that `AdditiveTask.optimum` goes through."""


@dataclass(frozen=True, slots=True, eq=False)
class AdditiveTask:
    """An evaluator whose accuracy and latency are sums over the positions of a space.

    Made by `additive_task`. It is an `InformedEvaluator`: it brings its exact latency model and
    the importance of each position.

    Attributes:
        space: The space of n positions.
        accuracy_parts: For each position an array of shape ``(nvec[i],)``, ascending from 0.
        latency_parts: The same for milliseconds.
        base_accuracy: Accuracy of the smallest member.
        base_latency_ms: Latency of the smallest member.
        noise: Standard deviation of the noise on the accuracy. The noise of a config is always
            the same, as that of a fixed validation set would be.
        seed: Seed of the noise.
    """

    space: SearchSpace
    accuracy_parts: tuple[npt.NDArray[np.float64], ...]
    latency_parts: tuple[npt.NDArray[np.float64], ...]
    base_accuracy: float
    base_latency_ms: float
    noise: float
    seed: int

    @property
    def latency(self) -> LatencyModel:
        """The exact latencies, in milliseconds."""
        return self.predict

    @property
    def importance(self) -> npt.NDArray[np.float64]:
        """Accuracy that each position decides about, shape ``(n,)``."""
        return np.array([parts[-1] for parts in self.accuracy_parts])

    def predict(self, configs: Sequence[SubnetConfig]) -> list[float]:
        """Latency of each config in milliseconds."""
        return [self._latency_ms(self.space.encode(config)) for config in configs]

    def __call__(self, configs: Sequence[SubnetConfig]) -> list[Metrics]:
        """Metrics of each config, in the same order."""
        return [self._judge(self.space.encode(config)) for config in configs]

    def optimum(self, reward: Reward) -> tuple[SubnetConfig, float]:
        """The best member and its reward, found by looking at every one.

        Args:
            reward: Any reward; a relative one is resolved as `search` does.

        Raises:
            InvalidSpaceError: If the space is too large to go through.
        """
        nvec = self.space.nvec
        if math.prod(nvec) > MAX_ENUMERATED:
            raise InvalidSpaceError(
                f"the optimum is found by going through at most {MAX_ENUMERATED} subnets, "
                f"but the space has {math.prod(nvec)}; take a smaller one"
            )
        if isinstance(reward, RelativeReward):
            reward = reward.resolve(self.predict([self.space.largest()])[0])
        best_action, best_reward = None, -math.inf
        for action in itertools.product(*(range(n) for n in nvec)):
            value = float(reward(self._judge(action)))
            if best_action is None or value > best_reward:
                best_action, best_reward = action, value
        return self.space.decode(best_action or ()), best_reward

    def _latency_ms(self, action: tuple[int, ...]) -> float:
        parts = [parts[entry] for parts, entry in zip(self.latency_parts, action, strict=True)]
        return float(self.base_latency_ms + math.fsum(parts))

    def _judge(self, action: tuple[int, ...]) -> Metrics:
        parts = [parts[entry] for parts, entry in zip(self.accuracy_parts, action, strict=True)]
        accuracy = float(self.base_accuracy + math.fsum(parts))
        if self.noise:
            accuracy += self.noise * float(np.random.default_rng((self.seed, *action)).normal())
        return Metrics(accuracy=accuracy, latency_ms=self._latency_ms(action))


def additive_task(space: SearchSpace, seed: int = 0, noise: float = 0.0) -> AdditiveTask:
    """A task in the image of a supernet, in closed form.

    The smallest member has accuracy 0.2 and takes 1 ms, the largest has 0.9 and takes 10 ms.
    In between, accuracy has diminishing returns at each position, and a few positions matter far
    more than the others, while each costs about the same; so a controller has to find out where
    latency is well spent. The mean reward of random members is more than 0.1 below the optimum
    for the rewards of `rlnas.rewards` with their default weights and targets from half of the
    full latency.

    Args:
        space: Any space.
        seed: Which positions matter, and the noise.
        noise: Standard deviation of the accuracies' noise, at least 0.

    Raises:
        EvaluationError: If `noise` is negative.
    """
    if not noise >= 0:
        raise EvaluationError(f"noise must be at least 0, but got noise={noise}")
    rng = np.random.default_rng(seed)
    n_positions = len(space.nvec)
    # Halving weights over a quarter of the positions each: some matter, most hardly.
    worth = rng.permutation(0.5 ** (4.0 * np.arange(n_positions) / n_positions))
    price = rng.uniform(0.7, 1.3, size=n_positions)
    is_free = np.array(space.nvec) > 1  # where there is no choice there is nothing to gain or to pay
    worth, price = worth * is_free, price * is_free
    worth, price = 0.7 * worth / (worth.sum() or 1.0), 9.0 * price / (price.sum() or 1.0)
    kept = [np.arange(n) / max(1, n - 1) for n in space.nvec]
    return AdditiveTask(
        space=space,
        accuracy_parts=tuple(w * (1.0 - (1.0 - x) ** 2) for w, x in zip(worth, kept, strict=True)),
        latency_parts=tuple(p * x for p, x in zip(price, kept, strict=True)),
        base_accuracy=0.2,
        base_latency_ms=1.0,
        noise=noise,
        seed=seed,
    )
