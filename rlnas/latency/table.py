"""A latency table: what each block costs on one device, added up and corrected."""

from __future__ import annotations

import json
import math
import os
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rlnas.errors import LatencyLookupError, LatencyTableError, RunFolderError
from rlnas.latency.correction import Correction
from rlnas.latency.device import DeviceInfo
from rlnas.latency.timing import Timing, level_rounds
from rlnas.latency.validation import HeldOutError
from rlnas.space import ModelShape, SubnetConfig
from rlnas.workload import Workload

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy.typing as npt

SCHEMA_VERSION = 2
"""Version of the JSON file; a file of another version is not read."""


@dataclass(frozen=True, slots=True)
class BlockTiming:
    """Raw timing of a stack of equal blocks.

    Attributes:
        kind: ``"attention"``, ``"ffn"``, or ``"floor"`` for a model without blocks.
        size: Heads or units; 0 for the floor.
        timing: Its samples; of all blocks of the stack together.
    """

    kind: str
    size: int
    timing: Timing


@dataclass(frozen=True, slots=True)
class ModelTiming:
    """Raw timing of one whole subnet.

    Attributes:
        config: The subnet.
        timing: Its samples.
    """

    config: SubnetConfig
    timing: Timing


@dataclass(frozen=True, slots=True)
class LatencyTable:
    """Predicts the latency of subnets; a `LatencyModel`.

    The latency of a subnet is the corrected sum of the floor and of the blocks it keeps; that of
    the model without blocks is the floor as it was timed. A dropped block costs 0, and it does not
    matter in which layer a block stands.

    Attributes:
        workload: What was run.
        device: What it ran on.
        shape: Sizes of the full model.
        attention_ms: By number of heads, milliseconds of one attention block.
        ffn_ms: By number of units, milliseconds of one FFN block.
        floor_ms: Milliseconds of a model without blocks: embeddings and head.
        correction: From the sum to the median time of a whole model.
        tail_ratio: From the median to what the workload asks for: 1, or for p99 how much longer
            than its median one request in a hundred of the end-to-end timings took. Quantiles of
            blocks do not add up; this ratio is much the same for all models.
        error: How wrong the table is on models that it was not fitted on, or None.
        stack_size: Blocks that were timed together, see `block_timings`.
        block_timings: The raw timings of the floor and of stacks of blocks.
        model_timings: The raw end-to-end timings that the correction was fitted to.
        held_out_timings: Those that judged it, if any were taken for this.
        repeat_timings: Timings of some of the same subnets, built a second time.
        build_seconds: What it took to build (and compile) all that was timed.
        measure_seconds: What it took to time it.
        notes: What was wrong with the machine meanwhile, one sentence each.
        foreign_note: One sentence if the table was made for something else than asked for.

    Raises:
        ValueError: If a time is negative or not finite: a block cannot take less than no time,
            and a controller would collect such blocks.
    """

    workload: Workload
    device: DeviceInfo
    shape: ModelShape
    attention_ms: Mapping[int, float]
    ffn_ms: Mapping[int, float]
    floor_ms: float
    correction: Correction = field(default_factory=Correction)
    tail_ratio: float = 1.0
    error: HeldOutError | None = None
    stack_size: int = 1
    block_timings: tuple[BlockTiming, ...] = ()
    model_timings: tuple[ModelTiming, ...] = ()
    held_out_timings: tuple[ModelTiming, ...] = ()
    repeat_timings: tuple[ModelTiming, ...] = ()
    build_seconds: float = field(default=0.0, compare=False)
    measure_seconds: float = field(default=0.0, compare=False)
    notes: tuple[str, ...] = ()
    foreign_note: str | None = None

    def __post_init__(self) -> None:
        for name in ("attention_ms", "ffn_ms"):
            by_size = {int(size): float(ms) for size, ms in sorted(getattr(self, name).items())}
            object.__setattr__(self, name, by_size)
            for size, ms in by_size.items():
                _check_time(f"{name}[{size}]", ms)
                if size < 1:
                    raise ValueError(f"{name} holds kept blocks, of size 1 and more, but got size {size}")
        _check_time("floor_ms", self.floor_ms)
        if not (math.isfinite(self.tail_ratio) and self.tail_ratio > 0):
            raise ValueError(f"tail_ratio must be above 0 and finite, but got {self.tail_ratio}")
        object.__setattr__(self, "notes", tuple(self.notes))

    def __call__(self, configs: Sequence[SubnetConfig], /) -> npt.NDArray[np.float64]:
        """Milliseconds of each config, shape ``(len(configs),)``.

        Raises:
            LatencyLookupError: If a config has a block that the table does not hold.
        """
        parts = self.parts(configs)
        # The model without blocks was timed as it is; the others are corrected sums.
        is_floor = (parts[:, 1] == 0) & (parts[:, 2] == 0)
        return self.tail_ratio * np.where(is_floor, self.floor_ms, self.correction(parts))

    def parts(self, configs: Sequence[SubnetConfig]) -> npt.NDArray[np.float64]:
        """What the latency of each config is made of, before the correction.

        Returns:
            Shape ``(len(configs), 3)``: floor, sum of attention blocks, sum of FFN blocks, in ms.

        Raises:
            LatencyLookupError: If a config has a block that the table does not hold.
        """
        return np.array([self._parts(config) for config in configs]).reshape(-1, 3)

    def against_measured(self) -> list[tuple[SubnetConfig, float, float]]:
        """Predicted and measured milliseconds of the models that judged the table, drift taken out.

        Those that were held out; without any, those that the correction was fitted to.
        """
        judges = self.held_out_timings or self.model_timings
        if not judges:
            return []
        timings = [raw.timing for raw in self.block_timings]
        models = (*self.model_timings, *self.held_out_timings, *self.repeat_timings)
        timings += [raw.timing for raw in models]
        if self.workload.statistic == "median":
            timings = level_rounds(timings)
        first = len(self.block_timings) + (len(self.model_timings) if self.held_out_timings else 0)
        measured = [timing.statistic_ms(self.workload.statistic) for timing in timings[first:]]
        configs = [raw.config for raw in judges]
        return list(zip(configs, self(configs).tolist(), measured, strict=False))

    def __str__(self) -> str:
        full_ms = self([self.shape.full])[0] if self._holds_full else math.nan
        lines = [
            f"latency of {self.workload} on {self.device.name} ({self.device.threads} thread"
            f"{'s' * (self.device.threads != 1)}): floor {self([_without_blocks(self.shape)])[0]:.2f} ms, "
            f"full model {full_ms:.2f} ms, correction {self.correction.form}"
            + (
                f", {self.workload.statistic} {self.tail_ratio:.2f} times the median"
                if self.tail_ratio != 1
                else ""
            )
        ]
        if self.error is not None:
            lines.append(str(self.error))
            lines += [self.error.warning] if self.error.warning else []
        lines += self.notes
        if self.foreign_note is not None:
            lines.append(self.foreign_note)
        return "; ".join(lines)

    @property
    def _holds_full(self) -> bool:
        heads, units = self.shape.num_attention_heads, self.shape.intermediate_size
        return heads in self.attention_ms and units in self.ffn_ms

    def _parts(self, config: SubnetConfig) -> tuple[float, float, float]:
        """Floor, attention blocks and FFN blocks, in ms; the order of layers has no influence."""
        if len(config.layers) != self.shape.num_hidden_layers:
            raise LatencyLookupError(
                f"this table is for models of {self.shape.num_hidden_layers} layers, "
                f"but the subnet has {len(config.layers)}; calibrate its own model"
            )
        if config.precision not in (None, self.workload.dtype):
            raise LatencyLookupError(
                f"this table is for {self.workload.dtype}, but the subnet has "
                f"precision={config.precision!r}; calibrate a workload of that dtype"
            )
        attention, ffn = [], []
        for layer in config.layers:
            if layer.num_attention_heads:
                attention.append(
                    _look_up("num_attention_heads", self.attention_ms, layer.num_attention_heads)
                )
            if layer.intermediate_size:
                ffn.append(_look_up("intermediate_size", self.ffn_ms, layer.intermediate_size))
        # fsum is exact, so equal multisets of blocks give equal sums.
        return self.floor_ms, math.fsum(attention), math.fsum(ffn)

    def save(self, path: Path | str) -> None:
        """Write the table as JSON; the file is whole or not there, never half written.

        Raises:
            RunFolderError: If the file cannot be written.
        """
        target = Path(path)
        text = json.dumps(_to_json(self), indent=1, allow_nan=False)
        try:
            write_whole(target, text + "\n")
        except OSError as error:
            raise RunFolderError(f"cannot write the latency table {target}: {error.strerror}") from error

    @classmethod
    def load(
        cls,
        path: Path | str,
        *,
        workload: Workload | None = None,
        device: DeviceInfo | None = None,
        shape: ModelShape | None = None,
        allow_mismatch: bool = False,
    ) -> LatencyTable:
        """Read a table.

        Args:
            path: Where `save` wrote it.
            workload: What it must be for, or None for anything.
            device: What it must have been measured on, or None for anything.
            shape: The model that it must be for, or None for anything.
            allow_mismatch: Take a table of another workload or device, with a
                `foreign_note`. A table of another model is never taken: its sums would be
                wrong, not merely foreign.

        Raises:
            LatencyTableError: If the file is missing, damaged, or for something else.
        """
        table = _from_json(Path(path))
        if shape is not None and shape != table.shape:
            raise LatencyTableError(
                f"the latency table {path} is for another model: it holds {table.shape}, "
                f"but {shape} is asked for; calibrate this model"
            )
        differences = []
        if device is not None and device != table.device:
            differences.append(f"made on [{table.device}], not on [{device}]")
        if workload is not None and workload != table.workload:
            differences.append(f"made for [{table.workload}], not for [{workload}]")
        if not differences:
            return table
        text = f"the latency table {path} was {' and '.join(differences)}"
        if not allow_mismatch:
            raise LatencyTableError(f"{text}; calibrate here, or allow the mismatch explicitly")
        note = f"predicted for {table.workload} on {table.device}: {text}"
        return replace(table, foreign_note=note)


