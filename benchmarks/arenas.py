"""Where search methods are compared: what they see, and what their choice is judged by."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Protocol

import numpy as np

from rlnas.pareto import hypervolume
from rlnas.tabular import BenchEvaluator, SyntheticBench, TabularBench, load_bench, load_synthetic

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    import numpy.typing as npt

    from rlnas.metrics import Metrics
    from rlnas.protocols import LatencyModel
    from rlnas.space import SearchSpace, SubnetConfig

    FloatArray = npt.NDArray[np.float64]

SUFFIX = ".rlnasbench"
SYNTHETIC_SUFFIX = ".synthetic.json"


class KnowingEvaluator(Protocol):
    """An evaluator that brings all that a method may know beforehand."""

    @property
    def latency(self) -> LatencyModel:
        """Predicts latencies."""

    @property
    def importance(self) -> FloatArray | None:
        """Of the block at each position."""

    def kept_importance(self, configs: Sequence[SubnetConfig], /) -> Sequence[float] | FloatArray:
        """Of what each config keeps."""

    def __call__(self, configs: Sequence[SubnetConfig], /) -> Sequence[Metrics]:
        """Metrics of each config."""


class Arena(Protocol):
    """A task with two views of it, which differ by seed: one for methods, one that judges them."""

    @property
    def name(self) -> str:
        """The task."""

    @property
    def space(self) -> SearchSpace:
        """What methods choose from."""

    @property
    def chance(self) -> float:
        """Accuracy of guessing."""

    @property
    def latency(self) -> LatencyModel:
        """What methods and judge know of latency."""

    def evaluator(self, seed: int) -> KnowingEvaluator:
        """What methods see."""

    def judge(self, configs: Sequence[SubnetConfig], seed: int) -> FloatArray:
        """Accuracies that count, shape ``(len(configs),)``."""

    def truth(self, seed: int) -> str:
        """Names what judges: where two seeds have the same name, their optima are the same."""

    def optimum(self, target_ms: float, seed: int) -> float:
        """The highest accuracy that counts within a latency, as far as it is known."""

    def exhaustive(self, target_ms: float, seed: int) -> float | None:
        """Accuracy that counts of the choice of who has seen every subnet, or None if nobody can."""

    def seen_optimum(self, target_ms: float, seed: int) -> float | None:
        """The highest accuracy within a latency as methods see it, or None if nobody knows it."""

    def best_area(self, seed: int) -> float:
        """Hypervolume of the best front that is known; see `area`."""


def full_ms(arena: Arena) -> float:
    """Latency of the full model."""
    return float(np.asarray(arena.latency([arena.space.largest()]))[0])


def area(latencies_ms: FloatArray, accuracies: FloatArray, arena: Arena) -> float:
    """Hypervolume up to the corner of the full model's latency and the accuracy of guessing."""
    order = np.lexsort((-accuracies, latencies_ms))
    ascending = accuracies[order]
    # Only what is better than all that is faster can be on the front: few of thousands.
    best_before = np.concatenate([[-np.inf], np.maximum.accumulate(ascending)[:-1]])
    front = order[ascending > best_before]
    costs = np.stack([latencies_ms[front], -accuracies[front]], axis=1)
    return hypervolume(costs, (full_ms(arena), -arena.chance))


