"""Successive halving over trials whose training goes on from rung to rung."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from rlnas.auto.candidates import propose
from rlnas.auto.record import Look
from rlnas.auto.ties import note_on_ties
from rlnas.errors import EvaluationError, TrainingError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from rlnas.auto.candidates import Candidate
    from rlnas.auto.compute import ArmCost
    from rlnas.auto.plan import Plan
    from rlnas.auto.record import Judgement, Record

logger = logging.getLogger(__name__)


class Learner(Protocol):
    """Trains trials and judges them."""

    def judge(self, candidate: Candidate, rung: int) -> Judgement:
        """Train on up to a rung, from the start where nothing is kept, and judge on the search split.

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
    """Train trials rung by rung; the better half goes on, and the best of those that came to the end wins.

    Of equal scores that with the lower loss is better, then the cheaper model, then the earlier trial.
    Where all that went on to a rung have failed there, those that had been left behind go on in their
    place, the furthest and best first, until one comes to that rung. What `record` holds is not done
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
        TrainingError: If every trial has failed.
    """
    track = _Track(plan, costs, learner, record)
    for rung, step in enumerate(plan.steps):
        if rung == 0:
            candidates = _proposals(plan.n_trials, rates, record, seed)
        else:
            candidates = iter(track.going_on(rung))
        for candidate in candidates:
            if candidate.number not in record.at(rung):
                track.look_at(candidate, rung, step)
                track.drop_losers(rung)
        while track.ranked(rung)[0].score is None:
            track.look_at(*track.left_behind())
    return track.ranked(len(plan.rungs) - 1)[0]


def _proposals(n_trials: int, rates: Mapping[str, float], record: Record, seed: int) -> Iterator[Candidate]:
    """Each trial as it is needed: what the record does not hold is proposed by all that it holds then."""
    for number in range(n_trials):
        known = record.at(0)
        if number in known:
            yield known[number].candidate
        else:
            yield propose(rates, [(look.candidate, look.score) for look in known.values()], seed)


@dataclass(frozen=True, slots=True)
class _Track:
    """A race as far as its record tells."""

    plan: Plan
    costs: Mapping[str, ArmCost]
    learner: Learner
    record: Record

    def ranked(self, rung: int) -> list[Look]:
        """The looks at a rung, best first."""
        return sorted(self.record.at(rung).values(), key=lambda look: look.order)

    def going_on(self, rung: int) -> list[Candidate]:
        """The better trials, which go on to a rung, in the order of their numbers.

        Where it was not the scores that chose them, the log says so.
        """
        kept = self.ranked(rung - 1)[: self.plan.counts[rung]]
        going = (look.candidate for look in kept if look.score is not None)
        candidates = sorted(going, key=lambda candidate: candidate.number)
        looks, numbers = self.record.at(rung - 1).values(), [each.number for each in candidates]
        if note := note_on_ties(looks, numbers, self.plan.rungs[rung - 1]):
            logger.warning("%s", note)
        return candidates

    def left_behind(self) -> tuple[Candidate, int, int]:
        """The furthest and best trial that has not failed, its next rung, and the passes up to there.

        Its weights were let go of, so it is trained from the start, unless it has just come this far.
        """
        looks = self.record.looks
        last = {look.candidate.number: look for look in looks}
        standing = [look for look in last.values() if look.score is not None]
        if not standing:
            raise TrainingError(
                f"all {len(last)} trials failed in training; check the labels, or name other models"
            )
        look = min(standing, key=lambda look: (-look.rung, look.order))
        rung, passes = look.rung + 1, self.plan.steps if look is looks[-1] else self.plan.rungs
        return look.candidate, rung, passes[rung]

    def look_at(self, candidate: Candidate, rung: int, n_passes: int) -> None:
        """Train a trial up to a rung, which takes so many passes, and put its score on record."""
        try:
            found = self.learner.judge(candidate, rung)
        except (TrainingError, EvaluationError) as error:
            found = None
            logger.warning("%s is out: %s", candidate, error)
        self.record.append(Look(candidate, rung, found, self.costs[candidate.arm].look(n_passes)))
        if found is None:
            self.learner.drop(candidate)
        said = "failed" if found is None else f"{found.score:.4f} on the search split"
        n_all = self.plan.rungs[rung]
        logger.info("%s, after %d pass%s: %s", candidate, n_all, "es" * (n_all != 1), said)

    def drop_losers(self, rung: int) -> None:
        """Let go of those that cannot be among the kept ones, so that few weights lie on the disk."""
        for look in self.ranked(rung)[self.plan.n_kept(rung) :]:
            self.learner.drop(look.candidate)
