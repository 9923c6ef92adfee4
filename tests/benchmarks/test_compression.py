"""The compression benchmark on a tiny BERT: every method's model, what is kept, and what cells come to."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import world
from datasets import Dataset

from rlnas import Workload
from rlnas.scores import score

ROOT = Path(__file__).parents[2]


@pytest.fixture
def scripts(monkeypatch, tmp_path):
    """The modules, with a tiny BERT in place of MiniLM and shorter texts."""
    monkeypatch.syspath_prepend(str(ROOT))
    study = importlib.import_module("benchmarks.compression_study")
    model = world.write_checkpoint(tmp_path / "bert")
    monkeypatch.setattr(study, "minilm_path", lambda: str(model))
    monkeypatch.setattr(study, "WORKLOAD", Workload(1, 16))
    return importlib.import_module("benchmarks.compression")


@pytest.fixture
def data(tmp_path):
    """A folder with the parts of one task."""
    for seed, (part, n) in enumerate((("train", 200), ("validation", 20), ("test", 30))):
        rows = world.make_rows(n, seed)
        columns = {"text": [text for text, _ in rows], "label": [label for _, label in rows]}
        (tmp_path / "data" / "sms_spam").mkdir(parents=True, exist_ok=True)
        Dataset.from_dict(columns).to_parquet(tmp_path / "data" / "sms_spam" / f"{part}.parquet")
    return tmp_path / "data"


@pytest.fixture
def run(scripts, data, monkeypatch, capsys, tmp_path):
    def call(*arguments):
        paths = ["--data", data, "--cache", tmp_path / "cache", "--out", tmp_path / "out.jsonl"]
        monkeypatch.setattr(sys, "argv", ["compression", *map(str, [*paths, *arguments])])
        scripts.main()
        return json.loads(capsys.readouterr().out.splitlines()[-1])

    return call


def test_every_method_is_judged_on_validation_and_test_pooled(run, scripts, monkeypatch, tmp_path):
    figures = run("--quick")
    done = {(cell["method"], cell["training"]) for cell in figures["cells"]}
    # One pass is all the training of a quick run.
    variants = {variant for variant in scripts.VARIANTS if variant[1] != scripts.ONE_PASS}
    assert done == {("full", "trained"), *variants}
    for cell in figures["cells"]:
        low, high = cell["ci"]
        assert low <= cell["accuracy"] <= high
        assert cell["n_items"] == 50
        assert cell["latency_ratio"] > 0
    assert {pair["rival"] for pair in figures["pairs"] if pair["training"] == "trained"} == set(
        scripts.RIVALS
    )
    assert figures["n_counted"] == 1
    (line,) = map(json.loads, (tmp_path / "out.jsonl").read_text().splitlines())
    assert line["figures"] == figures
    assert "budget" not in line["settings"]

    def refuse(*_):
        raise AssertionError("a cell was done again")

    monkeypatch.setattr(scripts._Bench, "_compressed", refuse)
    assert run("--quick")["cells"] == figures["cells"]
    kept = run("--quick", "--kept")
    assert {cell["method"] for cell in kept["cells"]} == {cell["method"] for cell in figures["cells"]}
    assert kept["n_won"] == figures["n_won"]


def test_a_missing_folder_is_told_in_a_sentence(run, tmp_path):
    with pytest.raises(SystemExit, match="holds no folder 'cola'; name that of all tasks"):
        run("--quick", "--tasks", "cola")


def test_without_kept_cells_there_is_nothing_to_record(run):
    with pytest.raises(SystemExit, match="keeps no cell of this budget; run without --kept first"):
        run("--quick", "--kept")


def test_without_torch_pruning_the_other_rivals_are_left(run, scripts, monkeypatch, capsys):
    monkeypatch.setattr(scripts.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(scripts, "QUICK", scripts.QUICK)
    monkeypatch.setattr(sys, "argv", ["compression", "--data", "nowhere", "--quick"])
    options = scripts._options()
    assert "torch-pruning" not in options.methods
    assert "pip install 'rlnas[rivals]'" in capsys.readouterr().out


def cell(method, predictions, *, seed=0, target=0.5, training="trained", task="sst2"):
    return {
        **{"task": task, "seed": seed, "target": target, "method": method, "training": training},
        **{
            "epochs": 1,
            "metric": "accuracy",
            "labels": LABELS.tolist(),
            "predictions": predictions.tolist(),
        },
        "latency": {"ratio": 0.5, "ratio_ci": [0.49, 0.51], "subnet_ms": 1.0, "subnet_spread_ms": 0.1},
        **{"config": {}, "commit": "abc"},
    }


LABELS = np.arange(1000) % 2


def answers(n_wrong, first=0):
    """Labels of which so many are wrong, from the item `first` on."""
    predictions = LABELS.copy()
    predictions[first : first + n_wrong] = 1 - predictions[first : first + n_wrong]
    return predictions


@pytest.fixture
def figures_of(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT))
    return importlib.import_module("benchmarks.compression_figures").figures_of


def test_a_win_needs_a_mean_that_is_not_below_and_an_interval_above_half_a_point(figures_of):
    full = cell("full", answers(50), target=1.0)
    better = figures_of([full, cell("rlnas", answers(60)), cell("uniform", answers(100))])
    assert better["n_won"] == better["n_counted"] == 1
    # Ten items better of a thousand, but on others: the interval reaches far below.
    noisy = figures_of([full, cell("rlnas", answers(100)), cell("uniform", answers(101, first=500))])
    assert noisy["n_won"] == 0
    # Three items worse: within half a point, but the mean is below.
    below = figures_of([full, cell("rlnas", answers(63)), cell("uniform", answers(60))])
    assert not below["pairs"][0]["win"]


def test_what_is_slower_than_the_target_and_the_rival_wins_nothing(figures_of):
    cells = [cell("full", answers(50), target=1.0), cell("rlnas", answers(60))]
    cells.append(cell("uniform", answers(100)))
    cells[1]["latency"] |= {"ratio": 0.53}
    assert not figures_of(cells)["pairs"][0]["win"]
    cells[2]["latency"] = cells[1]["latency"]
    assert figures_of(cells)["pairs"][0]["win"]


def test_one_lost_rival_loses_the_cell(figures_of):
    cells = [cell("full", answers(50), target=1.0), cell("rlnas", answers(60))]
    cells += [cell("uniform", answers(100)), cell("knapsack", answers(20))]
    figures = figures_of(cells)
    assert [pair["win"] for pair in figures["pairs"]] == [True, False]
    assert figures["n_won"] == 0


def test_differences_are_means_over_the_seeds_that_both_have(figures_of):
    cells = [cell("full", answers(50), seed=seed, target=1.0) for seed in range(3)]
    cells += [cell("rlnas", answers(60 + 10 * seed), seed=seed) for seed in range(3)]
    cells += [cell("uniform", answers(100), seed=seed) for seed in range(2)]
    (pair,) = figures_of(cells)["pairs"]
    assert pair["n_seeds"] == 2
    assert pair["difference_points"] == pytest.approx(3.5)
    (loss,) = figures_of(cells)["losses"]
    assert loss["loss_points"] == pytest.approx(2.0)
    mine = next(one for one in figures_of(cells)["cells"] if one["method"] == "rlnas")
    assert mine["accuracy"] == pytest.approx(
        np.mean([score("accuracy", LABELS, answers(60 + 10 * seed)) for seed in range(3)])
    )


def test_tasks_that_are_only_shown_do_not_count(figures_of):
    cells = [cell("full", answers(50), target=1.0, task="rte"), cell("rlnas", answers(60), task="rte")]
    figures = figures_of([*cells, cell("uniform", answers(100), task="rte")])
    assert figures["pairs"][0]["win"]
    assert figures["n_counted"] == 0


def test_the_readme_table_shows_every_method_beside_the_full_model(figures_of, monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT))
    table = importlib.import_module("benchmarks.readme_table").compression_table
    cells = [
        cell("full", answers(50), target=1.0),
        cell("rlnas", answers(60)),
        cell("uniform", answers(100)),
    ]
    cells.append(cell("rlnas", answers(70), training="training-free"))
    settings = {"seeds": 1, "train_items": 3000, "full_epochs": 4, "epochs": 2}
    text = table({"figures": figures_of(cells), "settings": settings, "device": "a CPU"})
    assert "| task | ratio | full | rlnas | uniform | rlnas, training-free |" in text
    assert "| sst2 | 0.50 to 0.50 | 95.0 | 94.0 | 90.0 | 93.0 |" in text
    assert "in 1 of 1 cells" in text
    assert "1 of 1 over uniform (+4.0 on average). a CPU, commits abc." in text
