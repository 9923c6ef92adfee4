from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from rlnas.controllers.surrogate.batch import MIN_DISTANCE, choose_batch


class Known:
    """Stands for `Knowledge`: the value of an action is the sum of it, doubts are of one's choosing."""

    def __init__(self, known=(), std=lambda actions: np.zeros(len(actions))) -> None:
        self._known = {np.array(action, dtype=np.int64).tobytes() for action in known}
        self._std = std

    def is_known(self, action: np.ndarray) -> bool:
        return action.tobytes() in self._known

    def rewards(self, actions, targets_ms, optimism=0.0) -> np.ndarray:
        return actions.sum(axis=1) + optimism * self._std(actions)


GRID = np.array(list(itertools.product(range(4), repeat=3)), dtype=np.int64)


def rows(actions: np.ndarray) -> list[tuple[int, ...]]:
    return [tuple(action) for action in actions.tolist()]


def test_what_is_chosen_is_new_distinct_and_promising() -> None:
    known = [(3, 3, 3), (3, 3, 2), (0, 0, 0)]
    batch = choose_batch(Known(known), {math.nan: np.concatenate([GRID, GRID])}, 8)
    assert batch.shape == (8, 3)
    assert len(set(rows(batch))) == 8
    assert not set(rows(batch)) & set(known)
    assert batch.sum(axis=1).mean() > GRID.sum(axis=1).mean() + 1
    assert batch[0].sum() == 8


def test_those_of_one_target_differ_in_more_than_one_position_where_they_can() -> None:
    batch = choose_batch(Known(), {math.nan: GRID}, 4)
    for first, second in itertools.combinations(batch, 2):
        assert np.count_nonzero(first != second) >= MIN_DISTANCE


def test_where_all_are_alike_the_best_is_taken_nevertheless() -> None:
    alike = np.array([(3, 3, option) for option in range(4)], dtype=np.int64)
    batch = choose_batch(Known(), {math.nan: alike}, 3)
    assert rows(batch) == [(3, 3, 3), (3, 3, 2), (3, 3, 1)]


def test_targets_take_turns() -> None:
    pools = {2.0: GRID[GRID.sum(axis=1) <= 3], 8.0: GRID[GRID.sum(axis=1) > 3]}
    batch = choose_batch(Known(), pools, 6)
    is_small = batch.sum(axis=1) <= 3
    assert is_small.tolist() == [True, False] * 3


def test_a_candidate_of_two_targets_is_evaluated_once() -> None:
    batch = choose_batch(Known(), {2.0: GRID, 8.0: GRID}, 6)
    assert len(set(rows(batch))) == 6


def test_a_target_without_anything_new_gives_its_turns_to_the_others() -> None:
    small = GRID[:3]
    batch = choose_batch(Known(small), {2.0: small, 8.0: GRID[3:]}, 5)
    assert len(batch) == 5
    assert not set(rows(batch)) & set(rows(small))


def test_doubt_is_worth_something_in_every_other_place() -> None:
    dubious = np.array([(0, 0, 3)])

    def std(actions) -> np.ndarray:
        return np.where((actions == dubious).all(axis=1), 10.0, 0.0)

    batch = choose_batch(Known(std=std), {math.nan: GRID}, 2)
    assert rows(batch) == [(3, 3, 3), (0, 0, 3)]
    assert (0, 0, 3) not in rows(choose_batch(Known(), {math.nan: GRID}, 2))


@pytest.mark.parametrize(
    "pool", [GRID[:2], np.concatenate([GRID[:2]] * 3), GRID[:0]], ids=["few", "repeats", "none"]
)
def test_pools_may_hold_less_than_is_asked_for(pool: np.ndarray) -> None:
    batch = choose_batch(Known(), {3.0: pool, 5.0: pool}, 8)
    assert batch.dtype == np.int64
    assert batch.shape[1] == 3
    assert set(rows(batch)) == set(rows(pool))


def test_where_a_batch_is_small_every_target_and_every_optimism_has_its_turn_over_several() -> None:
    pools = {float(t): np.array([[t, 0, i] for i in range(20)]) for t in range(20)}
    chosen = [choose_batch(Known(), pools, 16, number) for number in range(15)]
    counts = np.bincount(np.concatenate(chosen)[:, 0], minlength=20)
    assert counts.tolist() == [12] * 20


def test_the_optimism_of_a_target_changes_from_one_small_batch_to_the_next() -> None:
    dubious, sure = np.array([[3, 0, 0]]), np.array([[3, 3, 3]])
    pools = {2.0: np.concatenate([dubious, sure]), 8.0: np.array([[1, 1, 1], [2, 2, 2]])}

    def std(actions) -> np.ndarray:
        return np.where((actions == dubious).all(axis=1), 10.0, 0.0)

    firsts = [rows(choose_batch(Known(std=std), pools, 2, number))[0] for number in range(3)]
    assert firsts == [(3, 3, 3), (3, 0, 0), (3, 0, 0)]
