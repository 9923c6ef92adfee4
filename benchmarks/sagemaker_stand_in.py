"""A stand-in for SageMaker that runs jobs for real: processes under folders laid out as ``/opt/ml``.

It takes boto3's requests over HTTP, checks them as boto3 does not (names, sizes, choices), brings the
channels from S3, starts the image's ``train`` once for each host, and sends SIGTERM on a stop. It keeps S3
in step with the checkpoint folder the hard way: file by file in a random order, while the job changes the
folder, deletions included, and with markers beside the files as SageMaker leaves them. S3 is whatever
``boto3.client("s3")`` reaches; moto keeps it in memory.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

import boto3

from benchmarks.sagemaker_logs import LogStream
from benchmarks.sagemaker_tuning_jobs import TuningJobs
from rlnas.sagemaker.checking import check_request
from rlnas.sagemaker.checkpoints import IGNORED, MARKERS
from rlnas.sagemaker.storage import Place

if TYPE_CHECKING:
    from botocore.client import BaseClient

ROOT = Path(__file__).parents[1]
DONE = ("Completed", "Stopped", "Failed")
GRACE_SECONDS = 120.0


def train_script() -> str:
    """The executable ``train`` as the Dockerfile writes it."""
    match = re.search(r"RUN printf '([^']*)' > /usr/local/bin/train", (ROOT / "Dockerfile").read_text())
    if match is None:
        raise ValueError("the Dockerfile writes no /usr/local/bin/train")
    return match[1].replace("\\n", "\n")


@dataclass
class Job:
    """A training job and its processes, one per host; jobs beside each other differ in their slot."""

    request: dict[str, Any]
    slot: int = 0
    tuning_arn: str | None = None
    status: str = "InProgress"
    secondary: str = "Training"
    failure: str | None = None
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)
    readers: list[threading.Thread] = field(default_factory=list)
    codes: list[int] = field(default_factory=list)
    thread: threading.Thread | None = None
    log: list[str] = field(default_factory=list)
    stopped: bool = False
    vanished: bool = False

    @property
    def name(self) -> str:
        """As the request has it."""
        return str(self.request["TrainingJobName"])

    @property
    def arn(self) -> str:
        """Made of the name."""
        return f"arn:aws:sagemaker:eu-west-1:123456789012:training-job/{self.name}"

    def metrics(self) -> dict[str, float]:
        """The last value of each metric, found in the log as the service does."""
        found = {}
        for metric in self.request["AlgorithmSpecification"]["MetricDefinitions"]:
            for line in list(self.log):
                for match in re.finditer(metric["Regex"], line):
                    found[metric["Name"]] = float(match[1])
        return found


class StandIn:
    """The service. A context manager that ends all that it has started.

    Args:
        root: Folder for the hosts, each of which has the same base folder in every job, as in a container.
        seed: Of the order in which checkpoints are copied.
        sync_s: Seconds between two rounds of copying checkpoints.
    """

    def __init__(self, root: Path, *, seed: int = 0, sync_s: float = 0.2) -> None:
        self.root, self.jobs = root, dict[str, Job]()
        self.tuning_jobs = TuningJobs(self, seed)
        self._rng, self._sync_s, self._lock = random.Random(seed), sync_s, threading.Lock()
        self._bin = root / "bin"
        self._bin.mkdir(parents=True, exist_ok=True)
        write_script(self._bin / "train", train_script())
        write_script(self._bin / "rlnas", f'#!/bin/sh\nexec {sys.executable} -m rlnas "$@"\n')
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self.endpoint = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    def __enter__(self) -> StandIn:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        for tuning in self.tuning_jobs.values():
            with contextlib.suppress(ValueError):  # it has ended
                tuning.stop()  # which begins no more jobs
        for job in self.jobs.values():
            _kill(job)
            if job.thread is not None:
                job.thread.join()
        for tuning in self.tuning_jobs.values():
            tuning.wait()

    def answer(self, operation: str, request: dict[str, Any]) -> dict[str, Any]:
        """What the service says to a request; raises `LookupError` or `ValueError` where it refuses."""
        check_request(operation, request)
        if operation == "CreateTrainingJob":
            return {"TrainingJobArn": self.create(request).arn}
        if operation == "DescribeTrainingJob":
            return self._describe(self.jobs[request["TrainingJobName"]])
        if operation == "StopTrainingJob":
            self._stop(self.jobs[request["TrainingJobName"]])
            return {}
        if operation == "ListTrainingJobs":
            found = [
                {
                    "TrainingJobName": job.name,
                    "TrainingJobStatus": job.status,
                    "TrainingJobArn": job.arn,
                    "CreationTime": 0,
                }
                for job in self.jobs.values()
                if request.get("NameContains", "") in job.name
                and job.status == request.get("StatusEquals", job.status)
            ]
            return {"TrainingJobSummaries": found}
        return self.tuning_jobs.answer(operation, request)

    def wait(self, name: str, seconds: float = 120.0) -> Job:
        """The job once it has ended."""
        job = self.jobs[name]
        if job.thread is not None:
            job.thread.join(seconds)
        if job.status not in DONE:
            raise TimeoutError(f"{name} is still {job.status} after {seconds:g} s: {job.log[-5:]}")
        return job

    def vanish(self, name: str) -> None:
        """Take the instances of a job away without a word: what has not been copied by now is lost."""
        job = self.jobs[name]
        job.vanished = True
        _kill(job)

    def lose(self, name: str, host: int) -> None:
        """Take one instance of a job away without a word."""
        _end_session(self.jobs[name].processes[host].pid)

    def base(self, host: int, slot: int = 0) -> Path:
        """What is ``/opt/ml`` on a host; only jobs beside another one have a slot above 0."""
        return self.root / (f"slot-{slot}" if slot else "") / f"host-{host}" / "ml"

    def create(self, request: dict[str, Any], tuning_arn: str | None = None) -> Job:
        """Begin a training job; raises `ValueError` where the service refuses."""
        check_request("CreateTrainingJob", request)
        with self._lock:
            busy = {job.slot for job in self.jobs.values() if job.status not in DONE}
            job = Job(request, min(set(range(len(busy) + 1)) - busy), tuning_arn)
            if job.name in self.jobs:
                raise ValueError(f"the job {job.name} is there already")
            self.jobs[job.name] = job
        # Names that lead to this machine: the first host's is where the others find it.
        hosts = [f"127.0.0.{n + 1}" for n in range(request["ResourceConfig"]["InstanceCount"])]
        for number, host in enumerate(hosts):
            self._lay_out(job, number, hosts, host)
        port = free_port(3)
        for number in range(len(hosts)):
            self._start(job, number, port)
        job.thread = threading.Thread(target=self._attend, args=(job,), daemon=True)
        job.thread.start()
        return job

    def _lay_out(self, job: Job, number: int, hosts: list[str], host: str) -> None:
        base, request = self.base(number, job.slot), job.request
        shutil.rmtree(base, ignore_errors=True)
        for name in ("input/config", "input/data", "model", "output/data", "checkpoints"):
            (base / name).mkdir(parents=True)
        channels = {entry["ChannelName"]: entry for entry in request.get("InputDataConfig", ())}
        for name, values in (
            ("hyperparameters", request.get("HyperParameters", {})),
            ("resourceconfig", {"current_host": host, "hosts": hosts, "network_interface_name": "lo"}),
            ("inputdataconfig", {name: {"TrainingInputMode": "File"} for name in channels}),
        ):
            (base / "input" / "config" / f"{name}.json").write_text(json.dumps(values))
        s3 = boto3.client("s3")
        for name, entry in channels.items():
            _bring(s3, entry["DataSource"]["S3DataSource"]["S3Uri"], base / "input" / "data" / name)
        _bring(s3, request["CheckpointConfig"]["S3Uri"], base / "checkpoints")

    def _start(self, job: Job, number: int, port: int) -> None:
        environ = {
            "PATH": f"{self._bin}:/usr/bin:/bin",
            "SAGEMAKER_BASE_DIR": str(self.base(number, job.slot)),
            "TRAINING_JOB_NAME": job.name,
            "RLNAS_SAGEMAKER_PORT": str(port),
            **{
                k: os.environ[k]
                for k in ("OMP_NUM_THREADS", "HF_HOME", "HF_HUB_OFFLINE")
                if k in os.environ
            },
            "PYTHONPATH": str(ROOT),
        }
        process = subprocess.Popen(
            ["train"],
            executable=self._bin / "train",
            env=environ,
            cwd=self.root,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        job.processes.append(process)
        stream = LogStream(job.name, number)
        reader = threading.Thread(target=stream.read, args=(process.stdout, job.log), daemon=True)
        reader.start()
        job.readers.append(reader)

    def _attend(self, job: Job) -> None:
        """Copy checkpoints until all hosts have ended, then say how the job ended."""
        place = Place.parse(job.request["CheckpointConfig"]["S3Uri"])
        known: dict[str, tuple[int, int]] = {}
        while any(process.poll() is None for process in job.processes):
            self._copy(job, place, known)
            time.sleep(self._sync_s)
        job.codes = [process.wait() for process in job.processes]
        _kill(job)  # what they have left running, as the end of a container does
        for reader in job.readers:
            reader.join()
        if job.vanished:
            job.status, job.secondary = "Stopped", "Interrupted"
            return
        self._copy(job, place, known)
        failures = [self.base(n, job.slot) / "output" / "failure" for n in range(len(job.processes))]
        reasons = [path.read_text() for path in failures if path.is_file()]
        _pack(place, job, [self.base(n, job.slot) / "model" for n in range(len(job.processes))])
        if job.stopped:
            job.status = job.secondary = "Stopped"
        elif any(job.codes):
            job.failure = f"AlgorithmError: {' '.join(reasons)}, exit code: {max(job.codes)}"
            job.secondary = job.status = "Failed"
        else:
            job.secondary = job.status = "Completed"

    def _stop(self, job: Job) -> None:
        if job.status != "InProgress":
            raise ValueError(f"the job {job.name} is {job.status}")
        job.status, job.secondary, job.stopped = "Stopping", "Stopping", True
        for process in job.processes:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGTERM)  # to the container's first process alone

    def _copy(self, job: Job, place: Place, known: dict[str, tuple[int, int]]) -> None:
        """One round: changed files in a random order, then deletions; cut off if the instance vanishes."""
        folder = self.base(0, job.slot) / "checkpoints"
        s3 = boto3.client("s3")
        there = sorted(
            path
            for path in folder.rglob("*")
            if path.is_file() and not path.name.endswith((IGNORED, *MARKERS))
        )
        self._rng.shuffle(there)
        names = {path.relative_to(folder).as_posix(): path for path in there}
        for name, path in names.items():
            if job.vanished:
                return
            with contextlib.suppress(FileNotFoundError):
                found = path.stat()
                if known.get(name) != (found.st_ino, found.st_mtime_ns):
                    uploading, uploaded = (path.with_name(path.name + marker) for marker in MARKERS)
                    uploading.touch()
                    s3.put_object(Bucket=place.bucket, Key=f"{place.key}/{name}", Body=path.read_bytes())
                    known[name] = (found.st_ino, found.st_mtime_ns)
                    uploading.replace(uploaded)
        for name in known.keys() - names.keys():
            s3.delete_object(Bucket=place.bucket, Key=f"{place.key}/{name}")
            del known[name]
            for marker in MARKERS:
                (folder / f"{name}{marker}").unlink(missing_ok=True)

    def _describe(self, job: Job) -> dict[str, Any]:
        request = job.request
        model = f"{request['OutputDataConfig']['S3OutputPath']}/{job.name}/output/model.tar.gz"
        answer = {
            "TrainingJobName": job.name,
            "TrainingJobArn": job.arn,
            "ModelArtifacts": {"S3ModelArtifacts": model},
            "TrainingJobStatus": job.status,
            "SecondaryStatus": job.secondary,
            "CreationTime": 0,
            "FinalMetricDataList": [
                {"MetricName": name, "Value": value, "Timestamp": 0}
                for name, value in job.metrics().items()
            ],
            **{key: request[key] for key in _ECHOED if key in request},
        }
        if job.tuning_arn is not None:
            answer["TuningJobArn"] = job.tuning_arn
        return answer if job.failure is None else {**answer, "FailureReason": job.failure}


_ECHOED = ("HyperParameters", "AlgorithmSpecification", "RoleArn", "CheckpointConfig", "ResourceConfig")
_ECHOED += ("StoppingCondition", "OutputDataConfig", "EnableManagedSpotTraining")


def write_script(path: Path, text: str) -> None:
    """Write an executable file."""
    path.write_text(text)
    path.chmod(0o755)


def free_port(count: int = 1) -> int:
    """A port that nothing listens at, nor at those behind it up to so many in all."""
    while True:
        with contextlib.ExitStack() as stack, contextlib.suppress(OSError, OverflowError):
            first = stack.enter_context(socket.create_server(("", 0))).getsockname()[1]
            for port in range(first + 1, first + count):
                stack.enter_context(socket.create_server(("", port)))
            return int(first)


def _handler(service: StandIn) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            operation = self.headers["X-Amz-Target"].removeprefix("SageMaker.")
            request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            code, answer = 200, {}
            try:
                answer = service.answer(operation, request)
            except LookupError:
                code, answer = (
                    400,
                    {"__type": "ValidationException", "message": "Requested resource not found."},
                )
            except ValueError as error:
                code, answer = 400, {"__type": "ValidationException", "message": str(error)}
            body = json.dumps(answer).encode()
            self.send_response(code)
            self.send_header("Content-Type", "application/x-amz-json-1.1")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    return Handler


def _kill(job: Job) -> None:
    """End all processes of a job, those that its own processes have started too, as a container does."""
    for process in job.processes:
        _end_session(process.pid)


def _end_session(session: int) -> None:
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if entry.name.isdigit() and os.getsid(int(entry.name)) == session:
                os.kill(int(entry.name), signal.SIGKILL)


def _bring(s3: BaseClient, uri: str, target: Path) -> None:
    """Copy what lies under an address into a folder, as the service fills channels."""
    place = Place.parse(uri)
    target.mkdir(parents=True, exist_ok=True)
    for page in s3.get_paginator("list_objects_v2").paginate(Bucket=place.bucket, Prefix=f"{place.key}/"):
        for entry in page.get("Contents", ()):
            path = target / entry["Key"].removeprefix(f"{place.key}/")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(s3.get_object(Bucket=place.bucket, Key=entry["Key"])["Body"].read())


def _pack(place: Place, job: Job, folders: list[Path]) -> None:
    """The model artefact."""
    content = io.BytesIO()
    with tarfile.open(mode="w:gz", fileobj=content) as archive:
        for folder in folders:
            archive.add(folder, ".")
    output = (
        Place.parse(job.request["OutputDataConfig"]["S3OutputPath"]) / f"{job.name}/output/model.tar.gz"
    )
    boto3.client("s3").put_object(Bucket=output.bucket, Key=output.key, Body=content.getvalue())
