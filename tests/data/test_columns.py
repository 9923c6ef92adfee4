from __future__ import annotations

import datasets
import pytest

from rlnas.data.columns import Columns, check_rows, find_columns, read_texts, read_values
from rlnas.errors import DataError


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["text", "label"], ("text", None, "label")),
        (["sentence", "label", "idx"], ("sentence", None, "label")),
        (["Review", "Sentiment"], ("Review", None, "Sentiment")),
        (["idx", "sentence1", "sentence2", "label"], ("sentence1", "sentence2", "label")),
        (["premise", "hypothesis", "label"], ("premise", "hypothesis", "label")),
        (["question1", "question2", "label"], ("question1", "question2", "label")),
        (["question", "sentence", "label"], ("question", "sentence", "label")),
        (["text", "text_pair", "score"], ("text", "text_pair", "score")),
        (["text", "intent", "label"], ("text", None, "label")),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, list) else "",
)
def test_known_columns_are_found_by_name(names, expected):
    assert find_columns(names) == Columns(*expected)


def test_given_columns_go_before_known_ones():
    names = ["text", "body", "other", "label", "kind"]
    assert find_columns(names, text="body", pair="other", label="kind") == Columns("body", "other", "kind")
    assert find_columns(names, pair="text", label="kind") == Columns("body", "text", "kind")


def test_a_given_text_column_makes_single_texts_of_pairs():
    names = ["sentence1", "sentence2", "label"]
    assert find_columns(names, text="sentence2") == Columns("sentence2", None, "label")


def test_a_missing_label_column_is_named_with_its_flag():
    match = r"no label column found among 'text', 'idx'; name it with --label-column \(label_column=\)"
    with pytest.raises(DataError, match=match):
        find_columns(["text", "idx"])


def test_a_missing_text_column_is_named_with_its_flag():
    match = r"no text column found among 'words', 'label'; name it with --text-column \(text_column=\)"
    with pytest.raises(DataError, match=match):
        find_columns(["words", "label"])


@pytest.mark.parametrize("role", ["text", "pair", "label"])
def test_a_given_column_that_is_not_there_is_refused(role):
    with pytest.raises(DataError, match=f"{role}_column='wrods' is not among the columns 'text', 'label'"):
        find_columns(["text", "label"], **{role: "wrods"})


def test_one_column_cannot_serve_twice():
    with pytest.raises(DataError, match=r"need a column each, but got Columns\(text='text', pair='text'"):
        find_columns(["text", "label"], text="text", pair="text")


def test_a_text_column_of_numbers_is_refused_with_its_type():
    table = datasets.Dataset.from_dict({"text": [1, 2], "label": [0, 1]})
    match = r"text column 'text' of the train split holds int64, not text; name another with --text-column"
    with pytest.raises(DataError, match=match):
        read_texts(table, "text", "text_column", "train")


def test_a_text_column_of_lists_is_refused():
    table = datasets.Dataset.from_dict({"text": [["a"], ["b"]]})
    with pytest.raises(DataError, match=r"text column 'text' of the test split holds List"):
        read_texts(table, "text", "text_column", "test")


def test_missing_texts_are_counted_and_the_first_is_named():
    table = datasets.Dataset.from_dict({"text": ["a", None, "b", None]})
    match = "2 of the 4 rows of the test split have no value in column 'text', the first is row 2"
    with pytest.raises(DataError, match=match):
        read_texts(table, "text", "text_column", "test")


def test_a_column_of_nothing_but_missing_values_is_refused():
    table = datasets.Dataset.from_dict({"text": [None, None]})
    with pytest.raises(DataError, match="2 of the 2 rows of the train split have no value"):
        read_texts(table, "text", "text_column", "train")


def test_a_column_that_one_split_lacks_is_named():
    table = datasets.Dataset.from_dict({"sentence": ["a"]})
    match = r"the test split has no column 'text', only 'sentence'; .*--text-column \(text_column=\)"
    with pytest.raises(DataError, match=match):
        read_values(table, "text", "text_column", "test")


def test_texts_are_read_as_they_are():
    texts = ("  Ä b\n", "", "None")
    table = datasets.Dataset.from_dict({"text": list(texts)})
    assert read_texts(table, "text", "text_column", "train") == texts


def test_good_rows_pass():
    check_rows([False, False], "train split", "no fault")


def test_columns_that_were_not_parted_are_told_apart():
    with pytest.raises(DataError, match=r"the only column is 'text;label'; separate columns by commas"):
        find_columns(["text;label"])
