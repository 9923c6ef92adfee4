"""Which blocks and which whole subnets to time: few, and those that tell most."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from rlnas.latency.correction import count_blocks, count_flops
from rlnas.space import LayerConfig, SubnetConfig

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    import numpy.typing as npt

    from rlnas.protocols import BlockKind
    from rlnas.space import ModelShape, SearchSpace
    from rlnas.workload import Workload

    FloatArray = npt.NDArray[np.float64]

MAX_BLOCKS = 200
"""Block sizes that are timed at most."""

N_PROBED = 16
"""Sizes of each kind of block that `probe_blocks` gives at most."""

_N_SAMPLED = 64
_N_CANDIDATES = 256
_TRIES_PER_MODEL = 20
_LEVELS = (0.25, 1.0)
_RIDGE = 1e-6
_SMALL = 1 / 7


def block_options(
    space: SearchSpace, shape: ModelShape, extra: Collection[tuple[BlockKind, int]] = ()
) -> list[tuple[BlockKind, int]]:
    """The blocks that occur in a space, and those of the full model.

    Every option of every position is tried beside the largest and the smallest choice of
    the others; random members serve spaces whose positions act on each other.

    Args:
        space: The configs that will be asked for.
        shape: Sizes of the full model.
        extra: Blocks that are wanted besides.

    Returns:
        Kind and size of each block, ascending, dropped blocks left out.

    Raises:
        ValueError: If there are more than `MAX_BLOCKS`.
    """
    found: set[tuple[BlockKind, int]] = set(extra)
    for config in _representatives(space, shape):
        for layer in config.layers:
            found.add(("attention", layer.num_attention_heads))
            found.add(("ffn", layer.intermediate_size))
    blocks = sorted((kind, size) for kind, size in found if size)
    if len(blocks) > MAX_BLOCKS:
        raise ValueError(
            f"the space offers {len(blocks)} sizes of blocks, but at most {MAX_BLOCKS} are timed; "
            "offer fewer (fewer parts, or FFN widths as of space.snapped(64))"
        )
    return blocks


def probe_blocks(shape: ModelShape) -> list[tuple[BlockKind, int]]:
    """Blocks of evenly spread sizes, to see how the cost of a block follows its size.

    They show `rlnas.latency.find_regime` which sizes are worth offering, before there is a space.

    Args:
        shape: Sizes of the full model.

    Returns:
        Kind and size of each block, ascending; of each kind at most `N_PROBED`, the full one
        among them.
    """
    kinds: tuple[tuple[BlockKind, int], ...] = (
        ("attention", shape.num_attention_heads),
        ("ffn", shape.intermediate_size),
    )
    blocks: list[tuple[BlockKind, int]] = []
    for kind, full in kinds:
        n = min(full, N_PROBED)
        blocks += [(kind, round(full * (part + 1) / n)) for part in range(n)]
    return blocks


def choose_models(
    space: SearchSpace, shape: ModelShape, workload: Workload, n_models: int, seed: int
) -> list[SubnetConfig]:
    """The subnets to time end to end, for the correction of the sum of blocks.

    The full model comes first. Half of the others are chosen one by one among random members so
    that the errors of a linear model of latency (constant, blocks of each kind, heads, units)
    become smallest: a greedy D-optimal design (Fedorov, Theory of Optimal Experiments, 1972). The
    other half spread evenly over the operations that members need: where the linear model is
    wrong, they show it. Members of a seventh of the full model's operations or less are left out
    where there are enough others: nobody aims there, and a design likes extremes.

    Args:
        space: The configs that will be asked for.
        shape: Sizes of the full model.
        workload: What will be run.
        n_models: How many are wanted, at least 1; a small space may give fewer.
        seed: Of the random members.

    Raises:
        ValueError: If `n_models` is below 1.
    """
    if n_models < 1:
        raise ValueError(f"n_models must be at least 1, but got n_models={n_models}")
    pool = draw_models(space, _N_CANDIDATES, seed, excluded=[shape.full])
    full_flops = count_flops(shape.full, shape, workload)
    large = [config for config in pool if count_flops(config, shape, workload) > _SMALL * full_flops]
    pool = large if len(large) >= n_models else pool
    flops = np.array([count_flops(config, shape, workload) for config in pool])
    columns = _columns([shape.full, *pool], np.array([full_flops, *flops]) / full_flops)
    picked = _d_optimal(columns, min(n_models // 2, len(pool)))
    picked += _evenly(flops, picked, n_models - 1 - len(picked))
    return [shape.full, *(pool[i] for i in picked)][:n_models]


def draw_models(
    space: SearchSpace, n: int, seed: int, *, excluded: Collection[SubnetConfig] = ()
) -> list[SubnetConfig]:
    """Random members of all depths, all different.

    Uniform draws would all have nearly the same depth; here each draw first gets a level between
    0.25 and 1, evenly spread over the draws, and keeps a block with that chance.

    Args:
        space: Where they come from.
        n: How many are wanted; a small space may give fewer.
        seed: Of the draws.
        excluded: Configs not to draw. The model without blocks is never drawn: it is the floor.
    """
    drawn: dict[SubnetConfig, None] = {}  # an ordered set
    rng = np.random.default_rng(seed)
    for index in range(n):
        level = _LEVELS[0] + (index + 0.5) / n * (_LEVELS[1] - _LEVELS[0])
        for _ in range(_TRIES_PER_MODEL):
            config = space.decode(
                [int(rng.integers(1, n)) if n > 1 and rng.random() < level else 0 for n in space.nvec]
            )
            if config not in drawn and config not in excluded and config.num_hidden_layers:
                drawn[config] = None
                break
    return list(drawn)


def _columns(configs: list[SubnetConfig], cost: FloatArray) -> FloatArray:
    """What latency is linear in, relative to what it may be: small models count as much as large ones."""
    columns = np.array(
        [
            [
                1.0,
                *count_blocks(config),
                sum(layer.num_attention_heads for layer in config.layers),
                sum(layer.intermediate_size for layer in config.layers),
            ]
            for config in configs
        ]
    )
    sizes = np.maximum(columns.max(axis=0), 1.0)
    # The floor is not known yet; a tenth of the full model is much the same to all.
    weighted: FloatArray = columns / sizes / (cost + 0.1)[:, None]
    return weighted


def _d_optimal(columns: FloatArray, n: int) -> list[int]:
    """Rows after the first that add most, one by one, to the information of the first; from 0."""
    information = np.outer(columns[0], columns[0]) + _RIDGE * np.eye(columns.shape[1])
    picked: list[int] = []
    for _ in range(n):
        leverage = np.einsum("ij,jk,ik->i", columns[1:], np.linalg.inv(information), columns[1:])
        leverage[picked] = -np.inf
        best = int(np.argmax(leverage))
        picked.append(best)
        information += np.outer(columns[1 + best], columns[1 + best])
    return picked


def _evenly(values: FloatArray, taken: list[int], n: int) -> list[int]:
    """Indices whose values lie nearest to `n` points that part the range evenly, none twice."""
    left = [i for i in range(len(values)) if i not in taken]
    chosen: list[int] = []
    for step in range(min(n, len(left))):
        point = values.min() + (step + 0.5) / n * (values.max() - values.min())
        best = min(left, key=lambda i: abs(values[i] - point))
        left.remove(best)
        chosen.append(best)
    return chosen


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


def without_blocks(shape: ModelShape) -> SubnetConfig:
    """The model of embeddings and head alone."""
    return SubnetConfig((LayerConfig(0, 0),) * shape.num_hidden_layers)
