from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import datasets
import numpy as np
import pytest

from rlnas.data import load_task, read_task, write_task
from rlnas.data.containment import ContainmentIndex, normalise
from rlnas.data.files import quiet_datasets
from rlnas.errors import DataError

SHARED = Path(os.environ.get("RLNAS_TEST_DATA") or Path(__file__).parents[2].parent / "shared" / "data")


def shared(name: str):
    """Parameter of a test that needs one of the shared data sets."""
    is_there = (SHARED / name / "train.parquet").is_file()
    reason = f"needs the data set {name!r} in RLNAS_TEST_DATA (or ../shared/data)"
    return pytest.param(name, marks=pytest.mark.skipif(not is_there, reason=reason))


def make_table(name: str, n_items: int, n_classes: int = 2, **columns) -> datasets.Dataset:
    rows = {
        "text": [f"{name} text number {index:04d} here" for index in range(n_items)],
        "label": [index % n_classes for index in range(n_items)],
    }
    return datasets.Dataset.from_dict(rows | columns)


def write_folder(folder: Path, **tables: datasets.Dataset) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    with quiet_datasets():
        for name, table in tables.items():
            table.to_parquet(folder / f"{name}.parquet")
    return folder


def unlabelled(n_items: int, label: float = -1) -> datasets.Dataset:
    return make_table("blind", n_items, label=[label] * n_items)


def assert_apart(first, second):
    """No text of one part stands in, or contains, a text of the other."""
    texts = [
        sorted({normalise(text) for text in (*part.texts, *(part.text_pairs or ()))})
        for part in (first, second)
    ]
    for needles, stack in (texts, reversed(texts)):
        index = ContainmentIndex(stack)
        assert not [text for text in needles if next(index.holders(text), None) is not None]


@pytest.fixture
def folder(tmp_path):
    return write_folder(
        tmp_path / "mine",
        train=make_table("train", 300),
        validation=make_table("dev", 20),
        test=make_table("test", 30),
    )


def test_a_folder_is_parted_into_train_search_and_final(folder):
    task = load_task(folder)
    assert (task.name, task.metric, task.label_names) == ("mine", "accuracy", ("0", "1"))
    assert [(part.name, len(part)) for part in (task.train, task.search, task.final)] == [
        ("train", 200),
        ("search", 100),
        ("test", 30),
    ]
    assert np.bincount(task.search.labels).tolist() == [50, 50]
    assert_apart(task.train, task.search)
    assert task.notes == (
        "search: 100 items carved from 300 rows; 0 rows left out because their text stands in one of these",
    )


def test_the_final_part_is_the_test_file_untouched(folder):
    final = load_task(folder).final
    expected = make_table("test", 30)
    assert list(final.texts) == expected["text"][:]
    assert final.labels.tolist() == expected["label"][:]


def test_poisoning_final_changes_neither_train_nor_search(folder, tmp_path):
    # The test split's own texts stay; its labels are turned round.
    table = make_table("test", 30)
    poisoned = table.remove_columns("label").add_column("label", [1 - label for label in table["label"]])
    other = write_folder(tmp_path / "poisoned", train=make_table("train", 300), test=poisoned)
    clean, poisoned_task = load_task(folder), load_task(other)
    assert clean.final.labels.tolist() != poisoned_task.final.labels.tolist()
    for part in ("train", "search"):
        assert getattr(clean, part).texts == getattr(poisoned_task, part).texts
        np.testing.assert_array_equal(getattr(clean, part).labels, getattr(poisoned_task, part).labels)


@pytest.mark.parametrize(
    "blind",
    [unlabelled(9), unlabelled(9).remove_columns("label"), make_table("blind", 9, label=[None] * 9)],
    ids=["minus one", "no column", "empty cells"],
)
def test_a_test_split_without_labels_gives_way_to_validation(tmp_path, blind):
    tables = {"train": make_table("train", 60), "validation": make_table("dev", 20), "test": blind}
    task = load_task(write_folder(tmp_path, **tables))
    assert (task.final.name, len(task.final)) == ("validation", 20)
    assert task.notes[0] == "test: its 9 rows have no labels; not used"


