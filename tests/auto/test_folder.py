from __future__ import annotations

import pytest

from rlnas.auto.folder import AutoFolder
from rlnas.errors import HistoryError, RunFolderError

SETTINGS = {"arms": "a b", "seed": "0"}


def begun(path):
    """A choice whose data lie there."""
    folder = AutoFolder(path)
    folder.open(SETTINGS, resume=False)
    folder.run.data.mkdir()
    return folder


def test_a_choice_that_was_begun_is_gone_on_with_only_when_asked(tmp_path):
    begun(tmp_path / "run")
    AutoFolder(tmp_path / "run").open(SETTINGS, resume=True)
    with pytest.raises(
        RunFolderError, match=r"already holds a choice among models; go on with it \(--resume\)"
    ):
        AutoFolder(tmp_path / "run").open(SETTINGS, resume=False)


@pytest.mark.parametrize("other", [{"arms": "a c", "seed": "0"}, {"arms": "a b"}])
def test_other_settings_are_refused(tmp_path, other):
    begun(tmp_path / "run")
    with pytest.raises(
        HistoryError, match=r"was begun with (arms=a b, not arms=a c|seed=0, not seed=None); resume"
    ):
        AutoFolder(tmp_path / "run").open(other, resume=True)


def test_a_choice_that_was_refused_leaves_nothing_to_go_on_with(tmp_path):
    folder = AutoFolder(tmp_path / "run")
    folder.open(SETTINGS, resume=False)
    folder.entrants.write_text("{}")
    folder.open({"arms": "c d", "seed": "1"}, resume=False)
    assert not folder.entrants.exists()


@pytest.mark.parametrize("name", ["config.json", "arms/notes.txt"])
def test_the_folder_of_something_else_is_left_alone(tmp_path, name):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text('{"budget": "3"}')
    with pytest.raises(RunFolderError, match="holds a run that did not begin with a choice among models"):
        AutoFolder(tmp_path).open(SETTINGS, resume=True)


def test_a_foreign_checkpoint_is_not_overwritten(tmp_path):
    (tmp_path / "best").mkdir()
    with pytest.raises(RunFolderError, match="best' belongs to no run, and a run would overwrite it"):
        AutoFolder(tmp_path).open(SETTINGS, resume=False)


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunFolderError, match="cannot make the run folder"):
        AutoFolder(tmp_path / "file" / "run").open(SETTINGS, resume=False)


def test_one_process_works_on_a_choice(tmp_path):
    folder = begun(tmp_path / "run")
    with folder.held(), pytest.raises(HistoryError, match="another process is writing"), folder.held():
        pass
