"""``rlnas search``: shrink a checkpoint for a task and a device."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from rlnas.cli.checkpoint import add_checkpoint_flags
from rlnas.cli.command import add_command
from rlnas.cli.few import add_few_flags
from rlnas.cli.job import CONTROLLERS, make_job
from rlnas.cli.report import show_result
from rlnas.cli.rewards import REWARDS
from rlnas.cli.task import add_task_flags
from rlnas.cli.workload import add_workload_flags
from rlnas.space import QUARTERS

if TYPE_CHECKING:
    import argparse

    from rlnas.cli.command import Commands


def add_search(commands: Commands) -> None:
    """Add the command."""
    parser = add_command(
        commands,
        "search",
        run_search,
        "shrink a checkpoint for a task and a device",
        "Loads the task, calibrates a latency table on the device, trains shared weights, lets the "
        "controller search, and writes a certified model, a summary and a report into the run folder.",
    )
    add_search_flags(parser)


def add_search_flags(parser: argparse.ArgumentParser) -> None:
    """All that a search is told."""
    add_checkpoint_flags(parser)
    add_task_flags(parser, "", "pydocs")
    add_few_flags(parser)
    add_workload_flags(parser)
    _add_goal(parser)
    _add_training(parser)
    parser.add_argument("--seed", type=int, default=0, help="seed of everything random")
    parser.add_argument("--out", type=Path, default=Path("runs/search"), help="run folder")
    parser.add_argument("--resume", action="store_true", help="go on with the run in --out")


def run_search(options: argparse.Namespace) -> None:
    """Run the job, or go on with it, and print its result."""
    from rlnas.run import run_job

    show_result(run_job(make_job(options), options.out, resume=options.resume), options.out)


def _add_goal(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("search")
    target = group.add_mutually_exclusive_group()
    target.add_argument("--target-ms", type=float, help="latency to reach, in milliseconds")
    target.add_argument(
        "--target-ratio",
        type=float,
        help="latency to reach, as a fraction of the full model's (default: 0.5)",
    )
    target.add_argument(
        "--target-ratios",
        metavar="R,R,...",
        help="several of these, e.g. 0.25,0.4,0.6: one search serves them all, and writes a certified "
        "model for each into models/",
    )
    group.add_argument(
        "--controller",
        choices=CONTROLLERS,
        default="auto",
        help="what proposes subnets. With a light model of the accuracy, trained as the search goes: a PPO "
        "policy (ppo), or the policy and evolution together (auto). Without: PPO "
        "(plain-ppo), importance under the latency table (knapsack), local search, evolution, Optuna's "
        "NSGA-II or TPE (pip install 'rlnas[optuna]'), or chance (random)",
    )
    group.add_argument(
        "--controls",
        metavar="NAME,...",
        help="let these controllers search as well, with the same budget, so that the report can say what "
        "the controller has added; may be added to a finished run with --resume (the report compares "
        "with those named last: name all of them)",
    )
    group.add_argument(
        "--warm-start",
        type=Path,
        metavar="RUN",
        help="with the controllers auto and ppo: an earlier run, perhaps on another task, whose trials and "
        "policy the search starts from",
    )
    group.add_argument(
        "--reward",
        default="latency-target",
        help=f"what a subnet is worth: {', '.join(REWARDS)}, or package.module:function, any function of "
        "rlnas.metrics.Metrics",
    )
    group.add_argument(
        "--reward-weight", type=float, help="weight of the latency in the reward, where it has one"
    )
    group.add_argument("--budget", type=int, default=200, help="subnets that may be evaluated")
    _add_racing(group)
    _add_workers(group)
    _add_space(group)
    group.add_argument(
        "--latency-table",
        metavar="FILE",
        help="use this table of `rlnas calibrate` instead of calibrating; with --precisions the folder "
        "latency/ of an earlier run",
    )
    group.add_argument(
        "--allow-foreign-table",
        action="store_true",
        help="take a latency table of another device or workload, and say so in the result",
    )


def _add_racing(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--racing",
        action="store_true",
        help="drop subnets that cannot win before they have seen all items, at 95 %% confidence; "
        "for the metric accuracy only",
    )
    group.add_argument(
        "--indifference",
        type=float,
        metavar="POINTS",
        help="with --racing: accuracy points that a subnet has to be better by to be worth seeing all "
        "items; by default 0",
    )


def _add_workers(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--ray",
        metavar="ADDRESS",
        help="let workers of a Ray cluster (rlnas[ray]) evaluate: local for one of this machine, auto for "
        "the one that this machine belongs to, or HOST:PORT of a head",
    )
    group.add_argument(
        "--workers",
        type=int,
        metavar="N",
        help="with --ray: how many, by default 2; 0 evaluates here, for --latency-resource alone",
    )
    group.add_argument(
        "--worker-cpus", type=int, metavar="N", help="with --ray: cores of each worker, by default 1"
    )
    group.add_argument(
        "--worker-gpus",
        type=float,
        metavar="N",
        help="with --ray: GPUs of each worker, on which it computes then; may be a fraction; by default 0",
    )
    group.add_argument(
        "--latency-resource",
        metavar="NAME",
        help="with --ray: time models on the node that was started with this resource, e.g. ray start "
        "--resources '{\"NAME\": 1}', so that the latency aimed at is that of another machine",
    )
    group.add_argument(
        "--latency-device",
        choices=("cpu", "cuda"),
        help="with --latency-resource: the device of that node, by default cpu",
    )


def _add_space(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--precisions",
        metavar="P,P,...",
        help="let the search choose the number format too, e.g. float32,bfloat16,int8: each is timed in "
        "the form in which it is served (int8 in ONNX Runtime, on a CPU, comes with rlnas[onnx]; "
        "int8_attention and int8_ffn for these blocks alone); targets refer to the full model in --dtype "
        "and --mode, and --dtype has to be one of them. By default --dtype alone",
    )
    group.add_argument(
        "--keep-last-layer", action="store_true", help="let the last layer shrink, but not go"
    )
    group.add_argument(
        "--parts",
        type=int,
        default=QUARTERS,
        metavar="N",
        help="offer heads and FFN units in so many equal parts of the full numbers (default: quarters); "
        "more, as 12, comes closer to a target and keeps more of the model, in a larger space",
    )
    group.add_argument(
        "--sizes-worth-having",
        action="store_true",
        help="instead of equal parts, offer the numbers of heads and the FFN widths that pay on the "
        "device; a size that costs as much as a larger one is left out",
    )


def _add_training(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("training")
    group.add_argument(
        "--epochs",
        type=int,
        default=2,
        help="passes over the training items with weights that all subnets share",
    )
    group.add_argument(
        "--full-epochs",
        type=int,
        default=1,
        help="passes of the full model before that; skipped if it is fine-tuned already",
    )
    group.add_argument(
        "--finish-epochs", type=int, default=1, help="passes of the chosen subnet at the end"
    )
    group.add_argument(
        "--repair-items",
        type=int,
        default=256,
        help="with --finish-epochs 0: training items on whose texts the finalists are fitted to the full "
        "model by least squares, which takes seconds; 0 for none",
    )
    group.add_argument("--train-batch-size", type=int, default=32, help="items per step")
    group.add_argument(
        "--micro-batches",
        type=int,
        default=1,
        metavar="N",
        help="take the items of a step in N parts, one after the other: less memory, the same step",
    )
    group.add_argument(
        "--learning-rate",
        type=float,
        help="peak learning rate; by default 5e-5 for BERT-base, 2e-4 for MiniLM",
    )
    group.add_argument("--freeze-embeddings", action="store_true", help="leave the embeddings as they are")
    group.add_argument(
        "--nproc",
        type=int,
        metavar="N",
        help="train the full model and the shared weights on N processes that torchrun starts: each takes "
        "its share of every step's items, on a GPU of its own if on any; by default in this process",
    )
    group.add_argument(
        "--nnodes",
        type=int,
        metavar="N",
        help="with --nproc: on so many nodes that see the run folder; prints what to start on the others",
    )
    group.add_argument(
        "--rdzv-endpoint",
        metavar="HOST:PORT",
        help="with --nnodes: where the nodes meet, a free port of this one",
    )
