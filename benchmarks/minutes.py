"""Minutes instead of hours: from a fine-tuned checkpoint to a certified model, beside training candidates.

The whole run on sst2 is timed by its own phases: everything after the fine-tuning of the full model counts,
calibration, shared training, search, last training and certificate included. The alternative trains every
candidate by itself: one is extracted from the fine-tuned checkpoint, trained for as many passes as the
chosen subnet got, and judged; its time is multiplied by the number of candidates.

With ``--training-free`` nothing is trained after the fine-tuning: the run starts from the fine-tuned
checkpoint, and the finalists are repaired by least squares.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from benchmarks.record import make_parser, record
from rlnas import LatencyTarget, LayerwiseSpace, Workload
from rlnas.cli import minilm_path
from rlnas.controllers.ppo import PPOController
from rlnas.data import load_task
from rlnas.run import DataSource, Job, Schedule, run_job
from rlnas.run.training import optimisation
from rlnas.supernet import FullTrainer, Supernet
from rlnas.supernet.importance import task_loss
from rlnas.supernet.inference import predict
from rlnas.supernet.optimisation import optimise

if TYPE_CHECKING:
    import argparse

    from rlnas.supernet.encoding import Batch

# The alternative would have these as well, or does not need them because its checkpoint is given.
NOT_COUNTED = ("data", "finetune", "baseline", "total")
N_CANDIDATES = 100


def main() -> None:
    """Run the job, train one candidate, and record both times."""
    parser = make_parser(__doc__, "minutes.jsonl")
    parser.add_argument("--data", type=Path, required=True, help="folder that holds the folder sst2")
    parser.add_argument("--model", help="checkpoint; by default MiniLM")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--train-items", type=int, default=4000, help="training items")
    parser.add_argument("--search-items", type=int, default=872, help="search items")
    parser.add_argument("--budget", type=int, default=100, help="subnets that the search may judge")
    parser.add_argument("--training-free", action="store_true", help="from a fine-tuned checkpoint on")
    options = parser.parse_args()
    if options.quick:
        options.train_items, options.search_items, options.budget = 64, 64, 16
    job = _job(options)
    folder = Path(tempfile.mkdtemp())
    try:
        if options.training_free:
            job = _from_fine_tuned(job, folder / "checkpoint")
        summary = run_job(job, folder / "run", progress=False)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    seconds = {name: value for name, value in summary["seconds"].items() if name not in NOT_COUNTED}
    total = sum(seconds.values())
    figures: dict[str, Any] = {
        "seconds": total,
        "phases": seconds,
        "n_trials": summary["n_trials"],
        "passes": job.schedule.epochs + job.schedule.finish_epochs,
        "loss_points": summary["loss_points"],
        "loss_ci": summary["loss_ci"],
        "n_items": summary["best"]["n_items"],
        "split": summary["best"]["split"],
        "latency_ratio": summary["latency_ratio"],
        "target_met": summary["target_met"],
    }
    print(f"{total / 60:.1f} minutes for {summary['n_trials']} candidates")
    if not options.training_free:
        one = _train_one(job, options)
        figures["seconds_one_candidate"] = one
        figures["seconds_all_candidates"] = N_CANDIDATES * one
        figures["times_faster"] = N_CANDIDATES * one / total
        print(f"training {N_CANDIDATES} would take {N_CANDIDATES * one / 3600:.1f} hours")
    record("minutes", options, figures, options.device)


def _from_fine_tuned(job: Job, checkpoint: Path) -> Job:
    """The same job without any training, from its full model after its fine-tuning, which is done here."""
    data = job.data
    task = load_task(
        data.source, max_train_items=data.max_train_items, search_items=data.search_items, seed=job.seed
    )
    supernet = Supernet.from_pretrained(
        job.model, task, max_seq_len=job.workload.seq_len, device=job.device, seed=job.seed
    )
    FullTrainer(optimisation(job, supernet, job.schedule.total_epochs)).train(
        supernet, task, progress=False
    )
    supernet.save(checkpoint)
    return replace(job, model=str(checkpoint), schedule=Schedule(full_epochs=0, epochs=0, finish_epochs=0))


def _job(options: argparse.Namespace) -> Job:
    return Job(
        model=options.model or minilm_path(),
        reward=LatencyTarget(ratio=0.5),
        controller=PPOController(),
        data=DataSource(
            source=str(options.data / "sst2"),
            max_train_items=options.train_items,
            search_items=options.search_items,
        ),
        workload=Workload(batch_size=1, seq_len=64),
        device=options.device,
        schedule=Schedule(full_epochs=1, epochs=2, finish_epochs=1),
        budget=options.budget,
    )


def _train_one(job: Job, options: argparse.Namespace) -> float:
    """Seconds to train and judge one candidate of half the sizes, on the threads that a run takes."""
    task = load_task(
        job.data.source, max_train_items=options.train_items, search_items=options.search_items
    )
    supernet = Supernet.from_pretrained(
        job.model, task, max_seq_len=job.workload.seq_len, device=options.device
    )
    space = LayerwiseSpace.for_model(supernet.shape)
    config = space.decode([n // 2 for n in space.nvec])
    if options.device == "cpu":
        torch.set_num_threads(max(1, torch.get_num_threads() // 2))
    start = time.perf_counter()
    subnet = supernet.extract(config)

    def backward(batch: Batch, _step: int) -> float:
        loss = task_loss(
            subnet(batch.input_ids, batch.attention_mask, batch.token_type_ids).logits, batch.labels
        )
        loss.backward()  # type: ignore[no-untyped-call]
        return loss.item()

    settings = optimisation(job, supernet, job.schedule.epochs + job.schedule.finish_epochs)
    optimise(subnet, supernet.encode(task.train), settings, backward, label="candidate", progress=False)
    answers = predict(subnet, supernet.encode(task.search))
    seconds = time.perf_counter() - start
    print(f"one candidate: accuracy {np.mean(answers == task.search.labels):.3f} in {seconds:.0f} s")
    return seconds


if __name__ == "__main__":
    main()
