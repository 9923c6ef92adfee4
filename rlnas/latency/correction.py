"""From the sum of block times to the time of a whole model.

Blocks timed apart from a model do not quite add up to it. A few end-to-end timings correct the
sum. Several forms are tried; cross-validation says which one holds for models that were not timed.

All fits minimise *relative* squared errors, so that a small model counts as much as a
large one.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from rlnas.latency.validation import leave_one_out

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy.typing as npt

    from rlnas.space import ModelShape, SubnetConfig
    from rlnas.workload import Workload

    FloatArray = npt.NDArray[np.float64]

FORMS = ("none", "scale", "scale_offset", "per_kind")
"""Forms of the correction, from the simplest to the richest."""

_N_PARAMETERS = {"none": 0, "scale": 1, "scale_offset": 2, "per_kind": 3}


@dataclass(frozen=True, slots=True)
class Correction:
    """Time of a model from its parts.

    ``offset_ms + floor_scale * floor + attention_scale * attention + ffn_scale * ffn``,
    where `attention` and `ffn` are sums over the blocks kept.

    Attributes:
        form: One of `FORMS`.
        offset_ms: Added once, in milliseconds; may be negative.
        floor_scale: Factor on the floor, above 0.
        attention_scale: Factor on attention blocks, above 0.
        ffn_scale: Factor on FFN blocks, above 0.

    Raises:
        ValueError: If a field is outside its range.
    """

    form: str = "none"
    offset_ms: float = 0.0
    floor_scale: float = 1.0
    attention_scale: float = 1.0
    ffn_scale: float = 1.0

    def __post_init__(self) -> None:
        if self.form not in FORMS:
            raise ValueError(f"form must be one of {', '.join(FORMS)}, but got form={self.form!r}")
        if not math.isfinite(self.offset_ms):
            raise ValueError(f"offset_ms must be finite, but got offset_ms={self.offset_ms}")
        for name in ("floor_scale", "attention_scale", "ffn_scale"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise ValueError(f"{name} must be above 0 and finite, but got {name}={value}")

    def __call__(self, parts: FloatArray) -> FloatArray:
        """Milliseconds of models.

        Args:
            parts: Shape ``(n, 3)``: floor, sum of attention blocks, sum of FFN blocks, in ms.

        Returns:
            Shape ``(n,)``.
        """
        scales = np.array([self.floor_scale, self.attention_scale, self.ffn_scale])
        # One product and one sum per row, so that a row's result does not depend on the batch.
        total: FloatArray = self.offset_ms + (parts * scales).sum(axis=1)
        return total

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)


def fit_correction(parts: FloatArray, measured_ms: FloatArray) -> Correction:
    """The correction that predicts held-out models best.

    A richer form must be better than a simpler one by a twentieth, and by more than the standard
    error of the difference (L. Breiman et al., Classification and Regression Trees, 1984); and it
    may not give a block or the floor a time of 0 or less.

    Args:
        parts: Shape ``(n, 3)``: floor, sum of attention blocks, sum of FFN blocks, in ms.
        measured_ms: Shape ``(n,)``, end-to-end times of the same models.
    """
    best, least = Correction(), None
    for form in FORMS if len(measured_ms) else ():
        correction = _fit_form(form, parts, measured_ms)
        if correction is None:
            continue
        predicted = leave_one_out(partial(_fit_form_or_none, form), parts, measured_ms)
        errors = np.abs(predicted / measured_ms - 1)
        if least is None or _is_clearly_less(errors, least):
            best, least = correction, errors
    return best


def _is_clearly_less(errors: FloatArray, than: FloatArray) -> bool:
    gain = than - errors
    standard_error = gain.std(ddof=1) / math.sqrt(len(gain)) if len(gain) > 1 else 0.0
    return bool(gain.mean() > max(0.05 * than.mean() + 1e-9, standard_error))


def fit_line(features: FloatArray, measured_ms: FloatArray) -> Callable[[FloatArray], FloatArray]:
    """The straight line (or plane) that the controls of `rlnas.latency.validation` predict with.

    Args:
        features: Shape ``(n, k)``.
        measured_ms: Shape ``(n,)``.
    """
    columns = np.column_stack([np.ones(len(features)), features])
    weights = _relative_least_squares(columns, measured_ms)
    return lambda rows: np.column_stack([np.ones(len(rows)), rows]) @ weights


def count_blocks(config: SubnetConfig) -> tuple[int, int]:
    """Attention blocks and FFN blocks that are kept."""
    return (
        sum(layer.num_attention_heads > 0 for layer in config.layers),
        sum(layer.intermediate_size > 0 for layer in config.layers),
    )


def count_flops(config: SubnetConfig, shape: ModelShape, workload: Workload) -> float:
    """Floating-point operations of the kept blocks' matrix products, two per multiply-add.

    Embeddings and head are left out: they are alike in all subnets. Padding counts, as it is
    computed; of a mix of requests it is the mean.
    """
    head_size = shape.hidden_size // shape.num_attention_heads
    totals = []
    for lengths in workload.requests:
        tokens = max(lengths)
        total = 0
        for layer in config.layers:
            width = layer.num_attention_heads * head_size
            total += 4 * 2 * shape.hidden_size * width  # queries, keys, values and output
            total += 2 * 2 * tokens * width  # scores and their product with the values
            total += 2 * 2 * shape.hidden_size * layer.intermediate_size
        totals.append(total * tokens * len(lengths))
    return sum(totals) / len(totals)


def _fit_form(form: str, parts: FloatArray, measured_ms: FloatArray) -> Correction | None:
    """The form's best fit, or None if there are too few models or it gives an impossible one."""
    if form == "none":
        return Correction()
    if len(measured_ms) < _N_PARAMETERS[form] + 2:
        return None
    sums = parts.sum(axis=1)
    ones = np.ones_like(sums)
    if form == "scale":
        (scale,) = _relative_least_squares(np.stack([sums], axis=1), measured_ms)
        values = (0.0, scale, scale, scale)
    elif form == "scale_offset":
        offset, scale = _relative_least_squares(np.stack([ones, sums], axis=1), measured_ms)
        values = (offset, scale, scale, scale)
    else:
        # The floor is the same in all models: its factor cannot be told from the offset.
        columns = np.stack([ones, parts[:, 1], parts[:, 2]], axis=1)
        constant, attention, ffn = _relative_least_squares(columns, measured_ms)
        values = (constant - float(parts[0, 0]), 1.0, attention, ffn)
    offset, *scales = (float(value) for value in values)
    floor_ms = offset + scales[0] * float(parts[:, 0].min())
    if floor_ms <= 0 or min(scales) <= 0:
        return None
    return Correction(form, offset, *scales)


def _fit_form_or_none(form: str, parts: FloatArray, measured_ms: FloatArray) -> Correction:
    return _fit_form(form, parts, measured_ms) or Correction()


def _relative_least_squares(columns: FloatArray, measured_ms: FloatArray) -> FloatArray:
    # Columns are brought to one size first: operations run to 1e9, the constant is 1.
    sizes = np.abs(columns).max(axis=0)
    sizes[sizes == 0] = 1.0
    weighted = columns / sizes / measured_ms[:, None]
    solution: FloatArray = np.linalg.lstsq(weighted, np.ones(len(measured_ms)), rcond=None)[0] / sizes
    return solution
