"""The report of a run: one HTML file that needs nothing else, not even scripts."""

from __future__ import annotations

import math
import tempfile
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlnas.errors import LatencyTableError, RunFolderError
from rlnas.history import History
from rlnas.latency import LatencyTable
from rlnas.report.added import added_section
from rlnas.report.auto import auto_section
from rlnas.report.honest import honest_section
from rlnas.report.parts import bars, figure, legend, note, section
from rlnas.report.plots import (
    MEAN_OVER,
    kept_layers,
    learning_curve,
    pareto_plot,
    predicted_against_measured,
)
from rlnas.report.precisions import in_precision, precisions_section
from rlnas.report.style import STYLE
from rlnas.report.summary import models_of, read_summary
from rlnas.report.table import MAX_FRONT, thinned
from rlnas.report.targets import targets_section
from rlnas.report.wording import (
    CONTROL_NAMES,
    accuracy_sentence,
    as_sentence,
    chosen_name,
    device_text,
    evaluation_sentence,
    finetuned_sentence,
    interval,
    latency_model_sentence,
    latency_sentence,
    mean_errors,
    metric_name,
    milliseconds,
    milliseconds_sentence,
    number,
    params,
    percent,
    prediction_sentence,
    ratio_to_full,
    regime_sentence,
    setting_sentence,
    steps_sentence,
    target_title,
    workload_text,
)
from rlnas.space import SubnetConfig

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from rlnas.trial import Trial

REPORT_FILE = "report.html"
TABLE_FILE = "latency.json"


def write_report(run_folder: str | Path) -> Path:
    """Write ``report.html`` into the folder of a finished run.

    Args:
        run_folder: Holds ``summary.json`` and ``history.sqlite``; its latency table is shown too.

    Returns:
        The file.

    Raises:
        RunFolderError: If the run is not finished, its summary is damaged, or the file cannot be
            written.
        HistoryError: If the history is damaged.
    """
    folder = Path(run_folder)
    summary = read_summary(folder)
    with History.read(folder) as history:
        page = render(summary, history.trials, _read_table(folder))
    target = folder / REPORT_FILE
    try:
        _replace(target, page)
    except OSError as error:
        raise RunFolderError(f"cannot write the report {target} ({error.strerror})") from error
    return target


def _read_table(folder: Path) -> LatencyTable | None:
    """The latency table of a run, or None where there is none that this version can read."""
    try:
        return LatencyTable.load(folder / TABLE_FILE)
    except LatencyTableError:
        return None


def _replace(target: Path, page: str) -> None:
    """Write a file that is whole or not there, never half written."""
    handle, name = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
    temporary = Path(name)
    try:
        with open(handle, "w", encoding="utf-8") as file:
            file.write(page)
        temporary.chmod(0o644)  # temporary files are private
        temporary.replace(target)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise


def render(summary: Mapping[str, Any], trials: Sequence[Trial], table: LatencyTable | None = None) -> str:
    """The page as text.

    Args:
        summary: As in ``summary.json``.
        trials: The history.
        table: The latency table that the search used, if it is to be shown.
    """
    title = f"{summary['model']} on {summary['task']['name']}"
    sections = [
        _head(summary, title),
        *targets_section(summary),
        *auto_section(summary),
        *honest_section(summary),
        *added_section(summary),
        *precisions_section(summary),
        _pareto_section(summary, trials),
        _layers_section(summary, trials),
        _learning_section(summary, trials),
        _table_section(summary),
        *_regime_section(summary),
        _latency_section(summary, table),
        _seconds_section(summary),
        _settings_section(summary),
    ]
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f"<title>{escape(title)}: rlnas</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<main>\n"
        + "\n".join(sections)
        + "\n</main>\n</body>\n</html>\n"
    )


def _head(summary: Mapping[str, Any], title: str) -> str:
    models = models_of(summary)
    result = "".join(f'<p class="result">{_result(model)}</p>' for model in models)
    small = note(escape(setting_sentence(summary)))
    if len(models) == 1:
        small = note(_joined(models[0], steps_sentence, milliseconds_sentence, setting_sentence))
    return (
        f'<header><p class="eyebrow">rlnas search report</p><h1>{escape(title)}</h1>{result}{small}'
        f"{_tiles(summary)}</header>"
    )


