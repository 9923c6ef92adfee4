"""Whether SageMaker jobs that are cut off at random moments end as unbroken ones; a stand-in runs them.

Each round launches a search, ends it at a random moment (by a stop, or by taking its instance away), and
launches it again from what had been copied to S3 by then. Its history is compared with that of a job which
nobody touched: configs, accuracies and rewards. The first rounds run to their end; the others are fetched
while they run, once the history is whole, and spared the timing of finalists. At last a tuning job tries
other settings in short searches, two at a time; the values it chooses by are compared with the histories.
"""

from __future__ import annotations

import contextlib
import io
import os
import random
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import boto3
from moto import mock_aws

from benchmarks.random_checkpoint import write_checkpoint
from benchmarks.record import make_parser, record
from benchmarks.sagemaker_stand_in import StandIn
from rlnas.cli import main as rlnas
from rlnas.errors import RLNASError
from rlnas.history import History

if TYPE_CHECKING:
    import argparse

    from benchmarks.sagemaker_stand_in import Job

BUCKET = "searches"
Moment = tuple[float, str]
CREDENTIALS = {
    "AWS_DEFAULT_REGION": "eu-west-1",
    "AWS_ACCESS_KEY_ID": "testing",
    "AWS_SECRET_ACCESS_KEY": "testing",
    "AWS_EC2_METADATA_DISABLED": "true",
}


def main() -> None:
    """Run all rounds and record how they ended."""
    parser = make_parser(__doc__, "sagemaker_local.jsonl")
    parser.add_argument("--rounds", type=int, default=10, help="runs that are cut off")
    parser.add_argument("--cuts", type=int, default=1, help="times that each is cut off")
    parser.add_argument("--whole", type=int, default=1, help="rounds that run to their end")
    parser.add_argument("--budget", type=int, default=300, help="trials of each search")
    parser.add_argument("--tune", type=int, default=3, help="training jobs of a tuning job; 0 for none")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    options = parser.parse_args()
    if options.quick:
        options.rounds, options.whole, options.budget, options.tune = 1, 0, 200, 0
    os.environ.update(CREDENTIALS)
    with tempfile.TemporaryDirectory() as folder, mock_aws():
        boto3.client("s3").create_bucket(
            Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": "eu-west-1"}
        )
        root = Path(folder)
        with StandIn(root / "service", seed=options.seed) as service:
            os.environ["AWS_ENDPOINT_URL_SAGEMAKER"] = service.endpoint
            record("sagemaker_local", options, Runs(service, root, options.budget).measure(options))


