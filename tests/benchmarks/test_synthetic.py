"""The 12-layer space against the table that it is fitted to, here one made of such a formula."""

from __future__ import annotations

import importlib
import itertools
import json
import sys
from pathlib import Path

import numpy as np
import pytest

from rlnas.additive import AdditiveModel
from rlnas.space import ChoiceSpace, LayerConfig, ModelShape
from rlnas.tabular import BenchLatency, TabularBench, load_synthetic, save_bench

ROOT = Path(__file__).parents[2]
OPTIONS = tuple(LayerConfig(*sizes) for sizes in ((0, 0), (4, 512), (12, 512), (4, 1536), (12, 1536)))
N_ITEMS = 400


@pytest.fixture
def script(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT))
    return importlib.import_module("benchmarks.synthetic")


@pytest.fixture(scope="module")
def table():
    """Four layers: a logit with main effects and a loss for neighbours that are both dropped."""
    space = ChoiceSpace(4, OPTIONS)
    actions = np.array(list(itertools.product(range(5), repeat=4)))
    worth = np.array([0.0, 0.5, 0.6, 0.9, 1.0])[actions] * np.array([0.5, 1.0, 0.6, 0.4])
    dropped = actions == 0
    logit = -1.0 + worth.sum(axis=1) - 0.4 * (dropped[:, 1:] & dropped[:, :-1]).sum(axis=1)
    rng = np.random.default_rng(0)
    right = 1 / (1 + np.exp(-logit))[:, None] > rng.random((len(logit), N_ITEMS))
    parts = (np.array([0.0, 0.3, 0.5, 0.8, 1.0]),) * 4
    return TabularBench(
        name="formula",
        space=space,
        shape=ModelShape(4, 12, 1536, 384),
        n_items=N_ITEMS,
        chance=0.25,
        right=np.packbits(right, axis=1),
        kept=AdditiveModel(0.0, parts),
        n_params=AdditiveModel(1.0, parts),
        latencies={"made up": BenchLatency(space, AdditiveModel(1.0, parts), 0.0, "ms")},
        recipe={},
    )


def test_the_formula_explains_the_table_as_far_as_noise_lets_it(script, table):
    _, fit = script.fit_table(table)
    assert fit["held_out_r2"] > 0.9
    assert fit["held_out_rank_correlation"] > 0.9


def test_items_that_are_drawn_anew_for_every_subnet_share_no_noise(script, table):
    assert script.noise_share(table) == pytest.approx(1.0, abs=0.15)


def test_twelve_layers_are_worth_what_the_table_is(script, table):
    surface = script.stretch(script.fit_table(table)[0], table)
    full, empty = surface.accuracy(np.array([[4] * 24, [0] * 24]))
    assert full == pytest.approx(1 / (1 + np.exp(-1.5)), abs=0.03)
    assert empty == pytest.approx(1 / (1 + np.exp(2.2)), abs=0.05)
    np.testing.assert_array_equal(surface.dropped[[0, 0, 1], [0, 1, 1]], [1.0, 0.5, 0.0])
    gains = surface.main[:, -1, -1]
    assert gains.argmax() in (3, 4, 5)
    assert gains.min() > 0


def test_corners_of_the_parted_options_are_those_of_the_table(script, table):
    worth = np.arange(1.0, 17.0).reshape(4, 4) ** 1.1
    parted = script._parted(table, worth)
    thirds = [np.interp(1 / 3, np.linspace(0, 1, 5), parted[:, -1, :][layer]) for layer in range(4)]
    np.testing.assert_allclose(parted[:, -1, -1], worth[:, 3])
    np.testing.assert_array_equal(parted[:, 0, 0], 0.0)
    assert all(worth[layer, 0] / 2 < thirds[layer] < worth[layer, 3] for layer in range(4))


def test_the_script_writes_a_bench_whose_best_are_hard_to_beat(
    script, table, tmp_path, monkeypatch, capsys
):
    save_bench(table, tmp_path / "formula.rlnasbench")
    monkeypatch.setattr(script, "RATIOS", (0.3, 0.6))
    arguments = ["--table", tmp_path / "formula.rlnasbench", "--out", tmp_path, "--restarts", 1]
    monkeypatch.setattr(sys, "argv", ["synthetic", *map(str, arguments)])
    script.main()
    figures = json.loads(capsys.readouterr().out.splitlines()[-1])
    bench = load_synthetic(tmp_path / "synthetic12-formula.synthetic.json")
    assert figures["bytes"] < 50_000
    assert bench.recipe["synthetic"] is True
    assert len(bench.space.nvec) == 24
    assert "not timed" in bench.latency.note
    rng = np.random.default_rng(0)
    draws = rng.integers(5, size=(20_000, 24))
    latencies = bench.latency.model.predict(draws)
    for action, ratio in zip(bench.best_known, (0.3, 0.6), strict=False):
        best = bench.surface.accuracy(action[None])[0]
        assert bench.latency.model.predict(action[None])[0] <= ratio
        assert best > bench.surface.accuracy(draws[latencies <= ratio]).max()
    # Importance never falls from one option to the next.
    assert all((np.diff(part) >= 0).all() for part in bench.kept.parts)
    arena = importlib.import_module("benchmarks.arenas").load_arenas(tmp_path, None, None)[1]
    assert arena.optimum(0.6, 0) == pytest.approx(bench.surface.accuracy(bench.best_known[1:2])[0])
    assert arena.truth(0) == arena.truth(1)
    assert arena.exhaustive(0.6, 0) is None
    assert 0 < arena.best_area(0) < 1


def test_a_table_of_other_options_is_refused(script, table):
    from dataclasses import replace

    other = replace(table, space=ChoiceSpace(4, (*OPTIONS[:3], LayerConfig(6, 1536), OPTIONS[4])))
    with pytest.raises(
        ValueError, match=r"must offer two sizes of heads and of units, but it offers .*0.5"
    ):
        script.stretch(script.fit_table(table)[0], other)
