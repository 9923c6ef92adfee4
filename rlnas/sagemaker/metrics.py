"""Log lines of a job from which SageMaker reads its metrics, and the patterns that find them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from rlnas.history import Result

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rlnas.trial import Trial

_NUMBER = r"([-+]?[0-9.]+(?:e[-+]?[0-9]+)?)"


@dataclass(frozen=True, slots=True)
class Metric:
    """A number that a job prints.

    Attributes:
        name: As SageMaker calls it.
        meaning: In words.
        tunable: Whether a tuning job may choose by it: not what the final split says, which is for
            reporting only.
    """

    name: str
    meaning: str
    tunable: bool

    @property
    def regex(self) -> str:
        """Finds the number in a log."""
        return f"{self.name}={_NUMBER}"

    @property
    def definition(self) -> dict[str, str]:
        """As a request has it."""
        return {"Name": self.name, "Regex": self.regex}


BEST_REWARD = Metric("rlnas:best_reward", "the highest reward so far", tunable=True)
BEST_ACCURACY = Metric("rlnas:best_accuracy", "accuracy of that subnet on the search split", tunable=True)
TRIALS = Metric("rlnas:trials", "subnets judged so far", tunable=False)
ACCURACY = Metric("rlnas:accuracy", "accuracy of the delivered model on the final split", tunable=False)
LATENCY_RATIO = Metric("rlnas:latency_ratio", "its certified latency over the full model's", tunable=False)
METRICS = (BEST_REWARD, BEST_ACCURACY, TRIALS, ACCURACY, LATENCY_RATIO)


def search_line(trials: Sequence[Trial]) -> str | None:
    """The line of a search that goes on; None before there is a trial that has seen all items."""
    if all(trial.metrics.raced_out for trial in trials):
        return None
    best = Result(tuple(trials), np.empty(0), "").best
    return _line({TRIALS: len(trials), BEST_REWARD: best.reward, BEST_ACCURACY: best.metrics.accuracy})


def final_line(summary: Mapping[str, Any]) -> str:
    """The line of a finished run; of several targets the largest counts."""
    model = summary["targets"][-1] if "targets" in summary else summary
    return _line({ACCURACY: model["best"]["accuracy"], LATENCY_RATIO: model["latency_ratio"]})


def _line(values: Mapping[Metric, float]) -> str:
    return " ".join(f"{metric.name}={value:.6g};" for metric, value in values.items())
