"""The comparison of joint and separate choices on a tiny model, in floats alone."""

from __future__ import annotations

import importlib
import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from tiny import make_split, make_task

ROOT = Path(__file__).parents[2]


@pytest.fixture
def run(bert, monkeypatch, capsys, tmp_path):
    monkeypatch.syspath_prepend(str(ROOT))
    script = importlib.import_module("benchmarks.precision")
    task = replace(make_task(n=24), search=make_split(60, seed=1, name="search"))
    monkeypatch.setattr(script, "PRECISIONS", ("float32", "bfloat16"))
    monkeypatch.setattr(script, "WORKLOAD", replace(script.WORKLOAD, seq_len=16))
    monkeypatch.setattr(script, "trained", lambda name, options: (bert, task))

    def call(*arguments):
        paths = ["--data", "nowhere", "--cache", tmp_path, "--out", tmp_path / "out.jsonl"]
        monkeypatch.setattr(sys, "argv", ["precision", *map(str, [*paths, *arguments])])
        script.main()
        return json.loads(capsys.readouterr().out.splitlines()[-1])

    return call


def test_choices_keep_to_the_target_and_are_judged_by_other_items(run, tmp_path):
    small = (
        "--budget",
        8,
        "--seeds",
        1,
        "--items",
        20,
        "--judge-items",
        30,
        "--models",
        2,
        "--seconds",
        0.1,
    )
    figures = run("--tasks", "sst2", "--targets", 0.9, *small)["sst2"]
    assert (figures["n_items"], figures["n_judge_items"]) == (20, 30)
    row = figures["targets"]["0.9"]
    assert set(row["accuracy"]) == {"joint", "float32_then", "bfloat16"}
    for (choice,) in row["choices"].values():
        assert choice["ratio"] <= 0.9 * (1 + 1e-6)
    assert {c["config"]["precision"] for c in row["choices"]["bfloat16"]} == {"bfloat16"}
    for rival in ("float32_then", "bfloat16"):
        points, low, high = figures["all_targets"][f"joint_minus_{rival}"]
        assert low <= points <= high
        gap = 100 * (row["accuracy"]["joint"] - row["accuracy"][rival])
        assert points == pytest.approx(gap)


def test_quick_without_a_trained_supernet_says_so(run):
    assert "holds no trained supernet of sst2" in run("--quick")["skipped"]
