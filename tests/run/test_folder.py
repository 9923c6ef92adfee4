from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from rlnas.errors import HistoryError, RunFolderError
from rlnas.run.folder import RunFolder, read_json, write_folder, write_json

SETTINGS = {"model": "a-model", "seed": "0", "budget": "40", "allow_foreign_table": "False"}


@pytest.fixture
def folder(tmp_path):
    """A run that has begun."""
    folder = RunFolder(tmp_path / "run")
    folder.open(SETTINGS, resume=False)
    folder.data.mkdir()
    return folder


def test_a_run_begins_in_a_folder_that_is_made(tmp_path):
    folder = RunFolder(tmp_path / "runs" / "mine")
    folder.open(SETTINGS, resume=False)
    assert read_json(folder.config) == SETTINGS


def test_resume_begins_a_run_where_there_is_none(tmp_path):
    RunFolder(tmp_path).open(SETTINGS, resume=True)
    assert read_json(tmp_path / "config.json") == SETTINGS


def test_a_run_begins_beside_data_and_a_table_that_were_put_there(tmp_path):
    folder = RunFolder(tmp_path)
    folder.data.mkdir()
    folder.latency.write_text("{}")
    folder.open(SETTINGS, resume=False)
    assert folder.data.is_dir()


def test_a_run_that_is_there_is_not_begun_anew(folder):
    with pytest.raises(RunFolderError, match=r"run' already holds a run; go on with it \(--resume\)"):
        folder.open(SETTINGS, resume=False)


def test_what_failed_before_its_first_result_does_not_stand_in_the_way(tmp_path):
    folder = RunFolder(tmp_path)
    folder.open(SETTINGS | {"model": "mispelt"}, resume=False)
    folder.open(SETTINGS, resume=False)
    assert read_json(folder.config) == SETTINGS


@pytest.mark.parametrize("resume", [False, True])
def test_a_checkpoint_is_not_overwritten(tmp_path, resume):
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(
        RunFolderError, match=r"config.json' belongs to no run, and a run would overwrite it"
    ):
        RunFolder(tmp_path).open(SETTINGS, resume=resume)
    assert read_json(tmp_path / "config.json") == {"model_type": "bert"}


FOREIGN = [
    *("checkpoints", "best", "models", "policy", "controls"),
    *("summary.json", "report.html", "controller.zip"),
]


@pytest.mark.parametrize("name", FOREIGN)
def test_what_belongs_to_no_run_is_not_overwritten(tmp_path, name):
    (tmp_path / name).mkdir()
    with pytest.raises(RunFolderError, match=f"{name}' belongs to no run"):
        RunFolder(tmp_path).open(SETTINGS, resume=False)
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_run_is_resumed_with_the_same_settings(folder):
    folder.open(SETTINGS, resume=True)


@pytest.mark.parametrize("key", ["model", "seed"])
def test_other_settings_are_refused_with_both_values(folder, key):
    message = f"was started with {key}={SETTINGS[key]}, not {key}=another; resume it with the same"
    with pytest.raises(HistoryError, match=message):
        folder.open(SETTINGS | {key: "another"}, resume=True)
    assert read_json(folder.config) == SETTINGS


def test_a_setting_that_the_run_knew_nothing_of_is_refused(folder):
    with pytest.raises(HistoryError, match="was started with new=the default, not new=1"):
        folder.open(SETTINGS | {"new": "1"}, resume=True)


def test_a_setting_that_is_left_out_is_refused_and_kept(folder):
    with pytest.raises(HistoryError, match=r"with seed=.*, not seed=the default; resume it with the"):
        folder.open({key: value for key, value in SETTINGS.items() if key != "seed"}, resume=True)
    assert read_json(folder.config) == SETTINGS


@pytest.mark.parametrize(
    ("key", "value"), [("budget", "80"), ("controls", "(random,)"), ("allow_foreign_table", "True")]
)
def test_some_settings_may_change(folder, key, value):
    folder.open(SETTINGS | {key: value}, resume=True)
    assert read_json(folder.config)[key] == value


def test_a_folder_with_settings_that_name_places_inside_it_may_be_moved(folder, tmp_path):
    def settings(path):
        return SETTINGS | {"model": str(path / "arms" / "winner"), "from_run": str(tmp_path / "other")}

    folder.config.write_text(json.dumps(settings(folder.path)))  # as earlier versions wrote it
    folder.open(settings(folder.path), resume=True)
    moved = RunFolder(tmp_path / "moved")
    folder.path.rename(moved.path)
    moved.open(settings(moved.path), resume=True)
    assert read_json(moved.config)["model"] == "arms/winner"
    assert read_json(moved.config)["from_run"] == str(tmp_path / "other")
    with pytest.raises(
        HistoryError, match=r"was started with model=arms/winner, not model=.*/winner; resume"
    ):
        moved.open(settings(tmp_path / "elsewhere"), resume=True)


def test_a_damaged_config_is_named(folder):
    folder.config.write_text("{")
    with pytest.raises(RunFolderError, match=r"config.json' is damaged: Expecting .*; put it back"):
        folder.open(SETTINGS, resume=True)


def test_a_folder_below_a_file_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunFolderError, match=r"cannot make the run folder '.*file/run': Not a directory"):
        RunFolder(tmp_path / "file" / "run").open(SETTINGS, resume=False)


@pytest.mark.parametrize(("asked", "is_finished"), [(39, True), (40, True), (41, False)])
def test_a_run_is_finished_for_no_more_than_its_budget(folder, asked, is_finished):
    write_json(folder.summary, {"budget": 40})
    assert folder.is_finished(asked) is is_finished


