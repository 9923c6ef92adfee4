"""Models of a subnet that are sums over its choices: latency by a table, importance kept.

What adds up can be looked up: tens of thousands of subnets in a millisecond, and the best of all of
them by dynamic programming. A model may also add up only where the last position is given, as latencies
do whose precision is chosen there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy.typing as npt

    from rlnas.space import SearchSpace, SubnetConfig

    Model = Callable[[Sequence[SubnetConfig]], Sequence[float] | npt.NDArray[np.float64]]

N_CHECKED = 64
"""Random members on which `AdditiveModel.fits` compares."""

TOLERANCE = 1e-9
"""Largest difference that counts as rounding, relative to the largest member's value."""


@dataclass(frozen=True, slots=True, eq=False)
class AdditiveModel:
    """A value that all members share, and what every choice adds to it.

    Attributes:
        base: What the sum gives for the space's smallest member.
        parts: For each position i an array of shape ``(nvec[i],)``: what its options add; the first
            entry is 0.
    """

    base: float
    parts: tuple[npt.NDArray[np.float64], ...]

    @classmethod
    def probe(cls, space: SearchSpace | _LastGiven, model: Model) -> AdditiveModel:
        """Ask for the largest member and for all that differ from it in one position.

        Exact where the model adds up over positions; else the first-order view from the largest. A model
        that only sets the smallest member apart, as latency tables do, still counts as a sum.

        Args:
            space: Where actions come from.
            model: One number per config.
        """
        nvec = space.nvec
        largest = [n - 1 for n in nvec]
        actions = [
            (*largest[:position], option, *largest[position + 1 :])
            for position, n_options in enumerate(nvec)
            for option in range(n_options)
        ]
        values = np.asarray(model([space.decode(action) for action in actions]), dtype=np.float64)
        rows = np.split(values, np.cumsum(nvec)[:-1])
        parts = tuple(row - row[0] for row in rows)
        base = float(values[-1]) - sum(float(part[-1]) for part in parts)
        return cls(base, parts)

    @classmethod
    def exact(cls, space: SearchSpace | _LastGiven, model: Model) -> AdditiveModel | None:
        """The same, or None if the model does not add up over positions."""
        probed = cls.probe(space, model)
        return probed if probed.fits(space, model) else None

    def predict(self, actions: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        """Values of actions.

        Args:
            actions: Shape ``(k, p)``, within the space's ``nvec``.

        Returns:
            Shape ``(k,)``.
        """
        total = np.full(len(actions), self.base)
        for position, part in enumerate(self.parts):
            total += part[actions[:, position]]
        return total

    def fits(self, space: SearchSpace | _LastGiven, model: Model) -> bool:
        """Whether the sums agree with the model, to rounding, on the largest and on random members."""
        rng = np.random.default_rng(0)
        nvec = np.asarray(space.nvec)
        actions = np.concatenate([nvec[None] - 1, rng.integers(nvec, size=(N_CHECKED, len(nvec)))])
        values = np.asarray(model([space.decode(a) for a in actions.tolist()]), dtype=np.float64)
        if values.shape != (len(actions),) or not np.isfinite(values).all():
            return False
        scale = max(float(np.abs(values).max()), abs(self.base))
        return bool(np.abs(self.predict(actions) - values).max() <= TOLERANCE * scale)


@dataclass(frozen=True, slots=True, eq=False)
class SplitModel:
    """A sum over all positions but the last, another one for each option of the last.

    Attributes:
        sums: For each option of the last position; their own last parts are all ``[0.0]``.
    """

    sums: tuple[AdditiveModel, ...]

    @classmethod
    def exact(cls, space: SearchSpace, model: Model) -> SplitModel | None:
        """The sums, or None if the model does not add up even where the last position is given."""
        if len(space.nvec) < 2:
            return None
        found = []
        for option in range(space.nvec[-1]):
            part = _LastGiven(space, option)
            sums = AdditiveModel.exact(part, model)
            if sums is None:
                return None
            found.append(sums)
        return cls(tuple(found))

    def predict(self, actions: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        """Values of actions, as `AdditiveModel.predict`."""
        total = np.empty(len(actions))
        inner = actions.copy()
        inner[:, -1] = 0
        for option, sums in enumerate(self.sums):
            chosen = actions[:, -1] == option
            total[chosen] = sums.predict(inner[chosen])
        return total

    @property
    def parts(self) -> tuple[npt.NDArray[np.float64], ...]:
        """What options add beside the first option of the last position, and what that one adds.

        The last part compares the largest members of the sums; for those who decide the last position
        when all others are decided.
        """
        largest = np.array([[len(part) - 1 for part in self.sums[0].parts]])
        values = np.array([float(sums.predict(largest)[0]) for sums in self.sums])
        return (*self.sums[0].parts[:-1], values - values[0])


class _LastGiven:
    """The members of a space that have one option at the last position."""

    def __init__(self, space: SearchSpace, option: int) -> None:
        self._space = space
        self._option = option

    @property
    def nvec(self) -> tuple[int, ...]:
        """With one option at the last position."""
        return (*self._space.nvec[:-1], 1)

    def decode(self, action: Sequence[int]) -> SubnetConfig:
        """A member."""
        return self._space.decode((*action[:-1], self._option))


def exact_sums(space: SearchSpace, model: Model) -> AdditiveModel | SplitModel | None:
    """A model as a sum, or as one for each option of the last position; None if it is neither."""
    return AdditiveModel.exact(space, model) or SplitModel.exact(space, model)


def seen_sums(space: SearchSpace, model: Model) -> AdditiveModel | SplitModel:
    """As `exact_sums`; where a model is neither, the first-order view from the largest member."""
    return exact_sums(space, model) or AdditiveModel.probe(space, model)
