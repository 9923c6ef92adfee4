from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

import rlnas.auto.pipeline
import rlnas.auto.race
import rlnas.run.pipeline
from rlnas.auto import Arm, run_auto
from rlnas.auto.candidates import Candidate
from rlnas.auto.entrants import Entrant, read_entrants
from rlnas.auto.learner import FullLearner
from rlnas.auto.pipeline import search_job
from rlnas.auto.record import Record
from rlnas.errors import BudgetError, CheckpointError, HistoryError, InfeasibleTargetError, RunFolderError
from rlnas.history import History
from rlnas.rewards import LatencyTarget
from rlnas.run.folder import read_json
from rlnas.space import ModelShape
from rlnas.supernet import FullTrainer, Supernet

pytest.importorskip("optuna")


def trials_of(path):
    with History.read(path) as history:
        return history.trials


def test_a_choice_ends_with_one_certified_model_of_the_best_arm(finished, make_auto):
    auto, summary = make_auto(), read_json(finished / "summary.json")
    told = summary["auto"]
    looks = Record(finished / "arms" / "history.json").looks
    last = [look for look in looks if look.rung == 1]
    assert len([look for look in looks if look.rung == 0]) == 6
    assert len(last) == 3
    best = min(last, key=lambda look: look.order)
    assert told["chosen"]["trial"] == best.candidate.number
    assert told["chosen"]["score"] == best.score
    low, high = told["chosen"]["score_ci"]
    assert low <= best.score <= high
    assert summary["model"] == best.candidate.arm
    assert summary["training"]["full_epochs"] == auto.rungs[-1]
    assert summary["best"]["split"] == "validation"
    assert not (finished / "arms" / "paused").exists()


def test_the_target_means_the_same_milliseconds_whichever_arm_wins(finished, make_auto):
    summary = read_json(finished / "summary.json")
    entrants = {one.name: one for one in read_entrants(finished / "arms" / "entrants.json")}
    winner, told = entrants[summary["model"]], summary["auto"]
    assert summary["target_ratio"] == pytest.approx(min(1.0, 0.75 / winner.latency_ratio), abs=1e-4)
    assert told["latency_ratio"] == pytest.approx(summary["latency_ratio"] * winner.latency_ratio)
    assert (told["target_ratio"], told["reference"]) == (0.75, "tiny")


def test_a_search_starts_from_the_winner_and_how_it_was_trained(make_auto, tmp_path):
    small = Entrant("half", ModelShape(1, 4, 64, 32), 0.5, 0.1, latency_ratio=0.6, smallest_ratio=0.3)
    large = replace(small, latency_ratio=1.5)
    candidate = Candidate(3, "half", 1e-3, 64)
    jobs = [search_job(make_auto(), entrant, candidate, tmp_path / "winner") for entrant in (small, large)]
    assert [job.reward for job in jobs] == [LatencyTarget(ratio=1.0), LatencyTarget(ratio=0.5)]
    assert jobs[0].model == str(tmp_path / "winner")
    assert (jobs[0].schedule.learning_rate, jobs[0].schedule.batch_size) == (1e-3, 64)


def test_the_cost_is_that_of_what_was_done(finished):
    summary = read_json(finished / "summary.json")
    cost, entrants = summary["auto"]["cost"], read_entrants(finished / "arms" / "entrants.json")
    looks = Record(finished / "arms" / "history.json").looks
    by_name = {one.name: one.cost for one in entrants}
    # Rungs of one pass each: every look is a pass and its answers.
    assert cost["choice"] == pytest.approx(sum(by_name[look.candidate.arm].look(1) for look in looks))
    assert cost["choice_to_the_end"] == pytest.approx(2 * sum(one.look(2) for one in by_name.values()))
    parts = sum(cost[name] for name in ("choice", "share", "search", "finish", "baseline"))
    assert cost["total"] == pytest.approx(parts)
    assert cost["choice"] < cost["choice_to_the_end"]
    assert cost["total"] <= cost["at_most"]
    trials = summary["auto"]["trials"]
    assert sum(trial["cost"] for trial in trials) == pytest.approx(cost["choice"])


def test_the_card_and_the_report_tell_of_the_choice(finished):
    card = (finished / "best" / "README.md").read_text(encoding="utf-8")
    assert "chosen among 3 models in 6 trials, by 32 items of the" in card
    assert "The choice among models" in (finished / "report.html").read_text(encoding="utf-8")
    assert str(finished) not in card