@pytest.mark.parametrize(
    ("summary", "has"),
    [({}, False), ({"added": {}}, False), ({"added": {"controls": {"random": 40, "local": 40}}}, True)],
)
def test_a_run_knows_its_controls(folder, summary, has):
    write_json(folder.summary, summary)
    assert folder.has_controls(["random"]) is has
    assert folder.has_controls([])
    assert not folder.has_controls(["random", "tpe"])


def test_a_run_without_a_summary_is_not_finished(folder):
    assert not folder.is_finished(1)


def test_seconds_of_a_phase_add_up(folder):
    assert folder.seconds() == {}
    with folder.phase("share"):
        pass
    write_json(folder.phases, {"share": 100.0})
    with folder.phase("share"):
        pass
    with folder.phase("search"):
        pass
    assert 100.0 <= folder.seconds()["share"] < 160.0
    assert list(folder.seconds()) == ["share", "search"]


def test_a_phase_that_fails_is_not_counted(folder):
    with pytest.raises(KeyError), folder.phase("share"):
        raise KeyError
    assert folder.seconds() == {}


def test_json_is_read_as_it_was_written(tmp_path):
    write_json(tmp_path / "a.json", {"a": [1, None]})
    assert read_json(tmp_path / "a.json") == {"a": [1, None]}
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


def test_json_that_cannot_be_written_is_named(tmp_path):
    with pytest.raises(RunFolderError, match=r"cannot write '.*absent/a.json': No such file"):
        write_json(tmp_path / "absent" / "a.json", {})


def test_json_that_is_no_object_is_damaged(tmp_path):
    (tmp_path / "a.json").write_text("[1]")
    with pytest.raises(RunFolderError, match=r"a.json' is damaged: it holds no JSON object; delete it"):
        read_json(tmp_path / "a.json")


def test_json_that_is_no_text_is_damaged(tmp_path):
    (tmp_path / "a.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(RunFolderError, match=r"a.json' is damaged: .*decode"):
        read_json(tmp_path / "a.json")


def test_a_folder_in_the_place_of_json_is_damaged(tmp_path):
    with pytest.raises(RunFolderError, match=r"' is damaged: .*Is a directory"):
        read_json(tmp_path)


@pytest.mark.parametrize("name", ["dem", "demo2", "Demo"])
def test_a_missing_run_is_guessed(tmp_path, name):
    (tmp_path / "demo").mkdir()
    with pytest.raises(RunFolderError, match=rf"{name}/config.json' is missing; did you mean '.*/demo'\?"):
        read_json(tmp_path / name / "config.json")


def test_a_missing_run_is_not_guessed_at_random(tmp_path):
    (tmp_path / "demo").mkdir()
    with pytest.raises(RunFolderError, match=r"is missing$"):
        read_json(tmp_path / "something-else" / "config.json")


def test_a_folder_appears_at_once(tmp_path):
    def write(path):
        assert not (tmp_path / "best").exists()
        (path / "weights").write_text("1")

    write_folder(tmp_path / "best", write)
    assert (tmp_path / "best" / "weights").read_text() == "1"
    assert [path.name for path in tmp_path.iterdir()] == ["best"]


def test_a_folder_replaces_the_one_before_and_what_a_killed_run_left(tmp_path):
    for name in ("best", ".best.tmp"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "old").write_text("")
    write_folder(tmp_path / "best", lambda path: (path / "new").write_text(""))
    assert [path.name for path in (tmp_path / "best").iterdir()] == ["new"]
    assert [path.name for path in tmp_path.iterdir()] == ["best"]


def test_a_folder_beside_is_left_alone(tmp_path):
    (tmp_path / "best.tmp").mkdir()
    (tmp_path / "best.tmp" / "mine").write_text("precious")
    write_folder(tmp_path / "best", lambda path: None)
    assert (tmp_path / "best.tmp" / "mine").read_text() == "precious"


def test_the_folder_that_one_stands_in_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_folder(Path(), lambda path: (path / "weights").write_text("1"))
    assert (tmp_path / "weights").read_text() == "1"


def test_a_folder_that_cannot_be_filled_leaves_the_one_before(tmp_path):
    (tmp_path / "best").mkdir()

    def write(path):
        raise OSError(28, "No space left on device")

    with pytest.raises(RunFolderError, match=r"cannot write the folder '.*best': No space left"):
        write_folder(tmp_path / "best", write)
    assert [path.name for path in tmp_path.iterdir()] == ["best"]


def test_an_error_without_a_system_message_is_told_as_it_is(tmp_path):
    def write(path):
        raise RunFolderError("cannot write the model")

    with pytest.raises(RunFolderError, match=r"best': cannot write the model"):
        write_folder(tmp_path / "best", write)


def test_settings_are_readable_json(folder):
    assert json.loads(folder.config.read_text()) == SETTINGS


def test_a_tree_that_cannot_be_copied_is_told_by_its_first_file(tmp_path):
    def write(_):
        raise shutil.Error([("a", "b", "[Errno 28] No space left on device: 'b'"), ("c", "d", "no")])

    with pytest.raises(RunFolderError, match=r"best': \[Errno 28\] No space left on device: 'b'$"):
        write_folder(tmp_path / "best", write)


def test_the_seconds_of_a_job_that_was_refused_do_not_count(tmp_path):
    folder = RunFolder(tmp_path / "refused")
    folder.open(SETTINGS, resume=False)
    with folder.phase("data"):
        pass
    folder.open(SETTINGS, resume=False)
    assert folder.seconds() == {}
    folder.data.mkdir()
    with folder.phase("data"):
        pass
    folder.open(SETTINGS, resume=True)
    assert set(folder.seconds()) == {"data"}
