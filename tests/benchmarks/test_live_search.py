"""Live searches on a tiny model, their kept answers, and what the judge says of their choices."""

from __future__ import annotations

import importlib
import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tiny import make_split, make_task

from rlnas.evaluation import SupernetEvaluator
from rlnas.space import LayerwiseSpace

ROOT = Path(__file__).parents[2]


@pytest.fixture
def script(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT))
    return importlib.import_module("benchmarks.live_search")


@pytest.fixture
def task():
    return replace(make_task(n=24), search=make_split(60, seed=1, name="search"))


@pytest.fixture
def run(script, bert, task, monkeypatch, capsys, tmp_path):
    bert.fine_tuned = True

    def calibrated(*arguments, **settings):
        settings["effort"] = replace(settings["effort"], n_rounds=2, max_seconds=0.1)
        return calibrate(*arguments, **settings)

    calibrate = script.calibrate
    monkeypatch.setattr(script, "calibrate", calibrated)
    monkeypatch.setattr(script, "load_searched", lambda data, cache, n_items: (bert, task))

    def call(*arguments):
        paths = ["--data", "nowhere", "--cache", tmp_path, "--out", tmp_path / "out.jsonl", "--models", 2]
        monkeypatch.setattr(sys, "argv", ["live_search", *map(str, [*paths, *arguments])])
        script.main()
        return json.loads(capsys.readouterr().out.splitlines()[-1])

    return call


def test_every_choice_is_judged_by_the_other_items(run, tmp_path):
    asked = ("--methods", "surrogate-ppo", "random", "--budget", 16, "--seeds", 2, "--items", 20)
    figures = run(*asked, "--target", 0.8)
    assert (figures["n_items"], figures["n_judge_items"]) == (20, 40)
    assert list(figures["accuracy"]) == ["surrogate-ppo", "random"]
    assert list(figures["difference_points"]) == ["random"]
    for view, (value, low, high) in figures["difference_points"]["random"].items():
        ours, theirs = (figures["accuracy"][method][view] for method in ("surrogate-ppo", "random"))
        assert value == pytest.approx(100 * (ours - theirs))
        assert low <= value <= high
    for method, seed in (("surrogate-ppo", 100), ("random", 101)):
        assert (tmp_path / "live" / f"{method}-{seed}" / "history.sqlite").is_file()
    for choice in figures["choices"]:
        assert choice["n_trials"] == 16
        assert choice["latency_ratio"] <= 0.8
    by_method = [c["judged_accuracy"] for c in figures["choices"] if c["method"] == "random"]
    assert np.mean(by_method) == pytest.approx(figures["accuracy"]["random"]["chosen"])
    assert json.loads((tmp_path / "out.jsonl").read_text())["figures"] == figures


def test_a_second_run_evaluates_nothing(run, script, monkeypatch):
    asked = ("--methods", "random", "knapsack", "--budget", 8, "--seeds", 1, "--items", 20)
    first = run(*asked)

    def refuse(self, configs):
        raise AssertionError(f"{len(configs)} subnets were judged again")

    monkeypatch.setattr(SupernetEvaluator, "predict", refuse)
    again = run(*asked)
    for key in ("accuracy", "difference_points", "choices", "evaluation_ms"):
        assert again[key] == first[key]


def test_quick_without_a_trained_supernet_says_so(run, tmp_path):
    assert "holds no trained supernet 'sst2-minilm'" in run("--quick")["skipped"]
    assert not (tmp_path / "out.jsonl").exists()


def test_no_item_is_seen_and_judged(script, task):
    seen, judge = script.part_items(task.search, 20, None)
    order = np.random.default_rng(0).permutation(60)
    assert seen.texts == task.search.take(np.sort(order[:20])).texts
    assert judge.texts == task.search.take(np.sort(order[20:])).texts
    assert len(script.part_items(task.search, 20, 15)[1]) == 15
    with pytest.raises(SystemExit, match="--items 60 of 60 search items leave none"):
        script.part_items(task.search, 60, None)


def test_importance_follows_the_weights_as_they_stand(script, bert, task, tmp_path):
    before = bert.extract(LayerwiseSpace.for_model(bert.shape).largest()).state_dict()
    script.weigh(bert, task, tmp_path)
    after = bert.extract(LayerwiseSpace.for_model(bert.shape).largest()).state_dict()
    assert all((before[name] == after[name]).all() for name in before)
    heads = bert.importance.heads
    assert heads.shape == (3, 4)
    assert (np.diff(heads, axis=1) > 0).any()  # not sorted
    bert.importance = None
    script.weigh(bert, task, tmp_path)
    assert (bert.importance.heads == heads).all()
    assert len(list(tmp_path.glob("importance-*.npz"))) == 1


def test_paired_points_cancel_what_both_have(script):
    rng = np.random.default_rng(0)
    first = rng.random((3, 400)) < 0.8
    assert script.paired_points(first, first) == [0.0, 0.0, 0.0]
    second = first.copy()
    second[:, :40] = False
    value, low, high = script.paired_points(first, second)
    assert value == pytest.approx(100 * first[:, :40].sum() / (3 * 400))
    assert 0 < low < value < high


@pytest.fixture
def answers(script, bert, task, tmp_path):
    def make():
        evaluator = SupernetEvaluator(bert, task, lambda configs: [1.0] * len(configs))
        return script.KeptAnswers(evaluator, task.search, tmp_path / "answers.jsonl")

    return make


def test_answers_are_those_of_the_evaluator(script, answers, task, bert, tmp_path):
    space, rng = LayerwiseSpace.for_model(bert.shape), np.random.default_rng(0)
    configs = [space.sample(rng) for _ in range(5)]
    kept = answers()
    right = kept.right([*configs, configs[0]])
    predicted = np.array(kept.evaluator.predict(configs))
    assert (right[:5] == (predicted == task.search.labels)).all()
    assert (right[5] == right[0]).all()
    assert kept.seconds(configs[0]) > 0
    metrics = script.KeepingEvaluator(kept)(configs)
    assert [m.accuracy for m in metrics] == [m.accuracy for m in kept.evaluator(configs)]
    assert (answers().right(configs) == right[:5]).all()
    assert len((tmp_path / "answers.jsonl").read_text().splitlines()) == 5


def test_an_answer_that_was_cut_short_is_computed_again(answers, bert, tmp_path):
    space, file = LayerwiseSpace.for_model(bert.shape), tmp_path / "answers.jsonl"
    configs = [space.smallest(), space.largest()]
    right = answers().right(configs)
    file.write_text(file.read_text()[:-30])
    assert (answers().right(configs) == right).all()
    assert all(json.loads(line) for line in file.read_text().splitlines())
    assert (answers().right(configs) == right).all()
