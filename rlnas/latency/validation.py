"""How wrong a prediction of latencies is, beside simpler predictions fitted to the same timings."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import numpy.typing as npt

    FloatArray = npt.NDArray[np.float64]

MIN_PAIRS = 8
"""Pairs of models below which an agreement of their order says nothing."""

_N_SIMULATED = 200


@dataclass(frozen=True, slots=True)
class PredictionError:
    """How far predictions are from measurements of models that they were not fitted to.

    Attributes:
        mape: Mean absolute relative error, a fraction.
        p95: 95 % quantile of the absolute relative errors.
        worst: The largest of them.
        tau: Kendall's rank correlation (tau-a, in [-1, 1]) of predictions and measurements, or
            None below `MIN_PAIRS` pairs of models.
        tau_within_depth: The same over pairs of equally many blocks, which a count of blocks
            cannot tell apart.
    """

    mape: float
    p95: float
    worst: float
    tau: float | None = None
    tau_within_depth: float | None = None

    def __str__(self) -> str:
        text = f"{self.mape:.1%} (p95 {self.p95:.1%}"
        if self.tau is not None:
            text += f", tau {self.tau:.2f}"
        if self.tau_within_depth is not None:
            text += f", within equal depth {self.tau_within_depth:.2f}"
        return text + ")"


@dataclass(frozen=True, slots=True)
class HeldOutError:
    """Error of a latency table on models that it was not fitted to.

    Attributes:
        n_held_out: Models predicted.
        table: The table's error.
        controls: Errors of simpler predictions fitted to the same end-to-end timings: ``blocks``
            counts attention and FFN blocks, ``flops`` counts operations.
        noise: Mean relative difference of two measurements of one subnet: no prediction can be
            shown to be much better. Where models were held out, some of them are built and
            measured twice; else the two are the halves of the rounds, which sees less. None below
            four rounds.
        noise_p95: 95 % quantile of these differences.
        tau_ceiling: `tau_within_depth` that a perfect prediction would be seen to have, as the
            measurements are noisy; simulated.
        leave_one_out: Whether each model was predicted from a fit to the others, rather than
            measured for this purpose alone.
        worse_than: Name of the control that the table is worse than beyond noise, or None.
    """

    n_held_out: int
    table: PredictionError
    controls: Mapping[str, PredictionError] = field(default_factory=dict)
    noise: float | None = None
    noise_p95: float | None = None
    tau_ceiling: float | None = None
    leave_one_out: bool = True
    worse_than: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "controls", dict(self.controls))

    @property
    def mape(self) -> float:
        """Mean absolute relative error of the table, a fraction."""
        return self.table.mape

    @property
    def warning(self) -> str | None:
        """One sentence if a simpler prediction is better beyond noise, else None."""
        if self.worse_than is None:
            return None
        control = self.controls[self.worse_than]
        return (
            f"counting {self.worse_than} predicts latency better here ({control.mape:.1%} off "
            f"instead of {self.mape:.1%}); calibrate again on a quiet machine, with more rounds, and do "
            "not trust small differences until then"
        )

    def __str__(self) -> str:
        how = "leave-one-out" if self.leave_one_out else "measured for this alone"
        text = f"held-out error {self.table} on {self.n_held_out} models, {how}"
        if self.noise is not None:
            text += f"; repeat noise {self.noise:.1%}"
        if self.controls:
            text += "; " + ", ".join(f"counting {name} {error}" for name, error in self.controls.items())
        return text

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> HeldOutError:
        """The inverse of `to_dict`.

        Raises:
            TypeError: If a field is unknown or missing.
        """
        controls = {name: PredictionError(**error) for name, error in values["controls"].items()}
        return cls(**{**values, "table": PredictionError(**values["table"]), "controls": controls})


def judge(
    predicted_ms: Mapping[str, FloatArray],
    measured_ms: FloatArray,
    depths: npt.NDArray[np.int64],
    *,
    repeats: FloatArray | None = None,
    noise_sd: float = 0.0,
    leave_one_out: bool,
    seed: int = 0,
) -> HeldOutError:
    """Compare predictions of held-out models with their measurements.

    Args:
        predicted_ms: By name, shape ``(n,)``; ``"table"`` is the one on trial, the others are controls.
        measured_ms: Shape ``(n,)``, n at least 1.
        depths: Number of blocks of each model, shape ``(n,)``.
        repeats: Relative differences of two measurements of one model, shape ``(k,)``, or None.
        noise_sd: Relative standard deviation of a measurement, as `repeats` show it.
        leave_one_out: See `HeldOutError`.
        seed: Of the simulated measurements.
    """
    errors = {name: predicted / measured_ms - 1 for name, predicted in predicted_ms.items()}
    judged = {
        name: PredictionError(
            mape=float(np.abs(error).mean()),
            p95=float(np.quantile(np.abs(error), 0.95)),
            worst=float(np.abs(error).max()),
            tau=_tau(predicted_ms[name], measured_ms),
            tau_within_depth=_tau(predicted_ms[name], measured_ms, depths),
        )
        for name, error in errors.items()
    }
    table = judged.pop("table")
    return HeldOutError(
        n_held_out=len(measured_ms),
        table=table,
        controls=judged,
        noise=None if repeats is None else float(repeats.mean()),
        noise_p95=None if repeats is None else float(np.quantile(repeats, 0.95)),
        tau_ceiling=None if repeats is None else _tau_ceiling(measured_ms, depths, noise_sd, seed),
        leave_one_out=leave_one_out,
        worse_than=_worse_than(errors),
    )


def _tau(
    predicted: FloatArray, measured: FloatArray, groups: npt.NDArray[np.int64] | None = None
) -> float | None:
    """Kendall's tau-a over all pairs, or over those within a group; a tie counts for neither side."""
    first, second = np.triu_indices(len(measured), k=1)
    if groups is not None:
        same = groups[first] == groups[second]
        first, second = first[same], second[same]
    if len(first) < MIN_PAIRS:
        return None
    agree = np.sign(predicted[first] - predicted[second]) * np.sign(measured[first] - measured[second])
    return float(agree.mean())


