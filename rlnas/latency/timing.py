"""What a stopwatch brings back, and what can be said about it: medians, quantiles, ratios, noise.

Nothing here knows a device or a clock.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    FloatArray = npt.NDArray[np.float64]

NOISY = 0.2
"""Relative spread above which a timing counts as noisy."""

TAIL_SAMPLES = 100
"""Samples of one call below which its 99 % quantile rests on one or two of them."""

MIN_LEVELLED = 3
"""Calls and requests from which drift can be told: of two, neither is the odd one out."""

_N_RESAMPLES = 2_000
_N_POLISHES = 5


@dataclass(frozen=True, slots=True)
class Timing:
    """How long one call took, or each request of a mix, over the rounds of one `measure`.

    Attributes:
        samples_ms: Milliseconds of one call, round by round; of a mix, within a round request by
            request. A sample is the mean of `n_calls` calls.
        n_calls: Calls per sample.
        n_requests: Requests of the mix; 1 for a single call.
        slowdowns: By round, how much slower than usual the pacemaker ran just before and after;
            empty where there was none.

    Raises:
        ValueError: If there is no sample, one is not positive and finite, or numbers do not fit.
    """

    samples_ms: tuple[float, ...]
    n_calls: int = 1
    n_requests: int = 1
    slowdowns: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        for name in ("samples_ms", "slowdowns"):
            object.__setattr__(self, name, tuple(float(value) for value in getattr(self, name)))
            for value in getattr(self, name):
                if not (math.isfinite(value) and value > 0):
                    raise ValueError(f"{name} must be positive and finite, but got {value}")
        if not self.samples_ms:
            raise ValueError("a Timing needs at least one sample, but samples_ms is empty")
        for name in ("n_calls", "n_requests"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, but got {name}={getattr(self, name)}")
        if len(self.samples_ms) % self.n_requests:
            raise ValueError(
                f"a round has one sample of each of n_requests={self.n_requests}, "
                f"but there are {len(self.samples_ms)} samples"
            )
        if self.slowdowns and len(self.slowdowns) != self.n_rounds:
            raise ValueError(
                f"{self.n_rounds} rounds need as many slowdowns, but got {len(self.slowdowns)}"
            )

    @property
    def n_samples(self) -> int:
        """Number of samples."""
        return len(self.samples_ms)

    @property
    def n_rounds(self) -> int:
        """Number of rounds: each brings one sample of every request."""
        return len(self.samples_ms) // self.n_requests

    @property
    def rounds_ms(self) -> FloatArray:
        """The samples, shape ``(n_rounds, n_requests)``."""
        return np.array(self.samples_ms).reshape(self.n_rounds, self.n_requests)

    @property
    def median_ms(self) -> float:
        """Median of the samples, in milliseconds; of a mix, the mean over requests of their medians."""
        return float(_median(self.rounds_ms))

    @property
    def p99_ms(self) -> float:
        """99 % quantile of all samples, in milliseconds."""
        return self.quantile_ms(0.99)

    @property
    def spread_ms(self) -> float:
        """Interquartile range over rounds, in milliseconds; of a mix, of a round's mean."""
        low, high = np.quantile(self.rounds_ms.mean(axis=1), [0.25, 0.75])
        return float(high - low)

    @property
    def noise(self) -> float:
        """`spread_ms` relative to `median_ms`."""
        return self.spread_ms / self.median_ms

    @property
    def is_noisy(self) -> bool:
        """Whether `noise` exceeds `NOISY`."""
        return self.noise > NOISY

    def repeat_noise(self, statistic: str = "median") -> float | None:
        """How far two repeats of the measurement lie apart, relative to their mean; None below 4 rounds.

        The repeats are the even and the odd rounds; each is half as long as the whole, so that the
        whole is better than this says.

        Args:
            statistic: ``"median"`` or ``"p99"``.
        """
        if self.n_rounds < 4:
            return None
        even, odd = (float(_statistic(self.rounds_ms[start::2], statistic)) for start in (0, 1))
        return 2 * abs(even - odd) / (even + odd)

    def quantile_ms(self, q: float) -> float:
        """Quantile of all samples, in milliseconds.

        Args:
            q: In [0, 1].
        """
        return float(np.quantile(self.samples_ms, q))

    def statistic_ms(self, statistic: str) -> float:
        """`median_ms` or `p99_ms`, as a workload names it (``"median"``, ``"p99"``)."""
        return self.median_ms if statistic == "median" else self.p99_ms

    def interval_ms(
        self, statistic: str = "median", *, confidence: float = 0.95, seed: int = 0
    ) -> tuple[float, float]:
        """Bootstrap interval (low, high) of a statistic, over rounds, in milliseconds.

        Args:
            statistic: ``"median"`` or ``"p99"``.
            confidence: In (0, 1).
            seed: Of the bootstrap.

        Raises:
            ValueError: If `confidence` is not in (0, 1).
        """
        drawn = _resamples(self.n_rounds, seed)
        return _interval(_resampled(self.rounds_ms, drawn, statistic), confidence)

    def levelled(self) -> Timing:
        """As if the pacemaker had run equally fast all the time; itself where there was none."""
        if not self.slowdowns:
            return self
        rounds = self.rounds_ms / np.array(self.slowdowns)[:, None]
        return Timing(tuple(rounds.ravel().tolist()), self.n_calls, self.n_requests)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON: the samples, and their summary for readers."""
        return {
            "median_ms": self.median_ms,
            "spread_ms": self.spread_ms,
            "n_calls": self.n_calls,
            "n_requests": self.n_requests,
            "samples_ms": list(self.samples_ms),
            "slowdowns": list(self.slowdowns),
        }


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two calls timed in the same rounds.

    Attributes:
        first: Timing of the reference.
        second: Timing of the other.
        ratio: Second over first: the median over rounds, or for p99 the ratio of both p99.
        ratio_ci: Bootstrap interval (low, high) of `ratio`, over rounds.
        confidence: Of the interval.
    """

    first: Timing
    second: Timing
    ratio: float
    ratio_ci: tuple[float, float]
    confidence: float


