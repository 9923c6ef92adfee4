from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest
from transformers import AutoConfig
from world import BUDGET, N_SEARCH, SHAPE, make_table, write_task

import rlnas.run.pipeline
from rlnas.controllers.random import RandomController
from rlnas.errors import HistoryError, LatencyTableError, RewardError, RunFolderError
from rlnas.evaluation import Racing, SupernetEvaluator
from rlnas.history import History
from rlnas.run import Control, DataSource, Job, Schedule, run_job
from rlnas.run.folder import FREE_TO_CHANGE, RunFolder, read_json, write_json
from rlnas.supernet import FullTrainer
from rlnas.workload import Workload

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def mortal():
    """Lets a child do an attempt; see mortal.py."""
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
    }
    program = [sys.executable, str(Path(__file__).parent / "mortal.py")]
    with subprocess.Popen(
        program, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, text=True
    ) as process:

        def attempt(arguments, **when):
            process.stdin.write(json.dumps({"arguments": arguments, **when}) + "\n")
            process.stdin.flush()
            return json.loads(process.stdout.readline())

        yield attempt
        process.stdin.close()


# Where to kill, and what must and must not lie in the run folder then.
DEATHS = [
    ({"moment": "calibrate:begin", "delay": 0.05}, "config.json", "latency.json"),
    ({"moment": "finetune:begin", "delay": 0.03}, "data/task.json", "checkpoints/finetuned"),
    ({"moment": "prepare:begin"}, "checkpoints/finetuned", "supernet"),
    ({"moment": "share:begin", "delay": 0.03}, "checkpoints/finetuned", "supernet"),
    ({"moment": "save:end"}, ".supernet.tmp/model.safetensors", "supernet"),
    ({"moment": "evaluate:end"}, "supernet/model.safetensors", "best"),
    ({"moment": "append:end", "nth": 2}, "history.sqlite", "best"),
    ({"moment": "append:begin", "delay": 0.002}, "history.sqlite", "best"),
    ({"moment": "measure:begin", "delay": 0.2}, "controller.zip", "best"),
    ({"moment": "baseline:begin"}, "best/model.safetensors", "full"),
    ({"moment": "report:begin"}, "summary.json", "report.html"),
]


@pytest.mark.timeout(300)
def test_a_run_that_is_killed_again_and_again_ends_with_the_history_of_an_unbroken_one(
    mortal, world, tmp_path
):
    def arguments(name, *more):
        # Its own calibration, and the controller that is the default. However wrong the latencies are on a
        # busy machine, the target leaves enough subnets.
        flags = [
            flag
            for flag in world.arguments(tmp_path / name)
            if flag not in ("--latency-table", str(world.table))
        ]
        return [*flags, "--controller", "plain-ppo", "--budget", "64", "--target-ratio", "1", *more]

    stored = []
    for death, present, absent in DEATHS:
        killed = mortal(arguments("broken", "--resume"), **death)
        assert killed["status"] == -signal.SIGKILL, (death, (tmp_path / "broken.log").read_text())
        assert present in killed["names"], death
        assert absent not in killed["names"], death
        _check_nothing_is_lost_or_scored_again(stored, killed)
        stored = killed["rows"]
    ended = mortal(arguments("broken", "--resume"))
    assert ended["status"] == 0, (tmp_path / "broken.log").read_text()
    _check_nothing_is_lost_or_scored_again(stored, ended)
    assert [row[0] for row in ended["rows"]] == list(range(64))
    assert "report.html" in ended["names"]

    (tmp_path / "unbroken").mkdir()
    shutil.copytree(tmp_path / "broken" / "data", tmp_path / "unbroken" / "data")
    shutil.copy(tmp_path / "broken" / "latency.json", tmp_path / "unbroken")
    unbroken = mortal(arguments("unbroken"))
    assert unbroken["status"] == 0, (tmp_path / "unbroken.log").read_text()
    assert len(unbroken["evaluated"]) == 64
    assert unbroken["rows"] == ended["rows"]


