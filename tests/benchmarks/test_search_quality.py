"""The comparison of search methods on small benches, where everything can be checked."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path

import pytest
from small_bench import OPTIONS, made_up

from rlnas.space import ChoiceSpace
from rlnas.tabular import save_bench

ROOT = Path(__file__).parents[2]


@pytest.fixture
def folder(tmp_path):
    for seed, name in enumerate(("easy", "hard")):
        save_bench(made_up(name, seed, 6), tmp_path / f"{name}.rlnasbench")
    return tmp_path


@pytest.fixture
def run(monkeypatch, capsys, folder):
    monkeypatch.syspath_prepend(str(ROOT))
    script = importlib.import_module("benchmarks.search_quality")

    def call(*arguments):
        paths = ["--bench", folder, "--cells", folder / "cells.jsonl", "--out", folder / "out.jsonl"]
        monkeypatch.setattr(sys, "argv", ["search_quality", *map(str, [*paths, *arguments])])
        script.main()
        return json.loads(capsys.readouterr().out.splitlines()[-1])

    return call


def cells_of(folder):
    return [json.loads(line) for line in (folder / "cells.jsonl").read_text().splitlines()]


def test_figures_hold_every_method_and_budget(run, folder):
    methods = ("start", "random", "knapsack+start")
    figures = run("--methods", *methods, "--seeds", 2, "--budget", 50, "--parts", "single", "one")
    for name in ("regret", "hypervolume"):
        assert list(figures[name]) == list(methods)
        assert all(list(by_budget) == ["50"] for by_budget in figures[name].values())
    assert list(figures["seven_targets"]) == list(methods)
    assert set(figures["single_detail"]) == {"overall", "easy", "hard"}
    assert all(0 < figures["hypervolume"][method]["50"] <= 1 for method in methods)
    assert all(0 <= figures["regret"][method]["50"] < 0.5 for method in methods)
    assert all(ms >= 0 for ms in figures["controller_ms"].values())
    line = json.loads((folder / "out.jsonl").read_text())
    assert line["figures"] == figures
    assert {path.name for path in folder.glob("*.svg")} == {
        f"search-quality-{metric}-{scope}.svg"
        for metric in ("single", "one", "hypervolume")
        for scope in ("overall", "easy", "hard")
    }


def test_cells_are_kept_and_not_run_again(run, folder):
    asked = ("--tasks", "easy", "--parts", "single", "--budget", 25, "--cells-only", "--seeds", 2)
    assert run("--methods", "random", *asked) == {"cells": 2}
    before = cells_of(folder)
    run("--methods", "random", "start", *asked)
    after = cells_of(folder)
    assert after[:2] == before
    assert [cell["method"] for cell in after] == ["random", "random", "start", "start"]


def test_a_cell_that_was_cut_short_is_run_again(run, folder):
    asked = ("--tasks", "easy", "--parts", "single", "--budget", 25, "--cells-only", "--seeds", 1)
    run("--methods", "random", *asked)
    whole = cells_of(folder)[0]
    (folder / "cells.jsonl").write_text(json.dumps(whole)[:100])
    run("--methods", "random", *asked)
    again = json.loads((folder / "cells.jsonl").read_text().splitlines()[1])
    assert again["targets"] == whole["targets"]


def test_who_sees_everything_chooses_as_exhaustive_search_does(run, folder):
    save_bench(made_up("small", 0, 3), folder / "small.rlnasbench")
    asked = ("--tasks", "small", "--parts", "single", "--seeds", 3, "--budget", 25)
    figures = run("--methods", "random", *asked)
    for cell in cells_of(folder):
        (found,) = cell["targets"].values()
        assert found["observed"]["25"] == found["exhaustive"]
        assert found["best_seen"]["25"] == found["optimum"]
        assert found["seen"]["25"] == found["seen_optimum"]
        assert cell["area"]["25"] <= cell["best_area"] * (1 + 1e-9)
    for task, regret in figures["regret_of_exhaustive_search"]["single"].items():
        assert figures["single_detail"][task]["random"]["25"][0] == pytest.approx(regret)


@pytest.mark.parametrize("method", ["random", "evolution+start", "tpe+start"])
def test_a_budget_is_the_beginning_of_a_larger_one(run, folder, method):
    for budget in (50, 100):
        run("--methods", method, "--parts", "single", "--seeds", 1, "--budget", budget, "--tasks", "easy")
    short, long = (next(iter(cell["targets"].values())) for cell in cells_of(folder))
    assert list(short["smoothed"]) == list(short["observed"]) == ["25", "50"]
    for view in ("smoothed", "observed", "best_seen", "seen"):
        assert short[view] == {n: value for n, value in long[view].items() if int(n) <= 50}


def test_one_search_answers_all_targets_that_can_be_met(run, folder):
    asked = ("--parts", "one", "each", "--seeds", 1, "--budget", 25, "--tasks", "easy")
    figures = run("--methods", "random", *asked)
    assert list(figures["seven_targets"]) == list(figures["seven_targets_each"]) == ["random"]
    one, each = cells_of(folder)
    # The smallest takes 1 of 19 ms, so all seven can be met.
    assert list(one["targets"]) == list(each["targets"]) == [str(t / 10) for t in range(2, 9)]
    assert one["n_trials"] == 25 < each["n_trials"] <= 7 * 25


def test_what_a_method_proposes_is_judged(run, folder, monkeypatch):
    script = importlib.import_module("benchmarks.search_quality")

    space = ChoiceSpace(6, OPTIONS)

    def largest_that_fits(controller, result, target_ms):
        return space.decode((1,) * 6) if target_ms >= 7 else space.smallest()

    monkeypatch.setitem(script.PROPOSERS, "random", {"policy": largest_that_fits})
    figures = run("--methods", "random", "--parts", "one", "--seeds", 2, "--budget", 25, "--tasks", "easy")
    found = figures["proposed"]["random"]["policy"]
    assert found["share_too_slow"] == 0
    assert found["mean_regret"] > 0
    assert found["largest_latency_miss"] == pytest.approx(1 - 1 / (0.3 * 19))
    assert found["largest_seconds"] < 1


def test_quick_runs_one_task_with_few_seeds(run, folder):
    figures = run("--quick", "--methods", "random", "start")
    assert set(figures["single_detail"]) == {"overall", "easy"}
    assert list(figures["regret"]["random"]) == ["50", "100"]
    assert len(cells_of(folder)) == 2 * 3 * 2


def test_a_budget_below_the_first_look_is_refused_before_any_search(run, folder, capsys):
    with pytest.raises(SystemExit):
        run("--budget", 24)
    assert "--budget must be at least 25 trials, but got 24" in capsys.readouterr().err
    assert not (folder / "cells.jsonl").exists()


def test_a_bench_that_is_not_there_is_named(run, folder):
    with pytest.raises(SystemExit, match="holds easy, hard, but not soft"):
        run("--tasks", "soft")