def compare_timings(
    first: Timing,
    second: Timing,
    *,
    statistic: str = "median",
    confidence: float = 0.95,
    seed: int = 0,
) -> Comparison:
    """Compare two timings of one `measure`, round by round.

    Args:
        first: The reference.
        second: The other; its k-th round was the first's k-th.
        statistic: ``"median"`` or ``"p99"``.
        confidence: Of the interval of the ratio, in (0, 1).
        seed: Of the bootstrap.

    Raises:
        ValueError: If the numbers of rounds differ, or `confidence` is not in (0, 1).
    """
    _check_same_rounds([first, second])
    drawn = _resamples(first.n_rounds, seed)
    if statistic == "median":
        ratios = second.rounds_ms.mean(axis=1) / first.rounds_ms.mean(axis=1)
        ratio, resampled = float(np.median(ratios)), np.median(ratios[drawn], axis=1)
    else:
        ratio = second.statistic_ms(statistic) / first.statistic_ms(statistic)
        resampled = _resampled(second.rounds_ms, drawn, statistic)
        resampled = resampled / _resampled(first.rounds_ms, drawn, statistic)
    return Comparison(first, second, ratio, _interval(resampled, confidence), confidence)


def level_rounds(timings: Sequence[Timing]) -> list[Timing]:
    """Take out what slowed all calls of a round alike.

    First each sample is divided by the slowdown that its pacemaker saw, where there was one. Then
    by its round's: the median, over the calls, of how much slower than usual the call was in that
    round (Tukey's median polish, for factors).

    Args:
        timings: Of one `measure`; one or two say nothing of drift, and keep what the pacemaker left.

    Returns:
        Timings of the same calls, as if all rounds had been equally fast.

    Raises:
        ValueError: If the numbers of rounds differ.
    """
    _check_same_rounds(timings)
    paced = [timing.levelled() for timing in timings]
    # Rows are calls and requests, columns are rounds.
    samples = np.concatenate([timing.rounds_ms.T for timing in paced])
    if len(samples) < MIN_LEVELLED:
        return paced
    for _ in range(_N_POLISHES):
        usual = np.median(samples, axis=1, keepdims=True)
        samples = samples / np.median(samples / usual, axis=0)
    rows = np.split(samples, np.cumsum([timing.n_requests for timing in paced])[:-1])
    return [
        Timing(tuple(row.T.ravel().tolist()), timing.n_calls, timing.n_requests)
        for row, timing in zip(rows, paced, strict=True)
    ]


def noise_note(timings: Sequence[Timing]) -> str | None:
    """One sentence if more than half of the timings are noisy, else None."""
    noise = float(np.median([timing.noise for timing in timings]))
    if noise <= NOISY:
        return None
    return (
        f"this machine is noisy: the typical spread of a timing is {noise:.0%} of its median "
        f"(above {NOISY:.0%}); stop other work and time again, or take more rounds"
    )


def tail_note(n_samples: int, at_least: int = TAIL_SAMPLES) -> str | None:
    """One sentence if a 99 % quantile rests on one or two samples, else None.

    Args:
        n_samples: Samples that there are.
        at_least: Samples that are enough.
    """
    if n_samples >= at_least:
        return None
    return f"a p99 of {n_samples} samples rests on one or two of them; give it more time or more rounds"


def _check_same_rounds(timings: Sequence[Timing]) -> None:
    numbers = [timing.n_rounds for timing in timings]
    if len(set(numbers)) > 1:
        raise ValueError(
            f"timings of one measure have equally many rounds, but got {sorted(set(numbers))}; "
            "time all in one call of measure"
        )


def _median(rounds_ms: FloatArray) -> FloatArray:
    """Mean over requests of the medians over rounds; shape ``(..., n_rounds, n_requests)``."""
    medians: FloatArray = np.median(rounds_ms, axis=-2).mean(axis=-1)
    return medians


def _statistic(rounds_ms: FloatArray, statistic: str) -> FloatArray:
    if statistic == "median":
        return _median(rounds_ms)
    quantiles: FloatArray = np.quantile(rounds_ms, 0.99, axis=(-2, -1))
    return quantiles


def _resamples(n_rounds: int, seed: int) -> npt.NDArray[np.int64]:
    return np.random.default_rng(seed).integers(n_rounds, size=(_N_RESAMPLES, n_rounds))


def _resampled(rounds_ms: FloatArray, drawn: npt.NDArray[np.int64], statistic: str) -> FloatArray:
    """The statistic of every resample; a hundred at a time, as a thousand rounds of a mix are many."""
    parts = np.array_split(drawn, max(1, len(drawn) // 100))
    return np.concatenate([_statistic(rounds_ms[part], statistic) for part in parts])


def _interval(resampled: FloatArray, confidence: float) -> tuple[float, float]:
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must be in (0, 1), but got confidence={confidence}")
    tail = (1 - confidence) / 2
    low, high = np.quantile(resampled, [tail, 1 - tail])
    return float(low), float(high)
