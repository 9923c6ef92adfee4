"""A whole run on few items by the command line, and what it refuses."""

from __future__ import annotations

import json

import pytest
from world import LABELS, make_rows, write_checkpoint, write_csv

from rlnas.cli import main


def few(world, out, *more):
    """Flags of a search on few items; the world's own size of a search part is dropped."""
    arguments = world.arguments(out)
    at = arguments.index("--search-items")
    return [*arguments[:at], *arguments[at + 2 :], "--controller", "random", "--budget", "8", *more]


@pytest.mark.timeout(120)
def test_a_run_on_few_items_says_what_was_learnt(world, tmp_path, capsys):
    assert main(few(world, tmp_path / "run", "--shots", "24", "--folds", "2", "--min-steps", "4")) == 0
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["task"]["n_train"] == summary["task"]["n_search"] == 24
    assert summary["task"]["n_folds"] == 2
    (goal,) = summary["honest"]["goals"]
    assert goal["honest_ci"][0] < goal["honest_accuracy"] < goal["honest_ci"][1]
    table = " ".join(capsys.readouterr().out.split())
    assert "chosen among 8 by 24 items of the out-of-fold split" in table
    assert {path.name for path in (tmp_path / "run" / "folds").iterdir()} == {"0", "1"}


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--shots", "3"), "shots=3 is too few for the 2 classes: ask for at least 4"),
        (("--shots", "500"), "shots=500 asks for more labelled items than the 96"),
        (("--folds", "99"), "folds=99 is more than the 96 labelled items"),
        (("--folds", "-2"), "folds must be at least 2, .* but got folds=-2"),
        (("--folds", "3", "--search-items", "9"), "drop folds, or search_items"),
        (("--folds", "3", "--max-train-items", "30"), "say shots=30"),
        (("--folds", "3", "--racing"), "races are not for folds, but got folds=3"),
        (("--min-steps", "-1"), "min_steps must be at least 0, but got min_steps=-1"),
        (("--from-run", "nowhere"), "from_run=nowhere holds no shared weights to start from"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_what_cannot_be_is_refused(world, tmp_path, refused, flags, message):
    refused(few(world, tmp_path / "run", *flags), message)


def test_data_of_a_class_of_one_cannot_be_parted(world, tmp_path, refused):
    rows = [*make_rows(30, 1, LABELS[:1]), *make_rows(1, 2, LABELS[1:])]
    write_csv(tmp_path / "data" / "train.csv", ("text", "label"), rows)
    write_csv(tmp_path / "data" / "validation.csv", ("text", "label"), make_rows(8, 3))
    flags = few(world, tmp_path / "run", "--task", str(tmp_path / "data"))
    refused([*flags, "--folds", "5"], "all 1 items of class 'positive' fall into one fold")
    refused([*flags, "--shots", "10"], "the class 'positive' has 1 labelled items, but with shots=10")


def test_a_run_of_another_shape_is_no_start(world, tmp_path, refused):
    from rlnas.supernet import Supernet

    write_checkpoint(tmp_path / "thin", LABELS, num_heads=2)
    Supernet.from_pretrained(tmp_path / "thin", None).save(tmp_path / "earlier")
    flags = few(world, tmp_path / "run", "--from-run", str(tmp_path / "earlier"))
    refused(flags, "has other sizes than the checkpoint")
