from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import datasets
import pytest

from rlnas.data.files import nearest, quiet_datasets, read_files, read_folder, reason
from rlnas.errors import DataError

COLUMNS = {"text": ["a plain text", 'a "quoted", text', "Größe\u2028"], "label": [0, 1, 0]}
PACKAGE = Path(__file__).parents[2]


def write(path: Path, columns: dict[str, list[object]] = COLUMNS) -> Path:
    with quiet_datasets():
        table = datasets.Dataset.from_dict(columns)
        if path.suffix == ".parquet":
            table.to_parquet(path)
        elif path.suffix == ".csv":
            table.to_csv(path)
        else:
            table.to_json(path, force_ascii=False)
    return path


@pytest.mark.parametrize("suffix", [".parquet", ".csv", ".jsonl", ".json", ".ndjson", ".PARQUET"])
def test_every_format_is_read_as_it_was_written(tmp_path, suffix):
    path = write(tmp_path / f"train{suffix.lower()}").rename(tmp_path / f"train{suffix}")
    assert read_files([path])[:] == COLUMNS


def test_a_json_list_is_read(tmp_path):
    path = tmp_path / "train.json"
    path.write_text('[{"text": "a", "label": 1}, {"text": "b", "label": 0}]')
    assert read_files([path])[:] == {"text": ["a", "b"], "label": [1, 0]}


def test_tsv_takes_quotation_marks_as_they_are(tmp_path):
    path = tmp_path / "train.tsv"
    path.write_text('sentence\tlabel\n"half a quote\t1\nsay "yes"\t0\n')
    assert read_files([path])["sentence"][:] == ['"half a quote', 'say "yes"']


def test_words_that_others_take_for_missing_values_stay_words(tmp_path):
    path = tmp_path / "train.csv"
    path.write_text("text,label\nNone,1\nNA,0\nnull,1\n,0\n")
    assert read_files([path])["text"][:] == ["None", "NA", "null", None]


def test_class_names_in_parquet_are_kept(tmp_path):
    features = datasets.Features({"label": datasets.ClassLabel(names=["no", "yes"])})
    with quiet_datasets():
        datasets.Dataset.from_dict({"label": [1, 0]}, features=features).to_parquet(
            tmp_path / "train.parquet"
        )
    assert read_files([tmp_path / "train.parquet"]).features["label"].names == ["no", "yes"]


def test_a_path_with_glob_characters_is_one_path(tmp_path):
    folder = tmp_path / "we[i]rd *"
    folder.mkdir()
    assert len(read_files([write(folder / "train.csv")])) == 3


def test_a_folder_is_read_by_the_names_of_its_files(tmp_path):
    write(tmp_path / "train.csv")
    write(tmp_path / "dev.jsonl", {"text": ["d"], "label": [1]})
    write(tmp_path / "test.parquet", {"text": ["t"], "label": [1]})
    write(tmp_path / "other.csv", {"text": ["o"], "label": [1]})
    (tmp_path / "README.md").write_text("no data")
    tables = read_folder(tmp_path)
    assert {name: len(table) for name, table in tables.items()} == {"train": 3, "validation": 1, "test": 1}


def test_shards_of_one_split_are_read_together(tmp_path):
    for number, texts in enumerate((["a", "b"], ["c"])):
        write(tmp_path / f"train-{number:05d}-of-00002.parquet", {"text": texts, "label": [0] * len(texts)})
    assert read_folder(tmp_path)["train"]["text"][:] == ["a", "b", "c"]


@pytest.mark.parametrize("others", [("train.csv", "train.jsonl"), ("dev.csv", "validation.csv")])
def test_two_files_for_one_split_are_refused(tmp_path, others):
    for name in {"train.csv", *others}:
        write(tmp_path / name)
    with pytest.raises(
        DataError, match=f"two files for the .* split, {others[0]} and {others[1]}; keep one"
    ):
        read_folder(tmp_path)


def test_a_folder_without_training_data_names_what_it_has(tmp_path):
    write(tmp_path / "test.csv")
    write(tmp_path / "data.jsonl")
    match = r"no training data: expected a file named train .*, but found data.jsonl, test.csv"
    with pytest.raises(DataError, match=match):
        read_folder(tmp_path)