def test_without_any_labelled_split_final_is_carved(tmp_path):
    tables = {"train": make_table("train", 90), "validation": unlabelled(5), "test": unlabelled(5)}
    task = load_task(write_folder(tmp_path, **tables))
    assert (task.final.name, len(task.final), len(task.search)) == ("final (carved)", 30, 20)
    assert_apart(task.final, task.train)
    assert_apart(task.final, task.search)
    assert len(task.notes) == 4


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_a_single_file_is_a_task_whose_final_part_is_carved(tmp_path, suffix):
    write_folder(tmp_path, reviews=make_table("row", 90))
    table = datasets.Dataset.from_dict(make_table("row", 90)[:])
    path = tmp_path / f"reviews{suffix}"
    with quiet_datasets():
        {".csv": table.to_csv, ".jsonl": table.to_json, ".parquet": table.to_parquet}[suffix](path)
    task = load_task(str(path))
    assert (task.name, task.final.name) == ("reviews", "final (carved)")
    assert len(task.train) + len(task.search) + len(task.final) == 90


def test_the_carved_final_part_is_the_same_for_every_seed(tmp_path):
    path = write_folder(tmp_path, train=make_table("train", 300)) / "train.parquet"
    first, second = load_task(path, seed=0), load_task(path, seed=1)
    assert first.final.texts == second.final.texts
    assert first.search.texts != second.search.texts
    assert load_task(path, seed=1).search.texts == second.search.texts


def test_training_rows_that_stand_in_final_are_left_out(tmp_path):
    train = datasets.concatenate_datasets([make_table("train", 90), make_table("TEST", 5)])
    task = load_task(write_folder(tmp_path, train=train, test=make_table("test", 10)))
    assert len(task.train) + len(task.search) == 90
    assert task.notes[0] == "train: 5 of 95 rows stand in test too; left out"


def test_rows_that_the_hub_marks_as_unlabelled_are_left_out(tmp_path):
    feature = datasets.ClassLabel(names=["no", "yes"])
    train = make_table("train", 90, label=[-1] * 3 + [0, 1, 0] * 29).cast_column("label", feature)
    test = make_table("test", 10).cast_column("label", feature)
    task = load_task(write_folder(tmp_path, train=train, test=test))
    assert task.label_names == ("no", "yes")
    assert len(task.train) + len(task.search) == 87
    assert task.notes[0] == "train: 3 of 90 rows have no label; left out"


def test_the_size_of_search_can_be_given(folder):
    assert len(load_task(folder, search_items=17).search) == 17
    assert len(load_task(folder, search_fraction=0.1).search) == 30


def test_the_size_of_train_can_be_bounded_and_search_stays(folder):
    whole, small = load_task(folder), load_task(folder, max_train_items=50)
    assert np.bincount(small.train.labels).tolist() == [25, 25]
    assert set(small.train.texts) < set(whole.train.texts)
    assert small.search.texts == whole.search.texts
    assert small.notes[-1] == "train: 50 of 200 items sampled"
    assert len(load_task(folder, max_train_items=1000).train) == 200


def test_columns_can_be_given(tmp_path):
    table = make_table("train", 90).rename_columns({"text": "words", "label": "kind"})
    test = make_table("test", 9).rename_columns({"text": "words", "label": "kind"})
    source = write_folder(tmp_path, train=table, test=test)
    assert load_task(source, text_column="words", label_column="kind").label_names == ("0", "1")
    with pytest.raises(
        DataError, match=r"no label column found among 'words', 'kind'; name it with --label-column"
    ):
        load_task(source, text_column="words")


