"""The plugs of `rlnas`: what a user may replace, and the least that has to be written.

===============  ==========================================  =======================
plug             call                                        least a user writes
===============  ==========================================  =======================
`Reward`         ``(Metrics) -> float``                      a function
`LatencyModel`   ``(configs) -> ms per config``              a function
`Evaluator`      ``(configs) -> list[Metrics]``              a function
`Controller`     ``.search(problem, evaluate, budget, seed)``  a class with a loop
===============  ==========================================  =======================
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Literal, Protocol, runtime_checkable

import numpy as np

from rlnas.errors import RewardError

if TYPE_CHECKING:
    import numpy.typing as npt

    from rlnas.metrics import Metrics
    from rlnas.space import ModelShape, SearchSpace, SubnetConfig
    from rlnas.trial import Trial


class Reward(Protocol):
    """How good metrics are; higher is better. Any function of `Metrics` will do."""

    def __call__(self, metrics: Metrics, /) -> float:
        """The reward, a finite number."""


@runtime_checkable
class TargetedReward(Protocol):
    """A reward that knows a latency target, and so can serve many."""

    @property
    def target_ms(self) -> float:
        """The latency aimed at, in milliseconds."""

    def at(self, target_ms: float) -> TargetedReward:
        """The same reward for another target."""

    def __call__(self, metrics: Metrics, /) -> float:
        """The reward, a finite number."""


@runtime_checkable
class RelativeReward(Protocol):
    """A reward stated relative to the full model's latency; `search` resolves it once."""

    def resolve(self, reference_ms: float) -> Reward:
        """The same reward with the full model's latency filled in.

        Args:
            reference_ms: That latency in milliseconds; NaN where nothing is known. A reward that
                needs it then raises `RewardError`, one that does not returns itself.
        """

    def __call__(self, metrics: Metrics, /) -> float:
        """The reward, a finite number."""


class LatencyModel(Protocol):
    """Predicts latencies; a table, or any function."""

    def __call__(self, configs: Sequence[SubnetConfig], /) -> Sequence[float] | npt.NDArray[np.float64]:
        """Milliseconds of each config."""


class Evaluator(Protocol):
    """Judges a batch of configs; any function will do."""

    def __call__(self, configs: Sequence[SubnetConfig], /) -> Sequence[Metrics]:
        """Metrics of each config, in the same order."""


@runtime_checkable
class InformedEvaluator(Protocol):
    """An evaluator that also brings what controllers may know beforehand."""

    @property
    def latency(self) -> LatencyModel:
        """Predicts the latencies that the metrics hold."""

    @property
    def importance(self) -> npt.NDArray[np.float64] | None:
        """Importance of the block at each position of the space, shape ``(len(nvec),)``, or None."""

    def __call__(self, configs: Sequence[SubnetConfig], /) -> Sequence[Metrics]:
        """Metrics of each config, in the same order."""


@runtime_checkable
class WeighingEvaluator(Protocol):
    """An evaluator that can say beforehand how much of the full model's importance a config keeps."""

    @property
    def kept_importance(self) -> Callable[[Sequence[SubnetConfig]], Sequence[float]] | None:
        """Gives the importance of what each config keeps, at least 0, a sum over its blocks; or None."""

    def __call__(self, configs: Sequence[SubnetConfig], /) -> Sequence[Metrics]:
        """Metrics of each config, in the same order."""


@runtime_checkable
class RecallingEvaluator(Protocol):
    """An evaluator whose answers depend on earlier trials, e.g. one that races configs against the best.

    To resume is to replay, and what is stored is not evaluated again; `recall` lets such an
    evaluator end up where it was. Where the budget has grown, the last stored batch may have been
    cut short: its rest is then judged apart from it.
    """

    def recall(self, trials: Sequence[Trial], /) -> None:
        """Take note of trials that were answered from a stored history instead of by it.

        Called in their order, before it is asked for any later one. It must leave the evaluator
        as if it had judged them itself.
        """

    def __call__(self, configs: Sequence[SubnetConfig], /) -> Sequence[Metrics]:
        """Metrics of each config, in the same order."""


