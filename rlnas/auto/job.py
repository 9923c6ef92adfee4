"""What a choice among models is asked to do."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING, cast

from rlnas.auto.arms import named_apart
from rlnas.auto.plan import RUNGS
from rlnas.errors import BudgetError, RewardError
from rlnas.rewards import LatencyTarget

if TYPE_CHECKING:
    from rlnas.auto.arms import Arm
    from rlnas.run import Job


@dataclass(frozen=True, slots=True)
class AutoJob:
    """One choice among models and the search that follows it: equal ones give equal histories.

    Attributes:
        arms: At least two, with names that tell them apart: folders have as much of their paths in them as
            that takes. The first one is the reference of the latency target and of the budget.
        job: The search that follows. Its reward is a `LatencyTarget` with a ratio, which is meant relative
            to the whole reference. Its model, pooling, learning rate and batch size of training are
            not looked at: they are what is chosen.
        rungs: Passes over the training items after which models are compared, ascending.
        passes: Compute that choice and search may take together, in passes of the whole reference over the
            training items; None for what two trials of each arm take.

    Raises:
        CheckpointError: If there are fewer than two arms, or one or its name stands there twice.
        BudgetError: If the rungs do not ascend from at least 1, or the passes are no number above 0.
        RewardError: If the reward is no latency target that is a ratio.
        ValueError: If the job asks for what a choice among models does not do.
    """

    arms: tuple[Arm, ...]
    job: Job
    rungs: tuple[int, ...] = RUNGS
    passes: float | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "arms", named_apart(self.arms))
        object.__setattr__(self, "rungs", tuple(self.rungs))
        if not self.rungs or self.rungs[0] < 1 or any(a >= b for a, b in pairwise(self.rungs)):
            raise BudgetError(
                f"rungs must be passes that ascend from at least 1, as 1,2,5, but got rungs={self.rungs}"
            )
        if self.passes is not None and not (math.isfinite(self.passes) and self.passes > 0):
            raise BudgetError(f"passes must be a number above 0, but got passes={self.passes}")
        if not isinstance(self.job.reward, LatencyTarget) or self.job.reward.ratio is None:
            raise RewardError(
                "models of several sizes are compared by one latency, so the target is a ratio to the "
                f"first of them, but got reward={self.job.reward}; use LatencyTarget(ratio=...)"
            )
        _check_plain(self.job)
        carved = replace(self.job.data, folds=0)  # all models are compared on one split
        object.__setattr__(self, "job", replace(self.job, data=carved))

    @property
    def target_ratio(self) -> float:
        """The latency aimed at, over that of the whole reference."""
        return cast("float", cast("LatencyTarget", self.job.reward).ratio)

    def settings(self) -> dict[str, str]:
        """Every setting as text, for comparing with what is resumed."""
        own = {
            "arms": " ".join(arm.model + arm.suffixes for arm in self.arms),
            "names": " ".join(arm.name for arm in self.arms),
            "rungs": str(self.rungs),
            "passes": str(self.passes),
        }
        chosen = ("model", "pooling", "learning_rate", "train_batch_size")
        rest = {key: value for key, value in self.job.settings().items() if key not in chosen}
        return {**own, **rest}


def _check_plain(job: Job) -> None:
    """Refuse what differs from model to model, or needs one model that is known beforehand."""
    asked = {
        "precisions": bool(job.precisions),
        "target_ratios": bool(job.target_ratios),
        "from_run": job.from_run is not None,
        "folds": bool(job.data.folds),
        "latency_table": job.latency_table is not None,
        "lengths_from_task": job.lengths_from_task,
        "sizes_worth_having": job.sizes_worth_having,
        "min_steps": job.min_steps is not None,
        "controls": bool(job.controls),
        "racing": job.racing is not None,
        "latency_resource": job.is_timed_elsewhere,
    }
    for name, is_asked in asked.items():
        if is_asked:
            raise ValueError(
                f"a choice among models does not go with {name}; search with the chosen one (rlnas search)"
            )