def _result(model: Mapping[str, Any]) -> str:
    """What came out for one target, as HTML."""
    text = _joined(model, latency_sentence, prediction_sentence, accuracy_sentence, finetuned_sentence)
    return f"<b>{escape(target_title(model))}.</b> {text}" if "folder" in model else text


def _tiles(summary: Mapping[str, Any]) -> str:
    """The main figures of a run for one target; several have their table."""
    if "targets" in summary:
        return ""
    full, best = summary["full"], summary["best"]
    tiles = [
        (
            "latency",
            f"{number(summary['latency_ratio'], 3)} &times;",
            f"{milliseconds(full['latency_ms'])} to {milliseconds(best['latency_ms'])} ms",
        ),
        (
            escape(metric_name(summary)),
            number(best["accuracy"], 3),
            f"full model {number(full['accuracy'], 3)}",
        ),
        ("parameters", params(best["n_params"]), f"full model {params(full['n_params'])}"),
        ("subnets scored", number(summary["n_trials"], 0), escape(_target_text(summary))),
    ]
    cells = "".join(
        f"<div><dt>{name}</dt><dd>{value}</dd><p>{below}</p></div>" for name, value, below in tiles
    )
    return f'<dl class="tiles">{cells}</dl>'


def _joined(summary: Mapping[str, Any], *sentences: Callable[[Mapping[str, Any]], str]) -> str:
    """What the sentences say, as HTML; those without anything to say are left out."""
    return escape(" ".join(filter(None, (sentence(summary) for sentence in sentences))))


def _target_text(summary: Mapping[str, Any]) -> str:
    target = summary.get("target_ratio")
    return "no target" if target is None else f"target ratio {target:g}"


def _pareto_section(summary: Mapping[str, Any], trials: Sequence[Trial]) -> str:
    plot = pareto_plot(summary, trials)
    if plot is None:
        return section("Accuracy and latency", "<p>No trial of the history has a latency.</p>")
    split = escape(str(models_of(summary)[0]["full"]["split"]))
    n_early = sum(trial.metrics.raced_out for trial in trials)
    marks = legend(
        [
            ("dot", "trial"),
            *_early_entry(n_early),
            ("fdot", "Pareto front of the trials"),
            ("ring", "the chosen trial"),
            ("mark chosen", "chosen subnet, certified"),
            ("mark full", "full model, certified"),
        ]
    )
    n_hidden = sum(not math.isfinite(trial.metrics.latency_ms) for trial in trials)
    hidden = f" {n_hidden} trials without a latency are not shown." if n_hidden else ""
    said = (
        "Circles are what the search saw: accuracy on the search split with the shared weights, and "
        f"predicted latency. Diamonds are the certificate: accuracy on the {split} split with its 95 % "
        "interval after the last training, and measured latency. The dotted line ties the two views of "
        f"the chosen subnet.{hidden}{_early_note(n_early, len(trials), 'on the front')}"
    )
    return section("Accuracy and latency", f"{marks}{figure(plot)}{note(said)}")


def _layers_section(summary: Mapping[str, Any], trials: Sequence[Trial]) -> str:
    models = models_of(summary)
    configs = [SubnetConfig.from_dict(model["best"]["config"]) for model in models]
    shape = summary.get("shape") or {}
    layers = [layer for config in [*(t.config for t in trials), *configs] for layer in config.layers]
    # Without the model's shape: the most that any trial kept.
    heads = int(shape.get("num_attention_heads") or max(layer.num_attention_heads for layer in layers))
    units = int(shape.get("intermediate_size") or max(layer.intermediate_size for layer in layers))
    parts = []
    for model, config in zip(models, configs, strict=True):
        left = f"{config.num_hidden_layers} of {len(config.layers)} layers are left."
        if len(models) > 1:
            parts.append(f"<p>{escape(target_title(model))}: {left}</p>")
        parts.append(figure(kept_layers(config, max(1, heads), max(1, units))))
    said = (
        f"{left if len(models) == 1 else ''} Heads and units are ordered by importance, so the first ones "
        "are kept. A dropped block costs nothing."
    )
    return section("What the chosen subnet keeps", f"{''.join(parts)}{note(said.strip())}")


