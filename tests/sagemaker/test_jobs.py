from __future__ import annotations

import hashlib
import io
import random
import tarfile
import time

import boto3
import pytest
from botocore.exceptions import ClientError

from rlnas.errors import CloudError, RunFolderError
from rlnas.sagemaker import jobs as module
from rlnas.sagemaker.jobs import LOG_GROUP, fetch, log_lines, status_lines, stop
from rlnas.sagemaker.publisher import Publisher
from rlnas.sagemaker.storage import Place, keys, upload

TRAINING = {
    "TrainingJobStatus": "Completed",
    "SecondaryStatus": "Completed",
    "SecondaryStatusTransitions": [{"StatusMessage": "Training job completed"}],
    "TrainingTimeInSeconds": 100,
    "BillableTimeInSeconds": 40,
    "FinalMetricDataList": [{"MetricName": "rlnas:accuracy", "Value": 0.75}],
    "CheckpointConfig": {"S3Uri": "s3://searches/demo/checkpoints"},
    "ModelArtifacts": {"S3ModelArtifacts": "s3://searches/demo/output/model.tar.gz"},
}
TUNING = {
    "HyperParameterTuningJobStatus": "InProgress",
    "BestTrainingJob": {"TrainingJobName": "demo-003", "TunedHyperParameters": {}},
}


class Service:
    """Answers about one training job and one tuning job."""

    def __init__(self, training=None, tuning=None):
        self.training, self.tuning, self.stopped = training, tuning, []

    def describe_training_job(self, TrainingJobName):  # noqa: N803 - boto3's name
        return self._found(None if self.tuning and TrainingJobName == "demo" else self.training)

    def describe_hyper_parameter_tuning_job(self, HyperParameterTuningJobName):  # noqa: N803
        return self._found(self.tuning)

    def stop_training_job(self, **request):
        self.stopped.append(request)

    stop_hyper_parameter_tuning_job = stop_training_job

    def _found(self, answer):
        if answer is None:
            error = {"Code": "ValidationException", "Message": "Requested resource not found."}
            raise ClientError({"Error": error}, "Describe")
        return answer


@pytest.fixture
def s3(aws):
    return boto3.client("s3")


def test_the_status_of_a_training_job():
    assert status_lines(Service(TRAINING), "demo") == [
        "demo: Completed, Completed",
        "last message: Training job completed",
        "seconds: 100 of training, 40 of them on the bill",
        "rlnas:accuracy: 0.75",
        "checkpoints: s3://searches/demo/checkpoints",
        "model: s3://searches/demo/output/model.tar.gz",
    ]
    failed = {"TrainingJobStatus": "Failed", "FailureReason": "AlgorithmError: no task"}
    assert status_lines(Service(failed), "x") == [
        "x: Failed, no details",
        "failed: AlgorithmError: no task",
    ]


@pytest.mark.parametrize("name", ["demo", "x" * 40])
def test_a_job_that_is_not_there_is_named(name):
    with pytest.raises(CloudError, match=f"cannot look up the job {name}: .*Requested resource not found"):
        status_lines(Service(), name)


def test_either_kind_of_job_is_stopped():
    for service, name in (
        (Service(TRAINING), "TrainingJobName"),
        (Service(tuning=TUNING), "HyperParameterTuningJobName"),
    ):
        stop(service, "demo")
        assert service.stopped == [{name: "demo"}]


def test_the_log_names_hosts_where_there_are_several(aws):
    logs = boto3.client("logs")
    logs.create_log_group(logGroupName=LOG_GROUP)
    for stream in ("demo/algo-1-1700000000", "demo/algo-2-1700000000", "other/algo-1-1"):
        logs.create_log_stream(logGroupName=LOG_GROUP, logStreamName=stream)
        logs.put_log_events(
            logGroupName=LOG_GROUP,
            logStreamName=stream,
            logEvents=[{"timestamp": int(time.time() * 1000), "message": stream[:4]}],
        )
    service = Service(TRAINING)
    assert sorted(log_lines(service, logs, "demo")) == ["algo-1: demo", "algo-2: demo"]
    assert list(log_lines(service, logs, "other")) == [
        "othe"
    ]  # moto gives all streams; the service, by the prefix
    with pytest.raises(
        CloudError, match=r"the job absent has written nothing yet; a container takes minutes"
    ):
        list(log_lines(service, logs, "absent"))
    best = {"BestTrainingJob": {"TrainingJobName": "other"}}
    assert list(log_lines(Service(TRAINING, best), logs, "demo")) == ["othe"]