def write_whole(target: Path, text: str) -> None:
    """Write a text beside the target, then rename: a reader sees the old file or the new one."""
    temporary = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        with temporary.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _check_time(name: str, ms: float) -> None:
    if not (math.isfinite(ms) and ms >= 0):
        raise ValueError(f"{name} must be at least 0 and finite, but got {ms}")


def _look_up(name: str, by_size: Mapping[int, float], size: int) -> float:
    try:
        return by_size[size]
    except KeyError:
        raise LatencyLookupError(
            f"the latency table holds no {name}={size}, only {list(by_size)}; "
            "calibrate with a space that offers this size"
        ) from None


def _without_blocks(shape: ModelShape) -> SubnetConfig:
    return SubnetConfig.from_dict({"layers": [[0, 0]] * shape.num_hidden_layers})


def _to_json(table: LatencyTable) -> dict[str, Any]:
    return {
        "schema_version": SCHEMA_VERSION,
        "workload": table.workload.to_dict(),
        "device": table.device.to_dict(),
        "shape": asdict(table.shape),
        "attention_ms": {str(size): ms for size, ms in table.attention_ms.items()},
        "ffn_ms": {str(size): ms for size, ms in table.ffn_ms.items()},
        "floor_ms": table.floor_ms,
        "correction": table.correction.to_dict(),
        "tail_ratio": table.tail_ratio,
        "error": None if table.error is None else table.error.to_dict(),
        "stack_size": table.stack_size,
        "build_seconds": table.build_seconds,
        "measure_seconds": table.measure_seconds,
        "notes": list(table.notes),
        "block_timings": [
            {"kind": raw.kind, "size": raw.size, **raw.timing.to_dict()} for raw in table.block_timings
        ],
        **{
            name: [{"config": raw.config.to_dict(), **raw.timing.to_dict()} for raw in getattr(table, name)]
            for name in ("model_timings", "held_out_timings", "repeat_timings")
        },
    }


