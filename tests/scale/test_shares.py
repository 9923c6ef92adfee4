from __future__ import annotations

import heapq

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlnas.scale.shares import Shares


@given(st.integers(0, 300), st.integers(1, 70), st.integers(1, 9), st.randoms())
def test_every_row_is_taken_once_also_where_shares_come_back(n_rows, n_workers, smallest, random):
    shares, done = Shares(range(n_rows), n_workers, smallest=smallest), []
    while shares:
        share = shares.take()
        assert share
        if random.random() < 0.2:
            shares.give_back(share)
        else:
            done += share
    assert sorted(done) == list(range(n_rows))


def test_shares_shrink_towards_the_end():
    shares, sizes = Shares(range(100), 4, smallest=2), []
    while shares:
        sizes.append(len(shares.take()))
    assert sizes[0] == 12
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[-2] == 2


def test_neighbours_stay_together():
    shares = Shares([5, 3, 9, 1], 1)
    assert shares.take() == (5, 3)


def test_nothing_left_is_no_share():
    shares = Shares([], 3)
    assert not shares
    with pytest.raises(IndexError, match="nothing is left to share"):
        shares.take()


@pytest.mark.parametrize("name", ["n_workers", "smallest"])
def test_numbers_below_one_are_refused(name):
    with pytest.raises(ValueError, match=f"{name} must be at least 1, but got {name}=0"):
        Shares([1], **({"n_workers": 2} | {name: 0}))


def test_sixty_four_workers_of_unequal_speed_are_busy_almost_to_the_end():
    rng = np.random.default_rng(0)
    speeds = rng.uniform(0.5, 1.5, size=64)
    seconds = rng.lognormal(0, 0.3, size=2048)
    shares, busy = Shares(range(2048), 64), 0.0
    free = [(0.0, worker) for worker in range(64)]
    end = 0.0
    while shares:
        now, worker = heapq.heappop(free)
        took = sum(seconds[row] for row in shares.take()) / speeds[worker]
        busy += took
        end = max(end, now + took)
        heapq.heappush(free, (now + took, worker))
    assert busy / (64 * end) > 0.9