def test_an_empty_folder_is_refused(tmp_path):
    with pytest.raises(DataError, match="but found no such file"):
        read_folder(tmp_path)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("train.csv", b"text,label\n"),
        ("train.tsv", b""),
        ("train.json", b"[]"),
        ("train.jsonl", b""),
        ("train.parquet", None),
    ],
)
def test_files_without_rows_are_refused(tmp_path, name, content):
    path = tmp_path / name
    if content is None:
        with quiet_datasets():
            features = datasets.Features({"text": datasets.Value("string")})
            datasets.Dataset.from_dict({"text": []}, features=features).to_parquet(path)
    else:
        path.write_bytes(content)
    with pytest.raises(DataError, match=f"{name} is empty; it needs at least one row"):
        read_files([path])


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("train.parquet", b"this is no parquet"),
        ("train.csv", b'text,label\n"never closed,1\n'),
        ("train.csv", b"text,label\n\xff\xfe\xfa,1\n"),
        ("train.jsonl", b'{"text": "a", "label": 1}\n{"text": '),
    ],
    ids=["parquet", "quote", "encoding", "json"],
)
def test_damaged_files_are_refused_with_the_reason(tmp_path, name, content, capfd):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(
        DataError, match=rf"{name} cannot be read as {name.partition('.')[2]}: .{{10}}"
    ) as caught:
        read_files([tmp_path / name])
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


def test_an_unknown_suffix_is_refused(tmp_path):
    (tmp_path / "train.xlsx").write_bytes(b"x")
    with pytest.raises(DataError, match=r"train.xlsx has the suffix '.xlsx'; allowed are .parquet, .csv"):
        read_files([tmp_path / "train.xlsx"])


def test_reading_writes_nothing_into_the_home_or_the_temporary_folder(tmp_path):
    path = write(tmp_path / "train.csv")
    home, temporary = tmp_path / "home", tmp_path / "temporary"
    home.mkdir()
    temporary.mkdir()
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("HF_", "XDG_"))
    }
    environment |= {
        "HOME": str(home),
        "TMPDIR": str(temporary),
        "HF_HUB_OFFLINE": "1",
        "PYTHONPATH": str(PACKAGE),
    }
    code = "import sys; from pathlib import Path; from rlnas.data.files import read_files; "
    code += "print(len(read_files([Path(sys.argv[1])])))"
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)], env=environment, capture_output=True, text=True, check=True
    )
    assert (done.stdout, done.stderr) == ("3\n", "")
    assert [*home.rglob("*"), *temporary.rglob("*")] == []
    assert sorted(found.name for found in tmp_path.iterdir()) == ["home", "temporary", "train.csv"]


def test_quiet_restores_what_it_found():
    def state():
        return datasets.are_progress_bars_disabled(), datasets.logging.get_verbosity()

    before = state()
    with quiet_datasets():
        assert state() == (True, datasets.logging.CRITICAL)
    assert state() == before
    datasets.disable_progress_bars()
    try:
        with quiet_datasets():
            pass
        assert datasets.are_progress_bars_disabled()
    finally:
        datasets.enable_progress_bars()


def test_reason_is_one_line_of_the_innermost_cause():
    outer = OSError("outer")
    outer.__cause__ = ValueError("first line\nsecond line")
    assert reason(outer) == "first line"
    assert reason(KeyboardInterrupt()) == "KeyboardInterrupt"
    assert len(reason(ValueError("x" * 1000))) == 200


def test_nearest_names_a_sibling_or_a_known_task(tmp_path):
    (tmp_path / "sst2").mkdir()
    assert nearest(tmp_path / "sst3") == f"; did you mean {str(tmp_path / 'sst2')!r}?"
    assert nearest(tmp_path / "missing" / "sst3") == ""
    assert nearest(Path("pydoc"), ["pydocs"]) == "; did you mean 'pydocs'?"
    assert nearest(Path("pydocs"), ["pydocs"]) == ""


def test_another_encoding_is_told_with_its_remedy(tmp_path: Path):
    path = tmp_path / "latin.csv"
    path.write_bytes("text,label\nGröße,a\n".encode("latin-1"))
    with pytest.raises(DataError, match=r"latin.csv cannot be read as csv: .*decode.*; save it as UTF-8$"):
        read_files([path])
