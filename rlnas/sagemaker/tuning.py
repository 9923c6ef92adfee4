"""What a hyper-parameter tuning job tries out."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rlnas.errors import RequestError
from rlnas.sagemaker.metrics import BEST_REWARD, METRICS, Metric

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

STRATEGIES = ("Bayesian", "Random", "Grid")
TUNABLE = tuple(metric for metric in METRICS if metric.tunable)


@dataclass(frozen=True, slots=True)
class Range:
    """Numbers that a flag of the search may have.

    Attributes:
        name: Of the flag, without dashes.
        low: The least one, as text.
        high: The largest one, as text.
        logarithmic: Whether steps are factors rather than differences.
        whole: Whether only whole numbers are tried, as the flag takes no others.

    Raises:
        RequestError: If the bounds are no finite numbers in this order, or are not above 0 for factors.
    """

    name: str
    low: str
    high: str
    logarithmic: bool = False
    whole: bool = False

    def __post_init__(self) -> None:
        written = f"--range {self.name}={self.low}:{self.high}"
        try:
            low, high = float(self.low), float(self.high)
        except ValueError:
            raise RequestError(f"{written} needs two numbers, e.g. learning-rate=1e-5:1e-3:log") from None
        if not low < high:
            raise RequestError(f"{written} needs a smaller number before a larger one")
        if not (math.isfinite(low) and math.isfinite(high)):
            raise RequestError(f"{written} needs two finite numbers")
        if self.logarithmic and low <= 0:
            raise RequestError(f"{written}:log needs numbers above 0")

    @classmethod
    def parse(cls, text: str, whole: Collection[str] = ()) -> Range:
        """The range that ``NAME=LOW:HIGH`` or ``NAME=LOW:HIGH:log`` describes.

        Args:
            text: As given.
            whole: Flags that take whole numbers only.

        Raises:
            RequestError: If the text has another form.
        """
        match = re.fullmatch(r"(?:--)?([\w-]+)=([^:]+):([^:]+)(:log)?", text)
        if match is None:
            raise RequestError(f"--range {text} must be NAME=LOW:HIGH or NAME=LOW:HIGH:log")
        name, low, high, log = match.groups()
        return cls(name, low, high, logarithmic=log is not None, whole=name in whole)


@dataclass(frozen=True, slots=True)
class Choice:
    """Values that a flag of the search may have.

    Attributes:
        name: Of the flag, without dashes.
        values: At least two, as text.

    Raises:
        RequestError: If there are fewer, or one stands there twice.
    """

    name: str
    values: tuple[str, ...]

    def __post_init__(self) -> None:
        written = f"--choice {self.name}={','.join(self.values)}"
        if len(self.values) < 2 or "" in self.values:
            raise RequestError(f"{written} needs two values or more, such as controller=auto,evolution")
        if len(set(self.values)) < len(self.values):
            raise RequestError(f"{written} names a value twice; drop one")

    @classmethod
    def parse(cls, text: str) -> Choice:
        """The choice that ``NAME=A,B,...`` describes.

        Raises:
            RequestError: If the text has another form.
        """
        match = re.fullmatch(r"(?:--)?([\w-]+)=(.*)", text)
        if match is None:
            raise RequestError(f"--choice {text} must be NAME=A,B,...")
        return cls(match[1], tuple(part.strip() for part in match[2].split(",")))


@dataclass(frozen=True, slots=True)
class Tuning:
    """A tuning job's own settings.

    Attributes:
        ranges: Numbers that are tried.
        choices: Values that are tried.
        objective: What is made as large as can be.
        strategy: One of `STRATEGIES`.
        max_jobs: Training jobs in all.
        max_parallel: Training jobs at a time.

    Raises:
        RequestError: If nothing is tried, a flag stands there twice, a number is below 1, or the strategy
            does not go with the rest.
    """

    ranges: tuple[Range, ...] = ()
    choices: tuple[Choice, ...] = ()
    objective: Metric = BEST_REWARD
    strategy: str = "Bayesian"
    max_jobs: int = 10
    max_parallel: int = 1

    def __post_init__(self) -> None:
        names = self.tried
        if not names:
            raise RequestError("a tuning job needs something to try; give --range or --choice")
        for name in names:
            if names.count(name) > 1:
                raise RequestError(f"--range and --choice name {name} twice; drop one")
        for flag, value in (("--max-jobs", self.max_jobs), ("--max-parallel", self.max_parallel)):
            if value < 1:
                raise RequestError(f"{flag} must be at least 1, but got {flag}={value}")
        if self.strategy == "Grid" and self.ranges:
            raise RequestError(
                f"--strategy=Grid tries choices only, but got --range {self.ranges[0].name}; "
                "write its values as --choice, or take another strategy"
            )

    @property
    def tried(self) -> list[str]:
        """Names of the flags that are tried out."""
        return [tried.name for tried in self.ranges] + [choice.name for choice in self.choices]

    def to_config(self, fixed: Mapping[str, str]) -> dict[str, Any]:
        """As a request has it.

        Args:
            fixed: Hyper-parameters that all of its jobs have.

        Raises:
            RequestError: If one of them is tried out too.
        """
        for name in self.tried:
            if name in fixed:
                raise RequestError(f"{name} is tried out, and fixed to {fixed[name]} as well; drop either")
        limits = {"MaxParallelTrainingJobs": self.max_parallel}
        if self.strategy != "Grid":  # which ends with its last combination
            limits["MaxNumberOfTrainingJobs"] = self.max_jobs
        return {
            "Strategy": self.strategy,
            "HyperParameterTuningJobObjective": {"Type": "Maximize", "MetricName": self.objective.name},
            "ResourceLimits": limits,
            "ParameterRanges": {
                "IntegerParameterRanges": [_numbers(each) for each in self.ranges if each.whole],
                "ContinuousParameterRanges": [_numbers(each) for each in self.ranges if not each.whole],
                "CategoricalParameterRanges": [
                    {"Name": each.name, "Values": list(each.values)} for each in self.choices
                ],
            },
        }


def _numbers(tried: Range) -> dict[str, str]:
    return {
        "Name": tried.name,
        "MinValue": tried.low,
        "MaxValue": tried.high,
        "ScalingType": "Logarithmic" if tried.logarithmic else "Linear",
    }