def test_pairs_and_values_make_a_regression_task(tmp_path):
    def make_pairs(name, n_items):
        first = [f"{name} one number {index:04d} here" for index in range(n_items)]
        second = [f"{name} two number {index:04d} here" for index in range(n_items)]
        scores = np.linspace(0, 5, n_items).tolist()
        return datasets.Dataset.from_dict({"sentence1": first, "sentence2": second, "label": scores})

    source = write_folder(tmp_path, train=make_pairs("train", 90), validation=make_pairs("dev", 9))
    task = load_task(source)
    assert task.is_pair
    assert task.is_regression
    assert task.metric == "spearman"
    assert task.train.labels.dtype == np.float32
    assert_apart(task.train, task.search)
    assert load_task(source, metric="pearson").metric == "pearson"
    assert not load_task(source, text_column="sentence1").is_pair
    with pytest.raises(DataError, match="metric='accuracy' does not suit a regression task"):
        load_task(source, metric="accuracy")


def test_integers_are_values_where_the_metric_wants_them(folder):
    assert load_task(folder, metric="spearman").is_regression


@pytest.mark.parametrize(
    ("source", "metric"), [("glue/cola", "matthews"), ("glue/sst2", "accuracy"), ("owner/name", "accuracy")]
)
def test_a_hub_name_is_loaded_with_its_metric(monkeypatch, source, metric):
    splits = {"train": make_table("train", 90), "validation": make_table("dev", 9), "test": unlabelled(9)}
    hub = datasets.DatasetDict(
        {name: table.rename_column("text", "sentence") for name, table in splits.items()}
    )
    monkeypatch.setattr(datasets, "load_dataset", lambda repository, config: hub)
    task = load_task(source)
    assert (task.name, task.metric, task.final.name) == (source, metric, "validation")


def test_glue_stsb_is_a_regression_task(monkeypatch):
    table = {
        "sentence1": [f"one {i} word" for i in range(90)],
        "sentence2": [f"two {i} word" for i in range(90)],
    }
    train = datasets.Dataset.from_dict(table | {"label": np.linspace(0, 5, 90), "idx": list(range(90))})
    hub = datasets.DatasetDict(train=train, test=train.select(range(5)).map(lambda row: {"label": -1.0}))
    monkeypatch.setattr(datasets, "load_dataset", lambda repository, config: hub)
    task = load_task("glue/stsb")
    assert (task.metric, task.final.name) == ("spearman", "final (carved)")


def test_a_local_folder_goes_before_a_hub_name(folder, monkeypatch):
    monkeypatch.chdir(folder.parent)
    assert load_task("mine").name == "mine"


@pytest.mark.parametrize("as_path", [True, False])
def test_a_missing_path_is_named_with_the_nearest(folder, as_path):
    missing = folder.parent / "mien"
    match = rf"source='{missing}' does not exist; did you mean '{folder}'\?"
    with pytest.raises(DataError, match=match):
        load_task(missing if as_path else str(missing))


@pytest.mark.parametrize("source", ["missing.csv", "./missing", "a/b/c/d", "mine/missing"])
def test_what_looks_like_a_path_is_not_asked_of_the_hub(folder, monkeypatch, source):
    monkeypatch.chdir(folder.parent)
    monkeypatch.setattr(datasets, "load_dataset", None)
    with pytest.raises(DataError, match=f"source='{source}' does not exist"):
        load_task(source)


def test_a_misspelt_task_is_answered_with_the_nearest(monkeypatch):
    def unreachable(*address):
        raise ConnectionError("no route")

    monkeypatch.setattr(datasets, "load_dataset", unreachable)
    with pytest.raises(DataError, match=r"source='pydoc' is no local path, .*; did you mean 'pydocs'\?"):
        load_task("pydoc")
    with pytest.raises(DataError, match=r"source='glue/sst3' .*; did you mean 'glue/sst2'\?"):
        load_task("glue/sst3")


def test_one_class_only_is_refused(tmp_path):
    source = write_folder(tmp_path, train=make_table("train", 30, n_classes=1))
    with pytest.raises(DataError, match="all 30 train items have the label '0' in column 'label'"):
        load_task(source)


