from __future__ import annotations

import json
import os
import signal
import threading
from pathlib import Path

import pytest

import rlnas.sagemaker.launching
import rlnas.sagemaker.service
import rlnas.sagemaker.training
from rlnas.cli import main
from rlnas.cli.sagemaker import search_flags

BASE = (
    *("--name", "demo", "--bucket", "searches", "--role", "arn:aws:iam::123456789012:role/x"),
    *("--image", "123456789012.dkr.ecr.eu-west-1.amazonaws.com/rlnas:1", "--instance-type", "ml.g5.xlarge"),
)


@pytest.fixture
def sent(monkeypatch):
    """What would have been sent."""
    sent = []
    monkeypatch.setattr(rlnas.sagemaker.service, "connect", lambda service, region: (service, region))
    monkeypatch.setattr(rlnas.sagemaker.launching, "submit", lambda *what: sent.append(what))
    return sent


def test_a_launch_says_how_to_go_on(sent, capsys):
    flags = ("--spot", "--region", "eu-west-1", "--tag", "team=a", "--channel", "text=s3://bucket/x")
    search = ("--task", "channel:text/a.csv", "--budget", "3", "--racing")
    assert main(["sagemaker", "launch", *BASE, *flags, "--code", "image", "--", *search]) == 0
    ((prepared, *clients),) = sent
    assert clients == [("sagemaker", "eu-west-1"), ("s3", "eu-west-1")]
    assert prepared.request["HyperParameters"] == {
        "task": "channel:text/a.csv",
        "budget": "3",
        "racing": "true",
    }
    assert prepared.request["StoppingCondition"] == {
        "MaxRuntimeInSeconds": 86400,
        "MaxWaitTimeInSeconds": 172800,
    }
    told = capsys.readouterr().out
    assert f"job: {prepared.name}\n" in told
    assert "checkpoints: s3://searches/rlnas/demo/checkpoints\n" in told
    assert f"rlnas sagemaker fetch {prepared.name}" in told


def test_code_of_this_machine_goes_along_by_default(sent):
    assert main(["sagemaker", "launch", *BASE, "--", "--budget", "3"]) == 0
    assert [path.name for path, _ in sent[0][0].uploads] == ["code.tar.gz"]


def test_a_tuning_job_is_created(sent, capsys):
    tried = (
        "--range",
        "learning-rate=1e-5:1e-3:log",
        "--choice",
        "seed=0,1",
        "--objective",
        "best_accuracy",
    )
    assert main(["sagemaker", "tune", *BASE, "--code", "image", *tried, "--", "--budget", "3"]) == 0
    request = sent[0][0].request
    config = request["HyperParameterTuningJobConfig"]
    assert config["HyperParameterTuningJobObjective"]["MetricName"] == "rlnas:best_accuracy"
    assert request["TrainingJobDefinition"]["StaticHyperParameters"] == {"budget": "3"}
    told = capsys.readouterr().out
    name = request["HyperParameterTuningJobName"]
    assert f"tuning job: {name}\ncheckpoints: s3://searches/rlnas/demo/tuning/{name}\n" in told
    assert f"rlnas sagemaker fetch {name} brings the best one" in told


