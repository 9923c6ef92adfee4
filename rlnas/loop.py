"""The search loop: a controller proposes, an evaluator judges, a reward scores, a history keeps."""

from __future__ import annotations

import hashlib
import math
import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from rlnas.errors import (
    BudgetError,
    EvaluationError,
    HistoryError,
    InfeasibleTargetError,
    InvalidSubnetError,
    LatencyTableError,
    RewardError,
    RLNASError,
)
from rlnas.history import PLANNED_BUDGET, History, Result
from rlnas.metrics import Metrics
from rlnas.protocols import (
    InformedEvaluator,
    Problem,
    RecallingEvaluator,
    RelativeReward,
    TargetedReward,
    WeighingEvaluator,
)
from rlnas.trial import Trial

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import numpy.typing as npt

    from rlnas.protocols import Controller, Evaluator, LatencyModel, Reward
    from rlnas.space import SearchSpace, SubnetConfig

MAX_FRUITLESS = 1000
"""Proposals in a row without a new config after which a search ends."""


class SearchEnd(Exception):  # noqa: N818 - not an error: it is how a search ends
    """Raised by ``evaluate`` when the search is over; controllers let it pass.

    Attributes:
        reason: Why, a sentence without its full stop.
        answers: Trials of the last proposals that were still judged, or known already.
    """

    def __init__(self, reason: str, answers: Sequence[Trial] = ()) -> None:
        super().__init__(reason)
        self.reason = reason
        self.answers = tuple(answers)


def search(
    space: SearchSpace,
    evaluator: Evaluator,
    reward: Reward,
    controller: Controller,
    *,
    budget: int,
    seed: int = 0,
    path: str | Path | None = None,
    resume: bool = False,
    latency: LatencyModel | None = None,
    importance: npt.NDArray[np.float64] | None = None,
    kept_importance: Callable[[Sequence[SubnetConfig]], Sequence[float]] | None = None,
    reference_ms: float | None = None,
    target_ratios: Sequence[float] = (),
    settings: Mapping[str, str] | None = None,
    progress: Callable[[int, Trial], None] | None = None,
) -> Result:
    """Let a controller look for the subnet of highest reward.

    A trial is one *new* config evaluated; a repeat is answered from the history and is free.
    The search ends

    - after exactly `budget` trials. A batch that fits the budget to the last trial is still
      answered, so that the controller can learn from it, and its next call ends the search. A
      batch that does not fit is evaluated as far as the budget goes, and ends the search;
    - in the call after the one that evaluated the last config of the space;
    - when 1,000 proposals in a row brought nothing new;
    - when the controller returns.

    **To resume is to replay.** The controller starts anew with the same seed, and configs that
    are stored already are answered from the history without being evaluated; they count as
    trials, so budget and numbers are those of an unbroken run. Controllers therefore have to be
    deterministic functions of the problem, the seed and the answers. `budget` may be larger
    than before; the controller is told the first one, so that it proposes the same again.

    An evaluator may race configs: one that is *raced out* (`Metrics.raced_out`) counts as a trial
    and the controller learns from it, but it is never the best, whatever its reward. An evaluator
    whose answers depend on earlier ones has to be a `RecallingEvaluator` to be resumed.

    Args:
        space: The configs to choose from.
        evaluator: Judges batches of configs. Metrics without a latency get that of `latency`.
        reward: Turns metrics into a number; a relative one is resolved with `reference_ms`.
        controller: Proposes configs.
        budget: Number of trials, at least 1.
        seed: Equal seeds give equal histories.
        path: Run folder for ``history.sqlite``; None keeps the history in memory.
        resume: Whether to go on with the trials that are stored in `path`.
        latency: Predicts latencies; by default that of the evaluator, if it has one.
        importance: Shape ``(len(space.nvec),)``, the importance of the block at each position;
            by default that of the evaluator, if it has one for the positions of this space.
        kept_importance: Says how much importance configs keep; by default the evaluator's, if it is a
            `WeighingEvaluator`.
        reference_ms: The full model's latency, which ratios refer to; by default that of
            ``space.largest()``, where a latency is known.
        target_ratios: Latencies, relative to the full model's, that this one search is to serve. The
            rewards of its trials are those of the reward's own target; `Result.best_for` finds the
            best trial for another one.
        settings: Further values that have to be equal for a resume, e.g. the task's name.
        progress: Called with the number of trials and the best one after each batch that
            brought new trials, replayed ones included, as soon as there is a trial that was not
            raced out.

    Returns:
        All trials of this search, the reward of every proposal and the reason of the end.

    Raises:
        BudgetError: If `budget` is less than 1.
        InfeasibleTargetError: If the smallest subnet is slower than a target.
        RewardError: If a relative reward has no latency to refer to, a reward is not finite, or several
            targets are to be served by a reward that knows none.
        LatencyTableError: If `latency` does not give one finite number per config.
        InvalidSubnetError: If the controller proposes a config outside the space.
        EvaluationError: If the evaluator's answer is not one sound `Metrics` per config.
        HistoryError: If the stored history is damaged, in use, or of another search.
        RunFolderError: If the run folder cannot be written.
    """
    if budget < 1:
        raise BudgetError(f"budget must be at least 1 trial, but got budget={budget}")
    if isinstance(evaluator, InformedEvaluator):
        latency = evaluator.latency if latency is None else latency
        importance = _fitting(evaluator.importance, space) if importance is None else importance
    if kept_importance is None and isinstance(evaluator, WeighingEvaluator):
        kept_importance = evaluator.kept_importance
    problem = _state_problem(space, reward, latency, reference_ms, target_ratios)
    problem = replace(problem, importance=importance, kept_importance=kept_importance)
    known = _describe_search(problem, controller, seed, budget, settings or {})
    folder = None if path is None else Path(path)
    with History.open(folder, known, resume=resume) as history:
        desk = _Desk(problem, evaluator, history, budget, progress)
        try:
            controller.search(problem, desk.evaluate, int(history.settings[PLANNED_BUDGET]), seed)
            reason = "the controller stopped"
        except SearchEnd as end:
            reason = end.reason
        return desk.result(reason)


