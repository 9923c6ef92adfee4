"""A few labelled items are drawn evenly, and from whole texts first."""

from __future__ import annotations

import numpy as np
import pytest

from rlnas.data.shots import draw_shots
from rlnas.errors import DataError
from rlnas.task import Split

NAMES = ("no", "yes")


def make_split(labels, texts=None):
    texts = [f"text number {i:03d} here" for i in range(len(labels))] if texts is None else texts
    return Split("train", tuple(texts), None, np.array(labels))


def test_classes_keep_their_shares_and_rare_ones_get_two():
    split = make_split([0] * 90 + [1] * 10)
    assert np.bincount(draw_shots(split, 50, seed=0, label_names=NAMES).labels).tolist() == [45, 5]
    assert np.bincount(draw_shots(split, 10, seed=0, label_names=NAMES).labels).tolist() == [8, 2]
    assert np.bincount(draw_shots(split, 4, seed=0, label_names=NAMES).labels).tolist() == [2, 2]


def test_equal_seeds_draw_equal_items_and_other_seeds_others():
    split = make_split([0, 1] * 50)
    first, second, other = (draw_shots(split, 20, seed=s, label_names=NAMES).texts for s in (1, 1, 2))
    assert first == second != other
    assert list(first) == sorted(first)  # in their old order


def test_all_may_be_drawn_and_values_are_drawn_over_their_whole_range():
    assert len(draw_shots(make_split([0, 1] * 4), 8, seed=0, label_names=NAMES)) == 8
    values = draw_shots(make_split(np.linspace(0, 5, 100, dtype=np.float32)), 20, seed=0, label_names=())
    assert len(values) == 20
    assert values.labels.min() < 0.5 < 4.5 < values.labels.max()


def test_a_text_that_stands_in_another_is_drawn_last():
    whole = [f"a whole text of its own number {i}" for i in range(20)]
    pieces = [text.removeprefix("a ") for text in whole]
    split = make_split([0, 1] * 20, whole + pieces)
    assert not set(draw_shots(split, 20, seed=0, label_names=NAMES).texts) & set(pieces)
    assert len(set(draw_shots(split, 30, seed=0, label_names=NAMES).texts) & set(pieces)) == 10


@pytest.mark.parametrize(
    ("names", "n", "message"),
    [
        (NAMES, 3, "shots=3 is too few for the 2 classes: ask for at least 4"),
        ((), 1, "shots=1 is too few for the values: ask for at least 2"),
        (NAMES, 101, "shots=101 asks for more labelled items than the 100 .* ask for at most 100"),
        (("no", "yes", "never"), 20, "the class 'never' has 0 labelled items, but with shots=20"),
    ],
    ids=["too few", "too few values", "too many", "a class without items"],
)
def test_numbers_that_cannot_be_are_refused(names, n, message):
    labels = [0, 1] * 50 if names else np.linspace(0, 1, 100, dtype=np.float32)
    with pytest.raises(DataError, match=message):
        draw_shots(make_split(labels), n, seed=0, label_names=names)
