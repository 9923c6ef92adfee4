from __future__ import annotations

import random
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from rlnas.controllers.randomness import GlobalState, Randomness

if TYPE_CHECKING:
    from collections.abc import Iterator


def draw() -> tuple[float, float, float]:
    return random.random(), float(np.random.rand()), float(torch.rand(()))


def seed_all(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


@pytest.fixture(autouse=True)
def process() -> Iterator[None]:
    before = GlobalState.capture()
    yield
    before.restore()


def test_what_is_drawn_inside_is_undone() -> None:
    seed_all(1)
    expected = draw()
    seed_all(1)
    with Randomness().inside():
        seed_all(2)
        draw()
    assert draw() == expected


def test_what_is_drawn_inside_is_undone_after_an_error_too() -> None:
    seed_all(1)
    expected = draw()
    seed_all(1)
    with pytest.raises(ZeroDivisionError), Randomness().inside():
        draw()[0] / 0
    assert draw() == expected


def test_inside_there_is_one_thread_and_settings_come_back() -> None:
    torch.set_num_threads(2)
    benchmark = torch.backends.cudnn.benchmark
    with Randomness().inside():
        assert torch.get_num_threads() == 1
        torch.backends.cudnn.benchmark = not benchmark
    assert torch.get_num_threads() == 2
    assert torch.backends.cudnn.benchmark == benchmark


def test_a_seed_makes_the_inside_the_same_whatever_was_drawn_before() -> None:
    draws = []
    for caller in (1, 2):
        seed_all(caller)
        with Randomness().inside(seed=5):
            draws.append(draw())
    assert draws[0] == draws[1]
    with Randomness().inside(seed=6):
        assert draw() != draws[0]


def test_without_a_seed_the_inside_goes_on_with_the_callers_state() -> None:
    seed_all(1)
    with Randomness().inside():
        inside = draw()
    assert draw() == inside


def test_seeds_are_taken_whatever_their_size() -> None:
    with Randomness().inside(seed=2**40):
        assert all(0 <= number < 1 for number in draw())


def test_outside_is_the_callers_side_and_leaves_the_inside_as_it_was() -> None:
    torch.set_num_threads(2)
    seed_all(1)
    callers = [draw(), draw()]
    seed_all(2)
    inside = [draw(), draw()]
    seed_all(1)
    randomness = Randomness()
    with randomness.inside(seed=None):
        seed_all(2)
        assert draw() == inside[0]
        with randomness.outside():
            assert torch.get_num_threads() == 2
            assert draw() == callers[0]
        assert torch.get_num_threads() == 1
        assert draw() == inside[1]
    assert draw() == callers[1]  # what was drawn outside stays drawn