@pytest.mark.parametrize("tuned", [False, True])
def test_a_run_is_fetched_from_its_checkpoints(s3, tmp_path, tuned):
    (tmp_path / "run" / "best").mkdir(parents=True)
    (tmp_path / "run" / "best" / "config.json").write_text("{}")
    Publisher(tmp_path / "run", tmp_path / "checkpoints").publish()
    key = "demo/checkpoints" + ("/demo-001" if tuned else "")
    upload(s3, tmp_path / "checkpoints", Place("searches", key))
    job = {**TRAINING, **({"TuningJobArn": "arn"} if tuned else {})}
    told = fetch(Service(job), s3, "demo-001", tmp_path / "new" / "back")
    assert told == "the run as of snapshot-00000000.json, 1 files"
    assert (tmp_path / "new" / "back" / "best" / "config.json").read_text() == "{}"
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["back"]


@pytest.fixture
def published(s3, tmp_path):
    """A run whose snapshots 0 and 1 lie in S3."""
    (tmp_path / "run").mkdir()
    publisher = Publisher(tmp_path / "run", tmp_path / "checkpoints")
    for text in ("first", "second"):
        (tmp_path / "run" / "config.json").write_text(text)
        publisher.publish()
    (tmp_path / "checkpoints" / "config.json.sagemaker-uploaded").write_text("")
    upload(s3, tmp_path / "checkpoints", Place("searches", "demo/checkpoints"))
    return publisher


def test_only_what_the_latest_snapshot_lists_is_copied(s3, tmp_path, published, monkeypatch):
    copied, download = [], module.download
    monkeypatch.setattr(module, "download", lambda *what: (copied.append(what[2]), download(*what))[1])
    assert fetch(Service(TRAINING), s3, "demo", tmp_path / "back").startswith(
        "the run as of snapshot-00000001"
    )
    assert (tmp_path / "back" / "config.json").read_text() == "second"
    assert len(copied) == 2


def test_a_snapshot_that_goes_while_it_is_copied_is_followed_by_the_next(
    s3, tmp_path, published, monkeypatch
):
    """As in a job that runs, whose old snapshots go while the copy is slow."""
    download, went = module.download, []

    def slow(s3, bucket, key, path):
        if key.endswith("snapshot-00000001.json") and not went:
            went.append(key)
            for number in (2, 3):
                (tmp_path / "run" / "config.json").write_text(f"later {number}")
                published.publish()
            for old in keys(s3, Place("searches", "demo/checkpoints")):
                s3.delete_object(Bucket=bucket, Key=old)
            for name in ("snapshot-00000000.json", "snapshot-00000001.json"):
                (tmp_path / "checkpoints" / name).unlink()
            upload(s3, tmp_path / "checkpoints", Place(bucket, "demo/checkpoints"))
        return download(s3, bucket, key, path)

    monkeypatch.setattr(module, "download", slow)
    assert fetch(Service(TRAINING), s3, "demo", tmp_path / "back").startswith(
        "the run as of snapshot-00000003"
    )
    assert went


def test_a_latest_snapshot_that_was_cut_off_gives_way_to_an_earlier_one(s3, tmp_path, published):
    digest = hashlib.sha256(b"second").hexdigest()
    s3.delete_object(Bucket="searches", Key=f"demo/checkpoints/files/{digest}")
    assert fetch(Service(TRAINING), s3, "demo", tmp_path / "back").startswith(
        "the run as of snapshot-00000000"
    )


