from __future__ import annotations

import json
import re
from pathlib import Path

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
    told(
        "resourceconfig",
        {"hosts": ["algo-2", "algo-1"], "current_host": "algo-2", "network_interface_name": "eth0"},
    )
    container = read(tmp_path, SM_HPS='{"budget": 1}', SM_HOSTS='["other"]', SM_CHANNELS='["other"]')
    assert container.hyperparameters == {"budget": "300"}
    assert container.channels == {name: tmp_path / "input" / "data" / name for name in ("task", "code")}
    assert container.hosts == Hosts(("algo-1", "algo-2"), "algo-2", "eth0")
    assert container.model == tmp_path / "model"
    assert container.output_data == tmp_path / "output" / "data"
    assert container.checkpoints == tmp_path / "checkpoints"
    assert container.run == tmp_path / "run"


def test_hosts_of_a_job_share_a_secret_which_those_of_others_do_not_know(told, tmp_path):
    def secret(current, key, **more):
        told("resourceconfig", {"hosts": ["algo-1", "algo-2"], "current_host": current})
        told("hyperparameters", {"budget": "3", "hosts-key": key, **more})
        return read(tmp_path).hosts.secret

    assert secret("algo-1", "a") == secret("algo-2", "a", sagemaker_region="here") != secret("algo-1", "b")


