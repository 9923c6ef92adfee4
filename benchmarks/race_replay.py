"""Races replayed on stored answers: how many items they take, and whether they end with the same choice."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.sst2 import operations_latency
from rlnas import LatencyTarget
from rlnas.evaluation import Champions, Race, Racing, SupernetEvaluator
from rlnas.metrics import Metrics

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import numpy.typing as npt

    from rlnas.space import SubnetConfig
    from rlnas.supernet import Supernet
    from rlnas.task import Task

REWARD = LatencyTarget(target_ms=0.5)  # in units of the full model, as `operations_latency` counts


def replay(
    supernet: Supernet, task: Task, configs: Sequence[SubnetConfig], cache: Path, seeds: Sequence[int]
) -> dict[str, Any]:
    """Figures of races at two numbers of items and three indifferences, over many orders of the items.

    Args:
        supernet: The shared weights.
        task: Its search items are answered once by every subnet.
        configs: One batch.
        cache: Where the answers are kept.
        seeds: One race each.
    """
    latency = operations_latency(supernet, task)
    key = key_of(supernet, task, configs)
    if not cache.is_file() or str(np.load(cache)["key"]) != key:
        print(f"answering {len(task.search):,} items by {len(configs)} subnets once, kept in {cache.name}")
        predictions = np.stack(SupernetEvaluator(supernet, task, latency).predict(configs))
        np.savez_compressed(cache, correct=predictions == task.search.labels, key=key)
    correct = np.load(cache)["correct"]
    times = np.array(latency(configs))
    found = {}
    for n_items in (872, len(task.search)):
        for indifference in (0.0, 0.01, 0.02):
            key = f"{n_items} items, {indifference:g}"
            found[key] = _races(correct, times, n_items, indifference, seeds)
            found[key]["foresight_share"] = _foresight(correct, times, n_items, indifference)
            print(f"race over {key}: {found[key]}", flush=True)
    return found


def key_of(supernet: Supernet, task: Task, configs: Sequence[SubnetConfig]) -> str:
    """Of the weights, the items and the subnets."""
    digest = hashlib.sha256()
    for text in (*task.search.texts, *(config.to_json() for config in configs)):
        digest.update(text.encode())
    digest.update(np.ascontiguousarray(task.search.labels).tobytes())
    for parameter in supernet.model.parameters():
        digest.update(parameter.detach().cpu().numpy().tobytes())
    return digest.hexdigest()


def _races(
    correct: npt.NDArray[np.bool_],
    latency: npt.NDArray[np.float64],
    n_items: int,
    indifference: float,
    seeds: Sequence[int],
) -> dict[str, float]:
    shares, same, losses = [], [], []
    for seed in seeds:
        items = np.random.default_rng(seed).permutation(correct.shape[1])[:n_items]
        answers = correct[:, items]
        stayed, share = _race(answers, latency, Racing(indifference=indifference, seed=seed))
        rewards = np.array(
            [REWARD(Metrics(row.mean(), latency_ms=ms)) for row, ms in zip(answers, latency, strict=True)]
        )
        chosen = stayed[np.argmax(rewards[stayed])]
        shares.append(share)
        same.append(chosen == np.argmax(rewards))
        losses.append(float(rewards.max() - rewards[chosen]))
    return {
        "item_share": float(np.mean(shares)),
        "same_choice": float(np.mean(same)),
        "largest_loss": max(losses),
    }


def _race(
    answers: npt.NDArray[np.bool_], latency: npt.NDArray[np.float64], racing: Racing
) -> tuple[npt.NDArray[np.int64], float]:
    """Who saw all items, and the share of all answers that was needed."""
    n_items = answers.shape[1]
    race = Race(racing, latency, Champions(np.zeros(0), np.zeros((0, n_items), dtype=bool)), n_items)
    n_answers = 0
    for items in racing.chunks(n_items, 0):
        n_answers += len(race.alive) * len(items)
        race.enter(items, answers[np.ix_(race.alive, items)])
    return race.alive, n_answers / answers.size


def _foresight(
    correct: npt.NDArray[np.bool_], latency: npt.NDArray[np.float64], n_items: int, indifference: float
) -> float:
    """The item share of a gambler who knows all answers and bets best from the start.

    For every candidate the best single reference; the wealth grows as it does on average at the stake that
    makes it grow fastest, looked at every 50 items; the limit is that of a race at 95 % confidence.
    """
    n_candidates, step = len(correct), 50
    numbers = correct.astype(np.float32)
    both = numbers @ numbers.T / correct.shape[1]
    accuracy = np.diag(both)
    limit = np.log(n_candidates / 0.05)
    needed = np.ones(n_candidates)
    for row in range(n_candidates):
        others = np.flatnonzero((latency <= latency[row]) & (np.arange(n_candidates) != row))
        if not len(others):
            continue
        plus, minus = accuracy[row] - both[row, others], accuracy[others] - both[row, others]
        wealth = np.zeros(len(others))
        for seen in range(0, n_items, step):
            bound = (n_items * indifference - seen * (plus - minus)) / (n_items - seen)
            gap = bound - (plus - minus)
            spread = plus + minus - (plus - minus) ** 2
            stake = np.clip(gap / np.maximum(spread + gap**2, 1e-9), 0, 0.9 / np.maximum(1 - bound, 1e-9))
            growth = plus * np.log1p(stake * np.minimum(bound - 1, 0))
            growth += minus * np.log1p(stake * (bound + 1))
            growth += (1 - plus - minus) * np.log1p(stake * bound)
            wealth += step * growth
            if wealth.max() >= limit:
                needed[row] = min(1.0, (seen + step) / n_items)
                break
    return float(needed.mean())