Evaluate = Callable[[Sequence["SubnetConfig"]], list["Trial"]]
"""What a controller calls: judged trials of the configs, in their order.

It raises `rlnas.loop.SearchEnd` when the budget is spent; controllers let it pass.
"""


@dataclass(frozen=True, slots=True, eq=False)
class Problem:
    """What a controller may know.

    Attributes:
        space: The configs to choose from.
        reward: Turns metrics into a number.
        latency: Predicts latencies, or None where nothing is known.
        target_ms: The latency aimed at, or None for rewards without a target.
        reference_ms: Latency of the full model, or None where nothing is known.
        importance: Shape ``(len(space.nvec),)``, non-negative; how much the block at each
            position matters to the full model, or None.
        targets_ms: All latencies that the search is to serve, ascending; empty where it serves the
            reward's own one alone.
        kept_importance: Says how much importance configs keep, a sum over their blocks, or None.

    Raises:
        ValueError: If `importance` has another shape, or a number that is negative or not finite,
            or `targets_ms` do not ascend.
    """

    space: SearchSpace
    reward: Reward
    latency: LatencyModel | None = None
    target_ms: float | None = None
    reference_ms: float | None = None
    importance: npt.NDArray[np.float64] | None = None
    targets_ms: tuple[float, ...] = ()
    kept_importance: Callable[[Sequence[SubnetConfig]], Sequence[float]] | None = None

    def __post_init__(self) -> None:
        if any(not low < high for low, high in pairwise(self.targets_ms)):
            raise ValueError(f"targets_ms must ascend without repeats, but got {self.targets_ms}")
        if self.importance is None:
            return
        importance, n_positions = np.asarray(self.importance, dtype=np.float64), len(self.space.nvec)
        if importance.shape != (n_positions,):
            raise ValueError(f"importance must have shape ({n_positions},), but got {importance.shape}")
        if not np.all(np.isfinite(importance) & (importance >= 0)):
            raise ValueError(f"importance must be finite and not negative, but got {importance}")
        object.__setattr__(self, "importance", importance)

    @property
    def served_targets_ms(self) -> tuple[float, ...]:
        """The targets to serve, ascending: several, the reward's own one, or none."""
        if self.targets_ms:
            return self.targets_ms
        return () if self.target_ms is None else (self.target_ms,)

    def reward_for(self, target_ms: float) -> Reward:
        """The reward for another target.

        Raises:
            RewardError: If the reward knows no target.
        """
        if target_ms == self.target_ms:
            return self.reward
        at = getattr(self.reward, "at", None)  # isinstance of a protocol takes ten times as long
        if at is None:
            raise RewardError(
                f"{self.reward!r} serves one target only; to ask for target_ms={target_ms} "
                "give it a method at(target_ms), or use LatencyTarget"
            )
        moved: Reward = at(target_ms)
        return moved


class Controller(Protocol):
    """Proposes configs and learns from their rewards."""

    def search(self, problem: Problem, evaluate: Evaluate, budget: int, seed: int) -> None:
        """Propose until `evaluate` ends the search.

        Args:
            problem: What is known beforehand.
            evaluate: Judges configs; repeats are free.
            budget: Number of new configs that the search was begun with; a resumed one may get more.
            seed: Equal seeds give equal proposals.
        """


BlockKind = Literal["attention", "ffn"]
"""The two kinds of block that a layer is made of."""


class Timeable(Protocol):
    """A model whose blocks and subnets can be run, for a stopwatch.

    Each call does the work of one request and does not wait for the device: the clock does. There
    is one call for each request of the workload.
    """

    @property
    def shape(self) -> ModelShape:
        """Sizes of the full model."""

    @property
    def stack_size(self) -> int:
        """Blocks that a call of `block_calls` runs, at least 1."""

    def block_calls(self, kind: BlockKind, size: int, /) -> Sequence[Callable[[], object]]:
        """Runs `stack_size` blocks, one after another, each with weights of its own.

        As many as a model has, or nearly: then they are fetched from where a model's weights are.
        `size` is the heads (attention) or the units (ffn) of each, at least 1.
        """

    def model_calls(self, config: SubnetConfig, /) -> Sequence[Callable[[], object]]:
        """Runs the whole stand-alone subnet, embeddings and head included."""
