from __future__ import annotations

import math
import os
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlnas.errors import HistoryError, RunFolderError
from rlnas.history import FILE_NAME, History, Result
from rlnas.metrics import Metrics
from rlnas.space import LayerConfig, SubnetConfig
from rlnas.trial import Trial

if TYPE_CHECKING:
    from pathlib import Path

SETTINGS = {"seed": "0", "task": "sst2"}


def make_trial(
    number: int,
    accuracy: float = 0.5,
    latency_ms: float = 2.0,
    reward: float = 0.1,
    raced_out: bool = False,
) -> Trial:
    metrics = Metrics(accuracy, latency_ms, raced_out=raced_out)
    return Trial(number, SubnetConfig((LayerConfig(number, 8),)), metrics, reward)


def make_result(*points: tuple[float, float, float] | tuple[float, float, float, bool]) -> Result:
    trials = tuple(make_trial(i, *point) for i, point in enumerate(points))
    return Result(trials, np.array([trial.reward for trial in trials]), "the budget is spent")


def stored_history(folder: Path, n_trials: int = 3) -> list[Trial]:
    trials = [make_trial(i, accuracy=0.1 * i, reward=1 / (i + 3)) for i in range(n_trials)]
    with History.open(folder, SETTINGS, resume=False) as history:
        history.append(trials)
    return trials


def test_what_is_appended_is_read_back_equal(tmp_path):
    metrics = Metrics(1 / 3, 0.1 + 0.2, 7, 9, (0.1, 0.9), {"f1": 0.7})
    trial = Trial(0, SubnetConfig((LayerConfig(1, 2), LayerConfig(0, 0)), "bfloat16"), metrics, -1 / 7)
    with History.open(tmp_path, SETTINGS, resume=False) as history:
        history.append([trial])
    assert History.read(tmp_path).trials == (trial,)
    assert History.read(tmp_path).settings == SETTINGS


def test_the_race_and_the_bits_of_the_items_survive_the_file(tmp_path):
    early = Metrics(0.5, 2.0, n_items=4, raced_out=True)
    complete = Metrics(0.25, 1.0, n_items=12, correct=np.packbits([1, 0, 0, 0] * 3))
    configs = [SubnetConfig((LayerConfig(n, 8),)) for n in range(2)]
    trials = (Trial(0, configs[0], early, 0.5), Trial(1, configs[1], complete, 0.25))
    with History.open(tmp_path, SETTINGS, resume=False) as history:
        history.append(trials)
    assert History.read(tmp_path).trials == trials


def test_a_history_from_before_races_is_read(tmp_path):
    trials = stored_history(tmp_path)
    with closing(sqlite3.connect(tmp_path / FILE_NAME)) as connection, connection:
        connection.execute("UPDATE trials SET metrics = json_remove(metrics, '$.raced_out', '$.correct')")
        (metrics,) = connection.execute("SELECT metrics FROM trials WHERE number = 0").fetchone()
    assert "raced_out" not in metrics
    assert list(History.read(tmp_path).trials) == trials


def test_plain_columns_serve_people_who_query(tmp_path):
    with History.open(tmp_path, SETTINGS, resume=False) as history:
        history.append([make_trial(0, 0.75, 2.5, 0.5), make_trial(1, 0.5, math.nan, 0.25)])
    connection = sqlite3.connect(tmp_path / FILE_NAME)
    rows = connection.execute(
        "SELECT number, accuracy, latency_ms, n_params, reward FROM trials"
    ).fetchall()
    connection.close()
    assert rows == [(0, 0.75, 2.5, 0, 0.5), (1, 0.5, None, 0, 0.25)]


def test_an_unknown_latency_survives_the_file(tmp_path):
    with History.open(tmp_path, SETTINGS, resume=False) as history:
        history.append([make_trial(0, latency_ms=math.nan)])
    assert math.isnan(History.read(tmp_path).trials[0].metrics.latency_ms)


def test_the_folder_is_made_and_a_file_may_be_named(tmp_path):
    stored_history(tmp_path / "a" / "b")
    assert len(History.read(tmp_path / "a" / "b" / FILE_NAME).trials) == 3


