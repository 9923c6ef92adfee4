"""Makes a latency table: times blocks and a few whole subnets on the device at hand."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from rlnas.calibration.design import block_options, choose_models, draw_models, without_blocks
from rlnas.latency.clock import clock_for
from rlnas.latency.correction import count_blocks, count_flops, fit_correction, fit_line
from rlnas.latency.device import describe_device, resolve_device, timing_conditions
from rlnas.latency.frequency import frequency_note, frequency_reader
from rlnas.latency.stopwatch import measure, sample_ms
from rlnas.latency.table import BlockTiming, LatencyTable, ModelTiming
from rlnas.latency.timing import level_rounds, noise_note
from rlnas.latency.validation import judge, leave_one_out

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy.typing as npt

    from rlnas.latency.clock import Clock
    from rlnas.latency.device import DeviceInfo
    from rlnas.latency.timing import Timing
    from rlnas.latency.validation import HeldOutError
    from rlnas.protocols import BlockKind, Timeable
    from rlnas.space import SearchSpace, SubnetConfig
    from rlnas.supernet.supernet import Supernet
    from rlnas.workload import Workload

    FloatArray = npt.NDArray[np.float64]
    Block = tuple[BlockKind, int]

N_MODELS = 16
"""Whole subnets that are timed end to end for the correction."""

REPEATED = 5
"""Of so many held-out subnets one is built and timed twice."""

TAIL_ROUNDS = 4
"""Times as many rounds for a tail as for a median."""


@dataclass(frozen=True, slots=True)
class Effort:
    """How much is measured.

    Attributes:
        n_models: Whole subnets to time for the correction, at least 1.
        n_held_out: Further subnets that are timed in the same rounds and judge the table; every
            fifth of them is built and timed twice, to see the noise. With 0 the subnets of the
            correction judge it, each predicted from the others.
        n_rounds: Samples of each timing; four times as many where a tail is asked for.
        max_seconds: Stop after the round in which this is reached (but not before the fifth), or
            None; building the models and warming up comes on top.

    Raises:
        ValueError: If a number is outside its range.
    """

    n_models: int = N_MODELS
    n_held_out: int = 0
    n_rounds: int = 30
    max_seconds: float | None = 40.0

    def __post_init__(self) -> None:
        for name, least in (("n_models", 1), ("n_held_out", 0), ("n_rounds", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, but got {name}={getattr(self, name)}")


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
    plan = _Plan.make(blocks, model, space, workload, effort, seed)
    bar = _Progress(progress, plan.n_calls, effort.n_rounds * _factor(workload))
    readings_mhz: list[float] = []

    def after_round(n_done: int, _: int) -> None:
        reading = None if frequency is None else frequency()
        readings_mhz.extend([] if reading is None else [reading])
        bar.rounds(n_done)

    started = time.monotonic()
    # What is compiled is compiled for the number of threads that it is timed with.
    with timing_conditions():
        calls = plan.calls(model, bar.built)
        built = time.monotonic()
        timings = measure(
            calls,
            clock,
            n_rounds=effort.n_rounds * _factor(workload),
            max_seconds=effort.max_seconds,
            min_sample_ms=sample_ms(workload.statistic),
            # Within a model no block waits for the one before it.
            back_to_back=range(1, 1 + len(plan.blocks)),
            pacemaker=_pacemaker(calls, plan) if device.kind == "cpu" else None,
            seed=seed,
            progress=after_round,
        )
    table = _make_table(model, workload, device, plan, timings, frequency_note(readings_mhz))
    return replace(table, build_seconds=built - started, measure_seconds=time.monotonic() - built)


@dataclass(frozen=True, slots=True)
class _Plan:
    """What is timed, in the order of the timings: floor, blocks, models, held-out models, repeats."""

    floor: SubnetConfig
    blocks: list[Block]
    models: list[SubnetConfig]
    held_out: list[SubnetConfig]
    repeated: list[SubnetConfig]

    @classmethod
    def make(
        cls,
        blocks: list[Block],
        model: Timeable,
        space: SearchSpace,
        workload: Workload,
        effort: Effort,
        seed: int,
    ) -> _Plan:
        shape = model.shape
        models = choose_models(space, shape, workload, effort.n_models, seed)
        # Not of the same draws as the models, which held-out ones may not be among.
        held_out = draw_models(space, effort.n_held_out, seed + 1, excluded=models)
        return cls(without_blocks(shape), blocks, models, held_out, held_out[::REPEATED])

    @property
    def n_calls(self) -> int:
        return 1 + len(self.blocks) + len(self.subnets)

    @property
    def subnets(self) -> list[SubnetConfig]:
        return [*self.models, *self.held_out, *self.repeated]

    def calls(self, model: Timeable, built: Callable[[int], None]) -> list[Sequence[Callable[[], object]]]:
        calls: list[Sequence[Callable[[], object]]] = [model.model_calls(self.floor)]
        for block in self.blocks:
            calls.append(model.block_calls(*block))
            built(len(calls))
        for config in self.subnets:
            calls.append(model.model_calls(config))
            built(len(calls))
        return calls


class _Progress:
    """One bar for building and for timing; a model built is a step, a round is as many as models."""

    def __init__(self, show: Callable[[int, int], None] | None, n_calls: int, n_rounds: int) -> None:
        self._show, self._n_calls, self._total = show, n_calls, n_calls * (1 + n_rounds)

    def built(self, n_built: int) -> None:
        if self._show is not None:
            self._show(n_built, self._total)

    def rounds(self, n_done: int) -> None:
        if self._show is not None:
            self._show(self._n_calls * (1 + n_done), self._total)


def _factor(workload: Workload) -> int:
    return TAIL_ROUNDS if workload.statistic == "p99" else 1


def _pacemaker(calls: Sequence[Sequence[Callable[[], object]]], plan: _Plan) -> Callable[[], object]:
    """The stack of the narrowest FFN blocks, or of what blocks there are."""
    kinds = ["floor", *(kind for kind, _ in plan.blocks)]
    return calls[kinds.index("ffn") if "ffn" in kinds else min(1, len(kinds) - 1)][0]


def _make_table(
    model: Timeable,
    workload: Workload,
    device: DeviceInfo,
    plan: _Plan,
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
        # What the pacemaker and the rounds explain does not matter any more.
        notes=tuple(note for note in (noise_note(levelled), clock_note) if note),
    )
    parts, measured_ms = table.parts(plan.models), np.array(medians_ms[first_model:end])
    table = replace(table, correction=fit_correction(parts, measured_ms))
    if workload.statistic == "p99":
        table = replace(table, tail_ratio=_tail_ratio(timings[first_model:end]))
    return replace(table, error=_judge(table, plan, levelled[first_model:], timings[first_model:]))


def _sizes(by_block: dict[tuple[str, int], float], kind: str, stack_size: int) -> dict[int, float]:
    return {size: ms / stack_size for (found, size), ms in by_block.items() if found == kind}


def _model_timings(configs: list[SubnetConfig], timings: list[Timing]) -> tuple[ModelTiming, ...]:
    return tuple(ModelTiming(*pair) for pair in zip(configs, timings, strict=True))


def _tail_ratio(timings: list[Timing]) -> float:
    """99 % quantile of how much longer than its model's median a request takes, over all models."""
    relative = [np.array(timing.samples_ms) / timing.median_ms for timing in timings]
    return float(np.quantile(np.concatenate(relative), 0.99))


