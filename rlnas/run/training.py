"""The trainings of a run: the shared weights, and the chosen subnet at the end."""

from __future__ import annotations

import hashlib
import shutil
from contextlib import nullcontext
from typing import TYPE_CHECKING

from rlnas.errors import CheckpointError
from rlnas.run.folder import write_folder
from rlnas.run.transfer import transferred
from rlnas.supernet import FullTrainer, SandwichTrainer, SubnetFinisher, SubnetRepairer, Supernet
from rlnas.supernet.optimisation import Optimisation
from rlnas.supernet.training import prepare

if TYPE_CHECKING:
    from pathlib import Path

    from rlnas.run.folder import RunFolder
    from rlnas.run.job import Job
    from rlnas.space import LayerwiseSpace, SubnetConfig
    from rlnas.supernet.modeling_subnet import SubnetModel
    from rlnas.supernet.ranks import Ranks
    from rlnas.task import Task

IMPORTANCE_ITEMS = 256


def load_supernet(job: Job, task: Task) -> Supernet:
    """The job's checkpoint as a supernet, untrained."""
    return Supernet.from_pretrained(
        job.model,
        task,
        pooling=job.pooling,
        max_seq_len=job.workload.seq_len,
        device=job.device,
        seed=job.seed,
        trust_remote_code=job.trust_remote_code,
    )


def furthest_supernet(job: Job, task: Task, folder: RunFolder) -> Supernet:
    """The furthest trained state that lies in the folder, else the checkpoint or the job's earlier run.

    Raises:
        CheckpointError: If it cannot be read, or is not fine-tuned and no training is asked for.
        DataError: If the earlier run has seen the items that judge this one.
    """
    for path in (folder.supernet, folder.finetuned):
        if path.is_dir():
            with folder.damage_of(path, "train them again"):
                return Supernet.load(path, device=job.device)
    supernet = load_supernet(job, task)
    if job.from_run is not None:
        supernet = transferred(job.from_run, supernet, task, seed=job.seed)
    if not supernet.fine_tuned and job.schedule.full_epochs == 0:
        raise CheckpointError(
            f"the checkpoint {str(job.model)!r} has no trained classifier for this task, so nothing tells "
            "its better parts from its worse ones; train it first (--full-epochs 1), or give a checkpoint "
            "that is fine-tuned on the task"
        )
    return supernet


def train_supernet(
    job: Job,
    supernet: Supernet,
    space: LayerwiseSpace,
    task: Task,
    folder: RunFolder,
    *,
    progress: bool,
    ranks: Ranks | None = None,
) -> None:
    """Fine-tune if need be, order by importance, share the weights among a space; each stage is kept.

    On several ranks the first one writes what is kept.

    Raises:
        TrainingError: If the loss is not a finite number.
    """
    if folder.supernet.is_dir():
        return
    schedule, writes = job.schedule, ranks is None or ranks.is_first
    phase = folder.phase if writes else nullcontext
    if not supernet.fine_tuned and schedule.full_epochs:
        with phase("finetune"):
            trainer = FullTrainer(optimisation(job, supernet, schedule.full_epochs))
            trainer.train(supernet, task, checkpoint=folder.full_checkpoint, progress=progress, ranks=ranks)
        if writes:
            write_folder(folder.finetuned, supernet.save)  # after the phase is on record, see `item_passes`
    with phase("importance"):
        prepare(supernet, task.train, IMPORTANCE_ITEMS, job.seed)
    if schedule.epochs:
        with phase("share"):
            sandwich = SandwichTrainer(
                epochs=schedule.epochs,
                space=space,
                optimisation=optimisation(job, supernet, schedule.epochs),
            )
            sandwich.share(
                supernet,
                task.train,
                checkpoint=folder.shared_checkpoint,
                progress=progress,
                ranks=ranks,
            )
    if writes:
        write_folder(folder.supernet, supernet.save)
        shutil.rmtree(folder.finetuned, ignore_errors=True)


def finish_subnet(
    job: Job, supernet: Supernet, config: SubnetConfig, task: Task, folder: RunFolder, *, progress: bool
) -> SubnetModel:
    """The chosen subnet as a stand-alone model, after its last training or its repair."""
    if job.schedule.repairs:
        return repaired_subnet(job, supernet, config, task)
    subnet = supernet.extract(config)
    if job.schedule.finish_epochs:
        finisher = SubnetFinisher(optimisation(job, supernet, job.schedule.finish_epochs))
        checkpoint = _finish_checkpoint(folder, config)
        finisher.finish(subnet, supernet, task.train, checkpoint=checkpoint, progress=progress)
    return subnet


def repaired_subnet(job: Job, supernet: Supernet, config: SubnetConfig, task: Task) -> SubnetModel:
    """A subnet as a stand-alone model, fitted to the full model on training texts."""
    subnet = supernet.extract(config)
    SubnetRepairer(job.schedule.repair_items, seed=job.seed).repair(subnet, supernet, task.train)
    return subnet


def _finish_checkpoint(folder: RunFolder, config: SubnetConfig) -> Path:
    """Of this subnet: a killed run measures again, and may then choose another one."""
    digest = hashlib.sha256(config.to_json().encode()).hexdigest()[:12]
    chosen = folder.checkpoints / f"finish-{digest}.pt"
    for path in folder.checkpoints.glob("finish-*.pt"):
        if path != chosen:
            path.unlink()
    return chosen


def usual_learning_rate(hidden_size: int) -> float:
    """5e-5 for a hidden size of 768 (BERT-base) and 2e-4 for 384 (MiniLM): wide models diverge sooner."""
    return min(5e-4, 5e-5 * (768 / hidden_size) ** 2)


def optimisation(job: Job, supernet: Supernet, epochs: int) -> Optimisation:
    """The job's settings of the optimiser, for a number of passes."""
    rate = job.schedule.learning_rate
    return Optimisation(
        epochs=epochs,
        batch_size=job.schedule.batch_size,
        micro_batches=job.schedule.micro_batches,
        learning_rate=usual_learning_rate(supernet.shape.hidden_size) if rate is None else rate,
        freeze_embeddings=job.schedule.freeze_embeddings,
        seed=job.seed,
    )