def _learning_section(summary: Mapping[str, Any], trials: Sequence[Trial]) -> str:
    plot = learning_curve(trials)
    if plot is None:
        return section("Learning", "<p>No trial of the history has a reward.</p>")
    n_early = sum(trial.metrics.raced_out for trial in trials)
    mean_name = f"mean of the last {MEAN_OVER} trials"
    marks = legend([("dot", "trial"), *_early_entry(n_early), ("mean", mean_name), ("best", "best so far")])
    facts = []
    if summary.get("stop_reason"):
        facts.append(f"The search ended: {summary['stop_reason']}.")
    if summary.get("last64_mean_reward") is not None:
        mean = number(summary["last64_mean_reward"], 4)
        facts.append(f"Mean reward of the last 64 episodes, repeats included: {mean}.")
    facts += [early.strip()] if (early := _early_note(n_early, len(trials), "the best")) else []
    return section("Learning", f"{marks}{figure(plot)}{note(escape(' '.join(facts)))}")


def _early_entry(n_early: int) -> list[tuple[str, str]]:
    return [("early", "trial that was raced out")] if n_early else []


def _early_note(n_early: int, n_trials: int, never: str) -> str:
    """What the reader has to know of trials that were raced out; nothing where none was."""
    if not n_early:
        return ""
    return (
        f" {number(n_early, 0)} of {number(n_trials, 0)} trials left their race early: "
        f"their accuracy is an estimate on fewer items, and they are never {never}."
    )


def _table_section(summary: Mapping[str, Any]) -> str:
    front, models = thinned(summary["pareto"]), models_of(summary)
    rows = [
        _table_row(models[0], "full model", {**models[0]["full"], "latency_ratio": 1.0}, "full"),
        *(
            _table_row(
                model,
                in_precision(chosen_name(model), model["best"]),
                {**model["best"], "latency_ratio": model["latency_ratio"]},
                "chosen",
            )
            for model in models
        ),
        *(
            _table_row(models[0], in_precision(f"trial {entry.get('trial', '-')}", entry), entry, "")
            for entry in front
        ),
    ]
    titles = ("", metric_name(summary), "95 % interval", "items", "split", "latency, ms", "spread, ms")
    head = "".join(f"<th>{escape(title)}</th>" for title in (*titles, "ratio", "parameters"))
    n_front = len(summary["pareto"])
    said = "Below the chosen subnet: the Pareto front of the search, with the shared weights. "
    if n_front > MAX_FRONT:
        said += f"{MAX_FRONT} of its {n_front} subnets are shown; summary.json holds all. "
    said += (
        "Compare accuracies of one split only. Latency is a "
        f"{summary['workload'].get('statistic', 'median')} over interleaved rounds, its spread the "
        "interquartile range; the ratio is that to the full model in the same rounds."
    )
    table = f'<table class="figures"><thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table>'
    return section("Figures", f'<div class="scroll">{table}</div>{note(said)}')


def _table_row(summary: Mapping[str, Any], name: str, entry: Mapping[str, Any], css: str) -> str:
    config = entry.get("config")
    hint = f' title="{escape(str(SubnetConfig.from_dict(config)))}"' if config else ""
    cells = (
        number(entry["accuracy"], 3),
        interval(entry["accuracy_ci"], 3),
        number(entry["n_items"], 0),
        str(entry["split"]),
        milliseconds(entry["latency_ms"]) + _latency_interval(entry),
        milliseconds(entry["latency_spread_ms"]),
        number(ratio_to_full(summary, entry), 3),
        params(entry["n_params"]),
    )
    return (
        f'<tr class="{css}"{hint}><th>{escape(name)}</th>'
        + "".join(f"<td>{escape(cell)}</td>" for cell in cells)
        + "</tr>"
    )


