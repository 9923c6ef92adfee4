"""The pictures of the report."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from rlnas.pareto import is_pareto_optimal
from rlnas.report.style import STYLE
from rlnas.report.summary import models_of
from rlnas.report.svg import (
    Frame,
    LogScale,
    Scale,
    axes,
    diamond,
    dot,
    dots,
    picture,
    polyline,
    stairs,
    stand_alone,
    text,
)
from rlnas.report.wording import chosen_name, metric_name, milliseconds

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rlnas.space import SubnetConfig
    from rlnas.trial import Trial

MEAN_OVER = 32
"""Trials that the running mean of the learning curve looks back on."""

MAX_TITLES = 800
"""With more trials than this only those of the front say what they are, to keep the page small."""

EARLY = "0.4"
"""Opacity of trials that were raced out: they are seen, but not as if judged fully."""

LOG_FROM = 8.0
"""From this factor between the least and the greatest value on, latencies get logarithmic axes."""

MAX_CELLS = 24
"""Blocks of up to this many heads are drawn head by head."""


@dataclass(frozen=True, slots=True)
class _Certified:
    """A model of the certificate, as a mark in the Pareto plot."""

    name: str
    css: str
    latency_ms: float
    accuracy: float
    low: float
    high: float

    @classmethod
    def of(cls, name: str, css: str, entry: Mapping[str, Any]) -> _Certified | None:
        values = [entry["latency_ms"], entry["accuracy"], *entry["accuracy_ci"]]
        if not all(isinstance(value, int | float) and math.isfinite(value) for value in values):
            return None
        return cls(name, css, *map(float, values))

    @property
    def title(self) -> str:
        return (
            f"{self.name}: {self.accuracy:.3f} [{self.low:.3f}, {self.high:.3f}], {self.latency_ms:.2f} ms"
        )


def pareto_plot(summary: Mapping[str, Any], trials: Sequence[Trial]) -> str | None:
    """All trials by latency and accuracy, their front, and the two certified models.

    Trials that were raced out are drawn lighter, and are not on the front.

    Args:
        summary: As in ``summary.json``.
        trials: The history.

    Returns:
        An SVG element, or None where no trial has a latency.
    """
    shown = [t for t in trials if math.isfinite(t.metrics.latency_ms) and math.isfinite(t.metrics.accuracy)]
    if not shown:
        return None
    models = models_of(summary)
    split = models[0]["full"]["split"]
    full = _Certified.of(f"full model, {split} split", "full", models[0]["full"])
    chosen = [_Certified.of(f"{chosen_name(m)}, {split} split", "chosen", m["best"]) for m in models]
    marks = [mark for mark in (full, *chosen) if mark is not None]
    targets = _targets(models)
    frame = Frame()
    latencies = [t.metrics.latency_ms for t in shown] + [mark.latency_ms for mark in marks]
    x = frame.x_scale([*latencies, *targets])
    accuracies = [t.metrics.accuracy for t in shown]
    y = frame.y_scale([*accuracies, *(v for mark in marks for v in (mark.low, mark.high))])
    rings = [
        _chosen_ring(trial, mark, x, y)
        for model, mark in zip(models, chosen, strict=True)
        if (trial := _chosen_trial(model, shown)) is not None
    ]
    content = [
        axes(frame, x, y, "latency, ms", metric_name(summary)),
        *(_target_line(frame, x, target_ms, said) for target_ms, said in targets.items()),
        _trial_dots(shown, x, y),
        *rings,
        *(_certified_mark(mark, x, y) for mark in marks),
    ]
    label = f"{len(shown)} trials by latency and {metric_name(summary)}, with their Pareto front"
    return picture(frame.width, frame.height, label, "".join(content))


def learning_curve(trials: Sequence[Trial]) -> str | None:
    """Reward of every trial, its running mean and the best so far.

    Trials that were raced out are drawn lighter. They count in the mean, since the controller was
    told their reward, but are never the best.

    Returns:
        An SVG element, or None where no trial has a finite reward.
    """
    shown = [trial for trial in trials if math.isfinite(trial.reward)]
    if not shown:
        return None
    frame = Frame(height=330, bottom=278)
    numbers = [trial.number for trial in shown]
    rewards = np.array([trial.reward for trial in shown])
    x = frame.x_scale(numbers, pad=0.015)
    y = frame.y_scale(rewards.tolist())
    # Some 600 points are a smooth line at this size.
    every = range(0, len(rewards), max(1, len(rewards) // 600))
    means = [(x(numbers[i]), y(rewards[max(0, i + 1 - MEAN_OVER) : i + 1].mean())) for i in every]
    early, complete = _split(shown)
    content = [
        axes(frame, x, y, "trial", "reward"),
        _lighter(dots([(x(t.number), y(t.reward)) for t in early], "dots") if early else ""),
        dots([(x(t.number), y(t.reward)) for t in complete], "dots"),
        stairs([(x(n), y(b)) for n, b in _best_so_far(complete, numbers[-1])], "best"),
        polyline(means, "mean"),
    ]
    return picture(frame.width, frame.height, f"reward of {len(shown)} trials", "".join(content))


def predicted_against_measured(
    points: Sequence[tuple[float, float]], *, names: Sequence[str] = (), as_file: bool = False
) -> str:
    """Latencies as a table predicts them over what was measured; a perfect table's are on the diagonal.

    Args:
        points: Predicted and measured milliseconds of each model, all finite and above 0; at least one.
        names: What each point is, shown where the pointer rests on it; or none.
        as_file: Whether the picture is to be a file of its own, rather than part of a page.

    Returns:
        An SVG element; with `as_file` the content of an ``.svg`` file.

    Raises:
        ValueError: If there is no point, one is not finite and above 0, or not every one has a name.
    """
    for point in points:
        if not all(math.isfinite(value) and value > 0 for value in point):
            raise ValueError(f"latencies must be finite and above 0, but got {point}")
    if not points or len(names) not in (0, len(points)):
        raise ValueError(
            f"a plot needs points, and names for all or none, but got {len(points)} and {len(names)}"
        )
    frame = Frame(height=460, bottom=408)
    x, y = _equal_scales(frame, [value for point in points for value in point])
    low, high = x.low, x.high
    marks = []
    for (predicted, measured), name in zip(points, names or [""] * len(points), strict=True):
        title = f"predicted {milliseconds(predicted)} ms, measured {milliseconds(measured)} ms"
        title = f"{name}: {title}" if name else title
        marks.append(dot(x(measured), y(predicted), 4, "fdot", title))
    content = [
        axes(frame, x, y, "measured latency, ms", "predicted latency, ms"),
        polyline([(x(low), y(low)), (x(high), y(high))], "target"),
        *marks,
    ]
    label = f"predicted against measured latency of {len(points)} models"
    svg = picture(frame.width, frame.height, label, "".join(content))
    return stand_alone(svg, STYLE) if as_file else svg


def _equal_scales(frame: Frame, values: Sequence[float]) -> tuple[Scale, Scale] | tuple[LogScale, LogScale]:
    """Both axes from the same low to the same high, so that the diagonal is one of the picture."""
    if max(values) < LOG_FROM * min(values):
        return frame.x_scale(values, 0.05), frame.y_scale(values, 0.05)
    low, high = min(values) / 1.15, max(values) * 1.15
    return (
        LogScale(low, high, frame.left, frame.right),
        LogScale(low, high, frame.bottom, frame.top),
    )


def kept_layers(config: SubnetConfig, full_heads: int, full_units: int) -> str:
    """Heads and units that each layer keeps, as bars.

    Args:
        config: The subnet.
        full_heads: Heads of a layer of the full model.
        full_units: Units of a layer of the full model.
    """
    row, top = 30, 30
    left, width, second = 74, 278, 478
    content = [
        text(left, 15, f"attention heads, of {full_heads}", "label"),
        text(second, 15, f"FFN units, of {full_units:,}", "label"),
    ]
    for index, layer in enumerate(config.layers):
        at = top + index * row
        css = "tick off" if layer.is_dropped else "tick"
        content.append(text(left - 12, at + 13, f"layer {index}", css, "end"))
        for start, kept, full in (
            (left, layer.num_attention_heads, full_heads),
            (second, layer.intermediate_size, full_units),
        ):
            content.append(_bar(start, at, width, kept, full))
            content.append(text(start + width + 10, at + 13, f"{kept:,}" if kept else "dropped", css))
    height = top + len(config.layers) * row
    return picture(860, height, f"what the chosen subnet keeps: {config}", "".join(content))


def _bar(left: float, top: float, width: float, kept: int, full: int) -> str:
    """The full size as an outline, the kept part filled; single heads where there are few."""
    height = 16
    if not kept:
        size = f'width="{width - 1}" height="{height - 1}"'
        return f'<rect class="gone" x="{left}.5" y="{top}.5" {size} rx="2"/>'
    if full > MAX_CELLS or full == 1:
        share = width * min(1.0, kept / full)
        return (
            f'<rect class="rest" x="{left}" y="{top}" width="{width}" height="{height}" rx="2"/>'
            f'<rect class="kept" x="{left}" y="{top}" width="{share:.1f}" height="{height}" rx="2"/>'
        )
    step = width / full
    return "".join(
        f'<rect class="{"kept" if i < kept else "rest"}" x="{left + i * step:.1f}" y="{top}" '
        f'width="{step - 2:.1f}" height="{height}" rx="2"/>'
        for i in range(full)
    )


def _target_ms(summary: Mapping[str, Any]) -> float | None:
    target_ms, ratio = summary.get("target_ms"), summary.get("target_ratio")
    if target_ms is not None:
        return float(target_ms)
    full_ms = summary["full"]["latency_ms"]
    return None if ratio is None or full_ms is None else float(ratio) * float(full_ms)


def _targets(models: Sequence[Mapping[str, Any]]) -> dict[float, str]:
    """What is said of each target that is known, by its latency in milliseconds."""
    known = [(target_ms, model) for model in models if (target_ms := _target_ms(model)) is not None]
    if len(models) > 1:  # milliseconds would run into each other
        return {target_ms: f"{model['target_ratio']:g}" for target_ms, model in known}
    return {target_ms: f"target {milliseconds(target_ms)} ms" for target_ms, _ in known}


def _target_line(frame: Frame, x: Scale, target_ms: float, said: str) -> str:
    at = x(target_ms)
    middle = min(max(at, frame.left + 50), frame.right - 50)
    return f'<path class="target" d="M{at:.1f} {frame.top - 5}V{frame.bottom}"/>' + text(
        middle, frame.top - 11, said, "label", "middle"
    )


def _trial_dots(trials: Sequence[Trial], x: Scale, y: Scale) -> str:
    early, complete = _split(trials)
    costs = [(t.metrics.latency_ms, -t.metrics.accuracy) for t in complete]
    optimal = is_pareto_optimal(np.array(costs).reshape(len(costs), 2))
    front = sorted(
        (t for t, is_optimal in zip(complete, optimal, strict=True) if is_optimal),
        key=lambda t: t.metrics.latency_ms,
    )
    others = [t for t, is_optimal in zip(complete, optimal, strict=True) if not is_optimal]

    def small(group: Sequence[Trial]) -> str:
        if len(trials) <= MAX_TITLES:
            return "".join(_mark(t, x, y, 3, "dot") for t in group)
        return dots([(x(t.metrics.latency_ms), y(t.metrics.accuracy)) for t in group], "dots")

    steps = stairs([(x(t.metrics.latency_ms), y(t.metrics.accuracy)) for t in front], "front")
    marks = "".join(_mark(t, x, y, 4, "fdot") for t in front)
    return _lighter(small(early) if early else "") + small(others) + steps + marks


def _split(trials: Sequence[Trial]) -> tuple[list[Trial], list[Trial]]:
    """Those that were raced out, and those that were judged fully."""
    early = [trial for trial in trials if trial.metrics.raced_out]
    return early, [trial for trial in trials if not trial.metrics.raced_out]


def _lighter(content: str) -> str:
    return f'<g class="early" opacity="{EARLY}">{content}</g>' if content else ""


def _mark(trial: Trial, x: Scale, y: Scale, radius: float, css: str) -> str:
    metrics = trial.metrics
    accuracy = f"{metrics.accuracy:.3f}"
    if metrics.raced_out:
        accuracy += f" on {metrics.n_items} items only"
    title = f"trial {trial.number}: {accuracy}, {metrics.latency_ms:.2f} ms, {trial.config}"
    at = x(metrics.latency_ms), y(metrics.accuracy)
    return dot(*at, radius, css, title)


def _chosen_trial(summary: Mapping[str, Any], trials: Sequence[Trial]) -> Trial | None:
    wanted = summary["best"]["config"]
    return next((t for t in trials if t.config.to_dict() == wanted), None)


def _chosen_ring(trial: Trial, certified: _Certified | None, x: Scale, y: Scale) -> str:
    """The chosen trial as the search saw it, tied to what the certificate says of it."""
    at = x(trial.metrics.latency_ms), y(trial.metrics.accuracy)
    ring = _mark(trial, x, y, 7.5, "ring")
    if certified is None:
        return ring
    return polyline([at, (x(certified.latency_ms), y(certified.accuracy))], "tie") + ring


def _certified_mark(mark: _Certified, x: Scale, y: Scale) -> str:
    at = x(mark.latency_ms)
    bar = f'<path class="ci {mark.css}" d="M{at:.1f} {y(mark.low):.1f}V{y(mark.high):.1f}"/>'
    return bar + diamond(at, y(mark.accuracy), 7, f"mark {mark.css}", mark.title)


def _best_so_far(trials: Sequence[Trial], last: int) -> list[tuple[int, float]]:
    """Number and reward of each trial that was better than all before, and the best at number `last`."""
    steps: list[tuple[int, float]] = []
    for trial in trials:
        if not steps or trial.reward > steps[-1][1]:
            steps.append((trial.number, trial.reward))
    return [*steps, (last, steps[-1][1])] if steps and steps[-1][0] != last else steps
