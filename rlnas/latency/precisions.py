"""Latency tables of one model in several precisions, brought to one scale.

Each precision has a table of its own, measured in the form in which it is served. Tables are measured
one after the other, and a machine changes its speed meanwhile; so the full models of all precisions are
timed once more in the same rounds, and these ratios bring the tables to one scale. Milliseconds are those
of the reference, the workload's own precision, as its table has them.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from rlnas.errors import LatencyLookupError, LatencyTableError, RunFolderError
from rlnas.latency.device import describe_device
from rlnas.latency.table import LatencyTable, write_whole

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import numpy.typing as npt

    from rlnas.latency.device import DeviceInfo
    from rlnas.space import ModelShape, SubnetConfig
    from rlnas.workload import Workload

BINDING_FILE = "precisions.json"
"""What binds the tables of a folder."""

PRECISIONS_VERSION = 1
"""Version of the JSON file; a file of another version is not read."""


@dataclass(frozen=True, slots=True, eq=False)
class PrecisionTables:
    """Predicts the latency of subnets in their precisions; a `LatencyModel`.

    Attributes:
        tables: By precision, all of one model, device and requests.
        full_ratios: By precision: the full model's latency in it over that in the reference, from the
            same rounds; 1 for the reference.
        reference: The precision that ratios refer to, and that of configs which name none.

    Raises:
        ValueError: If the reference has no table, ratios and tables are not of the same precisions, a
            ratio is not above 0, or a table is of another precision than it stands for.
    """

    tables: Mapping[str, LatencyTable]
    full_ratios: Mapping[str, float]
    reference: str

    def __post_init__(self) -> None:
        if self.reference not in self.tables or set(self.tables) != set(self.full_ratios):
            raise ValueError(
                f"each precision needs a table and a ratio, the reference {self.reference!r} too, but got "
                f"tables of {', '.join(self.tables)} and ratios of {', '.join(self.full_ratios)}"
            )
        for precision, table in self.tables.items():
            if table.workload.dtype != precision:
                raise ValueError(f"the table of {precision} is for {table.workload.dtype}")
            ratio = self.full_ratios[precision]
            if not (math.isfinite(ratio) and ratio > 0):
                raise ValueError(f"the ratio of {precision} must be above 0 and finite, but got {ratio}")

    @property
    def by_speed(self) -> tuple[str, ...]:
        """The precisions, that of the fastest full model first."""
        return tuple(sorted(self.tables, key=lambda precision: self.full_ratios[precision]))

    @property
    def reference_table(self) -> LatencyTable:
        """The table that milliseconds and ratios refer to."""
        return self.tables[self.reference]

    @property
    def shape(self) -> ModelShape:
        """Sizes of the full model."""
        return self.reference_table.shape

    @property
    def workload(self) -> Workload:
        """What was asked of the reference."""
        return self.reference_table.workload

    @property
    def reference_ms(self) -> float:
        """Latency of the full model in the reference precision."""
        return float(self.reference_table([self.shape.full])[0])

    def __call__(self, configs: Sequence[SubnetConfig], /) -> npt.NDArray[np.float64]:
        """Milliseconds of each config, shape ``(len(configs),)``.

        Raises:
            LatencyLookupError: If a config has a precision or a block that no table holds.
        """
        latencies = np.zeros(len(configs))
        by_precision: dict[str, list[int]] = {}
        for index, config in enumerate(configs):
            by_precision.setdefault(config.precision or self.reference, []).append(index)
        for precision, rows in by_precision.items():
            if precision not in self.tables:
                raise LatencyLookupError(
                    f"there are latency tables for {', '.join(self.tables)}, but the subnet has "
                    f"precision={precision!r}; calibrate it too"
                )
            of_kind = [replace(configs[row], precision=None) for row in rows]
            latencies[rows] = self._scale(precision) * self.tables[precision](of_kind)
        return latencies

    def only(self, precisions: Sequence[str]) -> PrecisionTables:
        """The tables of some precisions.

        Raises:
            LatencyTableError: If one has no table.
        """
        for precision in precisions:
            if precision not in self.tables:
                raise LatencyTableError(
                    f"there are latency tables for {', '.join(self.tables)}, but {precision} is asked for; "
                    "calibrate it too"
                )
        tables = {precision: self.tables[precision] for precision in precisions}
        ratios = {precision: self.full_ratios[precision] for precision in precisions}
        return PrecisionTables(tables, ratios, self.reference)

    def _scale(self, precision: str) -> float:
        """What a table's milliseconds are to be multiplied with."""
        if precision == self.reference:
            return 1.0
        full_ms = float(self.tables[precision]([self.shape.full])[0])
        return self.full_ratios[precision] * self.reference_ms / full_ms

    def __str__(self) -> str:
        full = ", ".join(f"{precision} {self.full_ratios[precision]:.3f}" for precision in self.by_speed)
        return f"the full model's latency over that in {self.reference}: {full}"

    def save(self, folder: Path | str) -> None:
        """Write one file for each table, and one that binds them; each is whole or not there.

        Raises:
            RunFolderError: If a file cannot be written.
        """
        target = Path(folder)
        try:
            target.mkdir(parents=True, exist_ok=True)
            for precision, table in self.tables.items():
                table.save(target / f"{precision}.json")
            values = {
                "schema_version": PRECISIONS_VERSION,
                "reference": self.reference,
                "full_ratios": dict(self.full_ratios),
            }
            write_whole(target / BINDING_FILE, json.dumps(values, indent=1) + "\n")
        except OSError as error:
            raise RunFolderError(f"cannot write the latency tables {target}: {error.strerror}") from error

    @classmethod
    def load(
        cls,
        folder: Path | str,
        *,
        workload: Workload | None = None,
        device: str | Callable[..., DeviceInfo] | None = None,
        shape: ModelShape | None = None,
        allow_mismatch: bool = False,
    ) -> PrecisionTables:
        """Read what `save` wrote.

        Args:
            folder: Where.
            workload: What the reference must be for, the others in their own form; None for anything.
            device: What they must have been measured on: a torch device of this machine, or what describes
                it, called with ``mode``; None for anything.
            shape: As of `LatencyTable.load`.
            allow_mismatch: As of `LatencyTable.load`.

        Raises:
            LatencyTableError: If a file is missing, damaged, or does not belong to the others.
        """
        path = Path(folder) / BINDING_FILE
        describe = partial(describe_device, device) if isinstance(device, str) else device
        fix = "delete the folder and calibrate again"
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise LatencyTableError(
                f"cannot read the latency tables {path}: {error.strerror}; calibrate to make them"
            ) from error
        except ValueError as error:
            raise LatencyTableError(f"{str(path)!r} is no JSON ({error}); {fix}") from error
        found = values.get("schema_version") if isinstance(values, dict) else None
        if found != PRECISIONS_VERSION:
            raise LatencyTableError(
                f"{str(path)!r} has schema_version={found!r}, but {PRECISIONS_VERSION} is needed; {fix}"
            )
        try:
            ratios = {str(name): float(ratio) for name, ratio in values["full_ratios"].items()}
            tables = {}
            for name in ratios:
                own = None if workload is None else workload.in_precision(name)
                mode = "eager" if own is None else own.mode
                tables[name] = LatencyTable.load(
                    path.with_name(f"{name}.json"),
                    workload=own,
                    device=None if describe is None else describe(mode=mode),
                    shape=shape,
                    allow_mismatch=allow_mismatch,
                )
            return cls(tables, ratios, str(values["reference"]))
        except LatencyTableError:
            raise
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise LatencyTableError(f"{str(path)!r} is damaged ({error}); {fix}") from error
