"""What the report says of precisions, where the search chose them."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Any

from rlnas.report.parts import note, section
from rlnas.report.wording import as_sentence, number

if TYPE_CHECKING:
    from collections.abc import Mapping


def in_precision(name: str, entry: Mapping[str, Any]) -> str:
    """The name of a subnet with its precision, if it has one.

    Args:
        name: Of a row.
        entry: What the summary says of the subnet; ``config`` holds the precision.
    """
    precision = (entry.get("config") or {}).get("precision")
    return f"{name}, {precision}" if precision else name


def precisions_sentence(summary: Mapping[str, Any]) -> str:
    """How fast the full model is in each precision, and what int8 was good for; else empty."""
    known = summary.get("precisions")
    if not known:
        return ""
    ratios = ", ".join(f"{name} {number(ratio, 3)}" for name, ratio in known["full_ratios"].items())
    said = f"The full model's latency over that in {known['reference']}: {ratios}."
    return f"{said} {as_sentence(known['sentence'])}" if known["sentence"] else said


def precisions_section(summary: Mapping[str, Any]) -> list[str]:
    """A row per precision; no section in the report of a run with one."""
    known = summary.get("precisions")
    if not known:
        return []
    titles = ("precision", "full model's latency ratio", "error of its table", "subnets judged")
    head = "".join(f"<th>{escape(title)}</th>" for title in titles)
    rows = ""
    for name, ratio in known["full_ratios"].items():
        mape = known["table_mape"][name]
        error = "-" if mape is None else f"{100 * mape:.1f} %"
        cells = (number(ratio, 3), error, number(known["n_trials"][name], 0))
        rows += f"<tr><th>{escape(name)}</th>" + "".join(f"<td>{escape(c)}</td>" for c in cells) + "</tr>"
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"
    said = (
        f"{precisions_sentence(summary)} Accuracies of the search in int8 are computed as ONNX Runtime "
        "would with one text a request; the certificate's come from ONNX Runtime itself."
    )
    return [section("Precisions", f'<div class="scroll">{table}</div>{note(escape(said))}')]