def _check_nothing_is_lost_or_scored_again(before, attempt):
    assert attempt["rows"][: len(before)] == before
    assert not {row[1] for row in before} & set(attempt["evaluated"])


def rows(folder):
    with History.read(folder) as history:
        return history.trials


def all_files(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def no_work(monkeypatch):
    """Fails where a run does more than to read."""
    monkeypatch.setattr(rlnas.run.pipeline, "prepare_inputs", None)


def test_a_finished_run_is_read_and_left_as_it_is(world, run, no_work):
    before = all_files(run)
    assert run_job(world.job(), run, resume=True, progress=False) == read_json(run / "summary.json")
    assert all_files(run) == before


def test_a_finished_run_answers_for_a_smaller_budget_too(world, run, no_work):
    summary = run_job(world.job(budget=1), run, resume=True, progress=False)
    assert summary["budget"] == BUDGET


def test_a_finished_run_is_not_overwritten(world, run, no_work):
    before = all_files(run)
    with pytest.raises(RunFolderError, match=r"already holds a run; go on with it \(--resume\)"):
        run_job(world.job(), run, progress=False)
    assert all_files(run) == before


def test_a_report_that_was_not_written_any_more_is_written(world, run, no_work):
    (run / "report.html").unlink()
    run_job(world.job(), run, resume=True, progress=False)
    assert (run / "report.html").is_file()


def test_a_larger_budget_goes_on_where_the_search_ended(world, run, monkeypatch):
    evaluated = []
    judge = SupernetEvaluator.__call__

    def watched(self, configs):
        evaluated.extend(configs)
        return judge(self, configs)

    monkeypatch.setattr(SupernetEvaluator, "__call__", watched)
    monkeypatch.setattr(FullTrainer, "train", None)  # the baseline is there already
    before = rows(run)
    summary = run_job(world.job(budget=BUDGET + 9), run, resume=True, progress=False)
    assert rows(run)[:BUDGET] == before
    assert [trial.config for trial in rows(run)[BUDGET:]] == evaluated
    assert summary["n_trials"] == summary["budget"] == len(rows(run)) == BUDGET + 9


def test_a_budget_below_what_is_stored_is_refused(world, run):
    (run / "summary.json").unlink()
    with pytest.raises(HistoryError, match=f"already holds {BUDGET} trials, more than budget=8"):
        run_job(world.job(budget=8), run, resume=True, progress=False)


@pytest.mark.parametrize("key", sorted(set(Job("", None, None).settings()) - set(FREE_TO_CHANGE)))
def test_every_other_setting_is_refused_on_resume(world, run, key):
    settings = read_json(run / "config.json")
    write_json(run / "config.json", settings | {key: "something else"})
    message = re.escape(f"was started with {key}=something else, not {key}={settings[key]}; resume it")
    with pytest.raises(HistoryError, match=message):
        run_job(world.job(), run, resume=True, progress=False)


def test_a_table_that_cannot_be_read_begins_no_run(world, tmp_path, no_work):
    job = world.job(latency_table=str(tmp_path / "absent.json"))
    with pytest.raises(LatencyTableError, match=r"cannot read the latency table .*absent\.json"):
        run_job(job, tmp_path / "run", progress=False)
    assert not (tmp_path / "run").exists()


def test_a_run_that_has_its_table_needs_the_given_one_no_more(world, run, no_work):
    write_json(run / "config.json", read_json(run / "config.json") | {"latency_table": "deleted since"})
    assert run_job(world.job(latency_table="deleted since"), run, resume=True, progress=False)["n_trials"]


def test_a_run_may_move(world, run, no_work, tmp_path):
    run.rename(tmp_path / "elsewhere")
    assert run_job(world.job(), tmp_path / "elsewhere", resume=True, progress=False)["budget"] == BUDGET


def test_two_processes_do_not_work_on_one_run(world, tmp_path, no_work):
    folder = RunFolder(tmp_path)
    message = f"another process is writing to {tmp_path}"
    with folder.held(), pytest.raises(HistoryError, match=message):
        run_job(world.job(), tmp_path, progress=False)


def test_a_damaged_history_is_named(world, run):
    (run / "summary.json").unlink()
    (run / "history.sqlite").write_bytes(b"no database" * 1000)
    with pytest.raises(HistoryError, match=r"history.sqlite is not a sound history"):
        run_job(world.job(), run, resume=True, progress=False)


def prepared_run(world, finished, path):
    """A run whose data, table and weights are there."""
    path.mkdir()
    for name in ("data", "supernet", "full"):
        shutil.copytree(finished / name, path / name)
    shutil.copy(finished / "latency.json", path)
    return path


def test_the_search_never_touches_the_final_split(world, finished, tmp_path):
    """Other final texts, and all final labels wrong: the same history, row by row."""
    poisoned = write_task(tmp_path / "reviews", final_seed=99, flip_final=True)
    job = world.job(data=DataSource(str(poisoned), search_items=N_SEARCH))
    summary = run_job(job, tmp_path / "run", progress=False)
    assert rows(tmp_path / "run") == rows(finished)
    # The poison works: what was learnt is wrong there.
    clean = read_json(finished / "summary.json")
    assert clean["full"]["accuracy"] >= 0.9
    assert summary["full"]["accuracy"] <= 0.1
    assert summary["last64_mean_reward"] == clean["last64_mean_reward"]


def test_a_reward_of_ones_own_takes_five_lines(world, finished, tmp_path):
    def reward(metrics):
        return metrics.accuracy - 2 * metrics.n_params / 1e6

    path = prepared_run(world, finished, tmp_path / "run")
    summary = run_job(world.job(reward=reward, budget=16), path, progress=False)
    assert summary["reward"].endswith("reward")
    assert {trial.reward for trial in rows(path)} == {reward(trial.metrics) for trial in rows(path)}


def test_a_reward_that_is_no_number_ends_the_search(world, finished, tmp_path):
    def reward(metrics):
        return float("nan")

    path = prepared_run(world, finished, tmp_path / "run")
    with pytest.raises(RewardError, match=r"a reward must be a finite number, but .* gave nan"):
        run_job(world.job(reward=reward), path, progress=False)


def test_bars_show_how_far_the_search_is(world, finished, tmp_path, capsys):
    path = prepared_run(world, finished, tmp_path / "run")
    run_job(world.job(budget=16), path)
    shown = capsys.readouterr().err
    assert "search: 100%" in shown
    assert "16/16" in shown
    assert "best: reward" in shown


@contextmanager
def dying(owner, name, nth):
    """Lets the process end with the n-th call of a method."""
    step, calls = getattr(owner, name), []

    def mortal_step(self, *args):
        calls.append(args)
        if len(calls) == nth:
            raise KeyboardInterrupt
        return step(self, *args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(owner, name, mortal_step)
        with pytest.raises(KeyboardInterrupt):
            yield


RACING = Racing(confidence=0.9, indifference=0.1, chunk_items=4)


def test_a_raced_search_that_is_killed_ends_with_the_history_of_an_unbroken_one(
    world, finished, tmp_path, monkeypatch
):
    monkeypatch.setattr(
        rlnas.run.pipeline, "deliver", lambda *_, **__: {}
    )  # takes longer than all searches
    job = world.job(racing=RACING, seed=2)
    whole = prepared_run(world, finished, tmp_path / "whole")
    run_job(job, whole, progress=False)
    assert {trial.metrics.raced_out for trial in rows(whole)} == {True, False}

    broken = prepared_run(world, finished, tmp_path / "broken")
    for name, n_stored in [("_predict", 0), ("__call__", 32)]:  # within a race, and between two
        with dying(SupernetEvaluator, name, 2):
            run_job(job, broken, resume=True, progress=False)
        assert len(rows(broken)) == n_stored
    run_job(job, broken, resume=True, progress=False)
    assert rows(broken) == rows(whole)
    assert read_json(broken / "evaluation.json") == read_json(whole / "evaluation.json")


def test_what_was_raced_out_is_never_chosen_nor_on_the_front(world, finished, tmp_path):
    path = prepared_run(world, finished, tmp_path / "run")
    summary = run_job(world.job(racing=RACING), path, progress=False)
    trials = rows(path)
    early = [trial for trial in trials if trial.metrics.raced_out]
    assert summary["n_raced_out"] == len(early) > 0
    assert all(trial.metrics.n_items < N_SEARCH for trial in early)
    for entry in (summary["best"], *summary["pareto"]):
        assert trials[entry["trial"]].metrics.n_items == N_SEARCH
    spent = summary["evaluation"]
    assert spent["n_configs"] == BUDGET
    assert spent["n_items"] == sum(trial.metrics.n_items for trial in trials) < BUDGET * N_SEARCH
    assert f"({len(early)} were raced out)" in (path / "report.html").read_text()


@pytest.mark.parametrize("racing", [RACING, None])
def test_a_race_is_not_resumed_as_another(world, finished, tmp_path, racing):
    path = prepared_run(world, finished, tmp_path / "run")
    with dying(SupernetEvaluator, "__call__", 2):
        run_job(world.job(racing=Racing()), path, progress=False)
    message = re.escape(f"was started with racing={Racing()}, not racing={racing}; resume it with")
    with pytest.raises(HistoryError, match=message):
        run_job(world.job(racing=racing), path, resume=True, progress=False)


def test_a_larger_budget_adds_to_what_was_spent(world, run):
    before = read_json(run / "evaluation.json")
    summary = run_job(world.job(budget=BUDGET + 4), run, resume=True, progress=False)
    after = read_json(run / "evaluation.json")
    assert summary["evaluation"].items() >= after.items()
    assert after["n_configs"] == before["n_configs"] + 4 == BUDGET + 4
    assert after["n_items"] == before["n_items"] + 4 * N_SEARCH
    assert after["flops"] > before["flops"]


RANDOM = Control("random", RandomController())


def test_controls_search_with_the_same_budget_and_histories_of_their_own(
    world, finished, tmp_path, monkeypatch
):
    path = prepared_run(world, finished, tmp_path / "run")
    summary = run_job(world.job(controls=(RANDOM,)), path, progress=False)
    assert rows(path) == rows(finished)
    added = summary["added"]
    assert added["controls"] == {"random": BUDGET}
    assert added["comparisons"][0]["control"]["name"] == "random"
    monkeypatch.setattr(rlnas.run.pipeline, "deliver", lambda *_, **__: {})
    alone = prepared_run(world, finished, tmp_path / "alone")
    run_job(world.job(controller=RandomController()), alone, progress=False)
    assert rows(path / "controls" / "random") == rows(alone)
    assert summary["evaluation"]["n_configs"] == BUDGET  # the search's own
    assert "the control at the same budget of 40, random," in (path / "report.html").read_text()


def test_without_controls_the_report_says_how_to_have_one(finished):
    added = read_json(finished / "summary.json")["added"]
    assert added["controls"] == {}
    assert (added["n_start"], added["informed_start"], added["n_items"]) == (16, False, N_SEARCH)
    assert added["comparisons"][0]["start"] is not None
    assert "--resume --controls random,evolution" in (finished / "report.html").read_text()


def test_controls_are_added_to_a_finished_run_without_delivering_it_again(world, run, monkeypatch):
    monkeypatch.setattr(rlnas.run.pipeline, "deliver", None)
    before, kept = read_json(run / "summary.json"), all_files(run / "best")
    summary = run_job(world.job(controls=(RANDOM,)), run, resume=True, progress=False)
    assert all_files(run / "best") == kept
    assert summary == read_json(run / "summary.json")
    assert {key for key in summary if summary[key] != before[key]} == {"added", "seconds"}
    assert summary["seconds"]["controls"] > 0
    assert len(rows(run / "controls" / "random")) == BUDGET
    assert "random" in (run / "report.html").read_text()
    # Now it is finished with that control, and with none.
    monkeypatch.setattr(rlnas.run.pipeline, "prepare_inputs", None)
    for controls in ((RANDOM,), ()):
        assert run_job(world.job(controls=controls), run, resume=True, progress=False) == summary


def test_a_control_that_is_killed_ends_with_the_history_of_an_unbroken_one(
    world, finished, tmp_path, monkeypatch
):
    monkeypatch.setattr(rlnas.run.pipeline, "deliver", lambda *_, **__: {})
    job = world.job(racing=RACING, controls=(RANDOM,))
    whole = prepared_run(world, finished, tmp_path / "whole")
    run_job(job, whole, progress=False)
    broken = prepared_run(world, finished, tmp_path / "broken")
    n_batches = -(-BUDGET // 16)
    with dying(SupernetEvaluator, "__call__", n_batches + 2):
        run_job(job, broken, progress=False)
    assert 0 < len(rows(broken / "controls" / "random")) < BUDGET
    run_job(job, broken, resume=True, progress=False)
    assert rows(broken / "controls" / "random") == rows(whole / "controls" / "random")
    # Its races do not know of the search's.
    alone = prepared_run(world, finished, tmp_path / "alone")
    run_job(world.job(racing=RACING, controller=RandomController()), alone, progress=False)
    assert rows(whole / "controls" / "random") == rows(alone)


SHARED = Path(os.environ.get("RLNAS_TEST_DATA") or ROOT.parent / "shared" / "data")


@pytest.mark.parametrize(
    ("name", "metric", "n_final"),
    [("sst2", "accuracy", 1821), ("rte", "accuracy", 277), ("stsb", "spearman", 1379)],
)
def test_a_real_task_ends_with_a_subnet(world, tmp_path, name, metric, n_final):
    """One text, pairs of texts, and values to predict."""
    if not (SHARED / name / "train.parquet").is_file():
        pytest.skip(f"needs the data set {name!r} in RLNAS_TEST_DATA (or ../shared/data)")
    # The words of these tasks fall into letters here, and cutting them short takes the tokenizer long.
    workload = Workload(batch_size=1, seq_len=64)
    make_table(workload=workload).save(tmp_path / "latency.json")
    job = world.job(
        data=DataSource(str(SHARED / name), search_items=64, max_train_items=128),
        workload=workload,
        latency_table=str(tmp_path / "latency.json"),
        controller=RandomController(),
        schedule=Schedule(full_epochs=1, epochs=1, finish_epochs=1),
        budget=16,
    )
    summary = run_job(job, tmp_path / name, progress=False)
    assert summary["task"]["metric"] == metric
    assert summary["best"]["n_items"] == summary["full"]["n_items"] == n_final
    assert summary["n_trials"] == 16
    for model in (summary["full"], summary["best"]):
        assert -1.0 <= model["accuracy_ci"][0] <= model["accuracy"] <= model["accuracy_ci"][1] <= 1.0
    assert summary["best"]["n_params"] <= summary["full"]["n_params"]
    assert AutoConfig.from_pretrained(tmp_path / name / "best", trust_remote_code=True).num_labels == (
        1 if name == "stsb" else 2
    )


def test_a_run_of_other_parts_searches_trains_and_delivers_them(world, tmp_path):
    schedule = Schedule(full_epochs=1, epochs=1, finish_epochs=0, repair_items=0, batch_size=8)
    job = world.job(parts=2, controller=RandomController(), schedule=schedule, budget=12)
    run_job(job, tmp_path / "run", progress=False)
    with History.read(tmp_path / "run") as history:
        sizes = {layer.intermediate_size for trial in history.trials for layer in trial.config.layers}
    assert sizes <= {0, SHAPE.intermediate_size // 2, SHAPE.intermediate_size}
    assert read_json(tmp_path / "run" / "config.json")["parts"] == "2"
