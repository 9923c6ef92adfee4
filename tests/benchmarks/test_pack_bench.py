"""From a supernet to a bench file and back, on a tiny model: three layers of three options."""

from __future__ import annotations

import importlib
import itertools
import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tiny import SHAPE, make_task, write_checkpoint

from rlnas.errors import DataError
from rlnas.evaluation import SupernetEvaluator
from rlnas.latency import DeviceInfo, LatencyTable
from rlnas.latency.correction import Correction
from rlnas.space import ChoiceSpace, LayerConfig
from rlnas.supernet import Supernet
from rlnas.tabular import load_bench
from rlnas.workload import Workload

ROOT = Path(__file__).parents[2]
OPTIONS = (LayerConfig(0, 0), LayerConfig(2, 16), LayerConfig(4, 48))
SPACE = ChoiceSpace(3, OPTIONS)
TASK = make_task(n=24)


@pytest.fixture
def script(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT))
    build = importlib.import_module("benchmarks.build_bench")
    pack = importlib.import_module("benchmarks.pack_bench")
    recipe = build.Recipe(carved_items=24, max_seq_len=16, full_epochs=1, epochs=1)
    for module in (build, pack):
        sizes = {
            "OPTIONS": OPTIONS,
            "N_LAYERS": 3,
            "N_FIRST": 1,
            "N_ITEMS": 24,
            "RECIPES": {"tiny": recipe},
        }
        for name, value in sizes.items():
            monkeypatch.setattr(module, name, value)
    monkeypatch.setattr(pack, "load_task", lambda *_, **__: TASK)
    return pack


@pytest.fixture(scope="module")
def supernet_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("packed")
    supernet = Supernet.from_pretrained(write_checkpoint(folder / "checkpoint", "bert"), TASK)
    supernet.fine_tuned = True
    supernet.save(folder / "supernet")
    return folder / "supernet"


@pytest.fixture
def cache(tmp_path, supernet_folder):
    folder = tmp_path / "cache" / "tiny"
    folder.mkdir(parents=True)
    (folder / "supernet").symlink_to(supernet_folder)
    return folder


def judge(script, cache, parts):
    build = importlib.import_module("benchmarks.build_bench")
    evaluator = SupernetEvaluator(
        Supernet.load(cache / "supernet"), TASK, lambda configs: [0.0] * len(configs)
    )
    for part in parts:
        build._judge(part, (part,), evaluator, TASK, cache)
    return evaluator


def right_or_wrong(evaluator, config):
    (predicted,) = evaluator.predict([config])
    return np.packbits(predicted == TASK.search.labels).tobytes()


def table(workload):
    return LatencyTable(
        workload=workload,
        device=DeviceInfo(name="made up", kind="cpu", threads=1),
        shape=SHAPE,
        attention_ms={2: 1.0, 4: 1.5},
        ffn_ms={16: 2.0, 48: 4.0},
        floor_ms=1.0,
        correction=Correction("scale_offset", 0.5, 1.1, 1.1, 1.1),
    )


def run(script, monkeypatch, capsys, cache, out):
    arguments = ["--tasks", "tiny", "--cache", cache.parent, "--out", out]
    monkeypatch.setattr(sys, "argv", ["pack_bench", *map(str, arguments)])
    script.main()
    return json.loads(capsys.readouterr().out.splitlines()[-1])


def test_a_packed_bench_answers_as_the_evaluator_does(script, cache, tmp_path, monkeypatch, capsys):
    evaluator = judge(script, cache, range(3))
    out = tmp_path / "out"
    sizes = run(script, monkeypatch, capsys, cache, out)
    assert sizes["bytes"] == {"tiny": (out / "tiny.rlnasbench").stat().st_size}
    bench = load_bench(out / "tiny.rlnasbench")
    configs = [SPACE.decode(action) for action in itertools.product(range(3), repeat=3)]
    answers, expected = bench.evaluator()(configs), evaluator(configs)
    assert [a.accuracy for a in answers] == pytest.approx([e.accuracy for e in expected])
    assert [a.correct for a in answers] == [right_or_wrong(evaluator, config) for config in configs]
    supernet = Supernet.load(cache / "supernet")
    assert [a.n_params for a in answers] == [supernet.n_params(config) for config in configs]
    assert bench.chance == pytest.approx(1 / 3)
    assert bench.recipe["epochs"] == 1


def test_importance_kept_is_that_of_the_first_heads_and_units(script, cache, tmp_path):
    judge(script, cache, range(3))
    evaluator = script.load_parts(cache, tmp_path, tmp_path).evaluator()
    with np.load(cache / "importance.npz") as stored:
        heads, units = stored["heads"], stored["units"]
    expected = heads[0, :2].sum() + units[0, :16].sum() + heads[2].sum() + units[2].sum()
    assert evaluator.kept_importance([SPACE.decode((1, 0, 2))])[0] == pytest.approx(expected)
    np.testing.assert_allclose(evaluator.importance, heads.sum(axis=1) + units.sum(axis=1))


def test_an_unfinished_table_serves_the_last_layers(script, cache, tmp_path, monkeypatch, capsys):
    evaluator = judge(script, cache, [0, 2])
    bench = script.load_parts(cache, tmp_path, tmp_path)
    assert bench.space.nvec == (3, 3)
    for action in ((0, 0), (1, 2), (2, 0)):
        (answer,) = bench.evaluator()([bench.space.decode(action)])
        assert answer.correct == right_or_wrong(evaluator, SPACE.decode((2, *action)))
    assert run(script, monkeypatch, capsys, cache, tmp_path / "out") == {"bytes": {}}


def test_without_parts_there_is_no_bench(script, cache, tmp_path):
    with pytest.raises(DataError, match=r"tiny holds no part-\*.npy; run benchmarks.build_bench first"):
        script.load_parts(cache, tmp_path)


def test_measured_tables_come_first_and_operations_are_counted_last(script, cache, tmp_path):
    judge(script, cache, range(3))
    for workload in script.WORKLOADS[:1]:
        table(workload).save(tmp_path / script.table_name(workload))
    bench = script.load_parts(cache, tmp_path, tmp_path)
    assert list(bench.latencies) == ["1x32 float32", "operations"]
    configs = [bench.config_of(row) for row in range(1, 27)]
    expected = table(Workload(1, 32))(configs)
    np.testing.assert_allclose(bench.latency()(configs), expected)
    assert bench.latency("operations")([SPACE.largest()])[0] == pytest.approx(1.0)
    assert "not timed" in bench.latency("operations").note


def test_a_table_of_another_model_is_refused(script, cache, tmp_path):
    judge(script, cache, range(3))
    other = replace(table(script.WORKLOADS[0]), shape=replace(SHAPE, num_hidden_layers=2))
    other.save(tmp_path / script.table_name(script.WORKLOADS[0]))
    with pytest.raises(ValueError, match="is for another model"):
        script.load_parts(cache, tmp_path, tmp_path)