class _Desk:
    """Answers proposals within the budget and keeps the books."""

    def __init__(
        self,
        problem: Problem,
        evaluator: Evaluator,
        history: History,
        budget: int,
        progress: Callable[[int, Trial], None] | None,
    ) -> None:
        self._problem = problem
        self._evaluator = evaluator
        self._history = history
        self._stored = history.trials  # what an earlier, interrupted run left behind
        self._budget = budget
        self._progress = progress
        self._trials: dict[SubnetConfig, Trial] = {}
        self._best: Trial | None = None
        self._episode_rewards: list[float] = []
        self._n_fruitless = 0
        self._space_size = math.prod(problem.space.nvec)
        if len(self._stored) > budget:
            raise HistoryError(
                f"the history already holds {len(self._stored)} trials, more than budget={budget}; "
                f"resume with a budget of at least {len(self._stored)}"
            )

    def evaluate(self, configs: Sequence[SubnetConfig]) -> list[Trial]:
        """Judged trials of `configs`, in their order; see `search` for when it ends."""
        self._end_if_done()
        for config in configs:
            if config not in self._problem.space:
                raise InvalidSubnetError(f"the controller proposed a subnet outside the space: {config}")
        unseen = [config for config in dict.fromkeys(configs) if config not in self._trials]
        affordable = unseen[: self._budget - len(self._trials)]
        self._judge(affordable)
        answers = [self._trials[config] for config in configs if config in self._trials]
        self._episode_rewards.extend(trial.reward for trial in answers)
        self._count_fruitless(configs, unseen)
        if len(affordable) < len(unseen):
            self._end_if_done(answers)
        return answers

    def result(self, reason: str) -> Result:
        """What was found, once the controller is done."""
        if len(self._trials) < len(self._stored):
            raise self._misfit(
                f"it ended after {len(self._trials)} trials where {len(self._stored)} are stored"
            )
        return Result(
            trials=tuple(self._trials.values()),
            episode_rewards=np.array(self._episode_rewards, dtype=np.float64),
            stop_reason=reason,
        )

    def _end_if_done(self, answers: Sequence[Trial] = ()) -> None:
        n_trials = len(self._trials)
        if n_trials >= self._space_size:
            raise SearchEnd(f"all {self._space_size} subnets of the space are evaluated", answers)
        if n_trials >= self._budget:
            raise SearchEnd(f"the budget of {self._budget} trials is spent", answers)

    def _count_fruitless(self, configs: Sequence[SubnetConfig], unseen: Sequence[SubnetConfig]) -> None:
        first_times = set(unseen)
        for config in configs:
            self._n_fruitless = 0 if config in first_times else self._n_fruitless + 1
            first_times.discard(config)
        if not configs:
            self._n_fruitless += 1  # else a controller that proposes nothing would never end
        if self._n_fruitless >= MAX_FRUITLESS:
            raise SearchEnd(f"the last {self._n_fruitless} proposals brought no new subnet")

    def _judge(self, configs: list[SubnetConfig]) -> None:
        """Enter new configs into the books: from the store, else by one call of the evaluator."""
        if not configs:
            return
        start = len(self._trials)
        trials = list(self._stored[start : start + len(configs)])
        self._check_replay(trials, configs)
        if trials and isinstance(self._evaluator, RecallingEvaluator):
            self._evaluator.recall(tuple(trials))
        fresh = configs[len(trials) :]
        if fresh:
            first = start + len(trials)
            judged = [
                Trial(first + offset, config, metrics, self._score(metrics))
                for offset, (config, metrics) in enumerate(zip(fresh, self._measure(fresh), strict=True))
            ]
            self._history.append(judged)  # before the controller sees any of them
            trials += judged
        for trial in trials:
            self._trials[trial.config] = trial
            is_better = self._best is None or trial.reward > self._best.reward
            if is_better and not trial.metrics.raced_out:
                self._best = trial
        if self._progress is not None and self._best is not None:
            self._progress(len(self._trials), self._best)

    def _check_replay(self, stored: Sequence[Trial], configs: Sequence[SubnetConfig]) -> None:
        for trial, config in zip(stored, configs, strict=False):
            if trial.config != config:
                raise self._misfit(f"trial {trial.number} is {trial.config}, but it proposed {config}")
            score = self._score(trial.metrics)
            if score != trial.reward:
                raise self._misfit(
                    f"the reward of trial {trial.number} is stored as {trial.reward}, but is {score} now"
                )

    def _misfit(self, difference: str) -> HistoryError:
        return HistoryError(
            "the stored history does not fit this version of the controller, reward or budget: "
            f"{difference}; start in a new folder"
        )

    def _measure(self, configs: list[SubnetConfig]) -> list[Metrics]:
        answers = list(self._evaluator(tuple(configs)))
        if len(answers) != len(configs):
            raise EvaluationError(f"the evaluator gave {len(answers)} metrics for {len(configs)} subnets")
        for config, metrics in zip(configs, answers, strict=True):
            if not isinstance(metrics, Metrics):
                raise EvaluationError(
                    f"the evaluator must give a Metrics per subnet, but gave {metrics!r} for {config}",
                    config,
                )
            if not math.isfinite(metrics.accuracy) or math.isinf(metrics.latency_ms):
                raise EvaluationError(
                    f"accuracy and latency_ms must be finite, but the evaluator gave "
                    f"accuracy={metrics.accuracy} and latency_ms={metrics.latency_ms} for {config}",
                    config,
                )
        return self._fill_in_latency(configs, answers)

    def _fill_in_latency(self, configs: list[SubnetConfig], answers: list[Metrics]) -> list[Metrics]:
        latency = self._problem.latency
        lacking = [i for i, metrics in enumerate(answers) if math.isnan(metrics.latency_ms)]
        if latency is None or not lacking:
            return answers
        predicted = _predict(latency, [configs[i] for i in lacking])
        for i, latency_ms in zip(lacking, predicted, strict=True):
            answers[i] = replace(answers[i], latency_ms=latency_ms)
        return answers

    def _score(self, metrics: Metrics) -> float:
        reward = self._problem.reward
        name = getattr(reward, "__qualname__", None) or repr(reward)
        try:
            value = reward(metrics)
        except RLNASError:
            raise
        except Exception as error:  # of somebody's own code
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            raise RewardError(f"the reward {name} failed with {reason}, for {metrics}") from error
        try:
            number = float(value)
        except (TypeError, ValueError):
            number = math.nan
        if not math.isfinite(number):
            raise RewardError(f"a reward must be a finite number, but {name} gave {value!r} for {metrics}")
        return number


