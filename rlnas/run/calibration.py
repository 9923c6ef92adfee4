"""Calibration with a bar, and what it found in words."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING

from tqdm.auto import tqdm

from rlnas.calibration import block_options, calibrate, calibrate_precisions
from rlnas.errors import LatencyTableError
from rlnas.latency import resolve_device
from rlnas.supernet import Supernet

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from rlnas.calibration import Effort
    from rlnas.latency import HeldOutError, LatencyTable, PrecisionTables, PredictionError
    from rlnas.protocols import BlockKind
    from rlnas.space import LayerwiseSpace, SearchSpace
    from rlnas.workload import Workload

logger = logging.getLogger(__name__)

_CONTROLS = {"blocks": "counting blocks", "flops": "counting FLOPs"}


def check_sizes(table: LatencyTable, space: LayerwiseSpace, where: str | Path) -> None:
    """Refuse a table that lacks a size on offer, which a search would find out after the training.

    Args:
        table: Of the model.
        space: What is on offer.
        where: What messages call the table.

    Raises:
        LatencyTableError: If there is such a size.
    """
    known = {"attention": table.attention_ms, "ffn": table.ffn_ms}
    for kind, size in block_options(space, table.shape):
        if size not in known[kind]:
            raise LatencyTableError(
                f"the latency table {str(where)!r} holds no {kind} block of size {size}, which the search "
                "offers; give one that was calibrated with the same --parts, or none (in a run, delete it)"
            )


def calibrate_with_bar(
    supernet: Supernet,
    space: SearchSpace,
    workload: Workload,
    device: str,
    *,
    effort: Effort | None = None,
    extra_blocks: Sequence[tuple[BlockKind, int]] = (),
    seed: int = 0,
    progress: bool = True,
) -> LatencyTable:
    """Measure a latency table, and show how far it is; see `rlnas.calibration.calibrate`."""
    with tqdm(desc="calibrate", disable=not progress) as bar:

        def show(n_done: int, n_total: int) -> None:
            bar.total = n_total
            bar.update(n_done - bar.n)

        return calibrate(
            supernet,
            space,
            workload,
            device,
            effort=effort,
            extra_blocks=extra_blocks,
            seed=seed,
            progress=show,
        )


def calibrate_folder(
    folder: Path,
    space: SearchSpace,
    workload: Workload,
    device: str,
    extra_blocks: Sequence[tuple[BlockKind, int]],
    seed: int,
) -> LatencyTable:
    """Measure a latency table of the supernet in a folder; see `rlnas.calibration.calibrate`."""
    supernet = Supernet.load(folder, device=resolve_device(device))
    return calibrate(supernet, space, workload, device, extra_blocks=extra_blocks, seed=seed)


def calibrate_precisions_folder(
    folder: Path,
    space: SearchSpace,
    workload: Workload,
    precisions: Sequence[str],
    device: str,
    extra_blocks: Sequence[tuple[BlockKind, int]],
    seed: int,
) -> PrecisionTables:
    """As `calibrate_folder`, in several precisions; see `rlnas.calibration.calibrate_precisions`."""
    supernet = Supernet.load(folder, device=resolve_device(device))

    def measured(own: Workload) -> LatencyTable:
        return calibrate(supernet, space, own, device, extra_blocks=extra_blocks, seed=seed)

    return calibrate_precisions(supernet, space, workload, precisions, device, measured=measured)


def warn_of(table: LatencyTable) -> None:
    """Log what speaks against a table: a simpler prediction, a restless machine, its origin."""
    worse = None if table.error is None else table.error.warning
    for note in (worse, *table.notes, table.foreign_note):
        if note:
            logger.warning("latency: %s", note)


def table_sentence(table: LatencyTable) -> str:
    """What was measured, without how wrong it is."""
    return str(replace(table, error=None, notes=(), foreign_note=None))


def error_lines(error: HeldOutError) -> list[str]:
    """How wrong a table is, line by line beside the simpler predictions that it has to beat."""
    how = "each predicted from the others" if error.leave_one_out else "measured for this alone"
    title = f"error on {error.n_held_out} held-out subnets ({how})"
    if error.noise is not None:
        title += f"; timings repeat to {error.noise:.1%}"
    rows = [
        ("this table", error.table),
        *((_CONTROLS.get(*[name] * 2), one) for name, one in error.controls.items()),
    ]
    width = max(len(name) for name, _ in rows)
    lines = [title, *(f"  {name:<{width}}  {_figures(one)}" for name, one in rows)]
    if error.tau_ceiling is not None:
        lines.append(f"  within equal depth, noise hides a tau above {error.tau_ceiling:.2f}")
    return lines


def time_sentence(table: LatencyTable) -> str:
    """What the table has cost."""
    how = "building and compiling" if table.workload.mode == "compiled" else "building"
    return f"{how} took {table.build_seconds:.1f} s, measuring {table.measure_seconds:.1f} s"


def _figures(error: PredictionError) -> str:
    text = f"{error.mape:6.1%} off on average, p95 {error.p95:6.1%}"
    for name, tau in (("tau", error.tau), ("within equal depth", error.tau_within_depth)):
        text += "" if tau is None else f", {name} {tau:.2f}"
    return text
