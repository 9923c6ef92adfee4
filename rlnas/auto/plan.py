"""How many trials a budget allows, and how many of them go on at each rung."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from rlnas.errors import BudgetError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rlnas.auto.compute import ArmCost

RUNGS = (1, 2, 5)
"""Passes of the rungs by default. Were each twice the one before, as 1, 2, 4, then halving would train
exactly half of what all trials to their end take, and what judges them would come on top."""

TRIALS_OF_EACH = 2
"""Trials that every arm has before Optuna may give one arm more of them than another."""


@dataclass(frozen=True, slots=True)
class Plan:
    """Successive halving: all trials reach the first rung, and of those at a rung the better half goes on.

    Attributes:
        rungs: Passes over the training items after which trials are compared, ascending.
        n_trials: Trials, at least 1.

    References:
        K. Jamieson, A. Talwalkar. Non-stochastic best arm identification and hyperparameter
        optimization. AISTATS 2016.
    """

    rungs: tuple[int, ...]
    n_trials: int

    @property
    def counts(self) -> tuple[int, ...]:
        """Trials that are trained up to each rung."""
        return tuple(max(1, self.n_trials >> rung) for rung in range(len(self.rungs)))

    @property
    def steps(self) -> tuple[int, ...]:
        """Passes from the rung before to each rung."""
        return tuple(after - before for before, after in pairwise((0, *self.rungs)))

    def n_kept(self, rung: int) -> int:
        """Trials that are kept of those that have reached a rung: one of the last."""
        return self.counts[rung + 1] if rung + 1 < len(self.rungs) else 1

    def at_most(self, costs: Sequence[ArmCost]) -> float:
        """Passes of the reference that the plan may take, whichever trials go on.

        Args:
            costs: Of the arms, in their order; trials beyond `TRIALS_OF_EACH` may be of the dearest one.
        """
        n_spread = min(self.n_trials, TRIALS_OF_EACH * len(costs))
        total = 0.0
        for count, step in zip(self.counts, self.steps, strict=True):
            looks = [cost.look(step) for cost in costs]
            drawn = [looks[i % len(looks)] for i in range(n_spread)]
            drawn += [max(looks)] * (self.n_trials - n_spread)
            total += sum(sorted(drawn, reverse=True)[:count])
        return total


def make_plan(
    rungs: tuple[int, ...], costs: Mapping[str, ArmCost], reserved: float, passes: float | None
) -> Plan:
    """The plan with as many trials as a budget allows.

    Args:
        rungs: See `Plan`.
        costs: Of each arm, by its name.
        reserved: Passes of the reference that the search afterwards may take.
        passes: The budget of both, or None for `TRIALS_OF_EACH`.

    Raises:
        BudgetError: If not even one trial of each arm fits.
    """
    values = list(costs.values())
    if passes is None:
        return Plan(rungs, TRIALS_OF_EACH * len(values))
    plan = Plan(rungs, len(values))
    least = plan.at_most(values)
    if least + reserved > passes:
        raise BudgetError(
            f"passes={passes:g} are too few: one trial of each of {len(values)} models may take "
            f"{least:.1f} passes of the first model, and the search that follows {reserved:.1f}; give at "
            f"least {_up(least + reserved):g}, or fewer models, rungs or subnets (--budget)"
        )
    while Plan(rungs, plan.n_trials + 1).at_most(values) + reserved <= passes:
        plan = Plan(rungs, plan.n_trials + 1)
    return plan


def _up(passes: float) -> float:
    """The next tenth."""
    return -(-passes * 10 // 1) / 10
