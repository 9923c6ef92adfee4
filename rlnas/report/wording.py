"""Numbers and sentences that the table and the page share, so that they cannot say different things."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

METRIC_NAMES = {
    "accuracy": "accuracy",
    "f1": "F1",
    "matthews": "Matthews correlation",
    "spearman": "Spearman correlation",
    "pearson": "Pearson correlation",
}
CONTROL_NAMES = {"blocks": "counting blocks", "flops": "counting operations"}
UNKNOWN = "-"
_PREFIXES = ((6, "M"), (9, "G"), (12, "T"), (15, "P"))


def number(value: object, digits: int) -> str:
    """A number with that many decimals and commas in thousands; a dash where it is not known."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return UNKNOWN
    text = f"{value:,.{digits}f}"
    return text.lstrip("-") if float(text.replace(",", "")) == 0 else text


def interval(bounds: Sequence[object], digits: int) -> str:
    """``[low, high]``."""
    return f"[{number(bounds[0], digits)}, {number(bounds[1], digits)}]"


def params(value: object) -> str:
    """A number of parameters in millions, e.g. ``22.71 M``; all digits below 100,000."""
    if isinstance(value, int | float) and abs(value) < 100_000:
        return number(value, 0)
    millions = value / 1e6 if isinstance(value, int | float) else None
    return UNKNOWN if millions is None else f"{number(millions, 2)} M"


def milliseconds(value: object) -> str:
    """Milliseconds with two decimals, or none from a second on."""
    return number(value, 0 if isinstance(value, int | float) and value >= 1000 else 2)


def percent(value: object) -> str:
    """A fraction as a percentage with one decimal, e.g. ``2.3 %``."""
    return f"{number(value * 100, 1)} %" if isinstance(value, int | float) else UNKNOWN


def metric_name(summary: Mapping[str, Any]) -> str:
    """The task's metric in words."""
    metric = str(summary["task"]["metric"])
    return METRIC_NAMES.get(metric, metric)


def as_sentence(note: str) -> str:
    """A note with a capital and a full stop."""
    return f"{note[:1].upper()}{note[1:].rstrip('.')}."


def target_title(summary: Mapping[str, Any]) -> str:
    """Which target a model is for."""
    return f"Target {summary['target_ratio']:g}"


def chosen_name(summary: Mapping[str, Any]) -> str:
    """What the delivered model is called in tables, with its target where there are several."""
    return f"subnet for {summary['target_ratio']:g}" if "folder" in summary else "chosen subnet"


def verdict(summary: Mapping[str, Any]) -> str:
    """Whether the target is met, in a word."""
    met = summary.get("target_met")
    return "not known" if met is None else "yes" if met else "no"


def latency_sentence(summary: Mapping[str, Any]) -> str:
    """How much faster, and whether that was the aim."""
    low, high = summary["latency_ratio_ci"]
    text = (
        f"The chosen subnet takes {number(summary['latency_ratio'], 3)} times as long as the full model "
        f"(95 % interval {number(low, 3)} to {number(high, 3)})"
    )
    target, met = summary.get("target_ratio"), summary.get("target_met")
    if summary.get("prediction"):
        return f"{text}, as measured here."
    if target is None or met is None:
        return f"{text}; no target was set."
    if not met:
        return f"{text}, which misses the target of {target:g}."
    if summary["latency_ratio"] > target:
        return f"{text}, which meets the target of {target:g} within the tolerance of 5 %."
    return f"{text}, which meets the target of {target:g}."


def milliseconds_sentence(summary: Mapping[str, Any]) -> str:
    """Both latencies with their intervals; nothing where these are not known."""
    parts = []
    for name, entry in (("the chosen subnet", summary["best"]), ("the full model", summary["full"])):
        if not entry.get("latency_ci"):
            return ""
        low, high = (milliseconds(bound) for bound in entry["latency_ci"])
        parts.append(f"{name} {milliseconds(entry['latency_ms'])} ms (95 % interval {low} to {high})")
    statistic = summary["workload"].get("statistic", "median")
    return f"{as_sentence(str(statistic)).rstrip('.')} latency: {', '.join(parts)}."


