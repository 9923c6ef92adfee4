"""What is known about a subnet after it was evaluated."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True)
class Metrics:
    """The judged values of one subnet.

    Attributes:
        accuracy: The task's metric as a fraction (accuracy and F1 in [0, 1]; Matthews,
            Spearman and Pearson in [-1, 1]); higher is better.
        latency_ms: Latency of one forward pass of the workload, in milliseconds; NaN where
            no latency is known.
        n_params: Number of parameters of the stand-alone subnet, 0 where unknown.
        n_items: Number of items behind `accuracy`, 0 where unknown.
        accuracy_ci: 95 % confidence interval of `accuracy` (low, high), or None.
        extra: Further named values, for rewards of one's own.
        raced_out: Whether the subnet left a race early: `accuracy` is then an estimate on
            `n_items` items only. Such a subnet is never the best, nor on the Pareto front.
        correct: One bit per item of the split in the split's order, 1 where the prediction is
            right, as `numpy.packbits` packs them; None where not kept.

    Raises:
        TypeError: If `correct` is no bytes, nor anything that holds some.
        ValueError: If `correct` does not fit `n_items`, where all items were judged.
    """

    accuracy: float
    latency_ms: float = math.nan
    n_params: int = 0
    n_items: int = 0
    accuracy_ci: tuple[float, float] | None = None
    extra: Mapping[str, float] = field(default_factory=dict, hash=False)
    raced_out: bool = field(default=False, kw_only=True)
    correct: bytes | None = field(default=None, kw_only=True, repr=False)

    def __post_init__(self) -> None:
        # Evaluators often have numpy scalars at hand; the history needs plain numbers.
        for name, plain in (
            ("accuracy", float),
            ("latency_ms", float),
            ("n_params", int),
            ("n_items", int),
            ("raced_out", bool),
        ):
            value = getattr(self, name)
            if type(value) is not plain:
                object.__setattr__(self, name, plain(value))
        extra = {str(name): float(value) for name, value in self.extra.items()}
        object.__setattr__(self, "extra", MappingProxyType(extra))
        if self.accuracy_ci is not None:
            low, high = self.accuracy_ci
            object.__setattr__(self, "accuracy_ci", (float(low), float(high)))
        if self.correct is not None:
            self._set_correct(self.correct)

    def _set_correct(self, given: bytes) -> None:
        correct = memoryview(given).tobytes()  # bytes() would take a number for a length
        n_bytes = (self.n_items + 7) // 8
        if self.n_items and not self.raced_out and len(correct) != n_bytes:
            raise ValueError(
                f"correct must hold {n_bytes} bytes, a bit for each of n_items={self.n_items}, "
                f"but got {len(correct)}; pack it with numpy.packbits"
            )
        object.__setattr__(self, "correct", correct)

    def __reduce__(self) -> tuple[object, ...]:
        # A mapping proxy cannot be pickled, but metrics have to travel between processes.
        return (Metrics.from_dict, (self.to_dict(),))

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON (NaN latency becomes None, `correct` hexadecimal digits)."""
        return {
            "accuracy": self.accuracy,
            "latency_ms": None if math.isnan(self.latency_ms) else self.latency_ms,
            "n_params": self.n_params,
            "n_items": self.n_items,
            "accuracy_ci": None if self.accuracy_ci is None else list(self.accuracy_ci),
            "extra": dict(self.extra),
            "raced_out": self.raced_out,
            "correct": None if self.correct is None else self.correct.hex(),
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Metrics:
        """Inverse of `to_dict`; only ``accuracy`` has to be there.

        Raises:
            KeyError: If ``accuracy`` is missing.
            ValueError: If ``correct`` is not hexadecimal, or does not fit ``n_items``.
        """
        latency_ms = values.get("latency_ms")
        interval = values.get("accuracy_ci")
        correct = values.get("correct")
        return cls(
            accuracy=float(values["accuracy"]),
            latency_ms=math.nan if latency_ms is None else float(latency_ms),
            n_params=int(values.get("n_params", 0)),
            n_items=int(values.get("n_items", 0)),
            accuracy_ci=None if interval is None else (float(interval[0]), float(interval[1])),
            extra=dict(values.get("extra", {})),
            raced_out=bool(values.get("raced_out", False)),
            correct=None if correct is None else bytes.fromhex(correct),
        )
