from __future__ import annotations

import json
import os

import numpy as np
import pytest

from rlnas.data.store import read_task, write_task
from rlnas.errors import DataError, RunFolderError
from rlnas.task import Split, Task


def make_split(name: str, n_items: int, *, pairs: bool = False, numbers: bool = False) -> Split:
    texts = tuple(f"{name} text, “{index}”\n\t and more " for index in range(n_items))
    second = tuple(f"{name} second {index}" for index in range(n_items)) if pairs else None
    labels = (
        np.linspace(0, 5, n_items, dtype=np.float32) if numbers else np.arange(n_items, dtype=np.int64) % 2
    )
    return Split(name, texts, second, labels)


def make_task(*, pairs: bool = False, numbers: bool = False) -> Task:
    parts = [
        make_split(name, n_items, pairs=pairs, numbers=numbers)
        for name, n_items in (("train", 6), ("search", 3), ("final (carved)", 4))
    ]
    names = () if numbers else ("nö", "yes, really")
    return Task("owner/näme", *parts, names, "pearson" if numbers else "f1", ("a note", "another"))


def assert_equal(first: Task, second: Task) -> None:
    assert (first.name, first.metric, first.label_names, first.notes) == (
        second.name,
        second.metric,
        second.label_names,
        second.notes,
    )
    for part in ("train", "search", "final"):
        one, other = getattr(first, part), getattr(second, part)
        assert (one.name, one.texts, one.text_pairs) == (other.name, other.texts, other.text_pairs)
        assert one.labels.dtype == other.labels.dtype
        np.testing.assert_array_equal(one.labels, other.labels)


@pytest.fixture
def folder(tmp_path):
    write_task(make_task(), tmp_path / "task")
    return tmp_path / "task"


@pytest.mark.parametrize("pairs", [False, True], ids=["single", "pairs"])
@pytest.mark.parametrize("numbers", [False, True], ids=["classes", "values"])
def test_a_task_comes_back_exactly(tmp_path, pairs, numbers):
    task = make_task(pairs=pairs, numbers=numbers)
    write_task(task, tmp_path / "deep" / "task")
    assert_equal(read_task(tmp_path / "deep" / "task"), task)


def test_nothing_but_the_task_stays_in_the_folder(folder):
    names = ["final.parquet", "search.parquet", "task.json", "train.parquet"]
    assert sorted(path.name for path in folder.iterdir()) == names


def test_a_task_is_replaced_as_a_whole(folder):
    other = make_task(pairs=True, numbers=True)
    write_task(other, str(folder))
    assert_equal(read_task(str(folder)), other)


def test_a_write_that_breaks_off_leaves_no_half_written_file(folder, monkeypatch):
    def replace(source, target):
        raise OSError("disk full")

    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    monkeypatch.setattr(os, "replace", replace)
    with pytest.raises(RunFolderError, match=r"cannot be written to folder='.*task': disk full"):
        write_task(make_task(numbers=True), folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_a_folder_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(RunFolderError, match=r"cannot be written to folder='.*file'"):
        write_task(make_task(), tmp_path / "file")


def test_a_folder_without_a_task_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"folder='.*' holds no stored task: task.json is missing"):
        read_task(tmp_path)


@pytest.mark.parametrize("part", ["train", "search", "final"])
def test_a_missing_part_is_named(folder, part):
    (folder / f"{part}.parquet").unlink()
    with pytest.raises(DataError, match=rf"holds a task without {part}.parquet; write it anew"):
        read_task(folder)


@pytest.mark.parametrize("content", [b"", b"not parquet"])
def test_a_damaged_part_is_named(folder, content):
    (folder / "search.parquet").write_bytes(content)
    with pytest.raises(DataError, match=r"search.parquet (is empty|cannot be read as parquet)"):
        read_task(folder)


def test_a_part_of_another_task_is_noticed(folder):
    (folder / "search.parquet").write_bytes((folder / "final.parquet").read_bytes())
    with pytest.raises(DataError, match=r"search.parquet has 4 items, but task.json says 3"):
        read_task(folder)


@pytest.mark.parametrize(
    "content", ["", "{", "[]", '{"format": 1}', '{"format": 1, "label_names": 3}', "\ufffd"]
)
def test_a_damaged_description_is_named(folder, content):
    (folder / "task.json").write_text(content)
    with pytest.raises(DataError, match=r"task.json is damaged \(\w+: .*\); write it anew"):
        read_task(folder)


def test_a_part_without_its_columns_is_damaged(folder):
    (folder / "train.parquet").write_bytes(
        (folder / "train.parquet").read_bytes().replace(b"text", b"tixt")
    )
    with pytest.raises(DataError, match=r"task.json is damaged|train.parquet cannot be read"):
        read_task(folder)


def test_another_format_is_refused(folder):
    description = json.loads((folder / "task.json").read_text())
    (folder / "task.json").write_text(json.dumps(description | {"format": 2}))
    with pytest.raises(DataError, match=r"task.json has format=2, but this version reads 1"):
        read_task(folder)


def test_an_impossible_metric_is_refused(folder):
    description = json.loads((folder / "task.json").read_text())
    (folder / "task.json").write_text(json.dumps(description | {"metric": "auc"}))
    with pytest.raises(DataError, match="got metric='auc'"):
        read_task(folder)


def test_folds_come_back(tmp_path):
    split = make_split("train", 6)
    task = Task("few", split, split, make_split("final", 4), ("no", "yes"), folds=np.array([0, 1, 2] * 2))
    write_task(task, tmp_path)
    found = read_task(tmp_path)
    np.testing.assert_array_equal(found.folds, task.folds)
    assert found.folds.dtype == np.int64
    assert (found.n_folds, found.fold(1).search.texts) == (3, task.fold(1).search.texts)
