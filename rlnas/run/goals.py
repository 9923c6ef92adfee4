"""What a run is to deliver: one model, or one for each of several targets."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from rlnas.protocols import TargetedReward
from rlnas.run.inputs import full_latency
from rlnas.run.job import ratio_name

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from rlnas.history import Result
    from rlnas.protocols import Reward
    from rlnas.run.folder import RunFolder
    from rlnas.run.inputs import Inputs
    from rlnas.run.job import Job
    from rlnas.trial import Trial


@dataclass(frozen=True, slots=True, eq=False)
class Goal:
    """One model that a run is to deliver.

    Attributes:
        name: What it is called in messages and file names.
        target_ratio: The latency aimed at over the full model's, or None for rewards without one.
        reward: What a subnet is worth for it.
        folder: Where its model goes.
        steps: File of what was certified for it so far, while the run goes on.
        delivered: File of what the summary says of it, likewise.
        expected: By number of a trial its accuracy without the luck of the search items, where it is known.
        repaired: By number of a trial its accuracy on the search split after a repair, where it had one.
    """

    name: str
    target_ratio: float | None
    reward: Reward
    folder: Path
    steps: Path
    delivered: Path
    expected: Mapping[int, float] = field(default_factory=dict)
    repaired: Mapping[int, float] = field(default_factory=dict)

    def judged(self, trial: Trial) -> Trial:
        """The trial with the reward that it has for this goal, of what is best known of its accuracy."""
        accuracy = trial.metrics.accuracy
        for known in (self.expected, self.repaired):
            accuracy = known.get(trial.number, accuracy)
        return replace(trial, reward=float(self.reward(replace(trial.metrics, accuracy=accuracy))))

    def result(self, result: Result) -> Result:
        """The search as if it had been for this goal alone, with rewards as in `judged`."""
        return replace(result, trials=tuple(self.judged(trial) for trial in result.trials))


def goals_of(job: Job, inputs: Inputs, folder: RunFolder) -> list[Goal]:
    """What the run is to deliver, by ascending target; a single one without `Job.target_ratios`."""
    checkpoints = folder.checkpoints
    steps, delivered = checkpoints / "steps.json", checkpoints / "delivered.json"
    if not (job.target_ratios and isinstance(inputs.reward, TargetedReward)):
        return [Goal("best", inputs.target_ratio, inputs.reward, folder.best, steps, delivered)]
    full_ms = full_latency(inputs.space, inputs.latency)
    return [
        Goal(
            name=name,
            target_ratio=ratio,
            reward=inputs.reward.at(ratio * full_ms),
            folder=folder.models / name,
            steps=checkpoints / f"steps-{name}.json",
            delivered=checkpoints / f"delivered-{name}.json",
        )
        for ratio, name in ((ratio, ratio_name(ratio)) for ratio in job.target_ratios)
    ]
