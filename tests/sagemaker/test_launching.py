from __future__ import annotations

import re
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import boto3
import pytest

from rlnas.errors import RequestError
from rlnas.sagemaker.launching import Wishes, prepare, submit
from rlnas.sagemaker.requests import Machines
from rlnas.sagemaker.storage import Place, keys
from rlnas.sagemaker.tuning import Choice, Tuning

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
TUNING = Tuning(choices=(Choice("controller", ("auto", "random")),))


@pytest.fixture
def wishes(tmp_path):
    data = tmp_path / "reviews.csv"
    data.write_text("text,label\na,b\n")
    return Wishes(
        name="demo",
        place=Place("searches", "team/rlnas"),
        image="rlnas:1",
        role="arn:aws:iam::123456789012:role/x",
        machines=Machines("ml.m5.large"),
        hyperparameters={"task": str(data), "model": "bert-base-uncased", "budget": "3"},
        channels={},
        modules=(),
        with_code=False,
        tags={},
        resume=False,
    )


def test_what_lies_here_goes_along_and_the_rest_stays_as_it_is(wishes, tmp_path):
    prepared = prepare(wishes, tmp_path, NOW)
    ((source, place),) = prepared.uploads
    assert source == tmp_path / "reviews.csv"
    assert re.fullmatch(r"team/rlnas/demo/data/task/[0-9a-f]{16}", place.key)
    assert prepared.request["HyperParameters"] == {
        "task": "channel:task/reviews.csv",
        "model": "bert-base-uncased",
        "budget": "3",
    }
    (channel,) = prepared.request["InputDataConfig"]
    assert channel["ChannelName"] == "task"
    assert channel["DataSource"]["S3DataSource"]["S3Uri"] == f"{place.uri}/"
    assert prepared.name == prepared.request["TrainingJobName"] == "demo-20260102-030405"
    assert prepared.request["CheckpointConfig"]["S3Uri"] == "s3://searches/team/rlnas/demo/checkpoints/"


def test_hosts_of_a_job_get_a_key_that_no_other_job_has(wishes, tmp_path):
    wishes = replace(wishes, machines=Machines("ml.m5.large", count=2))
    keys = {prepare(wishes, tmp_path, NOW).request["HyperParameters"]["hosts-key"] for _ in range(2)}
    assert {len(key) for key in keys} == {32}
    assert len(keys) == 2


def test_a_folder_goes_along_whole(wishes, tmp_path):
    (tmp_path / "bert").mkdir()
    (tmp_path / "bert" / "config.json").write_text("{}")
    wishes = replace(wishes, hyperparameters={"model": str(tmp_path / "bert")})
    assert prepare(wishes, tmp_path, NOW).request["HyperParameters"] == {"model": "channel:model"}


def test_a_built_in_task_stays_one_beside_a_folder_of_its_name(wishes, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pydocs").mkdir()
    (tmp_path / "pydocs" / "a.txt").write_text("")
    prepared = prepare(replace(wishes, hyperparameters={"task": "pydocs"}), tmp_path, NOW)
    assert prepared.uploads == ()
    assert prepared.request["HyperParameters"] == {"task": "pydocs"}


def test_a_folder_without_files_is_refused(wishes, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bert").mkdir()
    (tmp_path / "bert" / ".hidden").write_text("")
    with pytest.raises(RequestError, match=r"--model=bert is a folder here without files, which would go"):
        prepare(replace(wishes, hyperparameters={"model": "bert"}), tmp_path, NOW)


@pytest.mark.parametrize("model", ["here", "channel:bert"])
def test_code_of_a_model_in_s3_is_not_trusted(wishes, tmp_path, monkeypatch, model):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "modeling.py").write_text("")
    values = {"model": model, "trust-remote-code": "true"}
    wishes = replace(wishes, hyperparameters=values, channels={"bert": Place("bucket", "bert")})
    with pytest.raises(
        RequestError, match=r"--trust-remote-code would run code that lies in S3 with --model="
    ):
        prepare(wishes, tmp_path, NOW)
    prepare(replace(wishes, hyperparameters={**values, "model": "org/bert"}), tmp_path, NOW)


def test_other_data_lie_elsewhere_so_that_a_job_that_runs_keeps_its_own(wishes, tmp_path):
    first = prepare(wishes, tmp_path, NOW).uploads[0][1]
    assert prepare(wishes, tmp_path, NOW).uploads[0][1] == first
    (tmp_path / "reviews.csv").write_text("text,label\nc,d\n")
    assert prepare(wishes, tmp_path, NOW).uploads[0][1] != first


def test_code_goes_along_with_its_digest(wishes, tmp_path):
    prepared = prepare(replace(wishes, with_code=True), tmp_path, NOW)
    archive, place = prepared.uploads[-1]
    digest = prepared.request["HyperParameters"]["code-sha256"]
    assert archive.parent == tmp_path
    assert place.key == f"team/rlnas/demo/code/{digest[:16]}"
    assert [each["ChannelName"] for each in prepared.request["InputDataConfig"]] == ["task", "code"]


def test_without_a_prefix_the_run_lies_in_the_bucket_itself(wishes):
    assert replace(wishes, place=Place("searches")).run == Place("searches", "demo")


def test_a_tuning_job_has_a_short_name_and_a_place_of_its_own(wishes, tmp_path):
    prepared = prepare(replace(wishes, name="x" * 20), tmp_path, NOW, TUNING)
    assert prepared.name == f"{'x' * 20}-0102-030405"
    assert len(prepared.name) <= 32
    assert prepared.operation == "create_hyper_parameter_tuning_job"
    assert prepared.checkpoints.key.endswith(f"/{'x' * 20}/tuning/{prepared.name}")


@pytest.mark.parametrize(
    ("change", "tuning", "message"),
    [
        ({"name": "a_b"}, None, "--name='a_b' must be 1 to 47 letters"),
        ({"name": "x" * 21}, TUNING, f"--name='{'x' * 21}' must be 1 to 20 letters"),
        ({"resume": True}, TUNING, "a tuning job cannot go on with an earlier one; leave --resume out"),
        ({"modules": (Path("x.py"),)}, None, "--module=x.py goes along with the code; drop --code image"),
        (
            {"channels": {"task": Place("b" * 3, "x")}},
            None,
            "--channel task=s3://bbb/x has the name that rlnas gives to what it uploads; choose",
        ),
        (
            {"hyperparameters": {"task": "channel:text/a.csv"}},
            None,
            "--task=channel:text/a.csv names a channel that is not there; add --channel text=s3://bucket/path",
        ),
    ],
)
def test_what_cannot_be_is_refused(wishes, tmp_path, change, tuning, message):
    with pytest.raises(RequestError, match=f"^{re.escape(message)}"):
        prepare(replace(wishes, **change), tmp_path, NOW, tuning)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            ("reviews.csv", "pydocs"),
            r"--choice task=.*reviews.csv is on this machine, and what is tried out does not go along",
        ),
        (("pydocs", "channel:text/a.csv"), r"--task=channel:text/a.csv names a channel that is not there"),
    ],
)
def test_a_choice_of_data_that_no_job_would_find_is_refused(wishes, tmp_path, monkeypatch, values, message):
    monkeypatch.chdir(tmp_path)
    wishes = replace(wishes, hyperparameters={"budget": "3"})
    with pytest.raises(RequestError, match=f"^{message}"):
        prepare(wishes, tmp_path, NOW, Tuning(choices=(Choice("task", values),)))