def _latency_interval(entry: Mapping[str, Any]) -> str:
    if not entry.get("latency_ci"):
        return ""
    low, high = (milliseconds(bound) for bound in entry["latency_ci"])
    return f" [{low}, {high}]"


def _regime_section(summary: Mapping[str, Any]) -> list[str]:
    """What this device rewards; no section where that is not known."""
    sentence, regime = regime_sentence(summary), summary.get("regime") or {}
    if not sentence:
        return []
    names = {
        "heads_gain": "fewest heads",
        "units_gain": "fewest FFN units",
        "blocks_gain": "no blocks at all",
    }
    rows = [(name, regime[key], percent(regime[key])) for key, name in names.items() if key in regime]
    said = "Bars: what each can gain at most, of the full model's latency." if rows else ""
    return [section("What makes a model fast here", f"<p>{escape(sentence)}</p>{bars(rows)}{note(said)}")]


def _latency_section(summary: Mapping[str, Any], table: LatencyTable | None) -> str:
    error = summary.get("latency_model") or {}
    names = {"table": "this table", **CONTROL_NAMES}
    rows = [(names.get(name, name), mape, percent(mape)) for name, mape in mean_errors(summary).items()]
    facts = [latency_model_sentence(summary)]
    for model in models_of(summary):
        predicted, measured = model["best"].get("predicted_latency_ms"), model["best"]["latency_ms"]
        if predicted is not None:
            facts.append(
                f"For the {chosen_name(model)} {milliseconds(predicted)} ms were predicted, "
                f"{milliseconds(measured)} ms were measured."
            )
        if model.get("note"):
            facts.append(as_sentence(model["note"]))
    if error.get("foreign_note"):
        facts.append(as_sentence(error["foreign_note"]))
    return section(
        "How far predicted latencies can be trusted",
        f"<p>{escape(' '.join(facts))}</p>{bars(rows)}{_timed_models(table)}",
    )


def _timed_models(table: LatencyTable | None) -> str:
    models = [] if table is None else table.against_measured()
    if table is None or not models:
        return ""
    plot = predicted_against_measured(
        [(predicted_ms, measured_ms) for _, predicted_ms, measured_ms in models],
        names=[str(config) for config, _, _ in models],
    )
    which = "was not fitted to" if table.held_out_timings else "was corrected with"
    said = f"Whole subnets that the table {which}; on the dashed line prediction and timing agree."
    return f"{figure(plot)}{note(said)}"


def _seconds_section(summary: Mapping[str, Any]) -> str:
    phases = [(name, value) for name, value in summary["seconds"].items() if name != "total"]
    rows = [(name, value, f"{number(value, 1)} s") for name, value in phases]
    total = summary["seconds"].get("total")
    facts = ["" if total is None else f"{number(total, 1)} s in all.", evaluation_sentence(summary)]
    said = escape(" ".join(filter(None, facts)))
    return section("Where the time went", f"{bars(rows)}{note(said)}")


def _settings_section(summary: Mapping[str, Any]) -> str:
    task = summary["task"]
    sizes = ", ".join(
        f"{number(task[key], 0)} {key.removeprefix('n_')}"
        for key in ("n_train", "n_search", "n_final")
        if key in task
    )
    facts: dict[str, object] = {
        "model": summary["model"],
        "task": f"{task['name']}, judged by {metric_name(summary)}",
        "items": sizes,
        "final split": task.get("final_split", models_of(summary)[0]["full"]["split"]),
        "workload": workload_text(summary),
        "device": device_text(summary),
        "controller": summary.get("controller"),
        "reward": summary.get("reward"),
        "budget": summary.get("budget"),
        "trials": summary["n_trials"],
        "seed": summary.get("seed"),
        "rlnas": summary.get("rlnas_version"),
        **(summary.get("versions") or {}),
    }
    rows = "".join(
        f"<tr><th>{escape(str(name))}</th><td>{escape(str(value))}</td></tr>"
        for name, value in facts.items()
        if value not in (None, "")
    )
    return section("Settings and versions", f'<table class="facts"><tbody>{rows}</tbody></table>')