AKIA = "AKIA" + "ABCDEFGH" * 2
BAD = [
    (
        ["--instance-type", "ml.g5.huge"],
        [],
        r"--instance-type=ml.g5.huge is no kind of machine that trains; did",
    ),
    (
        ["--role", "me"],
        [],
        r"--role=me is no ARN of a role; its form is arn:aws:iam::123456789012:role/name",
    ),
    (["--image", "a b"], [], r"--image=a b is no address of an image; it has the form"),
    (
        ["--bucket", "My_Bucket"],
        [],
        r"bucket='My_Bucket' is no name of an S3 bucket: it has 3 to 63 lower-case",
    ),
    (["--prefix", "a b"], [], r"the key prefix 'a b' must be at most 512 letters, digits and"),
    (["--name", "a_b"], [], r"--name='a_b' must be 1 to 47 letters, digits and hyphens"),
    (["--spot", "--max-wait", "60"], [], r"--max-wait=60 is less than --max-run=86400, which it includes"),
    (["--max-wait", "60"], [], r"--max-wait=60 is for --spot only; add it, or drop this one"),
    (["--subnet", "subnet-1"], [], r"--subnet needs --security-group too: a VPC is named by both"),
    (["--tag", "a#=b"], [], r"CreateTrainingJob.Tags\[0\].Key='a#' does not match .*; nothing was sent"),
    (["--tag", "a"], [], r"--tag a must be NAME=VALUE, such as team=search"),
    (["--tag", "a=1", "--tag", "a=2"], [], r"--tag names a twice; drop one"),
    (["--channel", "x=bucket"], [], r"'bucket' is no address in S3; write s3://bucket/path"),
    (["--max-run", "9999999"], [], r"--max-run=9999999 is longer than the 2419200 seconds \(28 days\)"),
    (["--instance-count", "0"], [], r"--instance-count must be at least 1, but got --instance-count=0"),
    (["--instance-count", "2"], ["--nproc", "0"], r"nproc must be at least 1, but got nproc=0"),
    (["--instance-count", "2"], ["--workers", "0"], r"n_workers must be at least 1, but got n_workers=0"),
    ([], ["--workers", "2"], r"--workers=2 needs a Ray cluster: add --ray local, or --ray ADDRESS"),
    ([], ["--nnodes", "2"], r"--nnodes=2 does not go with --instance-count 1; leave it out"),
    ([], ["--bugdet", "3"], r"'--bugdet' is no flag of rlnas search; did you mean --budget\?"),
    ([], ["--out", "x"], r"--out is set in the container; leave it out"),
    (
        [],
        ["--task", "x" * 2501],
        r"a hyper-parameter has 2500 characters at most, but task='xxx.* has 2501",
    ),
    (
        [],
        ["--task", AKIA],
        r"task looks like an AWS access key, and everyone who may describe the job would",
    ),
]


@pytest.mark.parametrize(("flags", "search", "message"), BAD)
def test_a_bad_request_is_refused_in_one_sentence_and_nothing_is_sent(
    sent, refused, flags, search, message
):
    line = refused(["sagemaker", "launch", *BASE, *flags, "--", *search], message)
    assert AKIA not in line
    assert sent == []


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], r"a tuning job needs something to try; give --range or --choice"),
        (["--range", "bugdet=1:2"], r"'--bugdet=1' is no flag of rlnas search; did you mean --budget\?"),
        (
            ["--choice", "racing=true,false"],
            r"racing is a switch, which cannot be tried out; give it after -- or",
        ),
        (["--range", "budget=1:2"], r"budget is tried out, and fixed to 3 as well; drop either"),
        (["--range", "seed=2:1"], r"--range seed=2:1 needs a smaller number before a larger one"),
        (["--range", "learning-rate=0:1:log"], r"--range learning-rate=0:1:log needs numbers above 0"),
        (["--choice", "controller=ppo"], r"--choice controller=ppo needs two values or more, such as"),
        (["--choice", "out=a,b"], r"--out is set in the container; leave it out"),
        (
            ["--choice", "seed=0,1", "--max-jobs", "0"],
            r"--max-jobs must be at least 1, but got --max-jobs=0",
        ),
        (
            ["--strategy", "Grid", "--range", "seed=0:9"],
            r"--strategy=Grid tries choices only, but got --range seed; write its values as --choice",
        ),
        (
            ["--choice", "seed=0,1", "--name", "x" * 21],
            r"--name='x{21}' must be 1 to 20 letters, digits and",
        ),
        (
            ["--choice", "seed=0,1", "--instance-type", "ml.g5.huge"],
            r"--instance-type=ml.g5.huge is no kind of machine that trains; did",
        ),
        (
            ["--instance-count", "2", "--choice", "nnodes=3,1"],
            r"--nnodes=3 does not go with --instance-count 2; leave it out",
        ),
        (
            ["--choice", f"task=sst2,{AKIA}"],
            r"task looks like an AWS access key, and everyone who may describe the job would",
        ),
    ],
)
def test_a_bad_tuning_is_refused_and_nothing_is_sent(sent, refused, flags, message):
    refused(["sagemaker", "tune", *BASE, *flags, "--", "--budget", "3"], message)
    assert sent == []


def test_a_value_that_the_search_would_refuse_is_refused_here(sent, misused):
    message = r"rlnas search: error: argument --budget: invalid int value: 'x'"
    misused(["sagemaker", "launch", *BASE, "--", "--budget", "x"], message)
    misused(["sagemaker", "tune", *BASE, "--choice", "budget=1,x", "--"], message)
    misused(
        ["sagemaker", "tune", *BASE, "--range", "budget=1:2.5", "--"],
        r"rlnas search: error: argument --budget: invalid int value: '2.5'",
    )
    assert sent == []