def test_a_finished_run_is_not_touched(run, make_auto, monkeypatch):
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    monkeypatch.setattr(FullTrainer, "train", lambda *_, **__: pytest.fail("there is nothing to train"))
    assert run_auto(make_auto(), run, resume=True, progress=False) == read_json(run / "summary.json")
    after = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    assert {path: after[path] for path in before if path.suffix != ".lock"} == {
        path: before[path] for path in before if path.suffix != ".lock"
    }


class Kill(BaseException):
    """What no handler expects."""


DEATHS = [
    (FullLearner, "judge", 1),  # in the middle of the first rung
    (Record, "append", 4),  # trained, not yet on record
    (FullLearner, "judge", 2),
    (FullLearner, "keep", 0),
    (rlnas.auto.pipeline, "run_job", 0),
    (Supernet, "save", 0),
    (rlnas.run.pipeline, "deliver", 0),  # subnets are judged, and go on in another place
    (rlnas.auto.pipeline, "describe_choice", 0),  # the search has ended, its summary is there
    (rlnas.auto.pipeline, "write_card", 0),  # the summary tells of the choice, card and report do not
]


def test_a_choice_that_is_killed_and_moved_again_and_again_ends_as_an_unbroken_one(
    finished, make_auto, brief, tmp_path
):
    path = tmp_path / "broken"
    (path / "arms").mkdir(parents=True)
    # Timings differ from run to run; all else is to be the same.
    shutil.copytree(finished / "data", path / "data")
    for name in ("latency.json", "arms/entrants.json", "arms/config.json"):
        shutil.copy(finished / name, path / name)
    for owner, attribute, n_before in DEATHS:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(owner, attribute, _mortal(getattr(owner, attribute), n_before))
            with pytest.raises(Kill):
                run_auto(make_auto(), path, resume=True, progress=False)
        path = path.rename(tmp_path / f"after {attribute} {n_before}")
    assert not (path / "report.html").exists()
    summary = run_auto(make_auto(), path, resume=True, progress=False)
    assert summary["auto"]["trials"] == read_json(finished / "summary.json")["auto"]["trials"]
    assert "The choice among models" in (path / "report.html").read_text(encoding="utf-8")
    assert str(tmp_path) not in (path / "config.json").read_text()
    records = [(folder / "arms" / "history.json").read_text() for folder in (path, finished)]
    assert records[0] == records[1]
    assert [(t.config, t.metrics.accuracy) for t in trials_of(path)] == [
        (t.config, t.metrics.accuracy) for t in trials_of(finished)
    ]


# Where to kill the process, and what must and must not lie in the run folder then.
KILLS = [
    ({"moment": "finetune:begin", "delay": 0.05}, "arms/entrants.json", "arms/history.json"),
    ({"moment": "look:begin", "nth": 2}, "arms/history.json", "arms/winner"),
    ({"moment": "finetune:begin", "nth": 4, "delay": 0.05}, "arms/paused", "arms/winner"),
    ({"moment": "keep:begin"}, "arms/history.json", "arms/winner"),
    ({"moment": "save:end"}, "arms/.winner.tmp/model.safetensors", "arms/winner"),
    ({"moment": "append:begin"}, "arms/winner/model.safetensors", "best"),
    ({"moment": "report:begin"}, "summary.json", "report.html"),
]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_process_that_is_killed_again_and_again_ends_as_an_unbroken_one(world, tmp_path):
    def arguments(name):
        models = ("--models", str(world.model), f"{world.model}:mean", f"{world.model}:first=1")
        flags = (
            f"--task {world.data} --search-items 32 --seq-len 16 --device cpu --rungs 1,2 --budget 12 "
            "--epochs 1 --controller evolution --target-ratio 1 --resume"
        )
        return ["auto", *models, *flags.split(), "--out", str(tmp_path / name)]

    program = [sys.executable, str(Path(__file__).parents[1] / "run" / "mortal.py")]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "env": environment, "text": True}
    with subprocess.Popen(program, **pipes) as process:

        def attempt(name, **when):
            process.stdin.write(json.dumps({"arguments": arguments(name), **when}) + "\n")
            process.stdin.flush()
            return json.loads(process.stdout.readline())

        for when, present, absent in KILLS:
            killed = attempt("broken", **when)
            assert killed["status"] == -signal.SIGKILL, (when, (tmp_path / "broken.log").read_text())
            assert present in killed["names"], when
            assert absent not in killed["names"], when
        ended = attempt("broken")
        assert ended["status"] == 0, (tmp_path / "broken.log").read_text()
        (tmp_path / "unbroken" / "arms").mkdir(parents=True)
        shutil.copytree(tmp_path / "broken" / "data", tmp_path / "unbroken" / "data")
        for name in ("latency.json", "arms/entrants.json", "arms/config.json"):
            shutil.copy(tmp_path / "broken" / name, tmp_path / "unbroken" / name)
        unbroken = attempt("unbroken")
        process.stdin.close()
    assert unbroken["status"] == 0, (tmp_path / "unbroken.log").read_text()
    assert unbroken["rows"] == ended["rows"]
    records = [(tmp_path / name / "arms" / "history.json").read_text() for name in ("broken", "unbroken")]
    assert records[0] == records[1]
    assert "auto" in read_json(tmp_path / "broken" / "summary.json")


