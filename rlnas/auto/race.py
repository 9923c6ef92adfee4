"""Successive halving over trials whose training goes on from rung to rung."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Protocol

from rlnas.auto.candidates import propose
from rlnas.auto.record import Look
from rlnas.errors import EvaluationError, TrainingError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from rlnas.auto.candidates import Candidate
    from rlnas.auto.compute import ArmCost
    from rlnas.auto.plan import Plan
    from rlnas.auto.record import Record

logger = logging.getLogger(__name__)


class Learner(Protocol):
    """Trains trials and judges them."""

    def score(self, candidate: Candidate, rung: int) -> float:
        """Train on from the rung before, and judge on the search split.

        Raises:
            TrainingError: If the training fails, as by too high a learning rate; the trial loses.
            EvaluationError: If the answers are no finite numbers; likewise.
        """
        ...

    def drop(self, candidate: Candidate) -> None:
        """Let go of what is kept of a trial that lost; it may be gone already."""
        ...


def race(
    plan: Plan,
    rates: Mapping[str, float],
    costs: Mapping[str, ArmCost],
    learner: Learner,
    record: Record,
    seed: int,
) -> Look:
    """Train trials rung by rung; the better half goes on, and the best of the last rung wins.

    Of equal scores the cheaper model is better, then the earlier trial. What `record` holds is not done
    again, and the rest comes out as if nothing had been broken off.

    Args:
        plan: Rungs, and how many trials reach them.
        rates: By the name of each arm, its usual learning rate.
        costs: By the name of each arm, what its work costs.
        learner: Trains and judges.
        record: Is told of every look.
        seed: Of the proposals.

    Returns:
        The winner's last look.

    Raises:
        TrainingError: If no training came to an end.
    """
    for rung, step in enumerate(plan.steps):
        if rung == 0:
            candidates = _proposals(plan.n_trials, rates, record, seed)
        else:
            candidates = iter(_better(plan, rung, record))
        for candidate in candidates:
            if candidate.number not in record.at(rung):
                score = _score(learner, candidate, rung)
                record.append(Look(candidate, rung, score, costs[candidate.arm].look(step)))
                said = "failed" if score is None else f"{score:.4f} on the search split"
                logger.info("%s, after %d passes: %s", candidate, plan.rungs[rung], said)
            _drop_losers(plan, rung, learner, record)
        best = _ranked(record, rung)[0]
        if best.score is None:
            n_trials = len(record.at(rung))
            raise TrainingError(
                f"all {n_trials} trials failed in training; check the labels, or name other models"
            )
    return best


def _proposals(n_trials: int, rates: Mapping[str, float], record: Record, seed: int) -> Iterator[Candidate]:
    """Each trial as it is needed: what the record does not hold is proposed by all that it holds then."""
    for number in range(n_trials):
        known = record.at(0)
        if number in known:
            yield known[number].candidate
        else:
            yield propose(rates, [(look.candidate, look.score) for look in known.values()], seed)


def _better(plan: Plan, rung: int, record: Record) -> list[Candidate]:
    """The trials that go on to a rung, in the order of their numbers."""
    kept = [look for look in _ranked(record, rung - 1)[: plan.counts[rung]] if look.score is not None]
    return sorted((look.candidate for look in kept), key=lambda candidate: candidate.number)


def _ranked(record: Record, rung: int) -> list[Look]:
    return sorted(record.at(rung).values(), key=lambda look: look.order)


def _score(learner: Learner, candidate: Candidate, rung: int) -> float | None:
    try:
        return learner.score(candidate, rung)
    except (TrainingError, EvaluationError) as error:
        logger.warning("%s is out: %s", candidate, error)
        return None


def _drop_losers(plan: Plan, rung: int, learner: Learner, record: Record) -> None:
    """Let go of those that cannot be among the kept ones any more, so that few weights lie on the disk."""
    for place, look in enumerate(_ranked(record, rung)):
        if place >= plan.n_kept(rung) or look.score is None:
            learner.drop(look.candidate)