def test_variables_of_the_toolkit_stand_in_for_files(tmp_path):
    container = read(
        tmp_path,
        SM_HPS='{"budget": 300, "learning-rate": 1e-05, "racing": true, "task": "pydocs"}',
        SM_HOSTS='["algo-1", "algo-2"]',
        SM_CURRENT_HOST="algo-2",
        SM_NETWORK_INTERFACE_NAME="eth1",
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


@pytest.fixture
def toolkit():
    """What the public toolkit sets, in the form of its documentation, with flags and channels of ours."""
    hosts, channels = ["algo-1", "algo-2"], ["code", "latency-table", "task"]
    places = {name: f"/opt/ml/input/data/{name}" for name in channels}
    flags = {"budget": 300, "learning-rate": 0.0001, "racing": True, "task": "channel:task/train.csv"}
    file = {
        "RecordWrapperType": "None",
        "S3DistributionType": "FullyReplicated",
        "TrainingInputMode": "File",
    }
    resources = {
        "current_group_name": "homogeneousCluster",
        "current_host": "algo-2",
        "current_instance_type": "ml.m5.large",
        "hosts": hosts,
        "instance_groups": [
            {
                "hosts": hosts,
                "instance_group_name": "homogeneousCluster",
                "instance_type": "ml.m5.large",
            }
        ],
        "network_interface_name": "eth0",
    }
    told = {
        "additional_framework_parameters": {},
        "channel_input_dirs": places,
        "current_host": "algo-2",
        "framework_module": None,
        "hosts": hosts,
        "hyperparameters": flags,
        "input_config_dir": "/opt/ml/input/config",
        "input_data_config": dict.fromkeys(channels, file),
        "input_dir": "/opt/ml/input",
        "is_master": False,
        "job_name": "reviews-20260102-030405",
        "log_level": 20,
        "model_dir": "/opt/ml/model",
        "network_interface_name": "eth0",
        "num_cpus": 4,
        "num_gpus": 1,
        "output_data_dir": "/opt/ml/output/data",
        "output_dir": "/opt/ml/output",
        "resource_config": resources,
    }
    texts = {
        "SM_CURRENT_HOST": "algo-2",
        "SM_FRAMEWORK_MODULE": "",
        "SM_HP_BUDGET": "300",
        "SM_HP_LEARNING-RATE": "0.0001",
        "SM_INPUT_CONFIG_DIR": "/opt/ml/input/config",
        "SM_INPUT_DIR": "/opt/ml/input",
        "SM_LOG_LEVEL": "20",
        "SM_MODEL_DIR": "/opt/ml/model",
        "SM_NETWORK_INTERFACE_NAME": "eth0",
        "SM_NUM_CPUS": "4",
        "SM_NUM_GPUS": "1",
        "SM_OUTPUT_DATA_DIR": "/opt/ml/output/data",
        "SM_OUTPUT_DIR": "/opt/ml/output",
        "TRAINING_JOB_NAME": "reviews-20260102-030405",
        **{f"SM_CHANNEL_{name.upper()}": place for name, place in places.items()},
    }
    objects = {
        "SM_CHANNELS": channels,
        "SM_FRAMEWORK_PARAMS": {},
        "SM_HOSTS": hosts,
        "SM_HPS": flags,
        "SM_INPUT_DATA_CONFIG": told["input_data_config"],
        "SM_RESOURCE_CONFIG": resources,
        "SM_TRAINING_ENV": told,
        "SM_USER_ARGS": ["--budget", "300", "--learning-rate", "0.0001", "--racing", "True"],
    }
    return texts | {name: json.dumps(value, sort_keys=True) for name, value in objects.items()}


@pytest.mark.parametrize(
    "kept",
    [
        r".",
        r"SM_(HPS|CHANNEL|HOSTS|CURRENT_HOST)",
        r"SM_(HPS|CHANNEL|RESOURCE_CONFIG)",
        r"SM_(HPS|INPUT_DATA_CONFIG|RESOURCE_CONFIG)",
        r"SM_TRAINING_ENV",
    ],
)
def test_the_toolkit_s_own_environment_is_understood(toolkit, kept):
    """All of it, and its parts that say enough."""
    environ = {name: value for name, value in toolkit.items() if re.match(kept, name)}
    assert environ
    container = Container.read(environ)
    assert container == Container(
        base=Path("/opt/ml"),
        hyperparameters={
            "budget": "300",
            "learning-rate": "0.0001",
            "racing": "true",
            "task": "channel:task/train.csv",
        },
        channels={name: Path("/opt/ml/input/data", name) for name in ("code", "latency-table", "task")},
        hosts=Hosts(("algo-1", "algo-2"), "algo-2", None if "CURRENT_HOST" in kept else "eth0"),
        model=Path("/opt/ml/model"),
        output_data=Path("/opt/ml/output/data"),
        checkpoints=Path("/opt/ml/checkpoints"),
    )


def test_the_base_folder_is_around_the_input_folder_that_the_toolkit_names(toolkit, tmp_path):
    toolkit["SM_INPUT_DIR"] = str(tmp_path / "input")
    assert base_of(toolkit) == tmp_path
    assert Container.read(toolkit).run == tmp_path / "run"
    assert str(base_of({**toolkit, "SAGEMAKER_BASE_DIR": "/other"})) == "/other"


@pytest.mark.parametrize(
    ("written", "meant"),
    [('"auto"', "auto"), ("auto", "auto"), ('"', '"'), ('"a" or "b"', '"a" or "b"'), ("1e-5", "1e-5")],
)
def test_text_in_the_quotes_of_sdks_loses_them(told, tmp_path, written, meant):
    told("hyperparameters", {"controller": written, "sagemaker_program": '"train.py"'})
    assert read(tmp_path).hyperparameters == {"controller": meant}


def test_a_container_that_is_told_nothing_is_alone(tmp_path):
    container = read(tmp_path)
    assert (container.hosts.names, container.hyperparameters, container.channels) == (("algo-1",), {}, {})


def test_jobs_of_a_tuning_job_have_checkpoints_of_their_own(told, tmp_path):
    told("hyperparameters", {"budget": "3"})
    assert read(tmp_path, TRAINING_JOB_NAME="one").checkpoints == tmp_path / "checkpoints"
    told("hyperparameters", {"budget": "3", "_tuning_objective_metric": "rlnas:best_reward"})
    assert read(tmp_path, TRAINING_JOB_NAME="one").checkpoints == tmp_path / "checkpoints" / "one"
    with pytest.raises(
        ContainerError, match=r"^a job of a tuning job needs TRAINING_JOB_NAME, which is not set"
    ):
        read(tmp_path)


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
        ("SM_TRAINING_ENV", "[]", r"SM_TRAINING_ENV must hold a JSON object, but holds '\[\]'"),
        ("SM_RESOURCE_CONFIG", "{}", r"\(or SM_RESOURCE_CONFIG\) must name the hosts and the current_host"),
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