def _mortal(step, n_before):
    """The step, which kills instead of its call number `n_before`."""
    n_calls = 0

    def called(*args, **how):
        nonlocal n_calls
        n_calls += 1
        if n_calls > n_before:
            raise Kill
        return step(*args, **how)

    return called


def test_equal_seeds_give_equal_histories_and_others_do_not(
    finished, make_auto, brief, tmp_path, monkeypatch
):
    def stop(job, *_, **__):
        raise Kill

    monkeypatch.setattr(rlnas.auto.pipeline, "run_job", stop)
    records = {}
    for seed in (0, 1):
        with pytest.raises(Kill):
            run_auto(make_auto(seed=seed), tmp_path / str(seed), progress=False)
        records[seed] = (tmp_path / str(seed) / "arms" / "history.json").read_text()
    assert records[0] == (finished / "arms" / "history.json").read_text()
    assert records[1] != records[0]


# What is refused before anything is trained


@pytest.fixture
def no_training(monkeypatch, brief):
    monkeypatch.setattr(FullTrainer, "train", lambda *_, **__: pytest.fail("it has to be refused before"))


def test_a_choice_by_few_items_is_warned_of(make_auto, no_training, tmp_path, caplog, monkeypatch):
    said = "models are compared on 32 search items, and below 200 such a choice is mostly luck; set more"
    for few, n_times in ((33, 1), (32, 0)):
        monkeypatch.setattr(rlnas.auto.pipeline, "FEW_ITEMS", few)
        caplog.clear()
        with pytest.raises(BudgetError):
            run_auto(make_auto(passes=2.0), tmp_path / str(few), progress=False)
        assert caplog.text.count(said.replace("200", str(few))) == n_times


def test_a_budget_that_holds_no_first_rung_is_refused(make_auto, no_training, tmp_path):
    with pytest.raises(BudgetError, match=r"passes=2 are too few: one trial of each of 3 models may take"):
        run_auto(make_auto(passes=2.0), tmp_path / "run", progress=False)
    assert not (tmp_path / "run" / "data").exists()
    assert json.loads((tmp_path / "run" / "arms" / "config.json").read_text())["passes"] == "2.0"


def test_a_target_that_no_arm_reaches_is_refused(make_auto, no_training, tmp_path):
    with pytest.raises(InfeasibleTargetError, match=r"the target of 0.001 of the latency of tiny"):
        run_auto(make_auto(reward=LatencyTarget(ratio=0.001)), tmp_path / "run", progress=False)


def test_a_model_that_is_not_there_is_refused(make_auto, world, no_training, tmp_path):
    arms = (Arm(str(world.model)), Arm(str(tmp_path / "missing")))
    with pytest.raises(CheckpointError, match="there is no folder"):
        run_auto(make_auto(arms=arms), tmp_path / "run", progress=False)


def test_a_run_is_neither_overwritten_nor_mixed_with_another(run, make_auto, no_training):
    with pytest.raises(RunFolderError, match="already holds a choice among models"):
        run_auto(make_auto(), run, progress=False)
    with pytest.raises(HistoryError, match=r"was begun with rungs=\(1, 2\), not rungs=\(1, 4\)"):
        run_auto(make_auto(rungs=(1, 4)), run, resume=True, progress=False)