@dataclass(frozen=True, eq=False)
class TableArena:
    """A table of rlnas-bench: methods see one random half of the items, the other half judges.

    Attributes:
        bench: The table.
        latency_name: Which latency, or None for its first.
    """

    bench: TabularBench
    latency_name: str | None = None

    @property
    def name(self) -> str:
        """The task."""
        return self.bench.name

    @property
    def space(self) -> SearchSpace:
        """What methods choose from."""
        return self.bench.space

    @property
    def chance(self) -> float:
        """Accuracy of guessing."""
        return self.bench.chance

    @cached_property
    def latency(self) -> LatencyModel:
        """The table's latency."""
        return self.bench.latency(self.latency_name)

    def evaluator(self, seed: int) -> BenchEvaluator:
        """Answers on the first half."""
        return self.bench.evaluator(self.latency_name, self.bench.halves(seed)[0])

    def judge(self, configs: Sequence[SubnetConfig], seed: int) -> FloatArray:
        """Accuracies on the second half."""
        return self._second_half(seed)[[self.bench.row_of(config) for config in configs]]

    def truth(self, seed: int) -> str:
        """The second half."""
        return f"second half {seed}"

    def optimum(self, target_ms: float, seed: int) -> float:
        """The highest accuracy on the second half within a latency; exact."""
        return float(self._second_half(seed)[self._latencies_ms <= target_ms].max())

    def exhaustive(self, target_ms: float, seed: int) -> float:
        """Accuracy on the second half of the first of the best on the first half."""
        seen = np.where(self._latencies_ms <= target_ms, self.evaluator(seed).accuracies, -np.inf)
        return float(self._second_half(seed)[seen.argmax()])

    def seen_optimum(self, target_ms: float, seed: int) -> float:
        """The highest accuracy on the first half within a latency."""
        return float(self.evaluator(seed).accuracies[self._latencies_ms <= target_ms].max())

    def best_area(self, seed: int) -> float:
        """Hypervolume of all subnets on the second half."""
        return area(self._latencies_ms, self._second_half(seed), self)

    @cached_property
    def _latencies_ms(self) -> FloatArray:
        return self.bench.latency_ms(self.latency_name)

    @cached_property
    def _known(self) -> dict[int, FloatArray]:
        return {}

    def _second_half(self, seed: int) -> FloatArray:
        if seed not in self._known:
            self._known[seed] = self.bench.accuracy(self.bench.halves(seed)[1])
        return self._known[seed]


@dataclass(frozen=True, eq=False)
class SyntheticArena:
    """A synthetic bench: methods see noise, the formula without noise judges.

    Attributes:
        bench: The formulas.
    """

    bench: SyntheticBench

    @property
    def name(self) -> str:
        """The task; says that it is synthetic."""
        return self.bench.name

    @property
    def space(self) -> SearchSpace:
        """What methods choose from."""
        return self.bench.space

    @property
    def chance(self) -> float:
        """Accuracy of guessing."""
        return self.bench.chance

    @property
    def latency(self) -> LatencyModel:
        """The bench's latency."""
        return self.bench.latency

    def evaluator(self, seed: int) -> KnowingEvaluator:
        """Answers with noise."""
        return self.bench.evaluator(seed)

    def judge(self, configs: Sequence[SubnetConfig], seed: int) -> FloatArray:
        """Accuracies without noise."""
        del seed
        return self.bench.accuracy(configs)

    def truth(self, seed: int) -> str:
        """The formula."""
        del seed
        return "noise-free"

    def optimum(self, target_ms: float, seed: int) -> float:
        """The best that a long search found within a latency; methods may find better ones."""
        del seed
        latencies_ms, accuracies = self._best_known
        # A subnet that was found at this very target is within it, but for the last digit.
        return float(accuracies[latencies_ms <= target_ms * (1 + 1e-9)].max())

    def exhaustive(self, target_ms: float, seed: int) -> None:
        """Nobody can see every subnet."""
        del target_ms, seed

    def seen_optimum(self, target_ms: float, seed: int) -> None:
        """As for `exhaustive`."""
        del target_ms, seed

    def best_area(self, seed: int) -> float:
        """Hypervolume of what a long search found."""
        del seed
        return area(*self._best_known, self)

    @cached_property
    def _best_known(self) -> tuple[FloatArray, FloatArray]:
        actions = self.bench.best_known
        return self.bench.latency.model.predict(actions), self.bench.surface.accuracy(actions)


def load_arenas(folder: Path, names: Sequence[str] | None, latency: str | None) -> list[Arena]:
    """The arenas of a folder, tables first, in the order of their names.

    Args:
        folder: Holds the files of rlnas-bench.
        names: Only these; by default all.
        latency: Name of the latency to search with in tables, or None for each file's first.

    Raises:
        SystemExit: If one is not there.
    """
    loaders: dict[str, Callable[[], Arena]] = {}
    for path in sorted(folder.glob(f"*{SUFFIX}")):
        loaders[path.name.removesuffix(SUFFIX)] = lambda path=path: TableArena(load_bench(path), latency)
    for path in sorted(folder.glob(f"*{SYNTHETIC_SUFFIX}")):
        name = path.name.removesuffix(SYNTHETIC_SUFFIX)
        loaders[name] = lambda path=path: SyntheticArena(load_synthetic(path))
    chosen = list(loaders) if names is None else list(names)
    missing = [name for name in chosen if name not in loaders]
    if missing or not chosen:
        raise SystemExit(f"{folder} holds {', '.join(loaders) or 'no bench'}, but not {', '.join(missing)}")
    return [loaders[name]() for name in chosen]