def test_a_text_column_of_numbers_is_refused(tmp_path):
    source = write_folder(tmp_path, train=make_table("train", 30, text=list(range(30))))
    with pytest.raises(DataError, match="text column 'text' of the train split holds int64, not text"):
        load_task(source)


def test_an_empty_split_is_refused(folder):
    (folder / "test.parquet").unlink()
    (folder / "test.csv").write_text("text,label\n")
    with pytest.raises(DataError, match=r"test.csv is empty; it needs at least one row"):
        load_task(folder)


def test_an_empty_split_of_the_hub_is_refused(monkeypatch):
    hub = datasets.DatasetDict(train=make_table("train", 30), test=make_table("test", 9).select([]))
    monkeypatch.setattr(datasets, "load_dataset", lambda repository, config: hub)
    with pytest.raises(
        DataError, match="the test split of source='owner/name' is empty; give at least one row"
    ):
        load_task("owner/name")


def test_a_label_that_training_lacks_is_refused(tmp_path):
    source = write_folder(tmp_path, train=make_table("train", 30), test=make_table("test", 9, n_classes=3))
    with pytest.raises(DataError, match="the test split has the label '2' in column 'label'"):
        load_task(source)


def test_a_declared_class_without_training_items_is_refused(tmp_path):
    feature = datasets.ClassLabel(names=["no", "yes", "maybe"])
    train = make_table("train", 90).cast_column("label", feature)
    test = make_table("test", 9, n_classes=3).cast_column("label", feature)
    with pytest.raises(
        DataError, match="the test split has items of class 'maybe', but no item of that class"
    ):
        load_task(write_folder(tmp_path, train=train, test=test))


def test_a_parted_task_is_refused_with_the_way_to_read_it(folder, tmp_path):
    task = load_task(folder)
    write_task(task, tmp_path / "stored")
    with pytest.raises(
        DataError, match=r"source='.*stored' is a task that is parted already; read it with read_task"
    ):
        load_task(tmp_path / "stored")
    assert read_task(tmp_path / "stored").train.texts == task.train.texts