def prediction_sentence(summary: Mapping[str, Any]) -> str:
    """What a table of another device says of that device; nothing where it is of this one."""
    prediction = summary.get("prediction")
    if not prediction:
        return ""
    text = (
        f"For {prediction['made_for']}, which is not what was measured, {number(prediction['ratio'], 3)} "
        "times the full model's latency is predicted"
    )
    if summary.get("target_ratio") is None:
        return f"{text}."
    return f"{text}; whether the target of {summary['target_ratio']:g} is met there is not known."


def steps_sentence(summary: Mapping[str, Any]) -> str:
    """Which subnets were certified before the chosen one; nothing where it was the first."""
    steps = summary.get("steps") or []
    if len(steps) < 2:
        return ""
    told = [
        f"trial {step['trial']} at {number(step['latency_ratio'], 3)} "
        f"({'met' if step['target_met'] else 'missed'})"
        for step in steps
    ]
    return f"A miss triggers a step to the next candidate; certified were {', then '.join(told)}."


def regime_sentence(summary: Mapping[str, Any]) -> str:
    """What makes a model fast here; nothing where that is not known."""
    sentence = (summary.get("regime") or {}).get("sentence")
    return as_sentence(str(sentence)) if sentence else ""


def accuracy_sentence(summary: Mapping[str, Any]) -> str:
    """What was lost, on what, and whether that is more than chance."""
    best = summary["best"]
    loss = summary["loss_points"]
    low, high = summary["loss_ci"]
    where = f"on the {number(best['n_items'], 0)} items of the {best['split']} split"
    if not all(isinstance(value, int | float) and math.isfinite(value) for value in (loss, low, high)):
        return f"Its loss of {metric_name(summary)} {where} is not known."
    verb = "loses"
    if loss < 0:
        verb, loss, low, high = "gains", -loss, -high, -low
    text = (
        f"It {verb} {number(loss, 1)} points of {metric_name(summary)} {where} "
        f"(95 % interval {number(low, 1)} to {number(high, 1)}, paired)"
    )
    if low <= 0 <= high:
        return f"{text}; with this many items that cannot be told from no difference."
    return f"{text}."


def finetuned_sentence(summary: Mapping[str, Any]) -> str:
    """What a fine-tuning of the delivered model gained; nothing where there was none."""
    finetuned = summary.get("finetuned")
    if not finetuned:
        return ""
    gain, (low, high) = finetuned["gain_points"], finetuned["gain_ci"]
    text = (
        f"Fine-tuned further ({finetuned['folder']}), it has {metric_name(summary)} "
        f"{number(finetuned['accuracy'], 3)} on the {number(finetuned['n_items'], 0)} items of the "
        f"{finetuned['split']} split"
    )
    if low == high == 0:
        return f"{text}, with the same answers as delivered: this gained nothing."
    text += (
        f", {number(abs(gain), 1)} points {'less' if gain < 0 else 'more'} than as delivered "
        f"(95 % interval of the gain {number(low, 1)} to {number(high, 1)}, paired)"
    )
    if high < 0:
        return f"{text}: this made it worse."
    return f"{text}." if low > 0 else f"{text}: this gained nothing that could be told from chance."


def setting_sentence(summary: Mapping[str, Any]) -> str:
    """Where and with what it was timed."""
    own = "; subnets in their own precision, int8 in ONNX Runtime" if summary.get("precisions") else ""
    return f"Timed on {device_text(summary)}: {workload_text(summary)}{own}."


def device_text(summary: Mapping[str, Any]) -> str:
    """The device on one line."""
    device = summary["device"]
    threads = device.get("threads")
    parts = [str(device["name"])]
    if device.get("kind"):
        parts.append(str(device["kind"]))
    if threads and device.get("kind") != "cuda":
        parts.append(f"{threads} thread{'s' * (threads != 1)}")
    if device.get("clock"):
        parts.append(str(device["clock"]))
    if device.get("driver"):
        parts.append(f"driver {device['driver']}")
    return ", ".join(parts)