def _state_problem(
    space: SearchSpace,
    reward: Reward,
    latency: LatencyModel | None,
    given_ms: float | None,
    target_ratios: Sequence[float],
) -> Problem:
    """Fill in what is relative, and refuse what cannot be reached."""
    reference_ms, floor_ms = math.nan, math.nan
    if latency is not None:
        reference_ms, floor_ms = _predict(latency, [space.largest(), space.smallest()])
    reference_ms = reference_ms if given_ms is None else given_ms
    if isinstance(reward, RelativeReward):
        reward = reward.resolve(reference_ms)
    target_ms = float(reward.target_ms) if isinstance(reward, TargetedReward) else None
    problem = Problem(
        space=space,
        reward=reward,
        latency=latency,
        target_ms=target_ms,
        reference_ms=None if math.isnan(reference_ms) else reference_ms,
        targets_ms=_targets_ms(target_ratios, reference_ms),
    )
    for target in problem.served_targets_ms:
        problem.reward_for(target)  # which refuses targets that the reward cannot serve
        if floor_ms > target:
            raise InfeasibleTargetError(
                f"target_ms={target:.4g} cannot be reached: the smallest subnet of this space takes "
                f"{floor_ms:.4g} ms, {floor_ms / reference_ms:.3f} of the full model's {reference_ms:.4g} "
                "ms; raise the target above that or offer smaller options"
            )
    return problem


