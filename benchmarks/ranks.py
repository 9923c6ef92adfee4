"""Trainings of shared weights on several ranks: what benchmarks start, and what each rank does."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from rlnas.data import load_task
from rlnas.supernet import SandwichTrainer, Supernet
from rlnas.supernet.optimisation import Optimisation
from rlnas.supernet.ranks import joined

if TYPE_CHECKING:
    from rlnas.supernet.ranks import Ranks
    from rlnas.task import Task


@dataclass(frozen=True)
class Training:
    """One training of shared weights.

    Attributes:
        supernet: Folder of the supernet to start from.
        train_items: Training items of the task pydocs.
        epochs: Passes over them.
        batch_size: Items per step, on all ranks together.
        micro_batches: Parts of a rank's items.
        dropout: Share of what is dropped.
        precision: As of `Optimisation`.
        rank_subnets: As of `SandwichTrainer`.
        seed: Of items, subnets and dropout.
        device: Where it runs.
        checkpoint: File of its checkpoints, which are written after every step; None for none.
        trained: Folder for the supernet that comes out; None for none.
    """

    supernet: str
    train_items: int
    epochs: int
    batch_size: int = 32
    micro_batches: int = 1
    dropout: float = 0.0
    precision: str = "float32"
    rank_subnets: str = "same"
    seed: int = 0
    device: str = "cpu"
    checkpoint: str | None = None
    trained: str | None = None

    def run(self, ranks: Ranks | None = None) -> dict[str, Any]:
        """Train; the loss of every step that was done here, and the weights that came out."""
        supernet = Supernet.load(self.supernet, device=self.device if ranks is None else ranks.device)
        for module in supernet.model.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = self.dropout
            elif hasattr(module, "attention_dropout"):
                module.attention_dropout = self.dropout
        settings = Optimisation(
            batch_size=self.batch_size,
            micro_batches=self.micro_batches,
            learning_rate=2e-4,
            precision=self.precision,
            checkpoint_seconds=0.0,
            seed=self.seed,
        )
        trainer = SandwichTrainer(epochs=self.epochs, rank_subnets=self.rank_subnets, optimisation=settings)
        checkpoint = None if self.checkpoint is None else Path(self.checkpoint)
        split = task_of(self.train_items).train
        losses = trainer.share(supernet, split, checkpoint=checkpoint, progress=False, ranks=ranks)
        if self.trained is not None and (ranks is None or ranks.is_first):
            supernet.save(self.trained)
        return {"losses": losses, "weights": digest(supernet)}


def task_of(train_items: int) -> Task:
    """The task pydocs with so many training items, the same in every process."""
    return load_task("pydocs", max_train_items=train_items, search_items=400, seed=0)


def digest(supernet: Supernet) -> str:
    """Of all weights, bit for bit."""
    state = supernet.model.state_dict()
    return hashlib.sha256(
        b"".join(state[name].cpu().numpy().tobytes() for name in sorted(state))
    ).hexdigest()


def start(training: Training, nproc: int, folder: Path) -> subprocess.Popen[bytes]:
    """Start a training on so many ranks; `results` reads what they leave in the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "training.json").write_text(json.dumps(asdict(training)))
    line = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--log-dir", os.devnull]
    line += ["--nproc-per-node", str(nproc), "-m", "benchmarks.ranks", str(folder)]
    return subprocess.Popen(line, env={**os.environ, "OMP_NUM_THREADS": "1"}, start_new_session=True)


def train(training: Training, nproc: int, folder: Path) -> list[dict[str, Any]]:
    """Run a training on so many ranks; what each found.

    Raises:
        RuntimeError: If it fails.
    """
    code = start(training, nproc, folder).wait()
    if code:
        raise RuntimeError(f"torchrun has ended with exit code {code}: {training}")
    return [json.loads((folder / f"rank-{rank}.json").read_text()) for rank in range(nproc)]


def main(folder: Path) -> None:
    """What each rank does."""
    training = Training(**json.loads((folder / "training.json").read_text()))
    with joined(training.device) as ranks:
        found = training.run(ranks)
        (folder / f"rank-{ranks.rank}.json").write_text(json.dumps(found | {"pid": os.getpid()}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
