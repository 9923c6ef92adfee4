"""Proposals for new targets and warm starts on small benches."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path

import pytest
from small_bench import made_up

from rlnas.tabular import save_bench

ROOT = Path(__file__).parents[2]


@pytest.fixture
def script(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT))
    return importlib.import_module("benchmarks.amortised")


@pytest.fixture
def folder(tmp_path):
    for name in ("easy", "hard"):
        save_bench(made_up(name, len(name), 6), tmp_path / f"{name}.rlnasbench")
    save_bench(made_up("other space", 0, 4), tmp_path / "small.rlnasbench")
    return tmp_path


@pytest.fixture
def run(script, monkeypatch, capsys, folder):
    # What is tested is the script: the policy need not learn.
    quick = script.SurrogatePPOController().settings.__class__(
        batch_size=32, steps_per_trial=2, final_steps=64
    )

    def fast(**arguments):
        return controller(settings=quick, **arguments)

    controller = script.SurrogatePPOController
    monkeypatch.setattr(script, "SurrogatePPOController", fast)
    monkeypatch.setitem(script.METHODS, script.SUBJECT, fast)

    def call(*arguments):
        paths = ["--bench", folder, "--cells", folder / "cells.jsonl", "--out", folder / "out.jsonl"]
        monkeypatch.setattr(sys, "argv", ["amortised", *map(str, [*paths, *arguments])])
        script.main()
        return json.loads(capsys.readouterr().out.splitlines()[-1])

    return call


def cells_of(folder):
    return [json.loads(line) for line in (folder / "cells.jsonl").read_text().splitlines()]


def test_proposals_stand_beside_a_search_for_their_target(run, folder):
    asked = ("--parts", "new_targets", "--tasks", "easy", "--seeds", 1)
    figures = run(*asked, "--budget", 32, "--warm-budget", 25)["new_targets"]
    assert set(figures["difference_points"]) == {"policy", "policy+history"}
    for scopes in figures["difference_points"].values():
        assert set(scopes) == {"overall", "easy"}
        assert set(scopes["easy"]) == {"0.25", "0.45", "0.65", "all"}
        value, low, high, _ = scopes["easy"]["all"]
        assert low <= value <= high
    for cell in cells_of(folder):
        for found in cell["targets"].values():
            assert all(found[name]["latency_ratio"] <= 1 + 1e-9 for name in found)
    assert figures["latency"]["own search"]["share_too_slow"] == 0
    assert figures["seconds"]["policy+history"]["largest"] < 1


def test_a_warm_start_is_compared_with_the_beginning_of_a_cold_search(run, folder):
    asked = ("--parts", "warm_start", "--seeds", 1, "--budget", 40, "--warm-budget", 25)
    figures = run(*asked)
    pairs = {"easy>hard", "hard>easy"}  # the third is of another space
    assert set(figures["regret"]) == set(figures["trials_to_cold_25"]) == {"overall", *pairs}
    for pair in pairs:
        assert list(figures["regret"][pair]["warm"]) == ["25"]
        assert set(figures["regret"][pair]) == {"cold", "warm"}
    cold = {cell["task"]: cell["regret"] for cell in cells_of(folder) if cell["method"] == "cold to 25"}
    assert figures["regret"]["easy>hard"]["cold"] == cold["hard"]
    before = cells_of(folder)
    assert run(*asked) == figures
    assert cells_of(folder) == before


def test_quick_makes_two_seeds_of_one_task(run, script, folder, monkeypatch):
    monkeypatch.setitem(script.QUICK, "budget", 32)
    monkeypatch.setitem(script.QUICK, "warm_budget", 25)
    assert list(run("--quick")) == ["new_targets"]
    assert [(cell["task"], cell["seed"]) for cell in cells_of(folder)] == [("easy", 100), ("easy", 101)]


def test_one_task_cannot_be_started_from_another(run, folder):
    assert run("--parts", "warm_start", "--tasks", "easy") == {}
    assert not (folder / "cells.jsonl").exists()


def test_a_warm_budget_beyond_the_cold_one_is_refused(run, capsys):
    with pytest.raises(SystemExit):
        run("--budget", 50, "--warm-budget", 100)
    assert "--warm-budget must be from 25 to --budget" in capsys.readouterr().err


def cell(task, source, seed, *regrets):
    return {"task": task, "source": source, "seed": seed, "regret": {"50": regrets[0], "250": regrets[1]}}


def test_the_first_look_at_the_cold_regret_is_found(script):
    cells = [cell("b", None, seed, 0.5, 0.2) for seed in range(4)]
    cells += [cell("b", "a", seed, 0.2, 0.1) for seed in range(4)]
    cells += [cell("a", None, seed, 0.5, 0.2) for seed in range(4)]
    cells += [cell("a", "b", seed, 0.9, 0.4) for seed in range(4)]
    figures = script.warm_start_figures(cells)
    assert figures["trials_to_cold_250"] == {"overall": None, "a>b": 50, "b>a": None}
    assert figures["warm_at_50_minus_cold_at_250"]["a>b"] == [0.0, 0.0, 0.0]
    assert figures["warm_at_50_minus_cold_at_250"]["b>a"] == pytest.approx([0.7, 0.7, 0.7])


def test_a_target_is_missed_on_either_side(script):
    def found(accuracy, latency_ratio):
        return {"accuracy": accuracy, "latency_ratio": latency_ratio, "seconds": 0.1}

    target = {
        "policy": found(0.5, 1.04),
        "policy+history": found(0.61, 0.96),
        "own search": found(0.6, 0.98),
    }
    cells = [{"task": "a", "seed": seed, "targets": {"0.25": target}} for seed in range(3)]
    figures = script.new_target_figures(cells)
    assert figures["difference_points"]["policy+history"]["a"]["0.25"] == pytest.approx([1.0] * 4)
    assert figures["difference_points"]["policy"]["overall"]["all"] == pytest.approx([-10.0] * 4)
    missed = {
        name: (row["share_too_slow"], row["share_missed_either_way"])
        for name, row in figures["latency"].items()
    }
    assert missed == {"policy": (1, 1), "policy+history": (0, 1), "own search": (0, 0)}