def _targets_ms(ratios: Sequence[float], reference_ms: float) -> tuple[float, ...]:
    """Targets in milliseconds, ascending.

    Raises:
        RewardError: If a ratio is not above 0, stands there twice, or no latency is known.
    """
    if not len(ratios):  # not its truth: an array has none
        return ()
    if math.isnan(reference_ms):
        raise RewardError(
            f"target_ratios={tuple(ratios)} are relative to the full model's latency, which is not known "
            "here; give the search a latency model (latency=...)"
        )
    distinct = sorted(set(ratios))
    if len(distinct) < len(ratios) or not all(0 < ratio < math.inf for ratio in distinct):
        raise RewardError(f"target_ratios must be numbers above 0 without repeats, but got {tuple(ratios)}")
    return tuple(float(ratio) * reference_ms for ratio in distinct)


def _fitting(
    importance: npt.NDArray[np.float64] | None, space: SearchSpace
) -> npt.NDArray[np.float64] | None:
    """An evaluator knows its blocks, not the space: of another space it knows nothing."""
    fits = importance is not None and importance.shape == (len(space.nvec),)
    return importance if fits else None


def _predict(latency: LatencyModel, configs: Sequence[SubnetConfig]) -> list[float]:
    answers = [float(answer) for answer in latency(tuple(configs))]
    if len(answers) != len(configs):
        raise LatencyTableError(
            f"a latency model must give one number per subnet, but gave {len(answers)} for {len(configs)}"
        )
    for config, answer in zip(configs, answers, strict=True):
        if not math.isfinite(answer) or answer < 0:
            raise LatencyTableError(
                f"a latency must be a finite number of at least 0 ms, but the latency model gave {answer} "
                f"for {config}"
            )
    return answers


def _describe_search(
    problem: Problem, controller: Controller, seed: int, budget: int, settings: Mapping[str, str]
) -> dict[str, str]:
    space = problem.space
    digest = hashlib.sha256(_describe(space).encode()).hexdigest()[:16]
    own = {
        "seed": str(seed),
        PLANNED_BUDGET: str(budget),
        "space": f"{type(space).__name__}(nvec={tuple(space.nvec)}, sha256={digest})",
        "reward": _describe(problem.reward),
        "controller": _describe(controller),
    }
    if problem.targets_ms:
        own["targets_ms"] = " ".join(f"{target:.9g}" for target in problem.targets_ms)
    for key in own:
        if key in settings:
            raise HistoryError(f"settings may not hold {key!r}: the search records its own {key}")
    return {**own, **{key: str(value) for key, value in settings.items()}}


def _describe(plug: object) -> str:
    """The repr without memory addresses, which differ from process to process."""
    return re.sub(r" at 0x[0-9a-fA-F]+", "", repr(plug))
