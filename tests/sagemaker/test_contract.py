from __future__ import annotations

import json

import pytest

from rlnas.errors import ContainerError
from rlnas.sagemaker.contract import Container, base_of, write_failure
from rlnas.sagemaker.hosts import Hosts


@pytest.fixture
def told(tmp_path):
    """Writes a file of the contract."""
    config = tmp_path / "input" / "config"
    config.mkdir(parents=True)

    def write(name, content):
        text = content if isinstance(content, str) else json.dumps(content)
        (config / f"{name}.json").write_text(text)

    return write


def read(base, **variables):
    return Container.read({"SAGEMAKER_BASE_DIR": str(base), **variables})


def test_the_base_folder_can_be_moved(tmp_path):
    assert str(base_of({})) == "/opt/ml"
    assert base_of({"SAGEMAKER_BASE_DIR": str(tmp_path)}) == tmp_path


def test_files_tell_all(told, tmp_path):
    told("hyperparameters", {"budget": "300", "_tuning": "x", "sagemaker_program": "y"})
    told("inputdataconfig", {"task": {}, "code": {}})
    told("resourceconfig", {"hosts": ["algo-2", "algo-1"], "current_host": "algo-2"})
    container = read(tmp_path, SM_HPS='{"budget": 1}', SM_HOSTS='["other"]', SM_CHANNELS='["other"]')
    assert container.hyperparameters == {"budget": "300"}
    assert container.channels == {name: tmp_path / "input" / "data" / name for name in ("task", "code")}
    assert container.hosts == Hosts(("algo-1", "algo-2"), "algo-2")
    assert container.model == tmp_path / "model"
    assert container.output_data == tmp_path / "output" / "data"
    assert container.checkpoints == tmp_path / "checkpoints"
    assert container.run == tmp_path / "run"


def test_variables_of_the_toolkit_stand_in_for_files(tmp_path):
    container = read(
        tmp_path,
        SM_HPS='{"budget": 300, "learning-rate": 1e-05, "racing": true, "task": "pydocs"}',
        SM_HOSTS='["algo-1", "algo-2"]',
        SM_CURRENT_HOST="algo-2",
        SM_CHANNELS='["task", "table"]',
        SM_CHANNEL_TASK="/data/task",
        SM_MODEL_DIR="/models",
        SM_OUTPUT_DATA_DIR="/outputs",
    )
    assert container.hyperparameters == {
        "budget": "300",
        "learning-rate": "1e-05",
        "racing": "true",
        "task": "pydocs",
    }
    assert container.hosts.rank == 1
    assert {name: str(path) for name, path in container.channels.items()} == {
        "task": "/data/task",
        "table": str(tmp_path / "input" / "data" / "table"),
    }
    assert (str(container.model), str(container.output_data)) == ("/models", "/outputs")


def test_a_container_that_is_told_nothing_is_alone(tmp_path):
    container = read(tmp_path)
    assert (container.hosts.names, container.hyperparameters, container.channels) == (("algo-1",), {}, {})


def test_jobs_of_a_tuning_job_have_checkpoints_of_their_own(told, tmp_path):
    told("hyperparameters", {"budget": "3"})
    assert read(tmp_path, TRAINING_JOB_NAME="one").checkpoints == tmp_path / "checkpoints"
    told("hyperparameters", {"budget": "3", "_tuning_objective_metric": "rlnas:best_reward"})
    assert read(tmp_path, TRAINING_JOB_NAME="one").checkpoints == tmp_path / "checkpoints" / "one"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("hyperparameters", "{", r"hyperparameters.json is no JSON \(.*\); it begins with '{'"),
        ("hyperparameters", "[1]", r"hyperparameters.json must hold a JSON object, but holds '\[1\]'"),
        (
            "resourceconfig",
            {"hosts": ["a"]},
            r"must name the hosts and the current_host, but holds {\"hosts",
        ),
        (
            "resourceconfig",
            {"hosts": ["a"], "current_host": "b"},
            "current_host='b' is none of the hosts a",
        ),
    ],
)
def test_a_damaged_file_is_named(told, tmp_path, name, content, message):
    told(name, content)
    with pytest.raises(ContainerError, match=message):
        read(tmp_path)


@pytest.mark.parametrize(
    ("variable", "text", "message"),
    [
        ("SM_HPS", "budget", "SM_HPS is no JSON"),
        ("SM_CHANNELS", "{}", "SM_CHANNELS must hold a JSON list of names, but holds '{}'"),
        ("SM_HOSTS", "[1]", r"SM_HOSTS must hold a JSON list of names, but holds '\[1\]'"),
    ],
)
def test_a_damaged_variable_is_named(tmp_path, variable, text, message):
    with pytest.raises(ContainerError, match=message):
        read(tmp_path, **{variable: text})


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    (tmp_path / "input" / "config" / "hyperparameters.json").mkdir(parents=True)
    with pytest.raises(ContainerError, match=r"cannot read .*hyperparameters.json: Is a directory"):
        read(tmp_path)


def test_a_failure_is_one_line_of_bounded_length(tmp_path):
    write_failure(tmp_path, "one\ntwo   three")
    assert (tmp_path / "output" / "failure").read_text() == "one two three"
    write_failure(tmp_path, "x" * 5000)
    text = (tmp_path / "output" / "failure").read_text()
    assert (len(text), text[-4:]) == (1024, "x...")


def test_a_failure_that_cannot_be_written_is_an_error_of_ours(tmp_path):
    (tmp_path / "output").write_text("")
    with pytest.raises(
        ContainerError, match=r"cannot write the reason of a failure to .*failure: File exists"
    ):
        write_failure(tmp_path, "x")
