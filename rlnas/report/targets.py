"""The part of the page that says what was delivered for each of several targets."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Any

from rlnas.report.parts import note, section
from rlnas.report.summary import models_of
from rlnas.report.wording import (
    interval,
    metric_name,
    milliseconds_sentence,
    number,
    params,
    steps_sentence,
    target_title,
    verdict,
)

if TYPE_CHECKING:
    from collections.abc import Mapping


def targets_section(summary: Mapping[str, Any]) -> list[str]:
    """A row per target; no section in the report of a run for a single one."""
    if "targets" not in summary:
        return []
    titles = (
        "target",
        "latency ratio",
        "95 % interval",
        "target met",
        metric_name(summary),
        "95 % interval",
    )
    head = "".join(f"<th>{escape(title)}</th>" for title in (*titles, "points lost", "parameters", "model"))
    models = models_of(summary)
    rows = "".join(f"<tr>{_row(model)}</tr>" for model in models)
    facts = [
        f"{target_title(model)}: {sentence}"
        for model in models
        for sentence in (steps_sentence(model), milliseconds_sentence(model))
        if sentence
    ]
    said = (
        "One search served all targets; every model was finished and certified on its own, beside the full "
        f"model. {' '.join(facts)}"
    )
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"
    return [section("Models by target", f'<div class="scroll">{table}</div>{note(escape(said))}')]


def _row(model: Mapping[str, Any]) -> str:
    best, target = model["best"], f"{model['target_ratio']:g}"
    cells = (
        number(model["latency_ratio"], 3),
        interval(model["latency_ratio_ci"], 3),
        verdict(model),
        number(best["accuracy"], 3),
        interval(best["accuracy_ci"], 3),
        f"{number(model['loss_points'], 1)} {interval(model['loss_ci'], 1)}",
        params(best["n_params"]),
        str(model["folder"]),
    )
    return f"<th>{escape(target)}</th>" + "".join(f"<td>{escape(c)}</td>" for c in cells)
