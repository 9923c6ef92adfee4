"""Trials: an arm and how it is trained, proposed by Optuna's TPE.

Optuna keeps nothing: it is told of all earlier trials each time, in their order, with a seed of its own
for each proposal. So a history that was broken off goes on as an unbroken one.

References:
    J. Bergstra, R. Bardenet, Y. Bengio, B. Kégl. Algorithms for hyper-parameter optimization.
    NeurIPS 2011.
    S. Falkner, A. Klein, F. Hutter. BOHB: robust and efficient hyperparameter optimization at scale. ICML
    2018 (successive halving over trials that such a sampler proposes).
"""

from __future__ import annotations

import importlib.util
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from rlnas.auto.plan import TRIALS_OF_EACH
from rlnas.errors import MissingDependencyError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rlnas.run import Job

BATCH_SIZES = (16, 32, 64)
"""Items per step on offer."""

FIRST_BATCH_SIZE = 32
RATE_FACTORS = (0.25, 4.0)
"""Learning rates on offer, over the usual one of the arm's width."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """One trial.

    Attributes:
        number: In the order of proposal, from 0.
        arm: Name of the arm.
        learning_rate: Peak rate of the encoder.
        batch_size: Items per step.
    """

    number: int
    arm: str
    learning_rate: float
    batch_size: int

    def trains(self, job: Job) -> Job:
        """A job whose trainings have this learning rate and this batch size."""
        schedule = replace(job.schedule, batch_size=self.batch_size, learning_rate=self.learning_rate)
        return replace(job, schedule=schedule)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)

    def __str__(self) -> str:
        how = f"learning rate {self.learning_rate:g}, batches of {self.batch_size}"
        return f"trial {self.number}: {self.arm}, {how}"


def check_optuna() -> None:
    """Refuse to begin without Optuna.

    Raises:
        MissingDependencyError: If it is not installed.
    """
    if importlib.util.find_spec("optuna") is None:
        raise MissingDependencyError(
            "rlnas auto proposes learning rates and batch sizes with optuna, which is not installed; "
            "install with: pip install 'rlnas[optuna]'"
        )


def propose(
    rates: Mapping[str, float], told: Sequence[tuple[Candidate, float | None]], seed: int
) -> Candidate:
    """The next trial.

    The first trial of an arm has the usual learning rate and batch size; arms take turns until each has had
    `TRIALS_OF_EACH`, and from then on TPE chooses the arm too.

    Args:
        rates: By the name of each arm, the usual learning rate of its width.
        told: All earlier trials with their scores at the first rung; None for a training that failed.
        seed: Equal seeds give equal proposals.
    """
    number, arms = len(told), list(rates)
    if number < len(arms):
        return Candidate(number, arms[number], rates[arms[number]], FIRST_BATCH_SIZE)
    fixed = {"arm": arms[number % len(arms)]} if number < TRIALS_OF_EACH * len(arms) else {}
    asked = _ask(rates, told, fixed, int(np.random.default_rng([seed, number]).integers(2**32)))
    rate = float(f"{rates[asked['arm']] * asked['rate_factor']:.3g}")
    return Candidate(number, asked["arm"], rate, asked["batch_size"])


def _ask(
    rates: Mapping[str, float],
    told: Sequence[tuple[Candidate, float | None]],
    fixed: Mapping[str, Any],
    seed: int,
) -> dict[str, Any]:
    """What TPE proposes after these trials."""
    import optuna
    from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution

    distributions: dict[str, BaseDistribution] = {
        "arm": CategoricalDistribution(tuple(rates)),
        "rate_factor": FloatDistribution(*RATE_FACTORS, log=True),
        "batch_size": CategoricalDistribution(BATCH_SIZES),
    }
    sampler = optuna.samplers.TPESampler(
        seed=seed, multivariate=True, n_startup_trials=TRIALS_OF_EACH * len(rates)
    )
    states = {True: optuna.trial.TrialState.FAIL, False: optuna.trial.TrialState.COMPLETE}
    level = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        study = optuna.create_study(sampler=sampler, direction="maximize")
        for candidate, value in told:
            factor = candidate.learning_rate / rates[candidate.arm]
            study.add_trial(
                optuna.trial.create_trial(
                    params={
                        "arm": candidate.arm,
                        "rate_factor": float(np.clip(factor, *RATE_FACTORS)),  # it was rounded
                        "batch_size": candidate.batch_size,
                    },
                    distributions=distributions,
                    values=None if value is None else [value],
                    state=states[value is None],
                )
            )
        if fixed:
            study.enqueue_trial(dict(fixed))
        return dict(study.ask(distributions).params)
    finally:
        optuna.logging.set_verbosity(level)
