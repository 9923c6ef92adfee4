"""Latency tables of several precisions, brought to one scale."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rlnas.calibration.calibrate import calibrate
from rlnas.latency import clock_for, compare_timings, level_rounds, measure, timing_conditions
from rlnas.latency.device import resolve_device
from rlnas.latency.precisions import PrecisionTables

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from rlnas.calibration.plan import Effort
    from rlnas.latency import LatencyTable
    from rlnas.protocols import Timeable
    from rlnas.space import SearchSpace
    from rlnas.supernet.supernet import Supernet
    from rlnas.workload import Workload

N_ROUNDS = 60
"""Rounds in which the full models of all precisions are timed."""

MAX_SECONDS = 30.0
"""Bound on that."""


def calibrate_precisions(
    supernet: Supernet,
    space: SearchSpace,
    workload: Workload,
    precisions: Sequence[str],
    device: str = "auto",
    *,
    effort: Effort | None = None,
    seed: int = 0,
    measured: Callable[[Workload], LatencyTable] | None = None,
) -> PrecisionTables:
    """Measure a latency table of each precision, and the full models of all beside each other.

    Args:
        supernet: Its weights need not be trained.
        space: The architectures, without a precision.
        workload: What the device will be asked; its dtype is the reference, and one of `precisions`.
        precisions: Some of `rlnas.precision.PRECISIONS`.
        device: See `rlnas.latency.device.resolve_device`.
        effort: How much is measured of each; by default `Effort()`.
        seed: See `calibrate`.
        measured: Gives the table of a workload, e.g. with a bar; by default `calibrate`.

    Raises:
        ValueError: If the workload's dtype is not one of the precisions.
        DeviceError: If a precision does not run on the device or in the workload's mode.
        MissingDependencyError: If int8 is asked for without ONNX Runtime.
    """
    from rlnas.supernet.timing import TimedModel

    chosen = resolve_device(device)
    check_reference(workload, precisions)
    workloads = {precision: workload.in_precision(precision) for precision in precisions}
    models = {name: TimedModel(supernet, own, chosen) for name, own in workloads.items()}  # refuses early
    if measured is None:

        def measured(own: Workload) -> LatencyTable:
            return calibrate(supernet, space, own, chosen, effort=effort, seed=seed)

    tables = {precision: measured(own) for precision, own in workloads.items()}
    return PrecisionTables(tables, full_ratios(models, workload.dtype, chosen), workload.dtype)


def check_reference(workload: Workload, precisions: Sequence[str]) -> None:
    """Refuse precisions that lack the one which latencies refer to.

    Raises:
        ValueError: If the workload's dtype is not one of them.
    """
    if workload.dtype not in precisions:
        raise ValueError(
            f"latencies refer to the full model in the workload's dtype={workload.dtype!r}, so precisions "
            f"must hold it, but got {', '.join(precisions)}; add it, or give the workload another (--dtype)"
        )


def full_ratios(models: Mapping[str, Timeable], reference: str, device: str) -> dict[str, float]:
    """The full model's latency in each precision over that in the reference, from the same rounds.

    Args:
        models: By precision; the reference is among them.
        reference: The precision to compare with.
        device: Where they run.
    """
    with timing_conditions():
        calls = [model.model_calls(model.shape.full) for model in models.values()]
        timings = measure(calls, clock_for(device), n_rounds=N_ROUNDS, max_seconds=MAX_SECONDS)
    levelled = dict(zip(models, level_rounds(timings), strict=True))
    ratios = {name: compare_timings(levelled[reference], timing).ratio for name, timing in levelled.items()}
    return {**ratios, reference: 1.0}
