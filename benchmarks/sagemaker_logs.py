"""The log of a stand-in's job, which goes to whatever ``boto3.client("logs")`` reaches."""

from __future__ import annotations

import contextlib
import time
from typing import IO

import boto3

from rlnas.sagemaker.jobs import LOG_GROUP


class LogStream:
    """Lines of one host of a job.

    Args:
        job: Its name.
        number: Of the host, from 0.
    """

    def __init__(self, job: str, number: int) -> None:
        self._logs = boto3.client("logs")
        self._place = {
            "logGroupName": LOG_GROUP,
            "logStreamName": f"{job}/algo-{number + 1}-{time.time_ns() // 1_000_000}",
        }
        with contextlib.suppress(self._logs.exceptions.ResourceAlreadyExistsException):
            self._logs.create_log_group(logGroupName=LOG_GROUP)
        self._logs.create_log_stream(**self._place)

    def read(self, output: IO[bytes], lines: list[str]) -> None:
        """Take all that a process writes; a bar's states are lines of their own."""
        with output:
            for line in output:
                found = [
                    text for text in line.decode(errors="replace").replace("\r", "\n").splitlines() if text
                ]
                lines += found
                if found:
                    now = time.time_ns() // 1_000_000
                    events = [{"timestamp": now, "message": text} for text in found]
                    self._logs.put_log_events(**self._place, logEvents=events)