@pytest.mark.parametrize(
    ("options", "match"),
    [
        (
            {"search_items": 5, "search_fraction": 0.1},
            "not both: got search_fraction=0.1 and search_items=5",
        ),
        ({"search_fraction": 0.0}, "between 0 and 1, but got search_fraction=0.0"),
        ({"search_fraction": 1.5}, "between 0 and 1, but got search_fraction=1.5"),
        ({"search_items": 0}, "search_items must be at least 1, but got search_items=0"),
        ({"search_items": 300}, "search_items=300 asks for 300 of the 300 train items"),
        ({"max_train_items": 0}, "max_train_items must be at least 1, but got max_train_items=0"),
        ({"metric": "auc"}, "metric must be one of accuracy, .* but got metric='auc'"),
        ({"text_column": "words"}, "text_column='words' is not among the columns 'text', 'label'"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_impossible_options_are_refused(folder, options, match):
    with pytest.raises(DataError, match=match):
        load_task(folder, **options)


def test_pydocs_has_no_columns_to_choose():
    with pytest.raises(DataError, match="source='pydocs' has no columns to choose"):
        load_task("pydocs", label_column="label")


@pytest.mark.parametrize("name", [shared("rte"), shared("stsb"), shared("cola"), shared("clinc150")])
def test_shared_data_keeps_most_rows_and_its_parts_stand_apart(name):
    task = load_task(SHARED / name)
    n_rows = {"rte": 2_490, "stsb": 5_749, "cola": 8_551, "clinc150": 15_000}[name]
    assert len(task.train) > 0.75 * n_rows
    assert 300 <= len(task.search) <= 2_000
    assert_apart(task.train, task.search)
    assert task.final.name == ("test" if name in ("stsb", "clinc150") else "validation")
    assert (task.is_pair, task.is_regression) == (name in ("rte", "stsb"), name == "stsb")
    assert len(task.label_names) == {"rte": 2, "stsb": 0, "cola": 2, "clinc150": 150}[name]
    if name == "clinc150":
        assert task.label_names[:2] == ("accept_reservations", "account_blocked")
        assert min(Counter(task.search.labels.tolist()).values()) >= 10


@pytest.mark.parametrize("name", [shared("sst2")])
def test_sst2_is_carved_by_sentences_and_loses_their_phrases(name):
    task = load_task(SHARED / name)
    assert (len(task.final), task.final.name, task.label_names) == (1_821, "test", ("negative", "positive"))
    assert_apart(task.train, task.search)
    # Most rows are phrases; what is carved is as long as the sentences of the final split.
    n_words = [
        np.mean([len(text.split()) for text in part.texts])
        for part in (task.train, task.search, task.final)
    ]
    assert n_words[0] < 10 < 15 < n_words[1]
    assert abs(n_words[1] - n_words[2]) < 4
    assert 1_000 <= len(task.search) <= 2_000
    assert len(task.train) > 50_000
    dropped = 67_349 - len(task.train) - len(task.search)
    assert dropped > 5_000


def test_shots_are_all_there_is_and_the_final_part_stays_whole(folder):
    task = load_task(folder, shots=60)
    assert (len(task.train), len(task.search), len(task.final)) == (40, 20, 30)
    assert task.n_folds == 0
    assert task.notes[0] == "labelled: 60 items drawn from 300 rows, as shots=60"
    sized = load_task(folder, shots=60, search_items=10, max_train_items=30)
    assert (len(sized.train), len(sized.search)) == (30, 10)


def test_in_folds_every_item_serves_both_though_never_at_once(folder):
    task = load_task(folder, shots=60, folds=4)
    assert task.train.texts == task.search.texts
    assert (len(task.search), task.search.name, task.n_folds, len(task.final)) == (60, "out-of-fold", 4, 30)
    assert task.notes[-1] == (
        "search: none carved; each of the 60 labelled items is held out once, in 4 folds of 15 to 15"
    )
    held_out = [text for number in range(4) for text in task.fold(number).search.texts]
    assert sorted(held_out) == sorted(task.train.texts)
    for number in range(4):
        assert_apart(task.fold(number).train, task.fold(number).search)


@pytest.mark.parametrize(
    ("settings", "n_folds"),
    [
        ({"folds": None}, 5),
        ({"folds": None, "search_items": 50}, 0),
        ({"folds": None, "search_fraction": 0.2}, 0),
        ({"folds": None, "max_train_items": 50}, 0),
        ({"folds": 0}, 0),
        ({"folds": 1}, 0),
        ({}, 0),
    ],
    ids=str,
)
def test_folds_are_taken_where_items_are_few_and_nothing_else_is_said(folder, settings, n_folds):
    assert load_task(folder, **settings).n_folds == n_folds


def test_where_a_search_part_costs_its_usual_share_none_are_taken(tmp_path):
    tables = {"train": make_table("train", 1333), "test": make_table("test", 30)}
    task = load_task(write_folder(tmp_path, **tables), folds=None)
    assert (task.n_folds, len(task.search)) == (0, 200)
    assert load_task(tmp_path, shots=1332, folds=None).n_folds == 5


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"folds": 5, "search_items": 9}, "folds=5 lets every item serve .* drop folds, or search_items"),
        ({"folds": 5, "max_train_items": 90}, "max_train_items=90 was given; say shots=90"),
        ({"folds": -1}, "folds must be at least 2, .* but got folds=-1"),
        ({"shots": 3}, "shots=3 is too few for the 2 classes"),
        ({"shots": 301}, "shots=301 asks for more labelled items than the 300"),
    ],
    ids=str,
)
def test_few_items_that_cannot_be_parted_are_refused(folder, settings, message):
    with pytest.raises(DataError, match=message):
        load_task(folder, **settings)
