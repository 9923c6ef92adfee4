"""Rewards: what accuracy is worth against latency.

Any function of `Metrics` is a reward; the ones here also know a target or a reference, and so
may be stated relative to the full model's latency: ``LatencyTarget(ratio=0.5)``. `search` fills
that latency in, once, by calling ``resolve``.

References:
    .. [Tan2019] M. Tan et al. MnasNet: Platform-Aware Neural Architecture Search for Mobile.
       CVPR 2019.
    .. [Bender2020] G. Bender et al. Can weight sharing outperform random architecture search?
       An investigation with TuNAS. CVPR 2020.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Self

from rlnas.errors import RewardError

if TYPE_CHECKING:
    from rlnas.metrics import Metrics


@dataclass(frozen=True, slots=True)
class LinearPenalty:
    """Accuracy minus ``weight * latency / reference``.

    Attributes:
        weight: Accuracy that one full latency is worth, at least 0.
        reference_ms: Latency that counts as one; by default the full model's, which `search`
            fills in.

    Raises:
        RewardError: If a setting is out of range.
    """

    weight: float = 0.1
    reference_ms: float | None = None

    def __post_init__(self) -> None:
        _check("weight", self.weight, at_least=0.0)
        if self.reference_ms is not None:
            _check("reference_ms", self.reference_ms, above=0.0)

    def resolve(self, reference_ms: float) -> LinearPenalty:
        """The same reward with the full model's latency as its reference, unless it has one.

        Raises:
            RewardError: If it has none and `reference_ms` is NaN, i.e. not known either.
        """
        if self.reference_ms is not None:
            return self
        _check_reference(self, reference_ms, "reference_ms")
        return replace(self, reference_ms=reference_ms)

    def __call__(self, metrics: Metrics) -> float:
        """The reward.

        Raises:
            RewardError: If there is no reference yet, or `metrics` has no latency.
        """
        if self.reference_ms is None:
            raise _unresolved(self, "reference_ms")
        return metrics.accuracy - self.weight * _latency_of(metrics, self) / self.reference_ms


@dataclass(frozen=True, slots=True)
class _Aimed:
    """What the rewards with a target share: how it is stated, filled in, moved and compared."""

    ratio: float | None = None
    target_ms: float | None = None

    def resolve(self, reference_ms: float) -> Self:
        """The same reward with its target in milliseconds.

        Args:
            reference_ms: Latency of the full model; not looked at if the target is in
                milliseconds already.

        Raises:
            RewardError: If the target is a ratio and `reference_ms` is NaN, i.e. not known.
        """
        if self.ratio is None:
            return self
        _check_reference(self, reference_ms, "target_ms")
        return replace(self, ratio=None, target_ms=self.ratio * reference_ms)

    def at(self, target_ms: float) -> Self:
        """The same reward for another target.

        Raises:
            RewardError: If `target_ms` is not above 0.
        """
        return replace(self, ratio=None, target_ms=target_ms)

    def _check_target(self) -> None:
        if (self.ratio is None) == (self.target_ms is None):
            raise RewardError(
                f"{type(self).__name__} needs exactly one of ratio and target_ms, "
                f"but got ratio={self.ratio} and target_ms={self.target_ms}"
            )
        for name, value in (("ratio", self.ratio), ("target_ms", self.target_ms)):
            if value is not None:
                _check(name, value, above=0.0)

    def _relative_latency(self, metrics: Metrics) -> float:
        """Latency divided by the target."""
        if self.target_ms is None:
            raise _unresolved(self, "target_ms")
        return _latency_of(metrics, self) / self.target_ms


@dataclass(frozen=True, slots=True)
class LatencyTarget(_Aimed):
    """Accuracy minus a penalty for missing a latency target.

    One-sided by default: ``accuracy - weight * max(0, latency / target - 1)``. The absolute form
    ``accuracy - weight * |latency / target - 1|`` is TuNAS's [Bender2020]_: it also pulls faster
    subnets up to the target, and so keeps a policy from lingering among tiny ones.

    Attributes:
        ratio: Target as a part of the full model's latency, e.g. 0.5.
        target_ms: Target in milliseconds; exactly one of `ratio` and `target_ms` is given.
        weight: Accuracy that a miss by one whole target costs, at least 0.
        absolute: Whether being faster than the target costs as well.

    Raises:
        RewardError: If a setting is out of range.
    """

    weight: float = 1.0
    absolute: bool = False

    def __post_init__(self) -> None:
        self._check_target()
        _check("weight", self.weight, at_least=0.0)

    def __call__(self, metrics: Metrics) -> float:
        """The reward.

        Raises:
            RewardError: If the ratio is not resolved, or `metrics` has no latency.
        """
        excess = self._relative_latency(metrics) - 1.0
        return metrics.accuracy - self.weight * (abs(excess) if self.absolute else max(0.0, excess))


@dataclass(frozen=True, slots=True)
class MnasNetReward(_Aimed):
    """``accuracy * (latency / target) ** exponent``, the soft form of [Tan2019]_.

    Meant for metrics that are not negative: of two subnets with a negative metric it would
    prefer the slower one.

    Attributes:
        ratio: Target as a part of the full model's latency.
        target_ms: Target in milliseconds; exactly one of `ratio` and `target_ms` is given.
        exponent: At most 0; with -0.07 twice the latency is worth 5 % of the accuracy.

    Raises:
        RewardError: If a setting is out of range.
    """

    exponent: float = -0.07

    def __post_init__(self) -> None:
        self._check_target()
        if not (math.isfinite(self.exponent) and self.exponent <= 0):
            raise RewardError(f"exponent must be a number of at most 0, but got exponent={self.exponent}")

    def __call__(self, metrics: Metrics) -> float:
        """The reward.

        Raises:
            RewardError: If the ratio is not resolved, or the latency is missing or 0.
        """
        relative = self._relative_latency(metrics)
        if relative == 0.0:
            raise RewardError(
                f"{self!r} needs a latency above 0, but got latency_ms=0.0; use LatencyTarget"
            )
        return float(metrics.accuracy * relative**self.exponent)


@dataclass(frozen=True, slots=True)
class HardBudget(_Aimed):
    """The accuracy within the budget; beyond it -1 minus the relative excess.

    No metric is below -1, so whatever keeps to the budget is worth more than whatever breaks it.

    Attributes:
        ratio: Budget as a part of the full model's latency.
        target_ms: Budget in milliseconds; exactly one of `ratio` and `target_ms` is given.
        tolerance: Part of the budget that may be exceeded, at least 0.

    Raises:
        RewardError: If a setting is out of range.
    """

    tolerance: float = 0.0

    def __post_init__(self) -> None:
        self._check_target()
        _check("tolerance", self.tolerance, at_least=0.0)

    def __call__(self, metrics: Metrics) -> float:
        """The reward.

        Raises:
            RewardError: If the ratio is not resolved, or `metrics` has no latency.
        """
        excess = self._relative_latency(metrics) - 1.0
        return metrics.accuracy if excess <= self.tolerance else -1.0 - excess


def _check(name: str, value: float, *, at_least: float = -math.inf, above: float = -math.inf) -> None:
    if math.isfinite(value) and value >= at_least and value > above:
        return
    bound = f"above {above:g}" if above > -math.inf else f"of at least {at_least:g}"
    raise RewardError(f"{name} must be a number {bound}, but got {name}={value}")


def _check_reference(reward: object, reference_ms: float, alternative: str) -> None:
    if math.isnan(reference_ms):
        raise RewardError(
            f"{reward!r} is relative to the full model's latency, which is not known here; "
            f"give the search a latency model (latency=...), or the reward {alternative}=..."
        )
    _check("reference_ms", reference_ms, above=0.0)


def _unresolved(reward: object, alternative: str) -> RewardError:
    return RewardError(
        f"{reward!r} is relative to the full model's latency and cannot be asked before it is known; "
        f"call resolve(reference_ms) first, as search does, or give it {alternative}=..."
    )


def _latency_of(metrics: Metrics, reward: object) -> float:
    if math.isnan(metrics.latency_ms):
        raise RewardError(
            f"{reward!r} needs a latency, but got latency_ms=nan; give the search a latency model "
            "(latency=...), or let the evaluator fill in Metrics.latency_ms"
        )
    return metrics.latency_ms
