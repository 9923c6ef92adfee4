"""How wrong a new table is, beside a count of blocks and a count of FLOPs fitted to the same timings."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from rlnas.calibration.plan import REPEATED
from rlnas.latency.correction import count_blocks, count_flops, fit_correction, fit_line
from rlnas.latency.validation import judge, leave_one_out

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy.typing as npt

    from rlnas.calibration.plan import Plan
    from rlnas.latency.table import LatencyTable
    from rlnas.latency.timing import Timing
    from rlnas.latency.validation import HeldOutError

    FloatArray = npt.NDArray[np.float64]
    Fit = Callable[[FloatArray, FloatArray], Callable[[FloatArray], FloatArray]]


def tail_ratio(timings: list[Timing]) -> float:
    """99 % quantile of how much longer than its model's median a request takes, over all models."""
    relative = [np.array(timing.samples_ms) / timing.median_ms for timing in timings]
    return float(np.quantile(np.concatenate(relative), 0.99))


def judge_table(table: LatencyTable, plan: Plan, levelled: list[Timing], raw: list[Timing]) -> HeldOutError:
    """The table and its controls on models that they were not fitted to.

    Args:
        table: Corrected already.
        plan: What was timed.
        levelled: Timings of ``plan.subnets``, drift taken out.
        raw: The same timings as they came.
    """
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


def _noise(timings: list[Timing], plan: Plan, statistic: str) -> tuple[FloatArray | None, float]:
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


def _predictors(table: LatencyTable, plan: Plan) -> list[tuple[str, FloatArray, Fit]]:
    """Name, features of all models, and the fit to them: the table, and what it has to beat."""
    configs = plan.models + plan.held_out
    flops = [[count_flops(config, table.shape, table.workload)] for config in configs]
    return [
        ("table", table.parts(configs), fit_correction),
        ("blocks", np.array([count_blocks(config) for config in configs], dtype=float), fit_line),
        ("flops", np.array(flops), fit_line),
    ]