def test_a_choice_of_data_in_s3_is_sent(wishes, tmp_path):
    wishes = replace(wishes, hyperparameters={"budget": "3"}, channels={"text": Place("data")})
    values = ("pydocs", "channel:text/a.csv")
    prepared = prepare(wishes, tmp_path, NOW, Tuning(choices=(Choice("task", values),)))
    ranges = prepared.request["HyperParameterTuningJobConfig"]["ParameterRanges"]
    assert ranges["CategoricalParameterRanges"] == [{"Name": "task", "Values": list(values)}]


class Recorder:
    """A service that remembers what it was asked to create, among jobs that are there, one on each page."""

    def __init__(self, *names, checkpoints="s3://searches/team/rlnas/demo/checkpoints/"):
        self.names, self.checkpoints, self.created = names, checkpoints, []

    def get_paginator(self, operation):
        assert operation == "list_training_jobs"
        return self

    def paginate(self, **request):
        names = self.names if request["StatusEquals"] == "Stopping" else ()
        return [{"TrainingJobSummaries": [{"TrainingJobName": name}]} for name in names]

    def describe_training_job(self, TrainingJobName):  # noqa: N803 - boto3's name
        return {"CheckpointConfig": {"S3Uri": self.checkpoints}}

    def create_training_job(self, **request):
        self.created.append(request)

    create_hyper_parameter_tuning_job = create_training_job


@pytest.fixture
def s3(aws):
    return boto3.client("s3")


def test_uploads_come_before_the_job(wishes, tmp_path, s3):
    service, prepared = Recorder("demo-x-20260101-000000", "other"), prepare(wishes, tmp_path, NOW)
    submit(prepared, service, s3)
    assert service.created == [prepared.request]
    (key,) = keys(s3, Place("searches", "team"))
    assert key.endswith("/reviews.csv")


def test_a_second_writer_is_refused(wishes, tmp_path, s3):
    service = Recorder("demo-x-20260101-000000", "demo-20260101-000000")
    with pytest.raises(
        RequestError, match=r"the job demo-20260101-000000 still works on the run demo; stop it f"
    ):
        submit(prepare(replace(wishes, resume=True), tmp_path, NOW), service, s3)
    assert service.created == keys(s3, Place("searches", "team")) == []


def test_a_run_of_the_same_name_elsewhere_stands_in_nobody_s_way(wishes, tmp_path, s3):
    service = Recorder("demo-20260101-000000", checkpoints="s3://others/rlnas/demo/checkpoints/")
    submit(prepare(wishes, tmp_path, NOW), service, s3)
    assert len(service.created) == 1


def test_a_run_that_is_there_is_gone_on_with_only_if_told(wishes, tmp_path, s3):
    s3.put_object(Bucket="searches", Key="team/rlnas/demo/checkpoints/snapshot-00000000.json", Body=b"{}")
    service = Recorder()
    with pytest.raises(
        RequestError, match=r"demo/checkpoints already holds a run; go on with it \(--resume\), or"
    ):
        submit(prepare(wishes, tmp_path, NOW), service, s3)
    assert service.created == []
    submit(prepare(replace(wishes, resume=True), tmp_path, NOW), service, s3)
    assert len(service.created) == 1


def test_tuning_jobs_stand_in_nobody_s_way(wishes, tmp_path, s3):
    service = Recorder("demo-20260101-000000")
    submit(prepare(wishes, tmp_path, NOW, TUNING), service, s3)
    assert len(service.created) == 1
