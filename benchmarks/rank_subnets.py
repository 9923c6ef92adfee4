"""What trains shared weights better on several ranks: the same random subnets on all, or different ones?

For each seed MiniLM is fine-tuned on pydocs and its heads and units are ordered, once. From there weights
are shared both ways, with the same items, steps and passes through subnets. Random subnets, drawn as in
training, are judged on 400 search items; the figure is their mean accuracy, and the gain of different
subnets over the same ones, with an interval over seeds. Where ranks draw different subnets, each step waits
for the largest: how much longer that makes the work of a step is counted, not timed.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from scipy.stats import t

from benchmarks.ranks import Training, task_of, train
from benchmarks.record import make_parser, record
from rlnas import LayerwiseSpace
from rlnas.cli import minilm_path
from rlnas.evaluation import SupernetEvaluator
from rlnas.supernet import FullTrainer, Supernet
from rlnas.supernet.optimisation import Optimisation
from rlnas.supernet.training import narrowest_subnet, prepare, sample_by_size

if TYPE_CHECKING:
    import argparse

WAYS = ("same", "different")


def main() -> None:
    """Train both ways from each start, judge, and record."""
    parser = make_parser(__doc__, "rank_subnets.jsonl")
    parser.add_argument("--nproc", type=int, default=2, help="ranks")
    parser.add_argument("--train-items", type=int, default=600, help="training items")
    parser.add_argument("--epochs", type=int, default=2, help="passes with shared weights")
    parser.add_argument("--full-epochs", type=int, default=2, help="passes of the full model before")
    parser.add_argument("--subnets", type=int, default=48, help="random subnets that are judged")
    parser.add_argument("--max-seq-len", type=int, default=32, help="tokens that texts are cut to")
    parser.add_argument(
        "--seeds", type=int, nargs="+", default=[0, 1, 2], help="of items, subnets, dropout"
    )
    options = parser.parse_args()
    if options.quick:
        options.train_items, options.epochs, options.full_epochs = 48, 1, 1
        options.subnets, options.seeds, options.max_seq_len = 4, [0], 16
    torch.set_num_threads(1)
    root = Path(tempfile.mkdtemp())
    try:
        runs = [_run(options, seed, root / str(seed)) for seed in options.seeds]
    finally:
        shutil.rmtree(root, ignore_errors=True)
    figures: dict[str, Any] = {"runs": runs, "step_work": _step_work(options)}
    gains = [run["different"] - run["same"] for run in runs]
    figures["gain_points"] = 100 * float(np.mean(gains))
    if len(gains) > 1:
        half = t.ppf(0.975, len(gains) - 1) * np.std(gains, ddof=1) / np.sqrt(len(gains))
        figures["gain_ci"] = [figures["gain_points"] + 100 * sign * float(half) for sign in (-1, 1)]
    record("rank_subnets", options, figures)


def _run(options: argparse.Namespace, seed: int, folder: Path) -> dict[str, float]:
    """Mean accuracy of random subnets after sharing either way, and of the full model before."""
    task = task_of(options.train_items)
    supernet = Supernet.from_pretrained(minilm_path(), task, max_seq_len=options.max_seq_len, seed=seed)
    settings = Optimisation(epochs=options.full_epochs, learning_rate=2e-4, seed=seed)
    FullTrainer(settings).train(supernet, task, progress=False)
    prepare(supernet, task.train, 256, seed)
    supernet.save(folder / "start")
    rng, space = np.random.default_rng([seed, 1]), LayerwiseSpace.for_model(supernet.shape)
    configs = [sample_by_size(space, rng) for _ in range(options.subnets)]
    found: dict[str, float] = {"seed": seed}
    for way in WAYS:
        training = Training(
            supernet=str(folder / "start"),
            train_items=options.train_items,
            epochs=options.epochs,
            dropout=0.1,
            precision="auto",
            rank_subnets=way,
            seed=seed,
            trained=str(folder / way),
        )
        train(training, options.nproc, folder / f"{way}-ranks")
        shared = Supernet.load(folder / way)
        evaluator = SupernetEvaluator(shared, task, lambda members: [0.0] * len(members))
        found[way] = float(np.mean([metrics.accuracy for metrics in evaluator(configs)]))
        full = evaluator([shared.shape.full])
        found[f"{way}_full"] = full[0].accuracy
        print(f"seed {seed}, {way}: {found}", flush=True)
    return found


def _step_work(options: argparse.Namespace, n_steps: int = 2000) -> float:
    """Weights that the busiest rank passes through in a step, of different subnets over the same ones."""
    supernet = Supernet.from_pretrained(minilm_path(), None)
    space = LayerwiseSpace.for_model(supernet.shape)
    rng = np.random.default_rng(0)
    nothing = supernet.n_params(space.smallest())  # the embeddings and the head
    drawn = np.array(
        [
            [supernet.n_params(sample_by_size(space, rng)) - nothing for _ in range(options.nproc)]
            for _ in range(n_steps)
        ]
    )
    fixed = sum(supernet.n_params(c) - nothing for c in (space.largest(), narrowest_subnet(space)))
    return float((fixed + drawn.max(axis=1).mean()) / (fixed + drawn.mean()))


if __name__ == "__main__":
    main()
