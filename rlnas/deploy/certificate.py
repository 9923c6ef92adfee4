"""What a certificate holds, in text and in JSON."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rlnas.latency import DeviceInfo
    from rlnas.workload import Workload

TARGET_TOLERANCE = 1.05
"""A latency ratio up to this many times its target meets it: timings of one machine differ that much."""


@dataclass(frozen=True, slots=True)
class Measured:
    """One model of a certificate.

    Attributes:
        latency_ms: Latency in milliseconds: the workload's statistic, its median or its p99.
        latency_ci: Its 95 % interval (low, high), from a bootstrap over rounds.
        latency_spread_ms: Interquartile range of the latency over rounds, in milliseconds.
        n_params: Number of parameters.
        accuracy: The task's metric on the final split, a fraction; None without a task.
        accuracy_ci: Its 95 % interval (low, high); None without a task.
    """

    latency_ms: float
    latency_ci: tuple[float, float]
    latency_spread_ms: float
    n_params: int
    accuracy: float | None = None
    accuracy_ci: tuple[float, float] | None = None


@dataclass(frozen=True, slots=True)
class Prediction:
    """What a latency table says of another device or workload than what was measured.

    Attributes:
        ratio: Predicted latency of the certified model over the full model's.
        made_for: Workload and device of the table.
    """

    ratio: float
    made_for: str


@dataclass(frozen=True, slots=True)
class Certificate:
    """A model beside its baseline: both timed in the same rounds, and judged on the same items.

    Attributes:
        baseline: What the model is compared with, usually the full model.
        subnet: The certified model.
        latency_ratio: The model's latency over the baseline's: the median over rounds, or for p99
            the ratio of both p99.
        latency_ratio_ci: Its 95 % interval (low, high), from a bootstrap over rounds.
        target_ratio: What the ratio was to be at most, or None.
        workload: What was timed; both models were also judged in its number format, but for a subnet
            that has a workload of its own.
        device: What it was timed on.
        loss_points: 100 times the baseline's accuracy minus the model's; None without a task.
        loss_ci: Its 95 % interval (low, high), paired over items; None without a task.
        task_name: The task, or None if only latency is certified.
        metric: The task's metric, which `accuracy` stands for, or None.
        split: Name of the split that both were judged on, or None.
        n_items: Its number of items, or None.
        note: One sentence if the timings are noisy, else None.
        prediction: Set where the target is that of another device or workload: what is predicted
            there. What was measured is then of here.
        subnet_workload: The same requests in the number format and mode in which the subnet was judged
            and timed, where these are not those of `workload`; else None.
    """

    baseline: Measured
    subnet: Measured
    latency_ratio: float
    latency_ratio_ci: tuple[float, float]
    target_ratio: float | None
    workload: Workload
    device: DeviceInfo
    loss_points: float | None = None
    loss_ci: tuple[float, float] | None = None
    task_name: str | None = None
    metric: str | None = None
    split: str | None = None
    n_items: int | None = None
    note: str | None = None
    prediction: Prediction | None = None
    subnet_workload: Workload | None = None

    @property
    def target_met(self) -> bool | None:
        """Whether the ratio is at most `TARGET_TOLERANCE` times its target.

        None without a target, and where the target is that of another device or workload.
        """
        if self.target_ratio is None or self.prediction is not None:
            return None
        return self.latency_ratio <= TARGET_TOLERANCE * self.target_ratio

    def __str__(self) -> str:
        lines = ["latency alone, 95 % intervals"]
        if self.n_items is not None:
            lines = [f"{self.task_name}, {self.split} split, {self.n_items:,} items, 95 % intervals"]
        lines += [
            self._row("baseline", self.baseline),
            self._row("subnet", self.subnet),
            self._ratio_line(),
        ]
        if self.prediction is not None:
            lines.append(self._prediction_line(self.prediction))
        if self.loss_points is None or self.loss_ci is None:
            lines.append("accuracy  not judged, as no task was given")
        else:
            low, high = self.loss_ci
            lines.append(
                f"loss      {self.loss_points:.1f} points of {self.metric} [{low:.1f}, {high:.1f}]"
            )
        lines.append(f"timed     {self.workload} on {self.device}")
        if self.subnet_workload is not None:
            served = self.subnet_workload
            lines.append(f"served    the subnet in {served.dtype}, {served.mode}; judged and timed so")
        return "\n".join([*lines, *([f"note      {self.note}"] if self.note else [])])

    def _row(self, name: str, one: Measured) -> str:
        parts = []
        if one.accuracy is not None and one.accuracy_ci is not None:
            low, high = one.accuracy_ci
            parts.append(f"{self.metric} {one.accuracy:.3f} [{low:.3f}, {high:.3f}]")
        low, high = one.latency_ci
        tail = "" if self.workload.statistic == "median" else f"{self.workload.statistic} "
        spread = f"spread {one.latency_spread_ms:.2f}"
        parts.append(f"{tail}{one.latency_ms:.2f} ms [{low:.2f}, {high:.2f}] ({spread})")
        parts.append(f"{one.n_params / 1e6:.2f} M parameters")
        return f"{name:<9} " + "   ".join(parts)

    def _ratio_line(self) -> str:
        low, high = self.latency_ratio_ci
        text = f"latency   {self.latency_ratio:.3f} of the baseline's [{low:.3f}, {high:.3f}]"
        if self.prediction is not None:
            return f"{text}, measured here"
        if self.target_ratio is not None:
            text += f", target {self.target_ratio:g} {'met' if self.target_met else 'missed'}"
        return text

    def _prediction_line(self, prediction: Prediction) -> str:
        text = (
            f"predicted {prediction.ratio:.3f} of the full model's for {prediction.made_for}; "
            f"what was measured is of {self.workload} on {self.device.kind} {self.device.name}"
        )
        if self.target_ratio is not None:
            text += f", so whether the target {self.target_ratio:g} is met is not known"
        return text

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON, under the names that a run's ``summary.json`` uses."""
        judged = {"n_items": self.n_items, "split": self.split}
        return {
            "task_name": self.task_name,
            "metric": self.metric,
            "full": {**_plain(self.baseline), **judged},
            "best": {**_plain(self.subnet), **judged},
            "latency_ratio": self.latency_ratio,
            "latency_ratio_ci": list(self.latency_ratio_ci),
            "target_ratio": self.target_ratio,
            "target_met": self.target_met,
            "loss_points": self.loss_points,
            "loss_ci": None if self.loss_ci is None else list(self.loss_ci),
            "workload": self.workload.to_dict(),
            "subnet_workload": None if self.subnet_workload is None else self.subnet_workload.to_dict(),
            "device": self.device.to_dict(),
            "note": self.note,
            "prediction": None if self.prediction is None else asdict(self.prediction),
        }


def _plain(measured: Measured) -> dict[str, Any]:
    return {
        name: list(value) if isinstance(value, tuple) else value for name, value in asdict(measured).items()
    }
