"""``rlnas sagemaker``: searches as SageMaker training jobs."""

from __future__ import annotations

import argparse
import os
import signal
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from rlnas.cli.command import Help, add_command
from rlnas.cli.search import add_search_flags
from rlnas.errors import RequestError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rlnas.cli.command import Commands
    from rlnas.sagemaker.hyperparameters import Flags
    from rlnas.sagemaker.launching import Prepared, Wishes
    from rlnas.sagemaker.storage import Place
    from rlnas.sagemaker.tuning import Tuning


_ABOUT_JOBS = (
    "Jobs are named as they were when launched. For a log and a run, a tuning job stands for its best "
    "training job so far."
)


def add_sagemaker(commands: Commands) -> None:
    """Add the command and its own commands."""
    parser = commands.add_parser(
        "sagemaker",
        help="run searches as SageMaker training jobs",
        description="Run searches as SageMaker training jobs (pip install 'rlnas[sagemaker]'). Credentials "
        "and the region come from where AWS's own tools take them.",
        formatter_class=Help,
        allow_abbrev=False,
    )
    own = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    _add_launch(own)
    _add_tune(own)
    for name, run, summary in (
        ("status", run_status, "how a job is"),
        ("logs", run_logs, "what a job has written"),
        ("stop", run_stop, "end a job, which saves what it has"),
        ("fetch", run_fetch, "bring the run folder of a job here"),
    ):
        command = add_command(own, name, run, summary, _ABOUT_JOBS)
        command.add_argument("job", metavar="JOB", help="name of the job")
        _add_region(command)
        if name == "fetch":
            command.add_argument(
                "--out", type=Path, metavar="DIR", help="folder to make; by default runs/JOB"
            )
    add_command(
        own,
        "train",
        run_train,
        "what the training container runs",
        "Reads what SageMaker has put below /opt/ml (SAGEMAKER_BASE_DIR names another folder), searches or "
        "goes on with the checkpoints there, and leaves the model where SageMaker takes it from.",
    )


def _add_launch(commands: Commands) -> None:
    parser = add_command(
        commands,
        "launch",
        run_launch,
        "search in a training job",
        "Packs the code, uploads it with the data and whatever else of this machine the search names, and "
        "creates the job. What follows -- are the flags of `rlnas search`; they become hyper-parameters. "
        "Everything is checked before anything is sent.",
    )
    _add_job_flags(parser)
    parser.add_argument(
        "--resume", action="store_true", help="go on with the checkpoints of the run of this name"
    )


def _add_tune(commands: Commands) -> None:
    from rlnas.sagemaker.tuning import STRATEGIES, TUNABLE

    parser = add_command(
        commands,
        "tune",
        run_tune,
        "search in many training jobs, with other settings in each",
        "Creates a tuning job over the same image. What follows -- are the flags that all of its searches "
        "have; --range and --choice name those that differ.",
    )
    _add_job_flags(parser)
    group = parser.add_argument_group("tuning")
    group.add_argument(
        "--range",
        action="append",
        default=[],
        metavar="NAME=LOW:HIGH",
        help="numbers to try for a flag, such as learning-rate=1e-5:1e-3:log; may be repeated",
    )
    group.add_argument(
        "--choice",
        action="append",
        default=[],
        metavar="NAME=A,B",
        help="values to try for a flag, such as controller=auto,evolution; may be repeated",
    )
    names = [metric.name.partition(":")[2] for metric in TUNABLE]
    group.add_argument(
        "--objective",
        choices=names,
        default=names[0],
        help="what is made as large as can be, on the search split: the final one chooses nothing",
    )
    group.add_argument("--strategy", choices=STRATEGIES, default="Bayesian", help="how settings are found")
    group.add_argument("--max-jobs", type=int, default=10, metavar="N", help="training jobs in all")
    group.add_argument("--max-parallel", type=int, default=1, metavar="N", help="training jobs at a time")


def _add_job_flags(parser: argparse.ArgumentParser) -> None:
    parser.usage = f"{parser.prog} [flags] -- [flags of rlnas search]"
    parser.add_argument("search", nargs="*", metavar="...", help="after --: flags of `rlnas search`")
    where = parser.add_argument_group("where")
    where.add_argument("--name", required=True, help="of the run; the time is added for the job's name")
    where.add_argument("--bucket", required=True, help="S3 bucket for code, data, checkpoints and results")
    where.add_argument("--prefix", default="rlnas", help="key prefix in the bucket")
    where.add_argument("--role", required=True, metavar="ARN", help="role that the job has")
    where.add_argument("--image", required=True, metavar="URI", help="container image, see the Dockerfile")
    _add_region(where)
    where.add_argument(
        "--tag", action="append", default=[], metavar="KEY=VALUE", help="tag of the job; may be repeated"
    )
    what = parser.add_argument_group("what goes along")
    what.add_argument(
        "--code",
        choices=("local", "image"),
        default="local",
        help="run the rlnas that is installed here, or the one in the image",
    )
    what.add_argument(
        "--module",
        type=Path,
        action="append",
        default=[],
        metavar="FILE",
        help="Python file or package that goes along, for a --reward of one's own; may be repeated",
    )
    what.add_argument(
        "--channel",
        action="append",
        default=[],
        metavar="NAME=S3URI",
        help="folder in S3 that the search finds as channel:NAME, e.g. --task channel:NAME/train.csv; may "
        "be repeated",
    )
    _add_machine_flags(parser.add_argument_group("machines"))