def test_snapshots_that_always_go_too_soon_are_named(s3, tmp_path, published, monkeypatch):
    monkeypatch.setattr(module, "ATTEMPTS", 1)
    monkeypatch.setattr(module, "download", lambda *_: False)
    with pytest.raises(CloudError, match=r"none of 1 snapshots in s3://searches/demo/checkpoints could be"):
        fetch(Service(TRAINING), s3, "demo", tmp_path / "back")


@pytest.mark.parametrize("with_config", [True, False])
def test_without_checkpoints_the_model_alone_is_fetched(s3, tmp_path, with_config):
    content = io.BytesIO()
    with tarfile.open(mode="w:gz", fileobj=content) as archive:
        entry = tarfile.TarInfo("config.json")
        archive.addfile(entry, io.BytesIO())
    s3.put_object(Bucket="searches", Key="demo/output/model.tar.gz", Body=content.getvalue())
    job = TRAINING if with_config else {k: v for k, v in TRAINING.items() if k != "CheckpointConfig"}
    told = fetch(Service(job), s3, "demo", tmp_path / "back")
    assert told == "the model alone: there are no checkpoints"
    assert (tmp_path / "back" / "config.json").is_file()


def packed(**files):
    content = io.BytesIO()
    with tarfile.open(mode="w:gz", fileobj=content) as archive:
        for name, text in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(text)
            archive.addfile(entry, io.BytesIO(text))
    return content.getvalue()


CUT_SHORT = packed(small=b"x", large=random.Random(0).randbytes(100_000))[:50_000]
BROKEN = packed(small=b"x", large=bytes(100_000))
BROKEN = BROKEN[:60] + b"\xff" * 20 + BROKEN[80:]


@pytest.mark.parametrize("content", [b"text", CUT_SHORT, BROKEN], ids=["text", "cut short", "broken"])
def test_an_artefact_that_is_no_archive_is_named_and_nothing_of_it_stays(s3, tmp_path, content):
    s3.put_object(Bucket="searches", Key="demo/output/model.tar.gz", Body=content)
    with pytest.raises(CloudError, match=r"cannot unpack s3://searches/demo/output/model.tar.gz: "):
        fetch(Service(TRAINING), s3, "demo", tmp_path / "back")
    assert list(tmp_path.iterdir()) == []


def test_a_job_that_has_made_nothing_yet_is_named(s3, tmp_path):
    job = {**TRAINING, "TrainingJobStatus": "InProgress"}
    with pytest.raises(
        CloudError, match=r"the job demo \(InProgress\) has left no checkpoint yet; look again l"
    ):
        fetch(Service(job), s3, "demo", tmp_path / "back")


def test_a_tuning_job_stands_for_its_best_training_job(s3, tmp_path):
    for name in ("demo-001", "demo-003"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(name)
        Publisher(tmp_path / name, tmp_path / "checkpoints" / name).publish()
    upload(s3, tmp_path / "checkpoints", Place("searches", "demo/checkpoints"))
    service = Service({**TRAINING, "TuningJobArn": "arn"}, TUNING)
    told = fetch(service, s3, "demo", tmp_path / "back")
    assert told == "demo-003, the best so far: the run as of snapshot-00000000.json, 1 files"
    assert (tmp_path / "back" / "config.json").read_text() == "demo-003"


def test_a_tuning_job_without_a_best_one_is_not_fetched(s3, tmp_path):
    service = Service(tuning={"HyperParameterTuningJobStatus": "InProgress"})
    with pytest.raises(CloudError, match=r"no training job of demo has been completed yet; name one of"):
        fetch(service, s3, "demo", tmp_path / "back")
    assert list(tmp_path.iterdir()) == []


def test_nothing_that_is_there_is_overwritten(tmp_path):
    (tmp_path / "back").mkdir()
    (tmp_path / "back" / "mine").write_text("")
    with pytest.raises(RunFolderError, match=r"back' is there already; give another folder \(--out\)"):
        fetch(None, None, "demo", tmp_path / "back")
