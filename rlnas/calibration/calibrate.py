"""Makes a latency table: times blocks and a few whole subnets on the device at hand."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from rlnas.calibration.design import block_options
from rlnas.calibration.judging import judge_table, tail_ratio
from rlnas.calibration.plan import Effort, Plan
from rlnas.latency.clock import clock_for
from rlnas.latency.correction import fit_correction
from rlnas.latency.device import describe_device, resolve_device, timing_conditions
from rlnas.latency.frequency import FrequencyWatch, frequency_reader
from rlnas.latency.stopwatch import measure, sample_ms
from rlnas.latency.table import BlockTiming, LatencyTable, ModelTiming
from rlnas.latency.timing import level_rounds, noise_note, tail_note

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rlnas.latency.clock import Clock
    from rlnas.latency.device import DeviceInfo
    from rlnas.latency.timing import Timing
    from rlnas.protocols import BlockKind, Timeable
    from rlnas.space import SearchSpace, SubnetConfig
    from rlnas.supernet.supernet import Supernet
    from rlnas.workload import Workload

    Block = tuple[BlockKind, int]


def calibrate(
    supernet: Supernet,
    space: SearchSpace,
    workload: Workload,
    device: str = "auto",
    *,
    effort: Effort | None = None,
    extra_blocks: Sequence[Block] = (),
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> LatencyTable:
    """Measure the latency table of a supernet on this machine.

    Every size of attention and FFN that occurs in the space is timed as a stack of such blocks,
    and some whole subnets end to end, all in the same interleaved rounds; one torch thread.

    Args:
        supernet: Its weights need not be trained: time does not depend on them.
        space: The configs that will be asked for.
        workload: What the device will be asked to run.
        device: See `rlnas.latency.device.resolve_device`.
        effort: How much is measured; by default `Effort()`.
        extra_blocks: Kind and size of blocks to time although the space does not offer them, e.g.
            `rlnas.calibration.probe_blocks` to see which ones are worth offering.
        seed: Of the choice of subnets and of the order of timings.
        progress: Called with the steps done and their number: models built, then rounds.

    Raises:
        DeviceError: If the device is not there, its clock cannot be trusted, or the workload's
            mode does not run on it.
        MissingDependencyError: If the mode needs a package that is not installed.
        ValueError: If the space offers too many sizes of blocks.
    """
    from rlnas.supernet.timing import TimedModel

    chosen = resolve_device(device)
    return calibrate_timeable(
        TimedModel(supernet, workload, chosen),
        space,
        workload,
        device=describe_device(chosen, mode=workload.mode),
        clock=clock_for(chosen),
        effort=effort,
        extra_blocks=extra_blocks,
        frequency=frequency_reader(chosen),
        seed=seed,
        progress=progress,
    )


def calibrate_timeable(
    model: Timeable,
    space: SearchSpace,
    workload: Workload,
    *,
    device: DeviceInfo,
    clock: Clock,
    effort: Effort | None = None,
    extra_blocks: Sequence[Block] = (),
    frequency: Callable[[], float | None] | None = None,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> LatencyTable:
    """Measure the latency table of anything whose blocks can be run.

    Args:
        model: Runs the workload on the clock's device.
        space: The configs that will be asked for.
        workload: What `model` runs.
        device: What it runs on; on a CPU the stopwatch uses a pacemaker.
        clock: Times it.
        effort: See `calibrate`.
        extra_blocks: See `calibrate`.
        frequency: Reads the device's clock frequency in MHz after each round, or None.
        seed: See `calibrate`.
        progress: See `calibrate`.

    Raises:
        DeviceError: If the clock cannot be trusted.
        ValueError: If the space offers too many sizes of blocks.
    """
    effort = effort or Effort()
    blocks = block_options(space, model.shape, extra_blocks)
    plan = Plan.make(blocks, model, space, workload, effort, seed)
    bar = _Progress(progress, plan.n_calls, effort.rounds_for(workload))
    watch = FrequencyWatch(frequency)

    def after_round(n_done: int, _: int) -> None:
        watch.look()
        bar.rounds(n_done)

    started = time.monotonic()
    # What is compiled is compiled for the number of threads that it is timed with.
    with timing_conditions():
        calls = plan.calls(model, bar.built)
        built = time.monotonic()
        timings = measure(
            calls,
            clock,
            n_rounds=effort.rounds_for(workload),
            max_seconds=effort.seconds_for(workload),
            min_sample_ms=sample_ms(workload.statistic),
            # Within a model no block waits for the one before it.
            back_to_back=range(1, 1 + len(plan.blocks)),
            pacemaker=_pacemaker(calls, plan) if device.kind == "cpu" else None,
            seed=seed,
            progress=after_round,
        )
    table = _make_table(model, workload, device, plan, timings, watch.note)
    return replace(table, build_seconds=built - started, measure_seconds=time.monotonic() - built)


class _Progress:
    """One bar for building and for timing: each model built is a step, and each round."""

    def __init__(self, show: Callable[[int, int], None] | None, n_calls: int, n_rounds: int) -> None:
        self._show, self._n_calls, self._total = show, n_calls, n_calls + n_rounds

    def built(self, n_built: int) -> None:
        if self._show is not None:
            self._show(n_built, self._total)

    def rounds(self, n_done: int) -> None:
        if self._show is not None:
            self._show(self._n_calls + n_done, self._total)


def _pacemaker(calls: Sequence[Sequence[Callable[[], object]]], plan: Plan) -> Callable[[], object]:
    """The stack of the narrowest FFN blocks, or of what blocks there are."""
    kinds = ["floor", *(kind for kind, _ in plan.blocks)]
    return calls[kinds.index("ffn") if "ffn" in kinds else min(1, len(kinds) - 1)][0]


def _make_table(
    model: Timeable,
    workload: Workload,
    device: DeviceInfo,
    plan: Plan,
    timings: list[Timing],
    clock_note: str | None,
) -> LatencyTable:
    """Add up, correct, and say how wrong the result is."""
    levelled = level_rounds(timings)
    medians_ms = [timing.median_ms for timing in levelled]
    first_model = 1 + len(plan.blocks)
    end = first_model + len(plan.models)
    judges_end = end + len(plan.held_out)
    blocks: list[tuple[str, int]] = [("floor", 0), *plan.blocks]
    by_block = dict(zip(blocks, medians_ms, strict=False))
    table = LatencyTable(
        workload=workload,
        device=device,
        shape=model.shape,
        attention_ms=_sizes(by_block, "attention", model.stack_size),
        ffn_ms=_sizes(by_block, "ffn", model.stack_size),
        floor_ms=by_block["floor", 0],
        stack_size=model.stack_size,
        block_timings=tuple(
            BlockTiming(*block, timing) for block, timing in zip(blocks, timings, strict=False)
        ),
        model_timings=_model_timings(plan.models, timings[first_model:end]),
        held_out_timings=_model_timings(plan.held_out, timings[end:judges_end]),
        repeat_timings=_model_timings(plan.repeated, timings[judges_end:]),
        notes=tuple(note for note in (*_noise_notes(timings, levelled, workload), clock_note) if note),
    )
    parts, measured_ms = table.parts(plan.models), np.array(medians_ms[first_model:end])
    table = replace(table, correction=fit_correction(parts, measured_ms))
    if workload.statistic == "p99":
        table = replace(table, tail_ratio=tail_ratio(timings[first_model:end]))
    return replace(table, error=judge_table(table, plan, levelled[first_model:], timings[first_model:]))


def _noise_notes(timings: list[Timing], levelled: list[Timing], workload: Workload) -> list[str | None]:
    """How restless the machine was, and whether that still matters."""
    restless = noise_note(levelled)
    if restless is None and noise_note(timings) is not None:
        spread = float(np.median([timing.noise for timing in timings]))
        restless = (
            f"this machine changed its speed meanwhile (typical spread of a timing {spread:.0%}); that is "
            "taken out by what ran at the same time"
        )
    return [restless, tail_note(timings[0].n_rounds) if workload.statistic == "p99" else None]


def _sizes(by_block: dict[tuple[str, int], float], kind: str, stack_size: int) -> dict[int, float]:
    return {size: ms / stack_size for (found, size), ms in by_block.items() if found == kind}


def _model_timings(configs: list[SubnetConfig], timings: list[Timing]) -> tuple[ModelTiming, ...]:
    return tuple(ModelTiming(*pair) for pair in zip(configs, timings, strict=True))