class Runs:
    """Launches, cuts and fetches.

    Args:
        service: Where jobs run.
        root: Folder for everything.
        budget: Trials of each search.
    """

    def __init__(self, service: StandIn, root: Path, budget: int) -> None:
        self._service, self._root, self._budget = service, root, budget
        write_checkpoint("small", root / "model")
        _write_task(root / "task")

    def measure(self, options: argparse.Namespace) -> dict[str, Any]:
        """The figures of all rounds."""
        begun = time.monotonic()
        job = self._launched("unbroken")
        self._wait_for_history(job)
        seconds = time.monotonic() - begun
        self._end(job, whole=options.whole > 0)
        expected = self._fetched(job, self._root / "unbroken")
        # The same latencies for all: they are part of the rewards.
        table = ("--latency-table", str(self._root / "unbroken" / "latency.json"))
        rng, rounds = random.Random(options.seed), []
        for number in range(options.rounds):
            cuts = [(rng.choice(("stop", "vanish")), _moment(rng, seconds)) for _ in range(options.cuts)]
            name = f"cut-{number}"
            kept = [self._cut(name, table, how, moment) for how, moment in cuts]
            job = self._launched(name, *table)
            self._wait_for_history(job)
            self._end(job, whole=number < options.whole)
            found = self._fetched(job, self._root / name)
            rounds.append(
                {
                    "cuts": [[how, *moment] for how, moment in cuts],
                    "trials_kept": kept,
                    "status": job.status,
                    "n_trials": len(found),
                    "equal": found == expected,
                }
            )
            print(rounds[-1], flush=True)
        return {
            "seconds_to_history": round(seconds, 1),
            "n_trials": len(expected),
            "n_rounds": len(rounds),
            "n_equal": sum(one["equal"] for one in rounds),
            "rounds": rounds,
            **({"tuning": self._tuned(options.tune, table)} if options.tune else {}),
        }

    def _arguments(
        self, command: str, name: str, own: tuple[str, ...], search: tuple[str, ...]
    ) -> list[str]:
        """Of a command that creates a job: what all of them have, and what it has of its own."""
        return [
            *("sagemaker", command, "--name", name, "--bucket", BUCKET, *own),
            *("--role", "arn:aws:iam::123456789012:role/rlnas", "--image", "rlnas:1"),
            *("--instance-type", "ml.m5.large", "--", "--model", str(self._root / "model")),
            *("--task", str(self._root / "task"), "--search-items", "64", "--device", "cpu"),
            *("--seq-len", "16", "--target-ratio", "0.75"),
            *("--full-epochs", "1", "--epochs", "1", "--finish-epochs", "0", "--repair-items", "0"),
            *search,
        ]

    def _launched(self, name: str, *more: str) -> Job:
        before = set(self._service.jobs)
        search = ("--seed", "0", "--controller", "evolution", "--budget", str(self._budget), *more)
        arguments = self._arguments("launch", name, ("--resume",), search)
        while _quietly(arguments):  # names hold the second of the launch, which may be taken
            time.sleep(1.0)
        (found,) = set(self._service.jobs) - before
        return self._service.jobs[found]

    def _wait_for_history(self, job: Job) -> None:
        while job.status == "InProgress" and not any(f"rlnas:trials={self._budget};" in t for t in job.log):
            time.sleep(0.05)

    def _end(self, job: Job, *, whole: bool) -> None:
        if not whole and job.status == "InProgress":
            _quietly(["sagemaker", "stop", job.name])
        self._service.wait(job.name, 900)
        if job.status == "Failed" or (whole and job.status != "Completed"):
            raise RuntimeError(f"{job.name}: {job.status}, {job.failure}: {job.log[-20:]}")

    def _cut(self, name: str, table: tuple[str, ...], how: str, moment: Moment) -> int:
        """Launch a job and cut it off; the trials that it has left in S3."""
        job, begun, (at, unit) = self._launched(name, *table), time.monotonic(), moment
        while job.status == "InProgress":
            share = time.monotonic() - begun if unit == "seconds" else self._n_scored() / self._budget
            if share >= at:
                break
            time.sleep(0.01)
        if job.status == "InProgress" and how == "stop":
            _quietly(["sagemaker", "stop", job.name])
        elif job.status == "InProgress":
            self._service.vanish(job.name)
        self._service.wait(job.name, 900)
        return len(self._fetched(job, self._root / f"{job.name}-kept"))

    def _tuned(self, count: int, table: tuple[str, ...]) -> dict[str, Any]:
        """Run a tuning job to its end; whether its values and its best job are those of the histories."""
        begun = time.monotonic()
        tried = ("--range", "seed=0:1000", "--choice", "controller=evolution,random")
        own = (*tried, "--strategy", "Random", "--max-jobs", str(count), "--max-parallel", "2")
        if code := _quietly(self._arguments("tune", "tuned", own, ("--budget", "48", *table))):
            raise RuntimeError(f"rlnas sagemaker tune has ended with {code}")
        ((name, tuning),) = self._service.tuning_jobs.items()
        tuning.wait(900)
        runs = [self._fetched(one.job, self._root / one.job.name) for one in tuning.tries]
        best = [max((reward for *_, reward in run), default=-1.0) for run in runs]
        told = [one.job.metrics().get("rlnas:best_reward", -2.0) for one in tuning.tries]
        fetched = self._history(name, self._root / "best")
        return {
            "seconds": round(time.monotonic() - begun, 1),
            "status": tuning.status,
            "settings": [dict(one.settings) for one in tuning.tries],
            "values": told,
            "n_values_of_histories": sum(abs(a - b) < 1e-5 for a, b in zip(best, told, strict=True)),
            "n_histories": len({str(run) for run in runs}),
            "fetched_the_best": fetched == runs[best.index(max(best))],
        }

    def _n_scored(self) -> int:
        """Trials that the running job has committed."""
        run = self._service.base(0) / "run"
        try:
            with History.read(run) as history:
                return len(history.trials)
        except RLNASError:  # not there yet
            return 0

    def _fetched(self, job: Job, out: Path) -> list[tuple[Any, ...]]:
        """What a training job has scored, as it lies in S3."""
        return self._history(job.name, out)

    def _history(self, name: str, out: Path) -> list[tuple[Any, ...]]:
        if _quietly(["sagemaker", "fetch", name, "--out", str(out)]):
            return []
        if not (out / "history.sqlite").is_file():
            return []
        with History.read(out) as history:
            return [(trial.config, trial.metrics.accuracy, trial.reward) for trial in history.trials]


def _moment(rng: random.Random, seconds: float) -> Moment:
    """Of a cut: at any time from the launch on, or, more often, at a share of the trials."""
    if rng.random() < 0.3:
        return round(rng.uniform(0, seconds), 1), "seconds"
    return round(rng.random(), 3), "of the trials"


def _write_task(folder: Path) -> None:
    """Sentences of ten made-up words of 100, labelled by the half that most of them come from."""
    rng = random.Random(0)
    words = [a + b + c for a in "bdfgklmnprst" for b in "aeiou" for c in "ln"][:100]
    folder.mkdir()
    for name, count in (("train", 400), ("validation", 64)):
        lines = ["text,label"]
        for number in range(count):
            half = words[:50] if number % 2 else words[50:]
            text = rng.sample(half, 6) + rng.sample(words, 4)
            rng.shuffle(text)
            lines.append(f"{' '.join(text)},{'early' if number % 2 else 'late'}")
        (folder / f"{name}.csv").write_text("\n".join(lines) + "\n")


def _quietly(arguments: list[str]) -> int:
    """Exit code of a command whose output nobody needs."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        return rlnas(arguments)


if __name__ == "__main__":
    main()
