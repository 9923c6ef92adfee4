from __future__ import annotations

import pytest
from world import make_rows, write_csv


@pytest.mark.parametrize(
    ("header", "rows", "message"),
    [
        (("text", "note"), [("good", "a"), ("bad", "b")], "no label column found among .*--label-column"),
        (("text", "label"), [("good", "a"), ("bad", "a")], "all 2 train items have the label 'a'"),
        (("text", "label"), [], r"train.csv is empty; it needs at least one row"),
        (
            ("text", "label"),
            [(1.5, "a"), (2.5, "b")],
            "the text column 'text' .* not text; .*--text-column",
        ),
    ],
    ids=["no label column", "one class only", "an empty split", "a text column of numbers"],
)
def test_data_that_does_not_suit(world, tmp_path, refused, header, rows, message):
    write_csv(tmp_path / "data" / "train.csv", header, rows)
    refused(world.arguments(tmp_path / "run", "--task", str(tmp_path / "data")), message)


def test_an_empty_validation_file(world, tmp_path, refused):
    write_csv(tmp_path / "data" / "train.csv", ("text", "label"), make_rows(96, 1))
    write_csv(tmp_path / "data" / "validation.csv", ("text", "label"), [])
    refused(world.arguments(tmp_path / "run", "--task", str(tmp_path / "data")), r"validation.csv is empty")


def test_a_missing_task(world, tmp_path, refused):
    message = r"reviewz' does not exist; did you mean '.*reviews'\?"
    refused(world.arguments(tmp_path / "run", "--task", str(world.root / "reviewz")), message)