def _add_machine_flags(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--instance-type", required=True, metavar="TYPE", help="such as ml.g5.xlarge")
    group.add_argument(
        "--instance-count",
        type=int,
        default=1,
        metavar="N",
        help="instances, which share the work",
    )
    group.add_argument("--volume-gb", type=int, default=30, metavar="N", help="disk of each instance")
    group.add_argument(
        "--max-run", type=int, default=86400, metavar="SECONDS", help="time after which the job is stopped"
    )
    group.add_argument(
        "--spot",
        action="store_true",
        help="use spare instances, which cost less and may be taken away; the job goes on with another",
    )
    group.add_argument(
        "--max-wait",
        type=int,
        metavar="SECONDS",
        help="with --spot: time after which the job is stopped, waiting included; by default twice the "
        "time of --max-run",
    )
    group.add_argument("--subnet", action="append", default=[], metavar="ID", help="of a VPC; repeatable")
    group.add_argument(
        "--security-group", action="append", default=[], metavar="ID", help="of a VPC; repeatable"
    )
    group.add_argument(
        "--isolated",
        action="store_true",
        help="cut the containers off from all networks; model and data then have to go along",
    )


def _add_region(parser: argparse.ArgumentParser | argparse._ArgumentGroup) -> None:
    parser.add_argument("--region", help="AWS region; by default the one that is configured")


def run_launch(options: argparse.Namespace) -> None:
    """Create a training job and say how to follow it."""
    created = _launch(options, None)
    print(f"job: {created.name}")
    print(f"checkpoints: {created.checkpoints.uri}")
    print(f"next: rlnas sagemaker status {created.name}; at any time rlnas sagemaker fetch {created.name}")


def run_tune(options: argparse.Namespace) -> None:
    """Create a tuning job and say how to follow it."""
    created = _launch(options, _tuning_of(options))
    print(f"tuning job: {created.name}")
    print(f"checkpoints: {created.checkpoints.uri}")
    print(
        f"next: rlnas sagemaker status {created.name}; once a training job has been completed, rlnas "
        f"sagemaker fetch {created.name} brings the best one"
    )


def run_status(options: argparse.Namespace) -> None:
    """Print how a job is."""
    from rlnas.sagemaker.jobs import status_lines
    from rlnas.sagemaker.service import connect

    print(*status_lines(connect("sagemaker", options.region), options.job), sep="\n")


def run_logs(options: argparse.Namespace) -> None:
    """Print what a job has written."""
    from rlnas.sagemaker.jobs import log_lines
    from rlnas.sagemaker.service import connect

    region = options.region
    for line in log_lines(connect("sagemaker", region), connect("logs", region), options.job):
        print(line)


def run_stop(options: argparse.Namespace) -> None:
    """End a job."""
    from rlnas.sagemaker.jobs import stop
    from rlnas.sagemaker.service import connect

    stop(connect("sagemaker", options.region), options.job)
    print(f"{options.job} was asked to end; what it has scored stays in its checkpoints")


def run_fetch(options: argparse.Namespace) -> None:
    """Bring a run here."""
    from rlnas.sagemaker.jobs import fetch
    from rlnas.sagemaker.service import connect

    out = Path("runs", options.job) if options.out is None else options.out
    region = options.region
    print(f"{out}: {fetch(connect('sagemaker', region), connect('s3', region), options.job, out)}")


def run_train(_options: argparse.Namespace) -> int:
    """Search in a training container, with the code that the job brings along."""
    # The kernel drops what a container's first process has no handler for: SIGTERM waits until it has one.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    from rlnas.errors import RLNASError
    from rlnas.sagemaker.contract import base_of, write_failure
    from rlnas.sagemaker.starting import command_with_code
    from rlnas.sagemaker.training import train

    try:
        instead = command_with_code(os.environ)
    except RLNASError as error:
        write_failure(base_of(os.environ), str(error))
        raise
    if instead is not None:
        command, variables = instead
        os.execve(command[0], list(command), variables)
    return train(search_flags(), os.environ)


def search_flags() -> Flags:
    """The flags of ``rlnas search``, which are the hyper-parameters of a job."""
    from rlnas.sagemaker.hyperparameters import Flags

    named = {option: action for action in _search_parser()._actions for option in action.option_strings}
    switches = {name for name, action in named.items() if action.nargs == 0}
    whole = {name for name, action in named.items() if action.type is int}
    return Flags(
        valued=frozenset(name.removeprefix("--") for name in named.keys() - switches),
        switches=frozenset(name.removeprefix("--") for name in switches),
        whole=frozenset(name.removeprefix("--") for name in whole),
    )


def _search_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="rlnas search", add_help=False, allow_abbrev=False)
    add_search_flags(parser)
    return parser


