from __future__ import annotations

import json
import os
import sys

import pytest

from rlnas.errors import ContainerError
from rlnas.sagemaker.packing import pack_code
from rlnas.sagemaker.starting import RUNNING, command_with_code


@pytest.fixture
def base(tmp_path):
    """A container whose job brings code along."""
    config, channel = tmp_path / "input" / "config", tmp_path / "input" / "data" / "code"
    config.mkdir(parents=True)
    channel.mkdir(parents=True)
    pack = pack_code(channel)
    (config / "inputdataconfig.json").write_text('{"code": {}}')
    (config / "hyperparameters.json").write_text(json.dumps({"code-sha256": pack.digest}))
    return tmp_path


def test_code_that_the_job_brings_takes_over_once(base):
    (base / "code").mkdir()
    (base / "code" / "old.py").write_text("")
    environ = {"SAGEMAKER_BASE_DIR": str(base), "PYTHONPATH": "/other", "A": "b"}
    command, variables = command_with_code(environ)
    assert command == [sys.executable, "-m", "rlnas", "sagemaker", "train"]
    assert variables["PYTHONPATH"] == f"{base / 'code'}{os.pathsep}/other"
    assert variables["A"] == "b"
    assert (base / "code" / "rlnas" / "__main__.py").is_file()
    assert not (base / "code" / "old.py").exists()
    assert command_with_code(variables) is None
    assert RUNNING in variables


def test_without_code_the_image_s_own_runs(tmp_path):
    assert command_with_code({"SAGEMAKER_BASE_DIR": str(tmp_path)}) is None


def test_code_that_the_job_does_not_name_is_refused(base):
    (base / "input" / "config" / "hyperparameters.json").write_text("{}")
    with pytest.raises(
        ContainerError, match=r"has a channel 'code' and no hyper-parameter 'code-sha256' that"
    ):
        command_with_code({"SAGEMAKER_BASE_DIR": str(base)})
