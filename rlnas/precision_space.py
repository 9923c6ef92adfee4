"""Architectures together with the number format that they are served in."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from rlnas.errors import InvalidSpaceError, InvalidSubnetError
from rlnas.precision import PRECISIONS
from rlnas.space import SubnetConfig, check_action

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np

    from rlnas.space import SearchSpace


@dataclass(frozen=True, slots=True)
class PrecisionSpace:
    """The members of another space, each in one of several precisions.

    An action is one of the inner space with the index of the precision behind it. So the precision is
    decided last: an architecture that keeps to a budget in the fastest one is built first, and then takes
    the slowest one that the budget allows, or a faster one.

    Attributes:
        inner: The architectures.
        precisions: Those on offer, the fastest first, as measured on the full model.

    Raises:
        InvalidSpaceError: If there is no precision, or one is unknown or stands there twice.
    """

    inner: SearchSpace
    precisions: tuple[str, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "precisions", checked_precisions(self.precisions))

    @property
    def nvec(self) -> tuple[int, ...]:
        """Number of options: those of the inner space, and of precisions."""
        return (*self.inner.nvec, len(self.precisions))

    def decode(self, action: Sequence[int]) -> SubnetConfig:
        """The config of an action.

        Raises:
            InvalidSubnetError: If the action is not within `nvec`.
        """
        *inner, last = check_action(action, self.nvec)
        return replace(self.inner.decode(inner), precision=self.precisions[last])

    def encode(self, config: SubnetConfig) -> tuple[int, ...]:
        """The action of a member.

        Raises:
            InvalidSubnetError: If `config` is not a member.
        """
        if config.precision not in self.precisions:
            raise InvalidSubnetError(
                f"precision must be one of {', '.join(self.precisions)} in this space, "
                f"but got precision={config.precision!r}"
            )
        inner = self.inner.encode(replace(config, precision=None))
        return (*inner, self.precisions.index(config.precision))

    def sample(self, rng: np.random.Generator) -> SubnetConfig:
        """A member of the inner space, as that draws it, in a precision drawn uniformly."""
        config = self.inner.sample(rng)
        return replace(config, precision=self.precisions[int(rng.integers(len(self.precisions)))])

    def smallest(self) -> SubnetConfig:
        """The inner space's smallest member in the fastest precision."""
        return replace(self.inner.smallest(), precision=self.precisions[0])

    def largest(self) -> SubnetConfig:
        """The inner space's largest member in the slowest precision."""
        return replace(self.inner.largest(), precision=self.precisions[-1])

    def __contains__(self, config: object) -> bool:
        return (
            isinstance(config, SubnetConfig)
            and config.precision in self.precisions
            and replace(config, precision=None) in self.inner
        )


def checked_precisions(precisions: Sequence[str]) -> tuple[str, ...]:
    """Some precisions, in the order given.

    Raises:
        InvalidSpaceError: If there is none, or one is unknown or stands there twice.
    """
    if not precisions:
        raise InvalidSpaceError(f"precisions needs at least one of {', '.join(PRECISIONS)}, but got none")
    for precision in precisions:
        if precision not in PRECISIONS:
            raise InvalidSpaceError(
                f"a precision must be one of {', '.join(PRECISIONS)}, but got {precision!r}"
            )
        if list(precisions).count(precision) > 1:
            raise InvalidSpaceError(f"every precision may stand there once, but {precision} does twice")
    return tuple(precisions)
