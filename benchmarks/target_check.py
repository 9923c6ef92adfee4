"""Whether the subnets that searches choose keep to their latency when they are measured again.

Accuracy is arithmetic, latency is real: a table is calibrated once, and each search, with a seed, a
controller and a target of its own, chooses its winner as a run does: finalists are measured, the
choice is confirmed. Then full model and winner are timed from scratch in the same rounds; a target is
met if the ratio is at most 1.05 times it. In these rounds stands also the subnet of highest
predicted reward, which would have been taken had nothing been measured.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.random_checkpoint import SHAPES, write_checkpoint
from benchmarks.record import make_parser, record
from rlnas import LatencyTarget, LayerwiseSpace, Metrics, Workload, search
from rlnas.calibration import Effort, calibrate
from rlnas.cli import minilm_path
from rlnas.controllers.evolution import EvolutionController
from rlnas.controllers.ppo import PPOController
from rlnas.data import load_task
from rlnas.deploy.certificate import TARGET_TOLERANCE
from rlnas.latency import clock_for, compare_timings, measure, resolve_device, sample_ms, timing_conditions
from rlnas.run.choice import choose, finalists, measure_again, measure_trials, settle
from rlnas.supernet import Supernet
from rlnas.supernet.timing import TimedModel
from rlnas.tabular import additive_task
from rlnas.workload import DTYPES, MODES, STATISTICS

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from rlnas.history import Result
    from rlnas.latency import Comparison, LatencyTable
    from rlnas.protocols import Controller
    from rlnas.space import SubnetConfig
    from rlnas.trial import Trial

CONTROLLERS: dict[str, Controller] = {"evolution": EvolutionController(), "ppo": PPOController()}
QUICK = {"searches": 3, "budget": 64, "models": 8, "rounds": 12, "seconds": 2.0, "seq_len": 32}


def main() -> None:
    """Calibrate, search, choose, measure again, and record how many targets were met."""
    options = _options()
    workload = Workload(options.batch_size, options.seq_len, options.dtype, options.mode, options.statistic)
    supernet = _supernet(options.model)
    space = LayerwiseSpace.for_model(supernet.shape)
    effort = Effort(options.models, n_rounds=options.rounds, max_seconds=2 * options.seconds)
    table = calibrate(supernet, space, workload, options.device, effort=effort, seed=options.first_seed)
    print(table, flush=True)
    rows = []
    low, high = (float(target) for target in options.targets)
    for index, target in enumerate(np.linspace(low, high, options.searches).tolist()):
        controller = list(CONTROLLERS)[index % len(CONTROLLERS)]
        timed = TimedModel(supernet, workload, options.device)
        rows.append(_check(controller, target, options.first_seed + index, table, timed, options))
        print(_line(rows[-1]), flush=True)
    figures = {
        "n_searches": len(rows),
        "n_met": sum(row["met"] for row in rows),
        "n_met_without_measuring": sum(row["without_measuring"]["met"] for row in rows),
        "table_mape": None if table.error is None else table.error.mape,
        "searches": rows,
    }
    record("target_check", options, figures, options.device)


def _options() -> argparse.Namespace:
    parser = make_parser(__doc__, "target_check.jsonl")
    parser.add_argument("--model", choices=("minilm", *SHAPES), default="minilm")
    parser.add_argument("--searches", type=int, default=20)
    parser.add_argument(
        "--targets", nargs=2, type=float, default=(0.25, 0.8), help="first and last ratio aimed at"
    )
    parser.add_argument("--budget", type=int, default=300, help="trials of each search")
    parser.add_argument("--first-seed", type=int, default=0, help="seed of the first search")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batch-size", type=int, default=1)
    parser.add_argument("--seq-len", type=int, default=64)
    parser.add_argument("--dtype", choices=DTYPES, default="float32")
    parser.add_argument("--mode", choices=MODES, default="eager")
    parser.add_argument("--statistic", choices=STATISTICS, default="median")
    parser.add_argument("--models", type=int, default=16, help="subnets that correct the table")
    parser.add_argument("--rounds", type=int, default=30, help="samples of each timing of the table")
    parser.add_argument(
        "--seconds", type=float, default=20.0, help="bound on the rounds of finalists, and on those after"
    )
    options = parser.parse_args()
    if options.quick:
        vars(options).update(QUICK)
    options.device = resolve_device(options.device)
    return options


def _supernet(model: str) -> Supernet:
    """Latency does not depend on weights: nothing is trained."""
    if model == "minilm":
        # It has no classifier: a task says how many labels one is to have.
        return Supernet.from_pretrained(minilm_path(), load_task("pydocs", max_train_items=200))
    with tempfile.TemporaryDirectory() as folder:
        write_checkpoint(model, Path(folder))
        return Supernet.from_pretrained(folder, None)


def _check(
    controller: str,
    target: float,
    seed: int,
    table: LatencyTable,
    timed: TimedModel,
    options: argparse.Namespace,
) -> dict[str, Any]:
    """One search from its first trial to the last measurement of its winner."""
    space = LayerwiseSpace.for_model(table.shape)
    task = additive_task(space, seed=seed)

    def judge(configs: Sequence[SubnetConfig]) -> list[Metrics]:
        return [Metrics(metrics.accuracy) for metrics in task(configs)]

    result = search(
        space,
        judge,
        LatencyTarget(ratio=target),
        CONTROLLERS[controller],
        budget=options.budget,
        seed=seed,
        latency=table,
    )
    chosen_ratio, winner = _choose(result, target, timed, options)
    measured, unmeasured = _measure(timed, [winner.config, result.best.config], options)
    full_ms = float(table([table.shape.full])[0])
    return {
        "target": target,
        "controller": controller,
        "seed": seed,
        "predicted_ratio": winner.metrics.latency_ms / full_ms,
        "chosen_ratio": chosen_ratio,
        **_verdict(measured, target),
        "without_measuring": {
            "predicted_ratio": result.best.metrics.latency_ms / full_ms,
            **_verdict(unmeasured, target),
        },
    }


def _choose(
    result: Result, target: float, timed: TimedModel, options: argparse.Namespace
) -> tuple[float, Trial]:
    """The winner, and the ratio that the last look at it found: as in a run, see `rlnas.run`."""
    device = options.device
    looks: list[float] = []

    def look_again(trial: Trial) -> float:
        looks.append(measure_again(timed, trial.config, device))
        return looks[-1]

    measured = measure_trials(timed, finalists(result), device, max_seconds=options.seconds)
    settled = settle(measured, target, look_again) or choose(measured, target)
    return looks[-1], settled.trial


def _measure(
    timed: TimedModel, configs: Sequence[SubnetConfig], options: argparse.Namespace
) -> list[Comparison]:
    """Subnets, extracted anew, beside the full model."""
    with timing_conditions():
        first, *others = measure(
            [timed.model_calls(config) for config in [timed.shape.full, *configs]],
            clock_for(options.device),
            n_rounds=200,
            max_seconds=options.seconds,
            min_sample_ms=sample_ms(options.statistic),
            seed=options.first_seed + 1_000,
        )
    return [compare_timings(first, other, statistic=options.statistic) for other in others]


def _verdict(comparison: Comparison, target: float) -> dict[str, Any]:
    return {
        "remeasured_ratio": comparison.ratio,
        "ci": list(comparison.ratio_ci),
        "met": comparison.ratio <= TARGET_TOLERANCE * target,
    }


def _line(row: dict[str, Any]) -> str:
    low, high = row["ci"]
    alone = row["without_measuring"]
    return (
        f"{row['controller']:<9} target {row['target']:.3f}: predicted {row['predicted_ratio']:.3f}, "
        f"chosen at {row['chosen_ratio']:.3f}, again {row['remeasured_ratio']:.3f} [{low:.3f}, {high:.3f}] "
        f"{'met' if row['met'] else 'MISSED'}; without measuring {alone['remeasured_ratio']:.3f} "
        f"{'met' if alone['met'] else 'MISSED'}"
    )


if __name__ == "__main__":
    main()
