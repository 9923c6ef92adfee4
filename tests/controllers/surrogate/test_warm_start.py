from __future__ import annotations

import itertools
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
from safetensors.torch import save_file
from scipy.stats import spearmanr

from rlnas.controllers.surrogate.knowledge import Knowledge
from rlnas.controllers.surrogate.policy import SETTINGS, WEIGHTS
from rlnas.controllers.surrogate.warm_start import MIN_TRIALS, POLICY, WarmStart
from rlnas.errors import CheckpointError, HistoryError, RLNASError
from rlnas.history import History
from rlnas.metrics import Metrics
from rlnas.protocols import Problem
from rlnas.rewards import LatencyTarget
from rlnas.space import LayerOptions, LayerwiseSpace
from rlnas.tabular import additive_task
from rlnas.trial import Trial

if TYPE_CHECKING:
    from pathlib import Path

SPACE = LayerwiseSpace((LayerOptions((0, 1, 2, 3), (0, 1, 2)),) * 3)
EVERYTHING = np.array(list(itertools.product(*(range(n) for n in SPACE.nvec))), dtype=np.int64)
EARLIER = additive_task(SPACE, seed=1)
PROBLEM = Problem(SPACE, LatencyTarget(target_ms=5.0), EARLIER.latency, 5.0, 10.0)
ELSEWHERE = Problem(LayerwiseSpace((LayerOptions((0, 2), (0, 8, 16)),) * 2), PROBLEM.reward)


def judged(n: int, judge=EARLIER, seed: int = 0) -> tuple[Trial, ...]:
    actions = np.random.default_rng(seed).permutation(EVERYTHING)[:n]
    configs = [SPACE.decode(action) for action in actions.tolist()]
    rows = enumerate(zip(configs, judge(configs), strict=True))
    return tuple(Trial(i, config, metrics, PROBLEM.reward(metrics)) for i, (config, metrics) in rows)


def store(folder: Path, trials: tuple[Trial, ...]) -> Path:
    with History.open(folder, {}, resume=False) as history:
        history.append(trials)
    return folder


def test_equal_trials_are_equal_starts_wherever_they_lie(tmp_path: Path) -> None:
    trials = judged(30)
    first = WarmStart.read(store(tmp_path / "first", trials))
    second = WarmStart.read(store(tmp_path / "second", trials))
    assert first == second == WarmStart.of(trials)
    assert repr(first) == repr(second) == f"WarmStart(digest={first.digest!r})"
    assert first.trials == trials
    assert first.policy is None


def test_the_policy_that_a_search_left_is_found(tmp_path: Path) -> None:
    folder = store(tmp_path, judged(30))
    (folder / POLICY).mkdir()
    (folder / POLICY / SETTINGS).write_text('{"nvec": [4, 3], "hidden_sizes": [8], "knows_targets": [1]}')
    save_file({}, folder / POLICY / WEIGHTS)
    assert WarmStart.read(folder).policy == folder / POLICY


def test_a_damaged_policy_is_said_at_once(tmp_path: Path) -> None:
    folder = store(tmp_path, judged(30))
    (folder / POLICY).mkdir()
    with pytest.raises(CheckpointError, match=r"holds no policy: policy\.json is missing"):
        WarmStart.read(folder)


@pytest.mark.parametrize("changed", ["accuracy", "order", "number"])
def test_other_trials_are_another_start(changed: str) -> None:
    trials = judged(30)
    others = {
        "accuracy": (*trials[:-1], replace(trials[-1], metrics=Metrics(0.123, 5.0))),
        "order": trials[::-1],
        "number": trials[:-1],
    }[changed]
    assert WarmStart.of(others).digest != WarmStart.of(trials).digest


def test_another_policy_is_another_start(tmp_path: Path) -> None:
    digests = set()
    for content in (None, b"one", b"two"):
        if content is not None:
            (tmp_path / "policy.safetensors").write_bytes(content)
        digests.add(WarmStart.of(judged(30), tmp_path).digest)
    assert len(digests) == 3


def test_too_few_trials_are_refused_by_the_name_of_the_run(tmp_path: Path) -> None:
    folder = store(tmp_path / "short", judged(MIN_TRIALS - 1))
    with pytest.raises(HistoryError, match=rf"at least {MIN_TRIALS} trials.*short holds {MIN_TRIALS - 1};"):
        WarmStart.read(folder)
    with pytest.raises(HistoryError, match="but the history holds 0"):
        WarmStart.of(())