def _from_json(path: Path) -> LatencyTable:
    fix = "delete it and calibrate again"
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise LatencyTableError(
            f"cannot read the latency table {path}: {error.strerror}; calibrate to make one"
        ) from error
    except ValueError as error:
        raise LatencyTableError(f"the latency table {path} is no JSON ({error}); {fix}") from error
    found = values.get("schema_version") if isinstance(values, dict) else None
    if found != SCHEMA_VERSION:
        raise LatencyTableError(
            f"the latency table {path} has schema_version={found!r}, but {SCHEMA_VERSION} is needed; {fix}"
        )
    try:
        return _parse(values)
    except KeyError as error:
        raise LatencyTableError(f"the latency table {path} lacks {error}; {fix}") from error
    except (TypeError, ValueError, AttributeError) as error:
        raise LatencyTableError(f"the latency table {path} is damaged ({error}); {fix}") from error


def _parse(values: Mapping[str, Any]) -> LatencyTable:
    error = values["error"]
    return LatencyTable(
        workload=Workload(**values["workload"]),
        device=DeviceInfo(**values["device"]),
        shape=ModelShape(**values["shape"]),
        attention_ms={int(size): ms for size, ms in values["attention_ms"].items()},
        ffn_ms={int(size): ms for size, ms in values["ffn_ms"].items()},
        floor_ms=float(values["floor_ms"]),
        correction=Correction(**values["correction"]),
        tail_ratio=float(values["tail_ratio"]),
        error=None if error is None else HeldOutError.from_dict(error),
        stack_size=int(values["stack_size"]),
        build_seconds=float(values["build_seconds"]),
        measure_seconds=float(values["measure_seconds"]),
        notes=tuple(values["notes"]),
        block_timings=tuple(
            BlockTiming(raw["kind"], raw["size"], _timing(raw)) for raw in values["block_timings"]
        ),
        model_timings=_model_timings(values["model_timings"]),
        held_out_timings=_model_timings(values["held_out_timings"]),
        repeat_timings=_model_timings(values["repeat_timings"]),
    )


def _model_timings(raws: Sequence[Mapping[str, Any]]) -> tuple[ModelTiming, ...]:
    return tuple(ModelTiming(SubnetConfig.from_dict(raw["config"]), _timing(raw)) for raw in raws)


def _timing(raw: Mapping[str, Any]) -> Timing:
    return Timing(tuple(raw["samples_ms"]), raw["n_calls"], raw["n_requests"], tuple(raw["slowdowns"]))
