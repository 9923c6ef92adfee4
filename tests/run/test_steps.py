from __future__ import annotations

import pytest

from rlnas.errors import RunFolderError
from rlnas.run.steps import Step, read_steps, write_steps

STEPS = [Step(3, 0.61, False), Step(7, 0.5, None)]


def test_steps_come_back_as_they_were_written(tmp_path):
    file = tmp_path / "checkpoints" / "steps.json"
    assert read_steps(file, 40) == []
    write_steps(file, STEPS, 40)
    assert read_steps(file, 40) == STEPS


def test_steps_are_those_of_one_search(tmp_path):
    file = tmp_path / "checkpoints" / "steps.json"
    write_steps(file, STEPS, 40)
    assert read_steps(file, 41) == []


@pytest.mark.parametrize("content", ["{}", '{"n_trials": 40, "steps": [{"trial": 3}]}', "{"])
def test_damaged_steps_are_named(tmp_path, content):
    file = tmp_path / "checkpoints" / "steps.json"
    write_steps(file, STEPS, 40)
    file.write_text(content)
    with pytest.raises(RunFolderError, match=r"steps.json' is damaged.*delete it and go on with --resume"):
        read_steps(file, 40)
