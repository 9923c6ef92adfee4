"""What the search has added, in sentences and as a part of the page."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Any

from rlnas.report.parts import note, section
from rlnas.report.wording import interval, metric_name, milliseconds, number

if TYPE_CHECKING:
    from collections.abc import Mapping


def added_sentences(summary: Mapping[str, Any]) -> list[str]:
    """What the search added to its start and to its controls; nothing for runs of earlier versions."""
    added = summary.get("added")
    if not added:
        return []
    entries = added["comparisons"]
    sentences = []
    for entry in entries:
        title = f"Target {entry['target_ratio']:g}: " if len(entries) > 1 else ""
        told = filter(None, (_start_sentence(added, entry), _control_sentence(summary, entry)))
        sentences.append(f"{title}{' '.join(told)}")
    if not added["controls"]:
        unknown = (
            "No other controller has searched with the same budget, so what this one adds to simpler ones "
            "is not known"
        )
        how = "; to find out, repeat the command with --resume --controls random,evolution."
        sentences.append(unknown + ("." if summary.get("auto") else how))  # `rlnas auto` has no controls
    sentences.append(
        f"Differences are paired over the {number(added['n_items'], 0)} items of the {added['split']} "
        "split; both sides were selected on these items, with the shared weights, so both look better "
        "than they are."
    )
    return sentences


def _start_sentence(added: Mapping[str, Any], entry: Mapping[str, Any]) -> str:
    kind = "informed start" if added["informed_start"] else "start"
    what = f"the best of its {kind}, the first {number(added['n_start'], 0)} trials"
    winner, start = entry["winner"], entry["start"]
    if not start:
        return ""
    if start["trial"] == winner["trial"]:
        return f"The winner, trial {winner['trial']}, is {what}: beside that the search added nothing."
    return _added_sentence(winner, start, f"{what},")


def _control_sentence(summary: Mapping[str, Any], entry: Mapping[str, Any]) -> str:
    control = entry["control"]
    if not control:
        return ""
    n_controls = len(summary["added"]["controls"])
    which = "the control" if n_controls == 1 else f"the best of {n_controls} controls"
    what = f"{which} at the same budget of {number(summary.get('budget'), 0)}, {control['name']},"
    return _added_sentence(entry["winner"], control, what)


def _added_sentence(winner: Mapping[str, Any], other: Mapping[str, Any], what: str) -> str:
    """The winner beside another subnet, and whether that is more than nothing."""
    low, high = other["difference_ci"]
    figures = (
        f"trial {winner['trial']} has {number(winner['accuracy'], 3)}, trial {other['trial']} there "
        f"{number(other['accuracy'], 3)}: {number(other['difference_points'], 1)} points "
        f"(95 % interval {number(low, 1)} to {number(high, 1)})"
    )
    if other["is_better"] is None:
        rewards = f"{number(winner['reward'], 4)} against {number(other['reward'], 4)}"
        return f"Beside {what} its reward is {rewards}; {figures}."
    if other["is_better"]:
        return f"Beside {what} the search added accuracy; {figures}."
    if high < 0:
        return f"Beside {what} the search added nothing, and what it found is worse; {figures}."
    return f"Beside {what} the search added nothing that could be told from chance; {figures}."


def added_section(summary: Mapping[str, Any]) -> list[str]:
    """Sentences, and a table of who was compared; no section for runs of earlier versions."""
    sentences = added_sentences(summary)
    if not sentences:
        return []
    *told, last = sentences
    paragraphs = "".join(f"<p>{escape(sentence)}</p>" for sentence in told)
    titles = ("", metric_name(summary), "predicted ms", "trial", "winner ahead by, points", "95 % interval")
    head = "".join(f"<th>{escape(title)}</th>" for title in titles)
    rows = "".join(_rows(entry) for entry in summary["added"]["comparisons"])
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"
    return [
        section(
            "What the search added", f'{paragraphs}<div class="scroll">{table}</div>{note(escape(last))}'
        )
    ]


def _rows(entry: Mapping[str, Any]) -> str:
    target = "" if entry["target_ratio"] is None else f" for {entry['target_ratio']:g}"
    control = entry["control"]
    sides = (
        (f"winner{target}", entry["winner"]),
        (f"best of the start{target}", entry["start"]),
        (f"best control{target}: {control['name']}" if control else "", control),
    )
    return "".join(_row(name, side) for name, side in sides if side)


def _row(name: str, side: Mapping[str, Any]) -> str:
    is_other = "difference_points" in side
    cells = (
        number(side["accuracy"], 3),
        milliseconds(side["predicted_latency_ms"]),
        number(side["trial"], 0),
        number(side["difference_points"], 1) if is_other else "",
        interval(side["difference_ci"], 1) if is_other else "",
    )
    return f"<tr><th>{escape(name)}</th>" + "".join(f"<td>{escape(cell)}</td>" for cell in cells) + "</tr>"