def _launch(options: argparse.Namespace, tuning: Tuning | None) -> Prepared:
    """Check everything, and only then look for AWS."""
    from rlnas.sagemaker.launching import prepare, submit
    from rlnas.sagemaker.service import connect

    wishes = _wishes_of(options)
    with tempfile.TemporaryDirectory() as folder:
        prepared = prepare(wishes, Path(folder), datetime.now(UTC), tuning)
        submit(prepared, connect("sagemaker", options.region), connect("s3", options.region))
    return prepared


def _wishes_of(options: argparse.Namespace) -> Wishes:
    from rlnas.sagemaker.hyperparameters import to_hyperparameters
    from rlnas.sagemaker.launching import Wishes
    from rlnas.sagemaker.requests import Machines
    from rlnas.sagemaker.storage import Place

    hyperparameters = to_hyperparameters(options.search, search_flags())
    _check_search(options.search, hyperparameters, options.instance_count)
    if options.max_wait is not None and not options.spot:
        raise RequestError(f"--max-wait={options.max_wait} is for --spot only; add it, or drop this one")
    max_wait = options.max_wait if options.max_wait is not None else 2 * options.max_run
    channels = _pairs("--channel", options.channel, "train=s3://bucket/path")
    return Wishes(
        name=options.name,
        place=Place(options.bucket, options.prefix),
        image=options.image,
        role=options.role,
        machines=Machines(
            instance_type=options.instance_type,
            count=options.instance_count,
            volume_gb=options.volume_gb,
            max_run_s=options.max_run,
            max_wait_s=max_wait if options.spot else None,
            subnets=tuple(options.subnet),
            security_groups=tuple(options.security_group),
            isolated=options.isolated,
        ),
        hyperparameters=hyperparameters,
        channels={name: _place(uri) for name, uri in channels.items()},
        modules=tuple(options.module),
        with_code=options.code == "local",
        tags=_pairs("--tag", options.tag, "team=search"),
        resume=getattr(options, "resume", False),
    )


def _check_search(arguments: Sequence[str], given: Mapping[str, str], n_hosts: int) -> None:
    """Refuse what the search would refuse, in its own words, on however many hosts."""
    from rlnas.cli.job import make_cluster, make_torchrun
    from rlnas.sagemaker.sharing import Machine, share

    _search_parser().parse_args(arguments)
    shared = share(given, max(1, n_hosts), Machine()).flags  # none are refused later
    search = _search_parser().parse_args([*arguments, *shared])
    make_cluster(search)
    make_torchrun(search.nproc, search.nnodes, search.rdzv_endpoint)


def _place(uri: str) -> Place:
    from rlnas.sagemaker.storage import Place

    return Place.parse(uri)


def _pairs(flag: str, texts: Sequence[str], example: str) -> dict[str, str]:
    pairs = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not (name and equals and value):
            raise RequestError(f"{flag} {text} must be NAME=VALUE, such as {example}")
        if name in pairs:
            raise RequestError(f"{flag} names {name} twice; drop one")
        pairs[name] = value
    return pairs


def _tuning_of(options: argparse.Namespace) -> Tuning:
    from rlnas.sagemaker.tuning import TUNABLE, Choice, Range, Tuning

    whole = search_flags().whole
    tuning = Tuning(
        ranges=tuple(Range.parse(text, whole) for text in options.range),
        choices=tuple(map(Choice.parse, options.choice)),
        objective=next(m for m in TUNABLE if m.name.endswith(f":{options.objective}")),
        strategy=options.strategy,
        max_jobs=options.max_jobs,
        max_parallel=options.max_parallel,
    )
    _check_tried(options.search, tuning, options.instance_count)
    return tuning


def _check_tried(search: Sequence[str], tuning: Tuning, n_hosts: int) -> None:
    """Refuse values that the search would refuse beside its other arguments and first values of others."""
    from rlnas.sagemaker.hyperparameters import to_hyperparameters

    flags = search_flags()
    tried = [(each.name, value) for each in tuning.ranges for value in (each.low, each.high)]
    tried += [(each.name, value) for each in tuning.choices for value in each.values]
    for name, _ in tried:
        if name in flags.switches:
            raise RequestError(f"{name} is a switch, which cannot be tried out; give it after -- or not")
    first = dict(reversed(tried))
    for name, value in tried:
        others = [f"--{other}={text}" for other, text in first.items() if other != name]
        arguments = [*search, f"--{name}={value}", *others]
        _check_search(arguments, to_hyperparameters(arguments, flags), n_hosts)
