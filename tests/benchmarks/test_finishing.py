"""The benchmark of the last training, on a tiny model and a tiny task."""

from __future__ import annotations

import csv
import importlib
import json
import sys
from pathlib import Path

import pytest
from tiny import LABELS, NUM_HEADS, SHAPE, UNITS, texts

ROOT = Path(__file__).parents[2]


@pytest.fixture
def script(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT))
    return importlib.import_module("benchmarks.finishing")


@pytest.fixture
def data(tmp_path):
    """A folder with an sst2 of its own."""
    folder = tmp_path / "data" / "sst2"
    folder.mkdir(parents=True)
    for seed, name in enumerate(("train", "validation")):
        rows = [(text, LABELS[i % 3]) for i, text in enumerate(dict.fromkeys(texts(160, seed)))]
        with (folder / f"{name}.csv").open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([("text", "label"), *rows])
    return folder.parent


def test_each_way_to_finish_is_recorded_beside_the_delivered_model(
    script, checkpoints, data, tmp_path, monkeypatch, capsys
):
    paths = ["--data", data, "--model", checkpoints["bert"], "--cache", tmp_path / "cache"]
    arguments = [*paths, "--quick", "--out", tmp_path / "lines.jsonl", "--subnets", "mixed", "shallow"]
    for _ in range(2):
        monkeypatch.setattr(sys, "argv", ["finishing", *map(str, arguments)])
        script.main()
    lines = (tmp_path / "lines.jsonl").read_text().splitlines()
    figures, again = (json.loads(line)["figures"] for line in lines)
    assert json.loads(capsys.readouterr().out.splitlines()[-1]) == again
    (run,) = figures["runs"]
    assert (run["split"], run["n_items"], run["seed"]) == ("validation", 64, 0)
    for name in ("mixed", "shallow"):
        for way in ("answers", "answers_and_hidden"):
            found = run[name][way]
            assert found["gain_points"] == pytest.approx(
                100 * (found["accuracy"] - run[name]["delivered"]["accuracy"])
            )
            assert len(found["looks"]) == 2
            seconds = again["runs"][0][name][way].pop("seconds"), found.pop("seconds")
            assert min(seconds) > 0
    assert again == figures  # from the weights that were kept


def test_both_subnets_keep_about_half_of_the_operations(script):
    def operations(config):
        return sum(
            layer.num_attention_heads / NUM_HEADS + 2 * layer.intermediate_size / UNITS
            for layer in config.layers
        )

    full = operations(SHAPE.full)
    for name in ("mixed", "shallow"):
        assert 0.3 < operations(script.half(name, SHAPE)) / full < 0.6
