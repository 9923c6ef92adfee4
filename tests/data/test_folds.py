"""Every item is held out once, and no fold gives another one's texts away."""

from __future__ import annotations

import numpy as np
import pytest

from rlnas.data.folds import assign_folds
from rlnas.errors import DataError
from rlnas.task import Split

NAMES = ("no", "yes")


def make_split(texts, labels=None, pairs=None):
    labels = np.arange(len(texts)) % 2 if labels is None else np.array(labels)
    return Split("train", tuple(texts), pairs, labels)


def numbered(n):
    return [f"text number {i:03d} here" for i in range(n)]


def test_folds_are_even_in_items_and_classes():
    split = make_split(numbered(103))
    folds = assign_folds(split, 5, seed=0, label_names=NAMES)
    assert sorted(np.bincount(folds).tolist()) == [20, 20, 21, 21, 21]
    for fold in range(5):
        assert np.ptp(np.bincount(split.labels[folds == fold])) <= 1


def test_equal_seeds_give_equal_folds_whatever_the_order_of_the_rows():
    split = make_split(numbered(40))
    order = np.random.default_rng(0).permutation(40)
    folds = assign_folds(split, 4, seed=1, label_names=NAMES)
    np.testing.assert_array_equal(
        assign_folds(split.take(order), 4, seed=1, label_names=NAMES), folds[order]
    )
    assert (assign_folds(split, 4, seed=2, label_names=NAMES) != folds).any()


def test_texts_that_stand_in_each_other_share_a_fold():
    texts = [*numbered(30), "and Text number 007, here it is", "text number 007 here"]
    folds = assign_folds(make_split(texts), 5, seed=0, label_names=NAMES)
    assert folds[7] == folds[30] == folds[31]


def test_pairs_that_share_either_text_share_a_fold():
    first = numbered(20)
    second = [f"another text of number {i:03d}" for i in range(19)] + ["another text of number 004"]
    folds = assign_folds(make_split(first, pairs=tuple(second)), 4, seed=0, label_names=NAMES)
    assert folds[4] == folds[19]


def test_one_word_that_stands_in_all_does_not_tie_them_together():
    folds = assign_folds(make_split([*numbered(20), "text"]), 5, seed=0, label_names=NAMES)
    assert np.bincount(folds).max() <= 5


def test_values_are_spread_over_the_folds():
    values = np.linspace(0, 1, 50, dtype=np.float32)
    folds = assign_folds(make_split(numbered(50), values), 5, seed=0, label_names=())
    assert all(abs(values[folds == fold].mean() - 0.5) < 0.15 for fold in range(5))


@pytest.mark.parametrize(
    ("texts", "labels", "n_folds", "message"),
    [
        (numbered(8), None, 1, "folds must be at least 2, .* but got folds=1"),
        (numbered(8), None, 9, "folds=9 is more than the 8 labelled items"),
        (["the same text"] * 8, None, 2, "the 8 labelled items share so many texts .* folds=2"),
        (numbered(8), [0] * 7 + [1], 2, "all 1 items of class 'yes' fall into one fold"),
    ],
    ids=["one fold", "too many", "all the same", "a class of one"],
)
def test_what_cannot_be_parted_is_refused(texts, labels, n_folds, message):
    with pytest.raises(DataError, match=message):
        assign_folds(make_split(texts, labels), n_folds, seed=0, label_names=NAMES)
