"""Figures of cells made up by hand."""

from __future__ import annotations

import importlib
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def script(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT))
    return importlib.import_module("benchmarks.quality_figures")


def cell(
    script, method, seed, chosen, *, task="t", optimum=1.0, best=None, truth=None, part="single", seen=None
):
    views = {view: {"50": chosen} for view in ("chosen", "observed", "smoothed")}
    found = {**views, "best_seen": {"50": best or chosen}, "optimum": optimum}
    found |= {"seen": {"50": seen or 0.0}, "seen_optimum": None if seen is None else 0.75}
    return {
        "task": task,
        "part": part,
        "method": method,
        "seed": seed,
        "truth": truth or f"half {seed}",
        "targets": {"0.5": {**found, "exhaustive": None}},
        "area": {"50": 1.0},
        "best_area": 2.0,
        "n_trials": 50,
        "controller_seconds": 1.0,
        "proposed": {},
    }


def test_regret_is_measured_from_the_best_that_anybody_found(script):
    cells = [
        cell(script, "random", 0, 0.8, truth="same"),
        cell(script, "local", 0, 0.9, best=1.1, truth="same"),
    ]
    figures = script.figures_of(cells, [50])
    assert figures["regret"]["random"][50] == pytest.approx(0.3)
    assert figures["regret"]["local"][50] == pytest.approx(0.2)
    assert figures["hypervolume"]["random"][50] == 0.5
    assert figures["controller_ms"]["random"] == 20.0
    assert figures["regret_of_exhaustive_search"] == {}


def test_how_well_a_method_searches_is_counted_on_the_items_that_it_saw(script):
    known = cell(script, "random", 0, 0.8, seen=0.7)
    unknown = cell(script, "random", 0, 0.8, task="synthetic")
    figures = script.figures_of([known, unknown], [50])
    assert figures["seen_detail"]["overall"]["random"][50][0] == pytest.approx(0.05)
    assert list(figures["seen_detail"]) == ["overall", "t"]
    assert figures["one_seen_detail"] == {}


def test_a_proposal_that_is_better_than_all_known_is_the_optimum_if_it_keeps_to_its_target(script):
    proposals = {
        "better": {"accuracy": 1.1, "latency_ratio": 1.0, "seconds": 0.1},
        "too slow": {"accuracy": 1.5, "latency_ratio": 1.01, "seconds": 0.1},
    }
    proposed = {name: {"0.5": proposal} for name, proposal in proposals.items()}
    cells = [{**cell(script, "random", 0, 0.8, part="one"), "proposed": proposed}]
    figures = script.figures_of(cells, [50])
    assert figures["seven_targets"]["random"] == pytest.approx(0.3)
    assert figures["proposed"]["random"]["better"]["mean_regret"] == 0.0


def test_the_subject_is_compared_with_the_best_control_of_each_scope(script):
    cells = []
    for seed in range(8):
        luck = 0.1 * np.sin(seed)
        for task, random, local in (("a", 0.8, 0.7), ("b", 0.5, 0.75)):
            for method, chosen in ((script.SUBJECT, 0.9), ("random", random), ("local", local)):
                cells.append(cell(script, method, seed, chosen + luck, task=task, optimum=2.0))
    figures = script.figures_of(cells, [50])
    against = figures["single_against_best_control"]
    assert {scope: found[50]["control"] for scope, found in against.items()} == {
        "overall": "local",
        "a": "random",
        "b": "local",
    }
    np.testing.assert_allclose(against["a"][50]["difference"], -0.1)
    assert against["a"][50]["added"] == "lower regret"
    assert figures["single_against"]["random"]["b"][50]["improvement"][0] == 1.0


def test_without_the_subject_nothing_is_compared(script):
    figures = script.figures_of([cell(script, "random", 0, 0.5)], [50])
    assert figures["single_against"] == figures["single_against_best_control"] == {}


@pytest.mark.parametrize(
    ("difference", "said"),
    [
        ([0.0, -0.1, 0.1], "nothing"),
        ([0.0, 0.0, 0.0], "nothing"),
        ([-0.2, -0.3, -0.1], "lower regret"),
        ([0.2, 0.1, 0.3], "higher regret"),
    ],
    ids=str,
)
def test_what_was_added_is_nothing_where_the_interval_holds_0(script, difference, said):
    assert script.verdict(difference) == said


def test_a_plot_names_every_method_once(script):
    curves = {name: {10: [0.2], 50: [0.1]} for name in ("random", "start", "ppo", "local+start", "tpe")}
    root = ElementTree.fromstring(script.curve_plot(curves, "regret", "overall"))
    texts = [element.text for element in root.iter("{http://www.w3.org/2000/svg}text")]
    assert all(texts.count(name) == 1 for name in curves)
    lines = list(root.iter("{http://www.w3.org/2000/svg}polyline"))
    assert len(lines) == len(curves)
