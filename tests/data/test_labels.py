from __future__ import annotations

import datasets
import numpy as np
import pytest

from rlnas.data.labels import LabelCoding, is_labelled
from rlnas.errors import DataError

NAMES = ["no", "yes", "maybe"]


def make_table(labels, feature=None, column="label") -> datasets.Dataset:
    features = None if feature is None else datasets.Features({column: feature})
    return datasets.Dataset.from_dict({column: labels}, features=features)


@pytest.mark.parametrize(
    ("labels", "names", "indices"),
    [
        ([1, 0, 1], ("0", "1"), [1, 0, 1]),
        ([10, 2, 10], ("2", "10"), [1, 0, 1]),
        ([-1, 1, 0], ("-1", "0", "1"), [0, 2, 1]),
        (["spam", "ham"], ("ham", "spam"), [1, 0]),
        ([True, False], ("False", "True"), [1, 0]),
    ],
    ids=["indices", "stars", "signs", "strings", "booleans"],
)
def test_classes_are_sorted_and_named_by_their_value(labels, names, indices):
    table = make_table(labels)
    coding = LabelCoding.learn(table, "label")
    assert coding.names == names
    encoded = coding.encode(table, "train")
    assert encoded.tolist() == indices
    assert encoded.dtype == np.int64


def test_class_names_of_the_column_keep_their_order():
    table = make_table([2, 0, 1], datasets.ClassLabel(names=NAMES))
    coding = LabelCoding.learn(table, "label")
    assert coding.names == tuple(NAMES)
    assert coding.encode(table, "train").tolist() == [2, 0, 1]


def test_other_splits_are_coded_by_name_whatever_their_own_order():
    coding = LabelCoding.learn(make_table([0, 1], datasets.ClassLabel(names=NAMES)), "label")
    other = make_table([0, 1, 2], datasets.ClassLabel(names=["maybe", "no", "yes"]))
    assert coding.encode(other, "test").tolist() == [2, 0, 1]
    assert coding.encode(make_table(["yes", "no"]), "test").tolist() == [1, 0]
    assert coding.encode(make_table([2, 0]), "test").tolist() == [2, 0]


def test_floats_are_values_to_predict():
    table = make_table([0.5, 5.0])
    coding = LabelCoding.learn(table, "label")
    assert coding.names == ()
    encoded = coding.encode(table, "train")
    assert encoded.dtype == np.float32
    assert encoded.tolist() == [0.5, 5.0]


def test_integers_are_values_where_the_metric_wants_them():
    coding = LabelCoding.learn(make_table([1, 5]), "label", is_regression=True)
    assert coding.names == ()
    assert coding.encode(make_table([3]), "test").tolist() == [3.0]


def test_the_hubs_unlabelled_rows_are_marked():
    table = make_table([0, -1, 1], datasets.ClassLabel(names=NAMES))
    assert LabelCoding.learn(table, "label").encode(table, "train").tolist() == [0, -1, 1]


@pytest.mark.parametrize("labels", [[1, 1], ["1", "1"]], ids=["integers", "strings"])
def test_one_class_only_is_refused(labels):
    with pytest.raises(DataError, match="all 2 train items have the label '1' in column 'label'"):
        LabelCoding.learn(make_table(labels), "label")


def test_one_class_only_is_refused_by_its_name_though_others_are_declared():
    with pytest.raises(DataError, match="all 3 train items have the label 'yes'"):
        LabelCoding.learn(make_table([1, 1, -1], datasets.ClassLabel(names=NAMES)), "label")


def test_training_rows_without_any_label_are_refused():
    with pytest.raises(DataError, match="all 2 train items have the label ''"):
        LabelCoding.learn(make_table([-1, -1], datasets.ClassLabel(names=NAMES)), "label")


def test_missing_labels_are_counted_and_the_first_is_named():
    with pytest.raises(DataError, match=r"1 of the 3 rows of the train split have no value .* is row 3"):
        LabelCoding.learn(make_table([0, 1, None]), "label")


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_values_that_are_not_finite_are_refused(bad):
    table = make_table([1.0, bad, bad])
    coding = LabelCoding.learn(table, "label")
    match = "2 of the 3 rows of the train split have no finite number in column 'label', the first is row 2"
    with pytest.raises(DataError, match=match):
        coding.encode(table, "train")


@pytest.mark.parametrize(
    ("labels", "value"), [(["ham", "eggs"], "eggs"), ([0, 1], "0")], ids=["strings", "integers"]
)
def test_a_class_that_training_lacks_is_refused(labels, value):
    coding = LabelCoding.learn(make_table(["ham", "spam"]), "label")
    match = f"the test split has the label '{value}' in column 'label', which is not .*'ham', 'spam'"
    with pytest.raises(DataError, match=match):
        coding.encode(make_table(labels), "test")


def test_an_index_beyond_the_declared_names_is_refused():
    coding = LabelCoding.learn(make_table([0, 1], datasets.ClassLabel(names=NAMES)), "label")
    with pytest.raises(DataError, match="the test split has the label '7'"):
        coding.encode(make_table([7]), "test")


def test_a_long_list_of_classes_is_cut():
    coding = LabelCoding.learn(make_table(list(range(100, 120))), "label")
    with pytest.raises(DataError, match=r"'104' and 15 more"):
        coding.encode(make_table([1]), "test")


def test_words_among_values_are_refused():
    coding = LabelCoding.learn(make_table([0.5, 1.5]), "label")
    with pytest.raises(
        DataError, match=r"labels of the test split in column 'label' are no numbers, e.g. 'good'"
    ):
        coding.encode(make_table(["good"]), "test")


def test_labels_that_are_lists_are_refused():
    with pytest.raises(DataError, match=r"label column 'label' holds List.*neither a class nor a number"):
        LabelCoding.learn(make_table([[0], [1]]), "label")


@pytest.mark.parametrize(
    ("labels", "expected"),
    [([0, 1], True), ([-1, 0], True), ([-1, -1], False), ([None, None], False), ([-1.0, -1.0], False)],
)
def test_splits_without_labels_are_recognised(labels, expected):
    assert is_labelled(make_table(labels), "label") is expected


def test_a_split_without_the_column_is_unlabelled():
    assert not is_labelled(make_table([0, 1], column="other"), "label")