def test_a_history_in_memory_writes_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with History.open(None, SETTINGS, resume=True) as history:
        history.append([make_trial(0)])
        assert history.trials == (make_trial(0),)
    assert list(tmp_path.iterdir()) == []


def test_resuming_goes_on_after_the_last_trial(tmp_path):
    trials = stored_history(tmp_path)
    with History.open(tmp_path, SETTINGS, resume=True) as history:
        assert list(history.trials) == trials
        history.append([make_trial(3)])
    assert len(History.read(tmp_path).trials) == 4


def test_resuming_where_nothing_was_judged_takes_the_new_settings(tmp_path):
    History.open(tmp_path, {"seed": "1", "old": "x"}, resume=False).close()
    History.open(tmp_path, SETTINGS, resume=True).close()
    assert History.read(tmp_path).settings == SETTINGS


def test_a_folder_with_trials_is_not_overwritten(tmp_path):
    stored_history(tmp_path)
    with pytest.raises(HistoryError, match=r"already holds 3 trials; pass resume=True \(--resume\)"):
        History.open(tmp_path, SETTINGS, resume=False)


@pytest.mark.parametrize(
    ("given_settings", "message"),
    [
        ({"seed": "1", "task": "sst2"}, "made with seed=0, but this search has seed=1"),
        ({"seed": "0"}, "made with task=sst2, but this search has task=None"),
        ({**SETTINGS, "dtype": "float16"}, "made with dtype=None, but this search has dtype=float16"),
    ],
    ids=["changed", "missing", "new"],
)
def test_resuming_with_other_settings_names_the_setting(tmp_path, given_settings, message):
    stored_history(tmp_path)
    with pytest.raises(HistoryError, match=message):
        History.open(tmp_path, given_settings, resume=True)


def test_there_is_one_writer_and_it_gives_way_when_closed(tmp_path):
    with (
        History.open(tmp_path, SETTINGS, resume=True),
        pytest.raises(HistoryError, match=r"another process is writing to .*history.sqlite"),
    ):
        History.open(tmp_path, SETTINGS, resume=True)
    History.open(tmp_path, SETTINGS, resume=True).close()


def test_a_running_search_can_be_read(tmp_path):
    with History.open(tmp_path, SETTINGS, resume=False) as history:
        history.append([make_trial(0)])
        assert History.read(tmp_path).trials == (make_trial(0),)


def test_a_refused_history_lets_the_next_one_in(tmp_path):
    stored_history(tmp_path)
    with pytest.raises(HistoryError, match="already holds"):
        History.open(tmp_path, SETTINGS, resume=False)
    History.open(tmp_path, SETTINGS, resume=True).close()


@pytest.mark.parametrize("operation", ["open", "read"])
@pytest.mark.parametrize(
    "content", [b"this is no database, but a text of some length" * 99, None], ids=["text", "torn"]
)
def test_a_damaged_file_is_named_with_the_way_out(tmp_path, operation, content):
    stored_history(tmp_path, 50)
    file = tmp_path / FILE_NAME
    file.write_bytes(file.read_bytes()[:4096] + b"\xff" * 9000 if content is None else content)
    with pytest.raises(HistoryError, match=r"history.sqlite is not a sound history .*move it away"):
        History.open(tmp_path, SETTINGS, resume=True) if operation == "open" else History.read(tmp_path)


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        ("UPDATE trials SET config = '{}' WHERE number = 1", "trial 1: a subnet reads"),
        ("UPDATE trials SET metrics = 'x' WHERE number = 2", "trial 2: Expecting value"),
        ("UPDATE trials SET metrics = '{}' WHERE number = 2", "trial 2: 'accuracy'"),
        ("UPDATE trials SET metrics = '[]' WHERE number = 0", "trial 0: "),
        (
            """UPDATE trials SET metrics = '{"accuracy": 1, "correct": "x"}' WHERE number = 1""",
            "trial 1: .*fromhex",
        ),
        ("DELETE FROM trials WHERE number = 1", "trial 2: expected number 1"),
        ("ALTER TABLE trials RENAME COLUMN config TO other", "no such column: config"),
    ],
    ids=["config", "no json", "no accuracy", "no mapping", "no bits", "gap", "other table"],
)
def test_a_row_that_makes_no_sense_is_named(tmp_path, statement, message):
    stored_history(tmp_path)
    connection = sqlite3.connect(tmp_path / FILE_NAME)
    connection.execute(statement)
    connection.commit()
    connection.close()
    with pytest.raises(HistoryError, match=message):
        History.read(tmp_path)


