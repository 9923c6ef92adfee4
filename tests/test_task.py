from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlnas.errors import DataError
from rlnas.task import METRICS, REGRESSION_METRICS, Split, Task


def make_split(n_items: int = 4, *, name: str = "train", pairs: bool = False) -> Split:
    texts = tuple(f"text {i}" for i in range(n_items))
    return Split(name, texts, texts[::-1] if pairs else None, np.arange(n_items))


def make_task(
    label_names: tuple[str, ...] = ("no", "yes"), metric: str = "accuracy", *, pairs: bool = False
) -> Task:
    split = make_split(pairs=pairs)
    return Task("toy", split, split, split, label_names, metric)


@pytest.mark.parametrize("pairs", [False, True])
@given(indices=st.lists(st.integers(0, 3), min_size=1))
def test_taking_items_keeps_texts_and_labels_together(indices, pairs):
    part = make_split(pairs=pairs).take(indices, "search")
    assert part.name == "search"
    assert len(part) == len(indices)
    np.testing.assert_array_equal(part.labels, indices)
    assert part.texts == tuple(f"text {i}" for i in indices)
    assert part.text_pairs == (tuple(f"text {3 - i}" for i in indices) if pairs else None)


def test_taking_items_keeps_the_name_unless_told():
    assert make_split().take([0]).name == "train"


def test_taking_nothing_is_refused():
    with pytest.raises(DataError, match="the search split is empty; it needs at least one item"):
        make_split().take([], "search")


@pytest.mark.parametrize(
    ("texts", "pairs", "labels", "message"),
    [
        ((), None, [], "the train split is empty"),
        (("a", "b"), None, [1], "the train split has 2 texts but 1 labels"),
        (("a", "b"), ("c",), [0, 1], "the train split has 2 texts but 1 second texts"),
    ],
    ids=["empty", "labels", "pairs"],
)
def test_a_split_that_does_not_match_up_is_refused(texts, pairs, labels, message):
    with pytest.raises(DataError, match=message):
        Split("train", texts, pairs, np.array(labels))


def test_what_the_labels_say_about_a_task():
    classes, values = make_task(("a", "b", "c")), make_task((), "spearman", pairs=True)
    assert (classes.is_regression, classes.num_labels, classes.is_pair) == (False, 3, False)
    assert (values.is_regression, values.num_labels, values.is_pair) == (True, 1, True)


@pytest.mark.parametrize("metric", METRICS)
def test_every_metric_suits_one_kind_of_task(metric):
    names = () if metric in REGRESSION_METRICS else ("no", "yes")
    assert make_task(names, metric).metric == metric
    kind = "classification" if metric in REGRESSION_METRICS else "regression"
    with pytest.raises(DataError, match=f"metric='{metric}' does not suit a {kind} task"):
        make_task(() if names else ("no", "yes"), metric)


def test_an_unknown_metric_is_refused():
    with pytest.raises(DataError, match=r"metric must be one of accuracy, f1, .*, but got metric='bleu'"):
        make_task(metric="bleu")


def test_one_class_only_is_refused():
    with pytest.raises(DataError, match="task 'toy' has one class only, 'yes'; classification needs"):
        make_task(("yes",))


@pytest.mark.parametrize("metric", ["f1", "matthews"])
def test_a_metric_of_two_classes_is_refused_for_three(metric):
    with pytest.raises(DataError, match=f"metric='{metric}' is for two classes, but task 'toy' has 3"):
        make_task(("a", "b", "c"), metric)


def folded(folds, n_search: int = 4) -> Task:
    split = make_split()
    return Task("few", split, make_split(n_search), split, ("no", "yes"), folds=np.array(folds))


def test_a_fold_is_searched_on_and_the_others_are_trained_on():
    task = folded([0, 1, 0, 1])
    assert task.n_folds == 2
    assert task.fold(0).search.texts == ("text 0", "text 2")
    assert task.fold(0).train.texts == task.fold(1).search.texts == ("text 1", "text 3")
    assert (task.fold(0).n_folds, task.fold(0).final.texts) == (0, task.final.texts)


@pytest.mark.parametrize("number", [-1, 2])
def test_a_fold_that_is_not_there_is_refused(number):
    with pytest.raises(DataError, match=f"'few' has 2 folds, but got number={number}"):
        folded([0, 1, 0, 1]).fold(number)
    with pytest.raises(DataError, match="'toy' has 0 folds, but got number=0"):
        make_task().fold(0)


@pytest.mark.parametrize("folds", [[0, 0, 0, 0], [0, 2, 0, 2], [1, 2, 1, 2]], ids=str)
def test_folds_are_numbered_from_0_and_at_least_two(folds):
    with pytest.raises(
        DataError, match=r"must be numbered from 0, at least two, none empty, but they are \["
    ):
        folded(folds)


def test_folds_are_of_the_same_items():
    with pytest.raises(DataError, match=r"folds of 4 items, .* but they are 4 and 3 items"):
        folded([0, 1, 0, 1], n_search=3)
