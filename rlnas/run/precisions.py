"""A run whose search chooses the precision too: its latency tables, and what int8 was good for."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import numpy as np

from rlnas.calibration import calibrate_precisions, probe_blocks
from rlnas.latency import PrecisionTables, describe_device
from rlnas.latency.precisions import BINDING_FILE
from rlnas.pareto import is_pareto_optimal
from rlnas.precision import INT8_BLOCKS
from rlnas.run.calibration import calibrate_precisions_folder, calibrate_with_bar, check_sizes
from rlnas.scores import difference_interval

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rlnas.latency import DeviceInfo, LatencyTable
    from rlnas.protocols import BlockKind
    from rlnas.run.elsewhere import Elsewhere
    from rlnas.run.folder import RunFolder
    from rlnas.run.job import Job
    from rlnas.supernet import Supernet
    from rlnas.trial import Trial
    from rlnas.workload import Workload

logger = logging.getLogger(__name__)


def precision_tables(
    job: Job,
    supernet: Supernet,
    workload: Workload,
    folder: RunFolder,
    *,
    there: Elsewhere | None = None,
    progress: bool = False,
) -> PrecisionTables:
    """The tables in the folder, those that the job names, or new ones, in this order.

    That of the workload itself is kept as the run's latency table too.

    Args:
        job: With precisions.
        supernet: What is timed.
        workload: What is asked of the full model.
        folder: The run.
        there: Where it is timed, with the same supernet; None for this machine.
        progress: Whether to show bars, on this machine.

    Raises:
        LatencyTableError: If those that are there are damaged, for something else, or lack a precision.
    """
    is_stored = (folder.precisions / BINDING_FILE).is_file()  # written last
    given = folder.precisions if is_stored else job.latency_table
    space = job.plain_space(supernet.shape)

    def describe(*, mode: str) -> DeviceInfo:
        if there is None:
            return describe_device(job.latency_device, mode=mode)
        return there.call(describe_device, job.latency_device, mode=mode)

    if given is not None:
        tables = PrecisionTables.load(
            given,
            workload=workload,
            device=describe,
            shape=supernet.shape,
            allow_mismatch=job.allow_foreign_table,
        ).only(job.precisions)
        if not job.sizes_worth_having:
            for table in tables.tables.values():
                check_sizes(table, space, given)
    else:
        extra = probe_blocks(supernet.shape) if job.sizes_worth_having else ()
        if there is None:
            tables = _calibrated(job, supernet, workload, extra, progress=progress)
        else:
            logger.info("calibrating in %s elsewhere", ", ".join(job.precisions))
            how = (space, workload, job.precisions, job.latency_device, extra, job.seed)
            tables = there.call(calibrate_precisions_folder, there.supernet, *how)
    if not is_stored:
        tables.save(folder.precisions)
    if not folder.latency.is_file():
        tables.reference_table.save(folder.latency)
    return tables


def _calibrated(
    job: Job,
    supernet: Supernet,
    workload: Workload,
    extra_blocks: Sequence[tuple[BlockKind, int]],
    *,
    progress: bool,
) -> PrecisionTables:
    space = job.plain_space(supernet.shape)

    def measured(own: Workload) -> LatencyTable:
        logger.info("calibrating %s", own)
        return calibrate_with_bar(
            supernet, space, own, job.device, extra_blocks=extra_blocks, seed=job.seed, progress=progress
        )

    return calibrate_precisions(supernet, space, workload, job.precisions, job.device, measured=measured)


def describe_precisions(tables: PrecisionTables, trials: Sequence[Trial]) -> dict[str, Any]:
    """What ``summary.json`` says of the precisions."""
    return {
        "reference": tables.reference,
        "full_ratios": {name: tables.full_ratios[name] for name in tables.by_speed},
        "n_trials": {name: sum(t.config.precision == name for t in trials) for name in tables.by_speed},
        "table_mape": {
            name: None if (error := tables.tables[name].error) is None else error.table.mape
            for name in tables.by_speed
        },
        "sentence": int8_sentence(trials),
    }


def int8_sentence(trials: Sequence[Trial]) -> str | None:
    """Where a larger net in int8 beats a smaller one in floats, by the trials of a search; one sentence.

    Beaten means: not faster and less accurate. Of the best float trials (those that no other float trial
    beats) each is compared with the most accurate int8 trial of more parameters that is not slower.

    Returns:
        None where the search has no trial of int8, or none of floats.
    """
    floats = [trial for trial in trials if trial.config.precision not in INT8_BLOCKS]
    rounded = [trial for trial in trials if trial.config.precision in INT8_BLOCKS]
    if not floats or not rounded:
        return None
    optimal = is_pareto_optimal([(t.metrics.latency_ms, -t.metrics.accuracy) for t in floats])
    front = [trial for trial, is_optimal in zip(floats, optimal, strict=True) if is_optimal]
    pairs = [(trial, larger) for trial in front if (larger := _larger(trial, rounded)) is not None]
    beaten = [pair for pair in pairs if pair[1].metrics.accuracy > pair[0].metrics.accuracy]
    start = f"of {len(front)} best subnets in floats"
    if not beaten:
        return f"{start}, none is beaten by a larger one in int8 that is not slower"
    one, other = max(beaten, key=lambda pair: pair[1].metrics.accuracy - pair[0].metrics.accuracy)
    gap = 100 * (other.metrics.accuracy - one.metrics.accuracy)
    return (
        f"{start}, {len(beaten)} are beaten by a larger one in int8 that is not slower, most clearly trial "
        f"{one.number} ({_facts(one)}) by trial {other.number} ({_facts(other)}): by {gap:.1f} points"
        f"{_interval(one, other)} on the search items"
    )


def _larger(trial: Trial, rounded: Sequence[Trial]) -> Trial | None:
    found = [
        other
        for other in rounded
        if other.metrics.latency_ms <= trial.metrics.latency_ms
        and (other.metrics.n_params or 0) > (trial.metrics.n_params or 0)
    ]
    return max(found, key=lambda other: other.metrics.accuracy, default=None)


def _facts(trial: Trial) -> str:
    metrics = trial.metrics
    size = "" if metrics.n_params is None else f"{metrics.n_params / 1e6:.2f} M parameters, "
    return f"{trial.config.precision}, {size}{metrics.latency_ms:.2f} ms, {metrics.accuracy:.3f}"


def _interval(first: Trial, second: Trial) -> str:
    """Paired over the items, where answers were kept."""
    bits = [
        np.unpackbits(np.frombuffer(t.metrics.correct, dtype=np.uint8), count=t.metrics.n_items).astype(int)
        for t in (first, second)
        if t.metrics.correct is not None
    ]
    if len(bits) < 2:
        return ""
    low, high = difference_interval("accuracy", np.ones_like(bits[0]), bits[0], bits[1])
    return f" [{100 * low:.1f}, {100 * high:.1f}]"
