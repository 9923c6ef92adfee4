"""The main job on real tasks: sentiment (sst2), sentence pairs (rte), regression (stsb).

Each task is a folder with train and validation (and test) files below --data. Short settings: this
shows that the path works and what it costs, not what the method can reach.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.record import make_parser, record
from rlnas import LatencyTarget, Workload
from rlnas.cli import minilm_path
from rlnas.controllers.ppo import PPOController
from rlnas.report import format_table
from rlnas.run import DataSource, Job, Schedule, run_job

if TYPE_CHECKING:
    import argparse

KEPT = ("loss_points", "loss_ci", "latency_ratio", "latency_ratio_ci", "target_met", "n_trials", "seconds")


def main() -> None:
    """Run the job on every task and record what came out."""
    parser = make_parser(__doc__, "main_job.jsonl")
    parser.add_argument("--data", type=Path, required=True, help="folder with one folder per task")
    parser.add_argument("--tasks", nargs="+", default=["sst2", "rte", "stsb"], help="which of them")
    parser.add_argument("--model", help="checkpoint; by default MiniLM")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--train-items", type=int, default=2000, help="training items of each task")
    parser.add_argument("--budget", type=int, default=100, help="subnets evaluated per task")
    parser.add_argument("--target-ratio", type=float, default=0.5, help="latency over the full model's")
    options = parser.parse_args()
    figures = {task: _run(task, options) for task in options.tasks}
    record("main_job", options, figures, options.device)


def _run(task: str, options: argparse.Namespace) -> dict[str, Any]:
    job = Job(
        model=options.model or minilm_path(),
        reward=LatencyTarget(ratio=options.target_ratio),
        controller=PPOController(),
        data=DataSource(
            source=str(options.data / task),
            max_train_items=64 if options.quick else options.train_items,
            search_items=64 if options.quick else 400,
        ),
        workload=Workload(batch_size=1, seq_len=64),
        device=options.device,
        schedule=Schedule(epochs=1, finish_epochs=0 if options.quick else 1),
        budget=16 if options.quick else options.budget,
    )
    folder = Path(tempfile.mkdtemp())
    try:
        summary = run_job(job, folder / "run", progress=False)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    print(format_table(summary), flush=True)
    return {"full": summary["full"], "best": summary["best"], **{key: summary[key] for key in KEPT}}


if __name__ == "__main__":
    main()