def workload_text(summary: Mapping[str, Any]) -> str:
    """The workload on one line."""
    workload = summary["workload"]
    tokens, lengths = f"{workload['seq_len']}", sorted(workload.get("lengths") or ())
    if lengths:
        tokens = f"{lengths[0]} to {lengths[-1]} (median {lengths[len(lengths) // 2]})"
    text = (
        f"batch {workload['batch_size']} x {tokens} tokens, {workload['dtype']}, "
        f"{workload.get('mode', 'eager')}"
    )
    statistic = workload.get("statistic", "median")
    return text if statistic == "median" else f"{text}, {statistic}"


def latency_model_sentence(summary: Mapping[str, Any]) -> str:
    """How wrong the predicted latencies are, beside simpler predictions."""
    error = summary.get("latency_model") or {}
    mapes = mean_errors(summary)
    if "table" not in mapes:
        return "How wrong the predicted latencies are was not measured."
    how = ", each from a fit to the others" if error.get("leave_one_out") else ""
    text = (
        f"Predicted latencies were off by {percent(mapes['table'])} on average for "
        f"{error.get('n_held_out', 'some')} subnets that were held out{how}"
    )
    controls = [
        f"{CONTROL_NAMES.get(name, name)} {percent(mape)}"
        for name, mape in mapes.items()
        if name != "table"
    ]
    if controls:
        text += f" ({', '.join(controls)})"
    table = error.get("table") or error
    if table.get("p95") is not None:
        text += f", 95 % of them by at most {percent(table['p95'])}"
    if table.get("tau_within_depth") is not None:
        text += (
            f"; among equally deep ones their order agrees with tau {number(table['tau_within_depth'], 2)}"
        )
        if error.get("tau_ceiling") is not None:
            text += f", where noise allows {number(error['tau_ceiling'], 2)}"
    if error.get("noise") is not None:
        text += f"; timings repeat to {percent(error['noise'])}"
    if error.get("worse_than"):
        worse_than = str(error["worse_than"])
        text += f"; {CONTROL_NAMES.get(worse_than, worse_than)} predicts better here beyond noise"
    return f"{text}."


def mean_errors(summary: Mapping[str, Any]) -> dict[str, Any]:
    """Mean absolute relative error of the latency table, and of its controls by their names."""
    error = summary.get("latency_model") or {}
    errors = {"table": error.get("table", error), **(error.get("controls") or {})}
    # Runs of earlier versions kept the bare number.
    mapes = {
        name: entry.get("mape") if isinstance(entry, dict) else entry for name, entry in errors.items()
    }
    return {name: mape for name, mape in mapes.items() if mape is not None}


def evaluation_sentence(summary: Mapping[str, Any]) -> str:
    """What judging the subnets has cost beside masks; nothing where that is not known."""
    spent = summary.get("evaluation") or {}
    n_configs = spent.get("n_configs")
    if not n_configs:
        return ""
    where = f"{number(spent['n_items'] / n_configs, 0)} items each"
    if spent.get("racing"):
        where = f"{where} on average ({number(summary.get('n_raced_out'), 0)} were raced out)"
    fitting = [entry for entry in _PREFIXES if spent["flops"] >= 10 ** entry[0]]
    power, prefix = fitting[-1] if fitting else _PREFIXES[0]
    flops, masked = (number(spent[key] / 10**power, 1) for key in ("flops", "masked_flops"))
    return (
        f"The search judged {number(n_configs, 0)} subnets on {where}: {flops} {prefix}FLOP, "
        f"where masks would have taken {masked}."
    )


def seconds_sentence(summary: Mapping[str, Any]) -> str:
    """What the run spent its time on."""
    parts = [f"{name} {number(value, 0)}" for name, value in summary["seconds"].items()]
    return f"Seconds: {', '.join(parts)}." if parts else "The seconds of the phases are not known."


def ratio_to_full(summary: Mapping[str, Any], entry: Mapping[str, Any]) -> float | None:
    """Latency of a subnet of the front over the full model's."""
    if entry.get("latency_ratio") is not None:
        return float(entry["latency_ratio"])
    own, full = entry["latency_ms"], summary["full"]["latency_ms"]
    return own / full if own and full else None
