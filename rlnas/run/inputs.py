"""What a search works on: data, latency table and trained supernet, made or found in the folder."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rlnas.calibration import probe_blocks
from rlnas.controllers.surrogate.warm_start import WarmStart
from rlnas.data import load_task, read_task, write_task
from rlnas.errors import DataError, InfeasibleTargetError, LatencyTableError
from rlnas.latency import LatencyTable, PrecisionTables, describe_device
from rlnas.latency.regime import find_regime
from rlnas.precision_space import PrecisionSpace
from rlnas.protocols import RelativeReward, TargetedReward
from rlnas.run.calibration import (
    calibrate_folder,
    calibrate_with_bar,
    check_sizes,
    table_sentence,
    warn_of,
)
from rlnas.run.elsewhere import elsewhere_before_training
from rlnas.run.folder import write_folder
from rlnas.run.precisions import precision_tables
from rlnas.run.training import furthest_supernet
from rlnas.runtime import check_mode
from rlnas.space import LayerwiseSpace
from rlnas.supernet.encoding import with_lengths_of
from rlnas.supernet.timing import TimedModel

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rlnas.latency import DeviceInfo
    from rlnas.latency.regime import Regime
    from rlnas.protocols import BlockKind, Reward
    from rlnas.run.folder import RunFolder
    from rlnas.run.job import Job
    from rlnas.space import ModelShape, SearchSpace
    from rlnas.supernet import Supernet
    from rlnas.task import Task
    from rlnas.workload import Workload

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, eq=False)
class Inputs:
    """What the search and the delivery work on.

    Attributes:
        task: The data.
        supernet: The checkpoint, or how far its training has come.
        space: The configs on offer.
        architectures: The same without a precision: what shares its weights.
        workload: What the device will be asked, with the task's lengths where the job asks for these.
        latency: Predicts their latencies.
        table: The latency table of the workload itself, which `latency` is or holds.
        regime: What makes a model fast here, or None if the table holds too little to say.
        reward: The job's, with the full model's latency filled in.
        target_ratio: The latency aimed at over the full model's, or None for rewards without one.
        folds: With folds of the task, a supernet for each, trained without its items; else empty.
        device: That on which models are timed, here or elsewhere.
        predicted_for: Workload and device of the latency table, if it is not that device's: then the target
            is theirs too. Else None.
    """

    task: Task
    supernet: Supernet
    space: LayerwiseSpace | PrecisionSpace
    architectures: LayerwiseSpace
    workload: Workload
    latency: LatencyTable | PrecisionTables
    table: LatencyTable
    regime: Regime | None
    reward: Reward
    target_ratio: float | None
    device: DeviceInfo
    predicted_for: str | None = None
    folds: tuple[Supernet, ...] = ()


def prepare_inputs(job: Job, folder: RunFolder, *, progress: bool) -> Inputs:
    """Load the data and the checkpoint, calibrate, check the target.

    Calibration comes before training because time does not depend on weights: a target that
    cannot be reached is refused before anything is trained.

    Raises:
        RLNASError: One of its kinds, for bad input.
    """
    if not job.is_timed_elsewhere:
        for own in (job.workload, *(job.workload.in_precision(name) for name in job.precisions)):
            check_mode(own.mode, job.device, own.dtype)
    with folder.phase("data"):
        task = task_of(job, folder)
        _check_metric(job, task)
    logger.info(
        "data: %s with %d training, %d search and %d final items (%s)",
        *(task.name, len(task.train), len(task.search), len(task.final), task.final.name),
    )
    for note in task.notes:  # e.g. that a test file has no labels and is not used
        logger.info("data: %s", note)
    supernet = furthest_supernet(job, task, folder)
    workload = job.workload
    if job.lengths_from_task:
        workload = with_lengths_of(workload, supernet.tokenizer, task.train)
    with folder.phase("calibrate"):
        latency, device = _latency_and_device(job, supernet, workload, folder, progress=progress)
    table = latency.reference_table if isinstance(latency, PrecisionTables) else latency
    logger.info("%s", table_sentence(table))
    regime = _regime(job, table)
    architectures = _space(job, supernet, regime)
    space: LayerwiseSpace | PrecisionSpace = architectures
    if isinstance(latency, PrecisionTables):
        space = PrecisionSpace(architectures, latency.by_speed)
    if table.error is not None:
        logger.info("latency: %s", table.error)
    warn_of(table)
    if isinstance(start := getattr(job.controller, "warm_start", None), WarmStart):
        start.members(space)  # too few are refused now, not after the training
    full_ms = full_latency(space, latency)
    reward = job.reward.resolve(full_ms) if isinstance(job.reward, RelativeReward) else job.reward
    target_ratio = _target_ratio(job, reward, space, latency)
    if not folder.data.is_dir():  # a job that was refused leaves no data that a better one would go on with
        with folder.phase("data"):
            write_folder(folder.data, lambda path: write_task(task, path))
    return Inputs(
        task=task,
        supernet=supernet,
        space=space,
        architectures=architectures,
        workload=workload,
        latency=latency,
        table=table,
        regime=regime,
        reward=reward,
        target_ratio=target_ratio,
        device=device,
        predicted_for=_origin_elsewhere(table, workload, device),
    )


def task_of(job: Job, folder: RunFolder) -> Task:
    """The data as they lie in the folder, else as the job names them.

    Raises:
        RunFolderError: If what lies there is damaged.
        DataError: If there is no such task, or its data do not suit.
    """
    if folder.data.is_dir():
        with folder.damage_of(folder.data, "read the task again"):
            return read_task(folder.data)
    data = job.data
    return load_task(
        data.source,
        text_column=data.text_column,
        pair_column=data.pair_column,
        label_column=data.label_column,
        metric=data.metric,
        search_items=data.search_items,
        max_train_items=data.max_train_items,
        shots=data.shots,
        folds=0 if job.racing is not None or job.precisions else data.folds,
        seed=job.seed,
    )


def _check_metric(job: Job, task: Task) -> None:
    """Refuse races that the evaluator would refuse after the training."""
    if job.racing is not None and task.metric != "accuracy":
        raise DataError(
            "racing compares subnets item by item, so it needs metric=accuracy, but the task "
            f"{task.name!r} has metric={task.metric}; run without --racing"
        )


def _regime(job: Job, latency: LatencyTable) -> Regime | None:
    """What the table says of the device; a table of few sizes says nothing, which may not matter."""
    try:
        regime = find_regime(latency)
    except LatencyTableError:
        if job.sizes_worth_having:
            raise
        return None
    logger.info("%s", regime)
    return regime


def space_of(
    shape: ModelShape, regime: Regime | None, *, parts: int, keep_last_layer: bool, sizes_worth_having: bool
) -> LayerwiseSpace:
    """The subnets on offer: those that are searched, and that share their weights in training.

    Args:
        shape: Sizes of the full model.
        regime: What makes a model fast on the device, or None where that is not known.
        parts: As in `rlnas.run.Job`.
        keep_last_layer: As in `rlnas.run.Job`.
        sizes_worth_having: As in `rlnas.run.Job`.
    """
    if regime is None or not sizes_worth_having:
        return LayerwiseSpace.for_model(shape, parts=parts, keep_last_layer=keep_last_layer)
    return regime.space(shape, keep_last_layer=keep_last_layer)


def _space(job: Job, supernet: Supernet, regime: Regime | None) -> LayerwiseSpace:
    space = space_of(
        supernet.shape,
        regime,
        parts=job.parts,
        keep_last_layer=job.keep_last_layer,
        sizes_worth_having=job.sizes_worth_having,
    )
    if regime is None or not job.sizes_worth_having:
        return space
    first = space.layers[0]
    logger.info("on offer: %s heads, %s FFN units", first.num_attention_heads, first.intermediate_size)
    return space


def _latency_and_device(
    job: Job, supernet: Supernet, workload: Workload, folder: RunFolder, *, progress: bool
) -> tuple[LatencyTable | PrecisionTables, DeviceInfo]:
    """What predicts latencies, and the device on which models are timed."""
    if job.is_timed_elsewhere:
        with elsewhere_before_training(job, supernet, workload) as there:
            device = there.call(describe_device, job.latency_device, mode=workload.mode)
            if job.precisions:
                return precision_tables(job, supernet, workload, folder, there=there), device

            def measured(space: LayerwiseSpace, extra: Sequence[tuple[BlockKind, int]]) -> LatencyTable:
                logger.info("calibrating on %s", device)
                return there.call(
                    calibrate_folder, there.supernet, space, workload, job.latency_device, extra, job.seed
                )

            return _latency(job, supernet, workload, device, folder, measured), device
    TimedModel(supernet, workload, job.device)  # which refuses texts that are too long for the checkpoint
    device = describe_device(job.device, mode=workload.mode)
    if job.precisions:
        tables = precision_tables(job, supernet, workload, folder, progress=progress)
        logger.info("%s", tables)
        return tables, device

    def measured_here(space: LayerwiseSpace, extra: Sequence[tuple[BlockKind, int]]) -> LatencyTable:
        return calibrate_with_bar(
            supernet, space, workload, job.device, extra_blocks=extra, seed=job.seed, progress=progress
        )

    return _latency(job, supernet, workload, device, folder, measured_here), device


def _latency(
    job: Job,
    supernet: Supernet,
    workload: Workload,
    device: DeviceInfo,
    folder: RunFolder,
    measured: Callable[[LayerwiseSpace, Sequence[tuple[BlockKind, int]]], LatencyTable],
) -> LatencyTable:
    """The table in the folder, the one that the job names, or a new one, in this order."""
    space = job.plain_space(supernet.shape)
    stored = folder.latency.is_file()
    given = folder.latency if stored else job.latency_table
    if given is not None:
        table = LatencyTable.load(
            Path(given),
            workload=workload,
            device=device,
            shape=supernet.shape,
            allow_mismatch=job.allow_foreign_table,
        )
        if not job.sizes_worth_having:  # which are those of the table
            check_sizes(table, space, given)
    else:
        table = measured(space, probe_blocks(supernet.shape) if job.sizes_worth_having else ())
    if not stored:
        table.save(folder.latency)
    return table


def _origin_elsewhere(table: LatencyTable, workload: Workload, device: DeviceInfo) -> str | None:
    """What a table was made for, if that cannot be measured here; other versions can."""
    origin = table.device
    if (origin.kind, origin.name) == (device.kind, device.name) and table.workload == workload:
        return None
    return f"{table.workload} on {origin.kind} {origin.name}"


def full_latency(space: SearchSpace, latency: LatencyTable | PrecisionTables) -> float:
    """Predicted latency of the full model, in milliseconds; of several precisions in the reference."""
    if isinstance(latency, PrecisionTables):
        return latency.reference_ms
    return float(latency([space.largest()])[0])


def check_reachable(target_ms: float, space: SearchSpace, latency: LatencyTable | PrecisionTables) -> None:
    """Refuse a target that no subnet can meet.

    Raises:
        InfeasibleTargetError: If the smallest subnet is slower.
    """
    smallest_ms, full_ms = float(latency([space.smallest()])[0]), full_latency(space, latency)
    if smallest_ms > target_ms:
        raise InfeasibleTargetError(
            f"the target of {target_ms:.4g} ms ({target_ms / full_ms:.3g} of the full model) "
            f"cannot be reached: the smallest subnet takes {smallest_ms:.4g} ms, "
            f"{smallest_ms / full_ms:.3g} of the full model's {full_ms:.4g} ms; ask for more than that"
        )


def _target_ratio(
    job: Job, reward: Reward, space: SearchSpace, latency: LatencyTable | PrecisionTables
) -> float | None:
    """The target over the full model's latency, or None; refuses what cannot be reached."""
    full_ms = full_latency(space, latency)
    for ratio in job.target_ratios:
        check_reachable(ratio * full_ms, space, latency)
    if not isinstance(reward, TargetedReward):
        return None
    check_reachable(reward.target_ms, space, latency)
    if reward.target_ms > full_ms:
        logger.warning(
            "the target of %.4g ms is above the full model's %.4g ms, so nothing has to shrink",
            *(reward.target_ms, full_ms),
        )
    return reward.target_ms / full_ms
