"""Makes a latency table: times blocks and a few whole subnets on the device at hand."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from rlnas.latency.clock import clock_for
from rlnas.latency.correction import count_blocks, count_flops, fit_correction, held_out_error
from rlnas.latency.device import describe_device, resolve_device, timing_conditions
from rlnas.latency.stopwatch import level_rounds, measure
from rlnas.latency.table import BlockTiming, LatencyTable, ModelTiming
from rlnas.space import LayerConfig, SubnetConfig

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from rlnas.latency.clock import Clock
    from rlnas.latency.device import DeviceInfo
    from rlnas.protocols import BlockKind, Timeable
    from rlnas.space import ModelShape, SearchSpace
    from rlnas.supernet.supernet import Supernet
    from rlnas.workload import Workload

_N_SAMPLED = 64
_TRIES_PER_MODEL = 20


def calibrate(
    supernet: Supernet,
    space: SearchSpace,
    workload: Workload,
    device: str = "auto",
    *,
    n_models: int = 13,
    n_rounds: int = 25,
    max_seconds: float = 20.0,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> LatencyTable:
    """Measure the latency table of a supernet on this machine.

    Every option of attention and FFN that occurs in the space is timed alone, and
    `n_models` whole subnets end to end, all in the same interleaved rounds; one torch thread.

    Args:
        supernet: Its weights need not be trained: time does not depend on them.
        space: The configs that will be asked for.
        workload: What the device will be asked to run.
        device: See `rlnas.latency.device.resolve_device`.
        n_models: Whole subnets to time, at least 1.
        n_rounds: Samples of each timing.
        max_seconds: Stop after the round in which this is reached (but not before the fifth);
            warming up comes on top.
        seed: Of the choice of subnets and of the order of timings.
        progress: Called with the rounds done and `n_rounds` after each round.

    Raises:
        DeviceError: If the device is not there, or its clock cannot be trusted.
        ValueError: If `n_models` or `n_rounds` is below 1.
    """
    from rlnas.supernet.timing import TimedModel

    chosen = resolve_device(device)
    return calibrate_timeable(
        TimedModel(supernet, workload, chosen),
        space,
        workload,
        device=describe_device(chosen),
        clock=clock_for(chosen),
        n_models=n_models,
        n_rounds=n_rounds,
        max_seconds=max_seconds,
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
    n_models: int = 13,
    n_rounds: int = 25,
    max_seconds: float | None = None,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> LatencyTable:
    """Measure the latency table of anything whose blocks can be run one by one.

    Args:
        model: Runs the workload on the clock's device.
        space: The configs that will be asked for.
        workload: What `model` runs.
        device: What it runs on.
        clock: Times it.
        n_models: See `calibrate`.
        n_rounds: See `calibrate`.
        max_seconds: See `calibrate`; None for no bound.
        seed: See `calibrate`.
        progress: See `calibrate`.

    Raises:
        DeviceError: If the clock cannot be trusted.
        ValueError: If `n_models` or `n_rounds` is below 1.
    """
    shape = model.shape
    blocks = block_options(space, shape)
    configs = choose_models(space, shape, n_models, seed)
    calls = [model.model_call(_without_blocks(shape))]
    calls += [model.block_call(kind, size) for kind, size in blocks]
    calls += [model.model_call(config) for config in configs]
    with timing_conditions():
        floor, *timings = measure(
            calls,
            clock,
            n_rounds=n_rounds,
            max_seconds=max_seconds,
            # Within a model no block waits for the one before it.
            back_to_back=range(1, 1 + len(blocks)),
            seed=seed,
            progress=progress,
        )
    block_timings = [BlockTiming("floor", 0, floor)]
    block_timings += [BlockTiming(*block, timing) for block, timing in zip(blocks, timings, strict=False)]
    model_timings = [
        ModelTiming(config, timing) for config, timing in zip(configs, timings[len(blocks) :], strict=True)
    ]
    return _make_table(shape, workload, device, block_timings, model_timings)


def block_options(space: SearchSpace, shape: ModelShape) -> list[tuple[BlockKind, int]]:
    """The blocks that occur in a space, and those of the full model.

    Every option of every position is tried beside the largest and the smallest choice of
    the others; random members serve spaces whose positions act on each other.

    Args:
        space: The configs that will be asked for.
        shape: Sizes of the full model.

    Returns:
        Kind and size of each block, ascending, dropped blocks left out.
    """
    found: set[tuple[BlockKind, int]] = set()
    for config in _representatives(space, shape):
        for layer in config.layers:
            found.add(("attention", layer.num_attention_heads))
            found.add(("ffn", layer.intermediate_size))
    return sorted((kind, size) for kind, size in found if size)


def choose_models(space: SearchSpace, shape: ModelShape, n_models: int, seed: int) -> list[SubnetConfig]:
    """The subnets to time end to end: extremes first, then random ones of all depths.

    Uniform draws would all have nearly the same depth; here each draw first gets a level
    between 0 and 1, evenly spread over the draws, and keeps a block with that chance.

    Args:
        space: The configs that will be asked for.
        shape: Sizes of the full model, which always comes first.
        n_models: How many are wanted, at least 1; a small space may give fewer.
        seed: Of the random ones.

    Raises:
        ValueError: If `n_models` is below 1.
    """
    if n_models < 1:
        raise ValueError(f"n_models must be at least 1, but got n_models={n_models}")
    # A dict is an ordered set here. The model without blocks is the floor, timed anyway.
    chosen = dict.fromkeys([shape.full])
    extremes = [space.largest(), space.smallest(), space.decode([n // 2 for n in space.nvec])]
    extremes += [config for config in _uniform_models(shape) if config in space]
    chosen |= dict.fromkeys(config for config in extremes if not _is_empty(config))
    n_random = n_models - len(chosen)
    rng = np.random.default_rng(seed)
    for index in range(n_random):
        level = (index + 0.5) / n_random
        for _ in range(_TRIES_PER_MODEL):
            config = _draw(space, level, rng)
            if config not in chosen and not _is_empty(config):
                chosen[config] = None
                break
    return list(chosen)[:n_models]


def _make_table(
    shape: ModelShape,
    workload: Workload,
    device: DeviceInfo,
    block_timings: list[BlockTiming],
    model_timings: list[ModelTiming],
) -> LatencyTable:
    """Add up, correct, and say how wrong the result is."""
    timings = [raw.timing for raw in block_timings] + [raw.timing for raw in model_timings]
    levelled = level_rounds(timings)
    medians_ms = [timing.median_ms for timing in levelled]
    by_block = {(raw.kind, raw.size): ms for raw, ms in zip(block_timings, medians_ms, strict=False)}
    table = LatencyTable(
        workload=workload,
        device=device,
        shape=shape,
        attention_ms={size: ms for (kind, size), ms in by_block.items() if kind == "attention"},
        ffn_ms={size: ms for (kind, size), ms in by_block.items() if kind == "ffn"},
        floor_ms=by_block["floor", 0],
        block_timings=tuple(block_timings),
        model_timings=tuple(model_timings),
    )
    configs = [raw.config for raw in model_timings]
    parts = table.parts(configs)
    measured_ms = np.array(medians_ms[len(block_timings) :])
    return replace(
        table,
        correction=fit_correction(parts, measured_ms),
        error=held_out_error(
            parts,
            measured_ms,
            noise=float(np.median([timing.noise for timing in levelled[len(block_timings) :]])),
            controls={
                "blocks": np.array([float(count_blocks(config)) for config in configs]),
                "flops": np.array([float(count_flops(config, shape, workload)) for config in configs]),
            },
        ),
    )


def _representatives(space: SearchSpace, shape: ModelShape) -> Iterator[SubnetConfig]:
    yield shape.full
    nvec = space.nvec
    for others in ([n - 1 for n in nvec], [0] * len(nvec)):
        for position, n_options in enumerate(nvec):
            for option in range(n_options):
                yield space.decode([*others[:position], option, *others[position + 1 :]])
    rng = np.random.default_rng(0)
    for _ in range(_N_SAMPLED):
        yield space.sample(rng)


def _uniform_models(shape: ModelShape) -> Iterator[SubnetConfig]:
    """Every other layer, only attention, only FFN, the last layer alone."""
    n_layers = shape.num_hidden_layers
    full, dropped = shape.full.layers[0], LayerConfig(0, 0)
    yield SubnetConfig(tuple(full if index % 2 else dropped for index in range(n_layers)))
    yield SubnetConfig((LayerConfig(full.num_attention_heads, 0),) * n_layers)
    yield SubnetConfig((LayerConfig(0, full.intermediate_size),) * n_layers)
    yield SubnetConfig((*[dropped] * (n_layers - 1), full))


def _draw(space: SearchSpace, level: float, rng: np.random.Generator) -> SubnetConfig:
    action: Sequence[int] = [
        int(rng.integers(1, n)) if n > 1 and rng.random() < level else 0 for n in space.nvec
    ]
    return space.decode(action)


def _without_blocks(shape: ModelShape) -> SubnetConfig:
    return SubnetConfig((LayerConfig(0, 0),) * shape.num_hidden_layers)


def _is_empty(config: SubnetConfig) -> bool:
    return config.num_hidden_layers == 0
