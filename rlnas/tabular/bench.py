"""A tabular benchmark: every member of a product space, judged on every item.

Any search method runs on it in seconds, and its choice can be compared with the best there is. As
the answer to every single item is kept, methods can be shown one part of the items and be judged on
another, races can be replayed, and noise is that of real items.

References:
    .. [Ying2019] C. Ying et al. NAS-Bench-101: Towards reproducible neural architecture search.
       ICML 2019.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from rlnas.errors import EvaluationError, InfeasibleTargetError
from rlnas.metrics import Metrics

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy.typing as npt

    from rlnas.additive import AdditiveModel
    from rlnas.space import ChoiceSpace, ModelShape, SearchSpace, SubnetConfig

    FloatArray = npt.NDArray[np.float64]
    IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class BenchLatency:
    """Latencies that add up over the positions of a space; a `LatencyModel`.

    Attributes:
        space: Where the configs come from.
        model: Milliseconds, or the unit that `note` names.
        spread: Relative standard deviation of one measurement of a subnet, at least 0.
        note: What was timed, and on what.
    """

    space: SearchSpace
    model: AdditiveModel
    spread: float
    note: str

    def __call__(self, configs: Sequence[SubnetConfig], /) -> FloatArray:
        """Milliseconds of each config, shape ``(len(configs),)``."""
        actions = [self.space.encode(config) for config in configs]
        return self.model.predict(np.array(actions, dtype=np.int64).reshape(-1, len(self.space.nvec)))


@dataclass(frozen=True, slots=True, eq=False)
class TabularBench:
    """Right or wrong, for every subnet of a space and every item of a task.

    Rows are subnets in the order of their actions, the first layer most significant.

    Attributes:
        name: The task.
        space: The space of which all n members are in the table.
        shape: Sizes of the full model.
        n_items: Items that every subnet was judged on.
        chance: Accuracy of guessing, in [0, 1].
        right: Shape ``(n, ceil(n_items / 8))``, uint8: a bit per item, as `numpy.packbits` packs them.
        kept: Fisher importance that a subnet keeps.
        n_params: Parameters of the stand-alone subnet.
        latencies: By name, the first one being the default.
        recipe: How the table was made, plain values.
    """

    name: str
    space: ChoiceSpace
    shape: ModelShape
    n_items: int
    chance: float
    right: npt.NDArray[np.uint8] = field(repr=False)
    kept: AdditiveModel = field(repr=False)
    n_params: AdditiveModel = field(repr=False)
    latencies: Mapping[str, BenchLatency] = field(repr=False)
    recipe: Mapping[str, Any] = field(repr=False)

    @property
    def actions(self) -> IntArray:
        """The action of every row, shape ``(n, len(space.nvec))``."""
        nvec = self.space.nvec
        return np.stack(np.unravel_index(np.arange(math.prod(nvec)), nvec), axis=1).astype(np.int64)

    def row_of(self, config: SubnetConfig) -> int:
        """The row of a subnet.

        Raises:
            InvalidSubnetError: If it is no member of the space.
        """
        return int(np.ravel_multi_index(self.space.encode(config), self.space.nvec))

    def config_of(self, row: int) -> SubnetConfig:
        """The subnet of a row."""
        return self.space.decode([int(entry) for entry in np.unravel_index(row, self.space.nvec)])

    def halves(self, seed: int) -> tuple[IntArray, IntArray]:
        """The items in two random halves: one for methods to see, one to judge their choice.

        Returns:
            Two ascending arrays of item numbers, of ``n_items // 2`` and the other items.
        """
        order = np.random.default_rng(seed).permutation(self.n_items)
        return np.sort(order[: self.n_items // 2]), np.sort(order[self.n_items // 2 :])

    def accuracy(self, items: npt.ArrayLike | None = None) -> FloatArray:
        """Accuracy of every subnet on some items (by default all), shape ``(n,)``.

        Raises:
            EvaluationError: If the items are none, repeat, or are not of this bench.
        """
        chosen = self._checked(items)
        mask = np.zeros(self.n_items, dtype=bool)
        mask[chosen] = True
        counts = np.bitwise_count(self.right & np.packbits(mask)).sum(axis=1, dtype=np.int64)
        shares: FloatArray = counts / len(chosen)
        return shares

    def latency(self, name: str | None = None) -> BenchLatency:
        """A latency by its name; the first one by default.

        Raises:
            EvaluationError: If there is none of this name.
        """
        if name is None and self.latencies:
            return next(iter(self.latencies.values()))
        if name is None or name not in self.latencies:
            listed = ", ".join(map(repr, self.latencies)) or "none at all"
            raise EvaluationError(f"the bench {self.name} has no latency {name!r}; it has {listed}")
        return self.latencies[name]

    def latency_ms(self, name: str | None = None) -> FloatArray:
        """Latency of every subnet, shape ``(n,)``."""
        return self.latency(name).model.predict(self.actions)

    def optimum(
        self, target_ms: float, latency: str | None = None, items: npt.ArrayLike | None = None
    ) -> tuple[SubnetConfig, float]:
        """The most accurate subnet within a latency, and its accuracy; of equal ones the first row.

        Args:
            target_ms: Largest latency.
            latency: Which one.
            items: What accuracy is counted on; by default all items.

        Raises:
            InfeasibleTargetError: If no subnet is that fast.
        """
        latencies_ms = self.latency_ms(latency)
        fits = latencies_ms <= target_ms
        if not fits.any():
            raise InfeasibleTargetError(
                f"target_ms={target_ms:.4g} cannot be reached: the fastest subnet of the bench {self.name} "
                f"takes {latencies_ms.min():.4g} ms"
            )
        accuracies = np.where(fits, self.accuracy(items), -np.inf)
        best = int(accuracies.argmax())
        return self.config_of(best), float(accuracies[best])

    def evaluator(
        self,
        latency: str | None = None,
        items: npt.ArrayLike | None = None,
        noise_seed: int | None = None,
    ) -> BenchEvaluator:
        """An evaluator that answers from the table.

        Args:
            latency: Which one; the first by default.
            items: Numbers of the items that it judges on; by default all.
            noise_seed: Makes the latencies of its metrics single measurements, with the noise that
                was measured; the same config has the same noise. None leaves them as predicted.
        """
        chosen = self._checked(items)
        model = self.latency(latency)
        latencies_ms = model.model.predict(self.actions)
        if noise_seed is not None:
            draws = np.random.default_rng(noise_seed).standard_normal(len(latencies_ms))
            latencies_ms = latencies_ms * np.exp(model.spread * draws)
        return BenchEvaluator(self, model, chosen, self.accuracy(chosen), latencies_ms)

    def _checked(self, items: npt.ArrayLike | None) -> IntArray:
        if items is None:
            return np.arange(self.n_items)
        chosen = np.asarray(items)
        is_index = chosen.ndim == 1 and chosen.size > 0 and np.issubdtype(chosen.dtype, np.integer)
        if not is_index or chosen.min() < 0 or chosen.max() >= self.n_items:
            raise EvaluationError(
                f"items must be numbers from 0 to {self.n_items - 1}, at least one, but got {items!r:.60}"
            )
        if len(np.unique(chosen)) < len(chosen):
            raise EvaluationError(f"items must not repeat, but got {items!r:.60}")
        return chosen.astype(np.int64)


@dataclass(frozen=True, slots=True, eq=False)
class BenchEvaluator:
    """Answers from a `TabularBench`; an `InformedEvaluator` and a `WeighingEvaluator`.

    Attributes:
        bench: The table.
        latency: Predicts the latencies, noise apart.
        items: Numbers of the items that accuracy is counted on.
        accuracies: Of every row on these items.
        latencies_ms: Of every row.
    """

    bench: TabularBench
    latency: BenchLatency
    items: IntArray = field(repr=False)
    accuracies: FloatArray = field(repr=False)
    latencies_ms: FloatArray = field(repr=False)

    @property
    def importance(self) -> FloatArray:
        """Fisher importance of each layer, shape ``(len(space.nvec),)``."""
        return np.array([part[-1] for part in self.bench.kept.parts])

    def kept_importance(self, configs: Sequence[SubnetConfig], /) -> FloatArray:
        """Fisher importance of what each config keeps, shape ``(len(configs),)``."""
        actions = [self.bench.space.encode(config) for config in configs]
        shaped = np.array(actions, dtype=np.int64).reshape(-1, len(self.bench.space.nvec))
        return self.bench.kept.predict(shaped)

    def __call__(self, configs: Sequence[SubnetConfig], /) -> list[Metrics]:
        """Metrics of each config, in the same order; `Metrics.correct` follows `items`.

        Raises:
            InvalidSubnetError: If a config is no member of the space.
        """
        rows = np.array([self.bench.row_of(config) for config in configs], dtype=np.int64)
        actions = np.stack(np.unravel_index(rows, self.bench.space.nvec), axis=1)
        n_params = self.bench.n_params.predict(actions.astype(np.int64))
        bits = np.unpackbits(self.bench.right[rows], axis=1, count=self.bench.n_items)[:, self.items]
        correct = np.packbits(bits, axis=1)
        return [
            Metrics(
                accuracy=self.accuracies[row],
                latency_ms=self.latencies_ms[row],
                n_params=round(n_params[i]),
                n_items=len(self.items),
                correct=correct[i].tobytes(),
            )
            for i, row in enumerate(rows.tolist())
        ]