def _judge(table: LatencyTable, plan: _Plan, levelled: list[Timing], raw: list[Timing]) -> HeldOutError:
    """The table and its controls on models that they were not fitted to."""
    statistic, tail = table.workload.statistic, table.tail_ratio
    # What happens to one request in a hundred may not be levelled away.
    timings = raw if statistic == "p99" else levelled
    n_models = len(plan.models)
    judged = slice(n_models, n_models + len(plan.held_out)) if plan.held_out else slice(n_models)
    configs = plan.subnets[judged]
    medians_ms = np.array([timing.median_ms for timing in levelled[:n_models]])
    predicted = {}
    for name, features, fit in _predictors(table, plan):
        if plan.held_out:
            predicted[name] = fit(features[:n_models], medians_ms)(features[judged]) * tail
        elif name == "table" or n_models >= 4 + features.shape[1]:
            predicted[name] = leave_one_out(fit, features, medians_ms) * tail
    repeats, noise_sd = _noise(timings, plan, statistic)
    return judge(
        predicted,
        np.array([timing.statistic_ms(statistic) for timing in timings[judged]]),
        np.array([sum(count_blocks(config)) for config in configs]),
        repeats=repeats,
        noise_sd=noise_sd,
        leave_one_out=not plan.held_out,
    )


def _noise(timings: list[Timing], plan: _Plan, statistic: str) -> tuple[FloatArray | None, float]:
    """Relative differences of two measurements of one subnet, and the deviation of one of them."""
    if plan.repeated:
        first = len(plan.models)
        once = timings[first : first + len(plan.held_out) : REPEATED]
        again = timings[first + len(plan.held_out) :]
        times_ms = np.array([[t.statistic_ms(statistic) for t in part] for part in (once, again)])
        repeats = np.abs(times_ms[0] - times_ms[1]) / times_ms.mean(axis=0)
        return repeats, float(np.sqrt((repeats**2).mean() / 2))
    halves = [timing.repeat_noise(statistic) for timing in timings]
    known = np.array([value for value in halves if value is not None])
    # The difference of two halves has twice the deviation of the whole.
    return (known, float(np.sqrt((known**2).mean()) / 2)) if len(known) else (None, 0.0)


def _predictors(
    table: LatencyTable, plan: _Plan
) -> list[tuple[str, FloatArray, Callable[[FloatArray, FloatArray], Callable[[FloatArray], FloatArray]]]]:
    """Name, features of all models, and the fit to them: the table, and what it has to beat."""
    configs = plan.models + plan.held_out
    flops = [[count_flops(config, table.shape, table.workload)] for config in configs]
    return [
        ("table", table.parts(configs), fit_correction),
        ("blocks", np.array([count_blocks(config) for config in configs], dtype=float), fit_line),
        ("flops", np.array(flops), fit_line),
    ]
