"""How well a latency table predicts whole subnets that it was not fitted to.

For every model, batch size, length and mode a table is calibrated, and further random subnets of
all depths are timed in the same interleaved rounds to judge it. Beside it stand two predictions
fitted to the same end-to-end timings: a count of attention and FFN blocks, and FLOPs. Noise is the
mean relative difference of two measurements of one subnet: every fifth is built and timed twice.
"""

from __future__ import annotations

import itertools
import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.random_checkpoint import SHAPES, write_checkpoint
from benchmarks.record import make_parser, record
from rlnas.calibration import Effort, calibrate
from rlnas.cli import minilm_path
from rlnas.data import load_task
from rlnas.latency import resolve_device
from rlnas.latency.regime import find_regime
from rlnas.report.plots import predicted_against_measured
from rlnas.space import LayerwiseSpace
from rlnas.supernet import Supernet
from rlnas.workload import DTYPES, MODES, STATISTICS, Workload

if TYPE_CHECKING:
    import argparse

    from rlnas.latency import HeldOutError, LatencyTable

# How good a table has to be, if noise lets it.
MAPE, P95, TAU = 0.03, 0.08, 0.9
QUICK = {"models": ["minilm"], "batch_sizes": [1], "seq_lens": [32], "held_out": 20, "seconds": 15.0}


def main() -> None:
    """Calibrate every case, print a row for each, write plots, and record the figures."""
    options = _options()
    cases = []
    with tempfile.TemporaryDirectory() as scratch:
        for model in options.models:
            supernet = _supernet(model, Path(scratch) / model)
            for batch_size, seq_len, mode in itertools.product(
                options.batch_sizes, options.seq_lens, options.modes
            ):
                workload = Workload(batch_size, seq_len, options.dtype, mode, options.statistic)
                cases.append(_case(model, supernet, workload, options))
                print(json.dumps(cases[-1]), flush=True)
    record("latency_model", options, {"cases": cases}, options.device)


def _options() -> argparse.Namespace:
    parser = make_parser(__doc__, "latency_model.jsonl")
    parser.add_argument("--models", nargs="+", choices=("minilm", *SHAPES), default=["minilm", "bert-base"])
    parser.add_argument("--batch-sizes", nargs="+", type=int, default=[1, 32])
    parser.add_argument("--seq-lens", nargs="+", type=int, default=[32, 128])
    parser.add_argument("--modes", nargs="+", choices=MODES, default=["eager"])
    parser.add_argument("--dtype", choices=DTYPES, default="float32")
    parser.add_argument("--statistic", choices=STATISTICS, default="median")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--held-out", type=int, default=60, help="subnets that judge each table")
    parser.add_argument("--rounds", type=int, default=40, help="samples of each timing")
    parser.add_argument("--seconds", type=float, default=240.0, help="stop a case's timing after this")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--plots", type=Path, help="folder of the plots; by default beside --out")
    options = parser.parse_args()
    if options.quick:
        vars(options).update(QUICK)
    options.device = resolve_device(options.device)
    return options


def _supernet(model: str, folder: Path) -> Supernet:
    """Latency does not depend on weights: MiniLM has its own, the others random ones."""
    if model != "minilm":
        write_checkpoint(model, folder)
    task = load_task("pydocs", max_train_items=200)  # for the number of labels
    return Supernet.from_pretrained(minilm_path() if model == "minilm" else str(folder), task)


def _case(
    model: str, supernet: Supernet, workload: Workload, options: argparse.Namespace
) -> dict[str, Any]:
    space = LayerwiseSpace.for_model(supernet.shape)
    effort = Effort(n_held_out=options.held_out, n_rounds=options.rounds, max_seconds=options.seconds)
    table = calibrate(supernet, space, workload, options.device, effort=effort, seed=options.seed)
    name = f"{model}-b{workload.batch_size}-l{workload.seq_len}-{workload.mode}"
    _plot(table, (options.plots or options.out.parent) / f"latency-model-{name}.svg")
    assert table.error is not None  # calibrate always states one
    return {
        "model": model,
        "batch_size": workload.batch_size,
        "seq_len": workload.seq_len,
        "mode": workload.mode,
        "dtype": workload.dtype,
        "statistic": workload.statistic,
        **figures_of(table.error),
        "full_ms": table([supernet.shape.full])[0],
        "correction": table.correction.form,
        "tail_ratio": table.tail_ratio,
        "n_rounds": table.block_timings[0].timing.n_rounds,
        "build_seconds": table.build_seconds,
        "measure_seconds": table.measure_seconds,
        "regime": str(find_regime(table)),
        "notes": list(table.notes),
    }


def figures_of(error: HeldOutError) -> dict[str, Any]:
    """An error and its controls, and which targets they meet."""
    table, noise, noise_p95 = error.table, error.noise or 0.0, error.noise_p95 or 0.0
    blocks, flops = error.controls["blocks"], error.controls["flops"]
    ceiling = error.tau_ceiling
    return {
        "mape": table.mape,
        "p95": table.p95,
        "tau": table.tau,
        "tau_within_depth": table.tau_within_depth,
        "tau_ceiling": ceiling,
        "depth_only_mape": blocks.mape,
        "flops_only_mape": flops.mape,
        "flops_only_tau_within_depth": flops.tau_within_depth,
        "noise": error.noise,
        "noise_p95": error.noise_p95,
        "n_held_out": error.n_held_out,
        "worse_than": error.worse_than,
        "meets": {
            "mape": table.mape <= max(MAPE, 1.5 * noise),
            "p95": table.p95 <= max(P95, 2 * noise_p95),
            "tau": _is_at_least(table.tau_within_depth, min(TAU, ceiling or TAU)),
            "controls": error.worse_than is None,
            # Where blocks alone are the truth there is nothing to be better at.
            "depth": 2 * table.mape <= blocks.mape or blocks.mape <= max(MAPE, 1.5 * noise),
        },
    }


def _is_at_least(tau: float | None, limit: float) -> bool | None:
    return None if tau is None else tau >= limit


def _plot(table: LatencyTable, path: Path) -> None:
    found = table.against_measured()
    svg = predicted_against_measured(
        [(predicted, measured) for _, predicted, measured in found],
        names=[str(config) for config, _, _ in found],
        as_file=True,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(svg, encoding="utf-8")


if __name__ == "__main__":
    main()
