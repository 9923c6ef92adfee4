from __future__ import annotations

import numpy as np
import pytest

from rlnas.evaluation.champions import ChampionBook
from rlnas.metrics import Metrics
from rlnas.pareto import is_pareto_optimal
from rlnas.space import LayerConfig, SubnetConfig
from rlnas.trial import Trial

N_ITEMS = 11


def judged(latency_ms, bits, **changes):
    """Metrics of a subnet that answers the items with 1 bits rightly."""
    correct = np.array(bits, dtype=bool)
    values = {"n_items": N_ITEMS, "correct": np.packbits(correct).tobytes()}
    return Metrics(float(correct.mean()), latency_ms, **(values | changes))


def bits(n_right, seed=0):
    return np.random.default_rng(seed).permutation(N_ITEMS) < n_right


def test_a_new_book_is_empty():
    champions = ChampionBook(N_ITEMS).champions
    assert champions.latency_ms.shape == (0,)
    assert champions.correct.shape == (0, N_ITEMS)


def test_champions_carry_their_latencies_and_answers():
    book = ChampionBook(N_ITEMS)
    book.note([judged(2.0, bits(8, 1)), judged(1.0, bits(5, 2))])
    assert book.champions.latency_ms.tolist() == [2.0, 1.0]
    assert np.array_equal(book.champions.correct, [bits(8, 1), bits(5, 2)])


def test_the_front_of_all_batches_is_kept():
    rng = np.random.default_rng(0)
    book, everyone = ChampionBook(N_ITEMS), []
    for batch in range(6):
        metrics = [judged(float(rng.integers(1, 8)), rng.random(N_ITEMS) < 0.5) for _ in range(5)]
        book.note(metrics)
        everyone += metrics
        costs = np.array([(metrics.latency_ms, -metrics.accuracy) for metrics in everyone])
        expected = {tuple(cost) for cost in costs[is_pareto_optimal(costs)]}
        champions = book.champions
        found = list(zip(champions.latency_ms, -champions.correct.mean(axis=1), strict=True))
        np.testing.assert_allclose(sorted(found), sorted(expected))
        assert book.n_judged == 5 * (batch + 1)
    assert len(book.champions.latency_ms) < len(everyone)


@pytest.mark.parametrize(
    "changes",
    [
        {"raced_out": True, "n_items": 5},
        {"correct": None},
        {"n_items": 5, "correct": b"\xff"},
        {"latency_ms": float("nan")},
    ],
    ids=["raced out", "without answers", "of another split", "without latency"],
)
def test_what_cannot_be_compared_counts_but_is_no_champion(changes):
    book = ChampionBook(N_ITEMS)
    latency_ms = changes.pop("latency_ms", 1.0)
    book.note([judged(latency_ms, bits(11), **changes), judged(3.0, bits(4))])
    assert book.champions.latency_ms.tolist() == [3.0]
    assert book.n_judged == 2


def test_recalled_trials_leave_the_book_as_if_they_had_been_judged():
    metrics = [judged(float(i % 4), bits(3 * i % 11, i)) for i in range(8)]
    config = SubnetConfig((LayerConfig(1, 1),))
    noted, recalled = ChampionBook(N_ITEMS), ChampionBook(N_ITEMS)
    noted.note(metrics)
    stored = [Metrics.from_dict(each.to_dict()) for each in metrics]  # as a history gives them back
    recalled.recall(Trial(i, config, each, 0.0) for i, each in enumerate(stored))
    assert noted.n_judged == recalled.n_judged == 8
    for name in ("latency_ms", "correct"):
        assert np.array_equal(getattr(noted.champions, name), getattr(recalled.champions, name))
