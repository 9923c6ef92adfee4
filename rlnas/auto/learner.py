"""The real training of trials: whole models, paused at each rung, judged on the search split."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from rlnas.auto.entrants import load
from rlnas.auto.record import Judgement
from rlnas.errors import TrainingError, first_line
from rlnas.run.folder import write_folder
from rlnas.run.training import optimisation
from rlnas.scores import score
from rlnas.supernet import FullTrainer
from rlnas.supernet.importance import task_loss
from rlnas.supernet.inference import logits_of, to_predictions

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from rlnas.auto.arms import Arm
    from rlnas.auto.candidates import Candidate
    from rlnas.run import Job
    from rlnas.supernet import Supernet
    from rlnas.task import Task


@dataclass(frozen=True, slots=True, eq=False)
class FullLearner:
    """Trains whole models up to the last rung by one schedule, each from where it was paused.

    Attributes:
        arms: By their names.
        task: The final split is not touched.
        job: Device, number of tokens and seed.
        rungs: Passes after which trials are judged, ascending.
        folder: Where paused trainings lie.
        progress: Whether to show bars.
    """

    arms: Mapping[str, Arm]
    task: Task
    job: Job
    rungs: tuple[int, ...]
    folder: Path
    progress: bool = True

    def judge(self, candidate: Candidate, rung: int) -> Judgement:
        """Train on to a rung, and judge on the search split.

        Raises:
            TrainingError: If the loss is not a finite number, or a GPU has too little memory.
            EvaluationError: If the answers are not finite.
        """
        return self.worth(self.train(candidate, rung))

    def train(self, candidate: Candidate, rung: int) -> Supernet:
        """The trial's model at a rung, from as far as its training has come.

        Raises:
            TrainingError: If the loss is not a finite number.
        """
        supernet = load(self.job, self.arms[candidate.arm], self.task)
        trainer = FullTrainer(optimisation(candidate.trains(self.job), supernet, self.rungs[-1]))
        try:
            trainer.train(
                supernet,
                self.task,
                checkpoint=self._paused(candidate),
                pause_after=self.rungs[rung],
                progress=self.progress,
            )
        except torch.OutOfMemoryError as error:
            raise TrainingError(f"the device has too little memory: {first_line(error)}") from error
        return supernet

    def worth(self, supernet: Supernet) -> Judgement:
        """What a model is worth on the search split.

        Raises:
            EvaluationError: If the answers are not finite.
        """
        search = supernet.encode(self.task.search)
        logits = logits_of(supernet.model, search, name="a model in training")
        loss = task_loss(logits, torch.from_numpy(search.labels))
        return Judgement(score(self.task.metric, search.labels, to_predictions(logits)), loss.item())

    def drop(self, candidate: Candidate) -> None:
        """Remove the paused training."""
        self._paused(candidate).unlink(missing_ok=True)

    def keep(self, candidate: Candidate, folder: Path) -> None:
        """Write the trial's model at the last rung into a folder."""
        write_folder(folder, self.train(candidate, len(self.rungs) - 1).save)

    def _paused(self, candidate: Candidate) -> Path:
        return self.folder / f"{candidate.number}.pt"
