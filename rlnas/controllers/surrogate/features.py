"""What an accuracy model is told of a subnet."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from rlnas.additive import TOLERANCE, AdditiveModel

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy.typing as npt

    from rlnas.env import FloatArray, IntArray
    from rlnas.space import SearchSpace, SubnetConfig

N_CHECKED = 64


class Features:
    """Turns actions into numbers: choices, what neighbours keep together, depth, importance kept.

    For a space of p positions with n options each, and subnets of l layers, in this order:

    - one-hot choices without the first option, ``sum(n - 1)``;
    - the product of the shares of heads and units that a layer keeps, l;
    - of neighbouring layers: whether both are kept, and the product of their shares, ``2 (l - 1)``;
    - the share of layers kept, its square, and the share of all heads and units;
    - the share of importance kept and its square root, where it is known.

    Args:
        space: Where actions come from.
        kept_importance: Says how much importance configs keep, or None.
    """

    def __init__(
        self,
        space: SearchSpace,
        kept_importance: Callable[[Sequence[SubnetConfig]], Sequence[float]] | None = None,
    ) -> None:
        self._nvec = space.nvec
        self._sizes = _Sizes(space)
        self._kept = None if kept_importance is None else AdditiveModel.probe(space, kept_importance)
        self._all_kept = 1.0
        if self._kept is not None:
            largest = np.asarray(space.nvec, dtype=np.int64)[None] - 1
            self._all_kept = float(self._kept.predict(largest)[0]) or 1.0

    def __call__(self, actions: IntArray) -> FloatArray:
        """Features of actions of shape ``(k, p)``: shape ``(k, f)``."""
        shares = self._sizes(actions)
        heads, units = shares[:, 0::2], shares[:, 1::2]
        width = (heads + units) / 2
        kept = (width > 0).astype(np.float64)
        depth = kept.mean(axis=1, keepdims=True)
        columns = [
            *(np.eye(n)[actions[:, i], 1:] for i, n in enumerate(self._nvec)),
            heads * units,
            kept[:, 1:] * kept[:, :-1],
            width[:, 1:] * width[:, :-1],
            depth,
            depth**2,
            width.mean(axis=1, keepdims=True),
        ]
        if self._kept is not None:
            importance = self._kept.predict(actions)[:, None] / self._all_kept
            columns += [importance, np.sqrt(np.maximum(importance, 0.0))]
        return np.concatenate(columns, axis=1)


class _Sizes:
    """Shares of heads and units that each layer keeps: by a sum of choices where that is exact."""

    def __init__(self, space: SearchSpace) -> None:
        self._space = space
        self._full = np.maximum(_sizes([space.largest()])[0], 1.0)
        self._base, self._parts = self._probe()
        rng = np.random.default_rng(0)
        actions = rng.integers(space.nvec, size=(N_CHECKED, len(space.nvec)))
        difference = np.abs(self._add(actions) - self._decode(actions))
        self._adds_up = bool(difference.max() <= TOLERANCE)

    def __call__(self, actions: IntArray) -> FloatArray:
        """Shares of heads and units in turn, shape ``(k, 2 * layers)``, in [0, 1]."""
        return self._add(actions) if self._adds_up else self._decode(actions)

    def _probe(self) -> tuple[FloatArray, list[FloatArray]]:
        nvec = self._space.nvec
        smallest = np.zeros((1, len(nvec)), dtype=np.int64)
        base = self._decode(smallest)
        parts = []
        for position, n_options in enumerate(nvec):
            actions = np.repeat(smallest, n_options, axis=0)
            actions[:, position] = np.arange(n_options)
            parts.append(self._decode(actions) - base)
        return base, parts

    def _add(self, actions: IntArray) -> FloatArray:
        total = np.repeat(self._base, len(actions), axis=0)
        for position, part in enumerate(self._parts):
            total += part[actions[:, position]]
        return total

    def _decode(self, actions: IntArray) -> FloatArray:
        shares: FloatArray = _sizes([self._space.decode(a) for a in actions.tolist()]) / self._full
        return shares


def _sizes(configs: Sequence[SubnetConfig]) -> npt.NDArray[np.float64]:
    rows = [
        [size for layer in config.layers for size in (layer.num_attention_heads, layer.intermediate_size)]
        for config in configs
    ]
    return np.array(rows, dtype=np.float64)