def test_what_was_raced_out_does_not_count() -> None:
    complete, raced = judged(MIN_TRIALS), judged(40)[MIN_TRIALS:]
    raced = tuple(replace(trial, metrics=replace(trial.metrics, raced_out=True)) for trial in raced)
    assert WarmStart.of(complete + raced) == WarmStart.of(complete)
    with pytest.raises(HistoryError, match=f"but the history holds {MIN_TRIALS - 1}"):
        WarmStart.of(complete[1:] + raced)


def test_a_run_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(RLNASError, match=r"there is no history at .*absent"):
        WarmStart.read(tmp_path / "absent")


@pytest.mark.parametrize("use", [WarmStart.model, lambda start, problem: start.best_actions(problem, 4)])
def test_another_space_is_refused(use) -> None:
    with pytest.raises(HistoryError, match="only 0 of the warm start's 30 subnets belong to this"):
        use(WarmStart.of(judged(30)), ELSEWHERE)


def test_the_model_expects_what_the_earlier_search_saw() -> None:
    expected = WarmStart.of(judged(60)).model(PROBLEM)(EVERYTHING)
    truth = [m.accuracy for m in EARLIER([SPACE.decode(a) for a in EVERYTHING.tolist()])]
    assert spearmanr(expected, truth).statistic > 0.95


def test_the_best_actions_are_those_expected_to_be_best_within_each_target_in_turn() -> None:
    trials = judged(200)
    start, latency = WarmStart.of(trials), additive_task(SPACE, seed=7).latency  # another device
    problem = replace(PROBLEM, latency=latency, targets_ms=(3.0, 6.0))
    found = start.best_actions(problem, 6)
    actions = np.array([SPACE.encode(trial.config) for trial in trials])
    expected = start.model(problem)(actions)
    milliseconds = np.array(latency([trial.config for trial in trials]))
    for target, chosen in ((3.0, found[0::2]), (6.0, found[1::2])):
        within = np.flatnonzero(milliseconds <= target)
        best = within[np.argsort(-expected[within])][: len(chosen)]
        assert chosen.tolist() == actions[best].tolist()
    nothing = start.best_actions(replace(problem, targets_ms=(1e-6,)), 6)
    assert nothing.shape == (0, len(SPACE.nvec))


def test_without_latencies_the_best_actions_are_the_most_promising() -> None:
    trials = judged(60)
    start, problem = WarmStart.of(trials), Problem(SPACE, lambda metrics: metrics.accuracy)
    found = start.best_actions(problem, 4)
    actions = np.array([SPACE.encode(trial.config) for trial in trials])
    assert found.tolist() == actions[np.argsort(-start.model(problem)(actions))][:4].tolist()


def related(configs) -> list[Metrics]:
    """Another task on which the same subnets do well, on another scale and with noise."""
    rng = np.random.default_rng(5)
    return [
        Metrics(0.4 + 0.3 * metrics.accuracy + 0.01 * rng.normal(), metrics.latency_ms)
        for metrics in EARLIER(configs)
    ]


def rank_correlation(n_trials: int, prior: WarmStart | None, judge=related) -> float:
    knowledge = Knowledge(PROBLEM, 0.5, seed=0, prior=prior)
    knowledge.learn(judged(n_trials, judge, seed=9))
    knowledge.fit()
    unseen = np.random.default_rng(2).permutation(EVERYTHING)[:300]
    truth = [m.accuracy for m in EARLIER([SPACE.decode(a) for a in unseen.tolist()])]
    return float(spearmanr(knowledge.predict(unseen)[0], truth).statistic)


def test_a_prior_helps_to_rank_where_there_are_few_trials() -> None:
    prior = WarmStart.of(judged(150))
    assert rank_correlation(12, prior) > max(0.9, rank_correlation(12, None) + 0.05)


def test_a_prior_that_is_wrong_is_outgrown() -> None:
    rng = np.random.default_rng(4)
    misleading = WarmStart.of(
        judged(60, lambda configs: [Metrics(float(rng.random()), 5.0) for _ in configs])
    )
    assert rank_correlation(150, misleading) > 0.9


def test_a_prior_that_says_the_same_of_all_is_survived() -> None:
    flat = WarmStart.of(judged(30, lambda configs: [Metrics(0.5, 5.0) for _ in configs]))
    assert rank_correlation(60, flat) == pytest.approx(rank_correlation(60, None), abs=0.05)