def _tau_ceiling(
    measured_ms: FloatArray, depths: npt.NDArray[np.int64], noise_sd: float, seed: int
) -> float | None:
    """Tau within equal depth of the measurements and of what another measurement would bring."""
    rng = np.random.default_rng(seed)
    noise = 1 + noise_sd * rng.standard_normal((_N_SIMULATED, len(measured_ms)))
    taus = [_tau(measured_ms, measured_ms * factors, depths) for factors in noise]
    known = [tau for tau in taus if tau is not None]
    return float(np.mean(known)) if known else None


def _worse_than(errors: Mapping[str, FloatArray]) -> str | None:
    """The control whose errors are smaller, model by model, by more than two standard errors."""
    own = np.abs(errors["table"])
    found: dict[str, float] = {}
    for name, error in errors.items():
        excess = own - np.abs(error)
        if name == "table" or len(excess) < 4:
            continue
        if excess.mean() > max(2 * excess.std(ddof=1) / np.sqrt(len(excess)), 1e-9):
            found[name] = float(np.abs(error).mean())
    return min(found, key=lambda name: found[name]) if found else None


def leave_one_out(
    fit: Callable[[FloatArray, FloatArray], Callable[[FloatArray], FloatArray]],
    features: FloatArray,
    measured_ms: FloatArray,
) -> FloatArray:
    """Prediction of each model from a fit to the others, shape ``(n,)``.

    Args:
        fit: From features ``(n, k)`` and times ``(n,)`` to a prediction of times from features.
        features: Shape ``(n, k)``.
        measured_ms: Shape ``(n,)``.
    """
    predicted = np.empty(len(measured_ms))
    for i in range(len(measured_ms)):
        others = np.arange(len(measured_ms)) != i
        predicted[i] = fit(features[others], measured_ms[others])(features[i : i + 1])[0]
    return predicted
