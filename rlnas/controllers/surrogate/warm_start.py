"""An earlier search, taken as the start of another one."""

from __future__ import annotations

import hashlib
import itertools
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from rlnas.controllers.surrogate.ensemble import N_FOLDS, Ensemble
from rlnas.controllers.surrogate.features import Features
from rlnas.controllers.surrogate.policy import WEIGHTS, read_policy
from rlnas.errors import HistoryError
from rlnas.history import History

if TYPE_CHECKING:
    from collections.abc import Callable

    from rlnas.env import FloatArray, IntArray
    from rlnas.protocols import Problem
    from rlnas.space import SearchSpace
    from rlnas.trial import Trial

POLICY = "policy"
"""Folder of the policy in a run folder."""

MIN_TRIALS = 2 * N_FOLDS


@dataclass(frozen=True, slots=True)
class WarmStart:
    """The trials of an earlier search and the policy that it left.

    Attributes:
        digest: Of the trials and the policy; equal digests mean equal starts.
        trials: In their order.
        policy: Folder of the saved policy, or None if there is none.
    """

    digest: str
    trials: tuple[Trial, ...] = field(repr=False)
    policy: Path | None = field(default=None, repr=False, compare=False)

    @classmethod
    def read(cls, run_folder: str | Path) -> WarmStart:
        """Read the history and look for the policy of a run.

        Raises:
            RunFolderError: If there is no history.
            HistoryError: If it is damaged, or holds too few trials.
            CheckpointError: If there is a policy that is damaged.
        """
        folder = Path(run_folder)
        with History.read(folder) as history:
            trials = history.trials
        policy = folder / POLICY
        if not policy.is_dir():
            return cls.of(trials, name=str(run_folder))
        read_policy(policy)  # What cannot be read has to be said now, not after an hour of fine-tuning.
        return cls.of(trials, policy, name=str(run_folder))

    @classmethod
    def of(
        cls, trials: tuple[Trial, ...], policy: Path | None = None, name: str = "the history"
    ) -> WarmStart:
        """The same, of trials at hand.

        Raises:
            HistoryError: If there are too few trials.
        """
        complete = tuple(trial for trial in trials if not trial.metrics.raced_out)
        if len(complete) < MIN_TRIALS:
            raise HistoryError(
                f"a warm start needs at least {MIN_TRIALS} trials that were judged on all items, "
                f"but {name} holds {len(complete)}; start without it, or from a longer run"
            )
        text = "\n".join(f"{trial.config.to_json()} {trial.metrics.accuracy!r}" for trial in complete)
        digest = hashlib.sha256(text.encode())
        if policy is not None and (policy / WEIGHTS).is_file():
            digest.update((policy / WEIGHTS).read_bytes())
        return cls(digest.hexdigest()[:16], complete, policy)

    def model(self, problem: Problem) -> Callable[[IntArray], FloatArray]:
        """What the earlier search would expect of actions of this problem's space.

        Raises:
            HistoryError: If too few of its subnets belong to this space.
        """
        members = self.members(problem.space)
        features = Features(problem.space)
        values = np.array([trial.metrics.accuracy for trial in members])
        ensemble = Ensemble.fit(features(_actions(problem, members)), values, seed=0)
        return lambda asked: ensemble.mean(features(asked))

    def best_actions(self, problem: Problem, n: int) -> IntArray:
        """The earlier subnets of which most is expected, for each target of this problem in turn.

        Args:
            problem: Its latency model says which subnets are within a target; without one, or without a
                target, all are.
            n: Most actions to give.

        Returns:
            Distinct actions, shape ``(k, p)``; empty if none is within the largest target.

        Raises:
            HistoryError: If too few of its subnets belong to this space.
        """
        members = self.members(problem.space)
        actions = _actions(problem, members)
        order = np.argsort(-self.model(problem)(actions), kind="stable")
        latencies = np.full(len(members), np.nan)
        if problem.latency is not None:
            latencies = np.asarray(problem.latency([trial.config for trial in members]), dtype=np.float64)
        # A comparison with NaN is false: what has no latency is within every target.
        within = [order[~(latencies[order] > target)] for target in problem.served_targets_ms or (np.inf,)]
        in_turn = [row for rows in itertools.zip_longest(*within) for row in rows if row is not None]
        return actions[list(dict.fromkeys(in_turn))[:n]]

    def members(self, space: SearchSpace) -> list[Trial]:
        """Those of its subnets that belong to a space.

        Raises:
            HistoryError: If they are too few.
        """
        members = [trial for trial in self.trials if trial.config in space]
        if len(members) < MIN_TRIALS:
            raise HistoryError(
                f"only {len(members)} of the warm start's {len(self.trials)} subnets belong to this "
                f"search's space, and {MIN_TRIALS} are needed; search the same space, or start without it"
            )
        return members


def _actions(problem: Problem, trials: list[Trial]) -> IntArray:
    return np.array([problem.space.encode(trial.config) for trial in trials], dtype=np.int64)
