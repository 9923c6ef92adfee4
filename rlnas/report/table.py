"""The result of a run as plain text, for terminals of 100 columns."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Any

from rlnas.report.added import added_sentences
from rlnas.report.auto import auto_sentences
from rlnas.report.honest import honest_sentences, start_sentence
from rlnas.report.precisions import in_precision, precisions_sentence
from rlnas.report.summary import models_of
from rlnas.report.wording import (
    UNKNOWN,
    accuracy_sentence,
    as_sentence,
    chosen_name,
    evaluation_sentence,
    finetuned_sentence,
    interval,
    latency_model_sentence,
    latency_sentence,
    metric_name,
    milliseconds,
    milliseconds_sentence,
    number,
    params,
    prediction_sentence,
    ratio_to_full,
    regime_sentence,
    seconds_sentence,
    setting_sentence,
    steps_sentence,
    target_title,
)
from rlnas.space import SubnetConfig

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rlnas.space import ModelShape

WIDTH = 100
MAX_FRONT = 20
"""Rows of the Pareto front that are shown; a longer front is thinned evenly."""

_SENTENCES = (
    latency_sentence,
    prediction_sentence,
    steps_sentence,
    milliseconds_sentence,
    accuracy_sentence,
    finetuned_sentence,
)


def format_table(summary: Mapping[str, Any]) -> str:
    """The table that a run ends with.

    Args:
        summary: As in ``summary.json``.

    Returns:
        Lines of at most 100 columns: full model, chosen subnet and Pareto front, what the chosen
        subnet keeps, and what the figures mean.
    """
    metric = metric_name(summary)
    header = ("", metric, "items", "split", "ms (spread)", "ratio", "params")
    models = models_of(summary)
    front = [
        _row(models[0], in_precision(f"  trial {_trial(entry)}", entry), entry)
        for entry in thinned(summary["pareto"])
    ]
    chosen = [
        _row(
            model,
            in_precision(chosen_name(model), model["best"]),
            {**model["best"], "latency_ratio": model["latency_ratio"]},
        )
        for model in models
    ]
    rows = [
        header,
        _row(models[0], "full model", {**models[0]["full"], "latency_ratio": 1.0}),
        *chosen,
        *([("Pareto front", "", "", "", "", "", "")] if front else []),
        *front,
    ]
    parts = [
        _short(f"{summary['model']} on {summary['task']['name']}", WIDTH),
        f"{metric} with 95 % intervals",
        "",
        *_aligned(rows),
        *_thinning_note(summary["pareto"]),
    ]
    for model in models:
        parts += ["", *_model_lines(model)]
    parts += [""] if len(models) > 1 else []
    parts += textwrap.wrap(setting_sentence(summary), WIDTH)
    told = (*auto_sentences(summary), start_sentence(summary))
    for sentence in (*told, *honest_sentences(summary), *added_sentences(summary)):
        parts += textwrap.wrap(sentence, WIDTH)
    parts += textwrap.wrap(precisions_sentence(summary), WIDTH)
    note = (summary.get("latency_model") or {}).get("foreign_note")
    parts += textwrap.wrap(as_sentence(note), WIDTH) if note else []
    parts += textwrap.wrap(regime_sentence(summary), WIDTH)
    closing = (latency_model_sentence(summary), evaluation_sentence(summary), seconds_sentence(summary))
    parts += textwrap.wrap(" ".join(filter(None, closing)), WIDTH)
    return "\n".join(parts)


def _model_lines(model: Mapping[str, Any]) -> list[str]:
    """What a delivered model keeps, and what its figures mean."""
    config = SubnetConfig.from_dict(model["best"]["config"])
    title = target_title(model) if "folder" in model else "Chosen"
    lines = [
        f"{title}: {kept_text(config)} (heads h units, - for none):",
        *textwrap.wrap(str(config), WIDTH, initial_indent="  ", subsequent_indent="  "),
        "",
    ]
    for sentence in _SENTENCES:
        lines += textwrap.wrap(sentence(model), WIDTH)
    return lines + (textwrap.wrap(as_sentence(model["note"]), WIDTH) if model.get("note") else [])


def format_config(config: SubnetConfig, shape: ModelShape | None = None) -> str:
    """What is kept of each layer, one line per layer.

    Args:
        config: The subnet.
        shape: Sizes of the full model, to say of how many; or None.
    """
    n_heads = "" if shape is None else f" of {shape.num_attention_heads}"
    n_units = "" if shape is None else f" of {shape.intermediate_size}"
    rows = []
    for index, layer in enumerate(config.layers):
        if layer.is_dropped:
            rows.append((f"layer {index}", "dropped", ""))
            continue
        heads, units = layer.num_attention_heads, layer.intermediate_size
        rows.append(
            (
                f"layer {index}",
                f"{heads}{n_heads} heads" if heads else "no attention",
                f"{units}{n_units} units" if units else "no FFN",
            )
        )
    lines = _aligned(rows)
    return "\n".join([*lines, f"precision {config.precision}"] if config.precision else lines)


def kept_text(config: SubnetConfig) -> str:
    """How many layers and blocks are kept, in words."""
    n_layers = len(config.layers)
    n_attention = sum(layer.num_attention_heads > 0 for layer in config.layers)
    n_ffn = sum(layer.intermediate_size > 0 for layer in config.layers)
    return (
        f"{config.num_hidden_layers} of {n_layers} layers "
        f"with {n_attention} attention and {n_ffn} FFN blocks"
    )


def thinned(front: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """At most `MAX_FRONT` entries, the first and the last among them."""
    if len(front) <= MAX_FRONT:
        return list(front)
    last = len(front) - 1
    return [front[round(i * last / (MAX_FRONT - 1))] for i in range(MAX_FRONT)]


def _thinning_note(front: Sequence[object]) -> list[str]:
    if len(front) <= MAX_FRONT:
        return []
    return [f"  ({MAX_FRONT} of the {len(front)} subnets of the front; summary.json holds all)"]


def _trial(entry: Mapping[str, Any]) -> str:
    return str(entry.get("trial", UNKNOWN))


def _row(summary: Mapping[str, Any], name: str, entry: Mapping[str, Any]) -> tuple[str, ...]:
    return (
        name,
        f"{number(entry['accuracy'], 3)} {interval(entry['accuracy_ci'], 3)}",
        number(entry["n_items"], 0),
        _short(str(entry["split"]), 15),
        f"{milliseconds(entry['latency_ms'])} ({milliseconds(entry['latency_spread_ms'])})",
        number(ratio_to_full(summary, entry), 3),
        params(entry["n_params"]),
    )


def _short(text: str, width: int) -> str:
    line = " ".join(text.split())
    return line if len(line) <= width else line[: width - 3] + "..."


def _aligned(rows: Sequence[tuple[str, ...]]) -> list[str]:
    """Columns two spaces apart; columns whose cells are figures are flushed right."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    figures = {"items", "ms (spread)", "ratio", "params"}
    right = [name in figures for name in rows[0]]
    lines = []
    for row in rows:
        cells = [
            cell.rjust(width) if is_right else cell.ljust(width)
            for cell, width, is_right in zip(row, widths, right, strict=True)
        ]
        lines.append("  ".join(cells).rstrip())
    return lines
