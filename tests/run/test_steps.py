from __future__ import annotations

import pytest

from rlnas.errors import RunFolderError
from rlnas.run.folder import RunFolder
from rlnas.run.steps import Step, read_steps, write_steps

STEPS = [Step(3, 0.61, False), Step(7, 0.5, None)]


def test_steps_come_back_as_they_were_written(tmp_path):
    folder = RunFolder(tmp_path)
    assert read_steps(folder, 40) == []
    write_steps(folder, STEPS, 40)
    assert read_steps(folder, 40) == STEPS


def test_steps_are_those_of_one_search(tmp_path):
    folder = RunFolder(tmp_path)
    write_steps(folder, STEPS, 40)
    assert read_steps(folder, 41) == []


@pytest.mark.parametrize("content", ["{}", '{"n_trials": 40, "steps": [{"trial": 3}]}', "{"])
def test_damaged_steps_are_named(tmp_path, content):
    folder = RunFolder(tmp_path)
    write_steps(folder, STEPS, 40)
    folder.steps.write_text(content)
    with pytest.raises(RunFolderError, match=r"steps.json' is damaged.*delete it and go on with --resume"):
        read_steps(folder, 40)