def test_flags_of_other_hosts_are_checked_and_not_sent(sent):
    flags = (*BASE, "--instance-count", "3", "--code", "image")
    assert main(["sagemaker", "launch", *flags, "--", "--racing", "--controls", "random"]) == 0
    given = dict(sent[0][0].request["HyperParameters"])
    assert given.pop("hosts-key")
    assert given == {"racing": "true", "controls": "random"}


def test_what_is_tried_out_is_checked_beside_what_else_is(sent):
    tried = ("--choice", "workers=1,2", "--choice", "ray=local,10.1.1.1:6379")
    assert main(["sagemaker", "tune", *BASE, "--code", "image", *tried, "--"]) == 0
    assert len(sent) == 1


def test_the_flags_of_a_search_are_found():
    assert {"task", "budget"} < search_flags().valued
    assert "racing" in search_flags().switches
    assert {"budget", "seed"} < search_flags().whole
    assert "target-ratio" in search_flags().valued - search_flags().whole


def test_a_range_of_fractions_is_one_whatever_its_bounds(sent):
    tried = ("--range", "target-ratio=0:1", "--range", "budget=3:9")
    assert main(["sagemaker", "tune", *BASE, "--code", "image", *tried, "--"]) == 0
    ranges = sent[0][0].request["HyperParameterTuningJobConfig"]["ParameterRanges"]
    assert [each["Name"] for each in ranges["ContinuousParameterRanges"]] == ["target-ratio"]
    assert [each["Name"] for each in ranges["IntegerParameterRanges"]] == ["budget"]


@pytest.fixture
def unblocked():
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    yield
    signal.pthread_sigmask(signal.SIG_SETMASK, before)


@pytest.mark.usefixtures("unblocked")
def test_a_stop_that_comes_before_there_is_a_handler_waits_for_it(monkeypatch):
    asked = []

    def train(*_):
        signal.pthread_kill(threading.get_ident(), signal.SIGTERM)  # would end this process
        with rlnas.sagemaker.training._stoppable() as stop:
            asked.append(stop.asked)
            assert signal.SIGTERM not in signal.pthread_sigmask(signal.SIG_BLOCK, ())
        return 143

    monkeypatch.setattr("rlnas.sagemaker.starting.command_with_code", lambda environ: None)
    monkeypatch.setattr("rlnas.sagemaker.training.train", train)
    assert main(["sagemaker", "train"]) == 143
    assert asked == [True]


@pytest.mark.usefixtures("unblocked")
def test_the_container_takes_the_code_that_the_job_brings(tmp_path, monkeypatch):
    taken = []
    monkeypatch.setenv("SAGEMAKER_BASE_DIR", str(tmp_path))
    monkeypatch.setattr(
        "rlnas.sagemaker.starting.command_with_code", lambda environ: (["python", "x"], {"A": "b"})
    )
    monkeypatch.setattr("rlnas.sagemaker.training.train", lambda *_: 143)
    monkeypatch.setattr(os, "execve", lambda *how: taken.append(how))
    assert main(["sagemaker", "train"]) == 143
    assert taken == [("python", ["python", "x"], {"A": "b"})]


@pytest.mark.usefixtures("unblocked")
def test_a_container_that_cannot_begin_says_why(tmp_path, monkeypatch, refused):
    monkeypatch.setenv("SAGEMAKER_BASE_DIR", str(tmp_path))
    config = tmp_path / "input" / "config"
    config.mkdir(parents=True)
    (config / "inputdataconfig.json").write_text(json.dumps({"code": {}}))
    line = refused(
        ["sagemaker", "train"], r"the job has a channel 'code' and no hyper-parameter 'code-sha256'"
    )
    assert (tmp_path / "output" / "failure").read_text() in line


@pytest.mark.parametrize("command", ["status", "logs", "stop", "fetch"])
def test_commands_about_a_job_ask_for_it(monkeypatch, capsys, command):
    import rlnas.sagemaker.jobs

    asked = []

    def answer(*what):
        asked.append(what)
        return ["a line"]

    monkeypatch.setattr(rlnas.sagemaker.service, "connect", lambda service, region: service)
    for name in ("status_lines", "log_lines", "stop", "fetch"):
        monkeypatch.setattr(rlnas.sagemaker.jobs, name, answer)
    assert main(["sagemaker", command, "demo"]) == 0
    told = capsys.readouterr().out
    services = {"logs": ["sagemaker", "logs"], "fetch": ["sagemaker", "s3"]}.get(command, ["sagemaker"])
    out = [Path("runs/demo")] if command == "fetch" else []
    assert asked == [(*services, "demo", *out)]
    assert ("asked to end" if command == "stop" else "a line") in told