def test_a_missing_history_is_named(tmp_path):
    with pytest.raises(RunFolderError, match=r"there is no history at .*absent/history.sqlite"):
        History.read(tmp_path / "absent")


def test_a_file_in_the_place_of_the_folder_is_named(tmp_path):
    (tmp_path / "run").write_text("")
    with pytest.raises(RunFolderError, match=r"cannot make the run folder .*run \(File exists\)"):
        History.open(tmp_path / "run", SETTINGS, resume=False)


def test_a_folder_in_the_place_of_the_file_is_named(tmp_path):
    (tmp_path / FILE_NAME).mkdir()
    with pytest.raises(RunFolderError, match=r"cannot read or write .*history.sqlite \(unable to open"):
        History.open(tmp_path, SETTINGS, resume=False)


def test_a_folder_in_the_place_of_the_lock_is_named(tmp_path):
    (tmp_path / "history.lock").mkdir()
    with pytest.raises(RunFolderError, match=r"cannot read or write .*history.lock \(unable to open"):
        History.open(tmp_path, SETTINGS, resume=False)


@pytest.mark.skipif(os.geteuid() == 0, reason="the root user may write anywhere")
def test_an_unwritable_folder_is_named(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(RunFolderError, match=r"cannot read or write .*history.lock"):
        History.open(tmp_path, SETTINGS, resume=False)


def test_a_full_disk_is_named_and_leaves_the_last_batch_intact(tmp_path):
    with History.open(tmp_path, SETTINGS, resume=False) as history:
        history.append([make_trial(0)])
        connection = history._connections[0]
        (n_pages,) = connection.execute("PRAGMA page_count").fetchone()
        connection.execute(f"PRAGMA max_page_count = {n_pages}")
        with pytest.raises(RunFolderError, match=r"history.sqlite \(database or disk is full\)"):
            history.append([make_trial(i) for i in range(1, 500)])
        assert history.trials == (make_trial(0),)
    assert History.read(tmp_path).trials == (make_trial(0),)


def test_a_batch_that_fails_half_way_is_not_stored_and_the_next_one_is(tmp_path):
    with History.open(tmp_path, SETTINGS, resume=False) as history:
        with pytest.raises(HistoryError, match=r"NOT NULL constraint failed: trials\.reward"):
            history.append([make_trial(0), make_trial(1, reward=math.nan)])
        assert history.trials == History.read(tmp_path).trials == ()
        history.append([make_trial(0)])
    assert len(History.read(tmp_path).trials) == 1


def test_a_lock_that_is_no_lock_is_named(tmp_path):
    (tmp_path / "history.lock").write_text("this is no database, but a text of some length" * 99)
    with pytest.raises(
        HistoryError, match=r"history\.lock is not a sound history \(file is not a database\)"
    ):
        History.open(tmp_path, SETTINGS, resume=False)


def test_numbers_have_to_follow(tmp_path):
    with (
        History.open(tmp_path, SETTINGS, resume=False) as history,
        pytest.raises(HistoryError, match="the next trial must have number=0, but got 5"),
    ):
        history.append([make_trial(5)])
    assert History.read(tmp_path).trials == ()


def test_a_config_is_there_once(tmp_path):
    repeated = Trial(1, make_trial(0).config, Metrics(0.1), 0.1)
    with (
        History.open(tmp_path, SETTINGS, resume=False) as history,
        pytest.raises(HistoryError, match="trial 1 repeats a config of the history: 0h8"),
    ):
        history.append([make_trial(0), repeated])
    assert History.read(tmp_path).trials == ()


def test_a_history_that_was_read_or_closed_takes_no_trials(tmp_path):
    stored_history(tmp_path)
    with pytest.raises(HistoryError, match=r"history.sqlite is read only or closed; use History.open"):
        History.read(tmp_path).append([make_trial(3)])
    history = History.open(tmp_path, SETTINGS, resume=True)
    history.close()
    with pytest.raises(HistoryError, match="is read only or closed"):
        history.append([make_trial(3)])
    assert len(history.trials) == 3


def test_best_is_the_first_of_the_highest_rewards():
    result = make_result((0.5, 1.0, 0.2), (0.6, 2.0, 0.7), (0.9, 3.0, 0.7))
    assert result.best.number == 1


def test_without_trials_there_is_no_best():
    with pytest.raises(HistoryError, match="no best trial because it has no trial"):
        _ = make_result().best
    assert make_result().pareto_front == ()
    assert make_result().hypervolume((1.0, 0.0)) == 0.0
    assert make_result().n_raced_out == 0


def test_the_best_for_another_reward_is_found_among_the_same_trials():
    result = make_result((0.5, 2.0, 0.9), (0.8, 6.0, 0.1), (0.8, 6.0, 0.1), (0.9, 9.0, 0.0, True))
    best = result.best_for(lambda metrics: metrics.accuracy)
    assert (
        best is result.trials[1]
    )  # the earlier of two, with the reward that is stored; not the one raced out
    assert result.best_for(lambda metrics: -metrics.latency_ms) is result.trials[0]


def test_without_complete_trials_nothing_is_best_for_any_reward():
    with pytest.raises(HistoryError, match="no best trial because it has no trial"):
        make_result().best_for(lambda metrics: metrics.accuracy)
    with pytest.raises(HistoryError, match="no best trial because all 1 were raced out"):
        make_result((0.5, 2.0, 0.1, True)).best_for(lambda metrics: metrics.accuracy)


def test_what_was_raced_out_is_never_the_best_nor_on_the_front():
    result = make_result((0.99, 0.5, 0.9, True), (0.5, 1.0, 0.1), (0.9, 3.0, 0.2), (0.98, 2.0, 0.8, True))
    assert result.best.number == 2
    assert [trial.number for trial in result.pareto_front] == [1, 2]
    assert result.hypervolume((4.0, 0.1)) == pytest.approx(3.0 * 0.4 + 1.0 * 0.4)
    assert result.n_raced_out == 2
    assert len(result.trials) == 4


def test_where_all_were_raced_out_there_is_no_best():
    result = make_result((0.5, 1.0, 0.2, True), (0.6, 2.0, 0.7, True))
    with pytest.raises(HistoryError, match="no best trial because all 2 were raced out; let the evaluator"):
        _ = result.best
    assert result.pareto_front == ()
    assert result.hypervolume((9.0, 0.0)) == 0.0


def test_the_pareto_front_ascends_and_skips_what_has_no_latency():
    result = make_result((0.9, 3.0, 0.0), (0.5, 1.0, 0.0), (0.4, 2.0, 0.0), (0.99, math.nan, 0.0))
    assert [trial.number for trial in result.pareto_front] == [1, 0]


def test_the_hypervolume_is_the_area_of_the_steps():
    result = make_result((0.5, 1.0, 0.0), (0.9, 3.0, 0.0))
    assert result.hypervolume((4.0, 0.1)) == pytest.approx(3.0 * 0.4 + 1.0 * 0.4)


@given(
    st.lists(
        st.tuples(st.floats(-1, 1), st.floats(0, 100) | st.just(math.nan), st.floats(-9, 9)),
        min_size=1,
        max_size=12,
    )
)
def test_no_trial_beats_one_of_the_front(points):
    result = make_result(*points)
    assert result.best.reward == max(reward for _, _, reward in points)
    for member in result.pareto_front:
        for trial in result.trials:
            at_least = (
                trial.metrics.accuracy >= member.metrics.accuracy
                and trial.metrics.latency_ms <= member.metrics.latency_ms
            )
            equal = (trial.metrics.accuracy, trial.metrics.latency_ms) == (
                member.metrics.accuracy,
                member.metrics.latency_ms,
            )
            assert not at_least or equal
