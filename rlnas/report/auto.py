"""The choice among models, in sentences and as a part of the page."""

from __future__ import annotations

import math
from html import escape
from typing import TYPE_CHECKING, Any

from rlnas.report.parts import bars, figure, note, section
from rlnas.report.svg import Frame, axes, dot, picture, polyline
from rlnas.report.wording import UNKNOWN, as_sentence, interval, metric_name, number

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rlnas.report.svg import Scale

_PARTS = {
    "choice": "choice among models",
    "share": "shared weights",
    "search": "judging subnets",
    "finish": "last training",
    "baseline": "baseline",
}


def auto_sentences(summary: Mapping[str, Any]) -> list[str]:
    """What was chosen and why, and what that cost; nothing for runs without such a choice."""
    auto = summary.get("auto")
    if not auto:
        return []
    return [
        _chosen_sentence(summary, auto),
        *(as_sentence(note) for note in auto["notes"]),
        _latency_sentence(auto),
        *_left_out(auto),
        _cost_sentence(auto),
    ]


def _chosen_sentence(summary: Mapping[str, Any], auto: Mapping[str, Any]) -> str:
    chosen = auto["chosen"]
    text = (
        f"Chosen among {len(auto['arms'])} models in {len(auto['trials'])} trials: {chosen['arm']}, "
        f"trained with learning rate {chosen['learning_rate']:g} and batches of {chosen['batch_size']} "
        f"(trial {chosen['trial']}), as its {metric_name(summary)} after {_passes(auto['rungs'][-1])} is "
        f"the best on the {number(chosen['n_items'], 0)} items of the {chosen['split']} split: "
        f"{number(chosen['score'], 3)} {interval(chosen['score_ci'], 3)}"
    )
    others = [trial for trial in _finalists(auto) if trial["trial"] != chosen["trial"]]
    if not others:
        return f"{text}."
    score, loss = others[0]["scores"][-1], others[0]["losses"][-1]
    if score != chosen["score"]:
        return f"{text}; the next best there has {number(score, 3)}."
    losses = f"{number(loss, 3)} instead of {number(chosen['loss'], 3)}"
    return f"{text}; the next best there has the same, and a loss of {losses}."


def _passes(n: int) -> str:
    return f"{n} pass{'es' * (n != 1)}"


def _finalists(auto: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The trials that came to the end of the last rung, best first."""
    ended = [trial for trial in auto["trials"] if len(trial["scores"]) == len(auto["rungs"])]
    return sorted((trial for trial in ended if trial["scores"][-1] is not None), key=_by_success)


def _latency_sentence(auto: Mapping[str, Any]) -> str:
    return (
        f"The delivered model takes {number(auto['latency_ratio'], 3)} of the latency of the whole "
        f"{auto['reference']}, to which the target of {auto['target_ratio']:g} refers; the full model "
        f"above is the whole {auto['chosen']['arm']}."
    )


def _left_out(auto: Mapping[str, Any]) -> list[str]:
    names = [arm["arm"] for arm in auto["arms"] if not arm["is_reachable"]]
    return [f"Left out, as they cannot be so fast: {', '.join(names)}."] if names else []


def _cost_sentence(auto: Mapping[str, Any]) -> str:
    cost = auto["cost"]
    planned = f"of at most {number(cost['at_most'], 1)} passes of {auto['reference']}"
    if cost["total"] > cost["at_most"]:  # others took the place of trainings that failed late
        planned = (
            f"passes of {auto['reference']}, more than the {number(cost['at_most'], 1)} planned, as "
            "trainings that failed were made up for"
        )
    return (
        f"All took {number(cost['total'], 1)} {planned}: "
        f"{number(cost['choice'], 1)} for the choice, where all trials to their end "
        f"would have taken {number(cost['choice_to_the_end'], 1)}, and "
        f"{number(cost['total'] - cost['choice'], 1)} for the search and its baseline."
    )


def auto_section(summary: Mapping[str, Any]) -> list[str]:
    """Sentences, the scores of all trials over their passes, and where the compute went."""
    auto = summary.get("auto")
    if not auto:
        return []
    paragraphs = "".join(f"<p>{escape(sentence)}</p>" for sentence in auto_sentences(summary))
    cost = [(name, auto["cost"][key], number(auto["cost"][key], 1)) for key, name in _PARTS.items()]
    plot = arms_plot(summary)
    content = [
        paragraphs,
        "" if plot is None else figure(plot),
        note("Each line is a trial, by the passes of its training; that of the chosen one is blue."),
        _table(auto),
        note("In brackets the loss on the same items, which decides between equal scores."),
        bars(cost),
        note(f"Passes of the whole {escape(auto['reference'])} over the training items."),
    ]
    return [section("The choice among models", "".join(content))]


def arms_plot(summary: Mapping[str, Any]) -> str | None:
    """Scores of all trials over the passes of their training.

    Args:
        summary: As in ``summary.json``, with a choice.

    Returns:
        An SVG element, or None where no trial has a score.
    """
    auto = summary["auto"]
    curves = [(trial, _curve(trial, auto["rungs"])) for trial in auto["trials"]]
    points = [point for _, curve in curves for point in curve]
    if not points:
        return None
    frame = Frame(height=330, bottom=278)
    x = frame.x_scale([passes for passes, _ in points])
    y = frame.y_scale([score for _, score in points])
    chosen = auto["chosen"]["trial"]
    lines = [
        _line(trial, curve, x, y, is_chosen=trial["trial"] == chosen)
        for trial, curve in sorted(curves, key=lambda pair: pair[0]["trial"] == chosen)
    ]
    label = f"{metric_name(summary)} of {len(curves)} trials over the passes of their training"
    titles = ("passes over the training items", f"{metric_name(summary)}, {auto['chosen']['split']} split")
    return picture(frame.width, frame.height, label, axes(frame, x, y, *titles) + "".join(lines))


def _curve(trial: Mapping[str, Any], rungs: Sequence[int]) -> list[tuple[float, float]]:
    """Passes and scores, but for a rung at which the training failed."""
    pairs = zip(rungs, trial["scores"], strict=False)  # most trials end early
    return [(float(passes), float(score)) for passes, score in pairs if score is not None]


def _line(
    trial: Mapping[str, Any], curve: Sequence[tuple[float, float]], x: Scale, y: Scale, *, is_chosen: bool
) -> str:
    points = [(x(passes), y(score)) for passes, score in curve]
    title = f"trial {trial['trial']}: {trial['arm']}, learning rate {trial['learning_rate']:g}"
    marks = "".join(
        dot(*point, 4 if is_chosen else 3, "kept" if is_chosen else "dot", f"{title}: {score:.3f}")
        for point, (_, score) in zip(points, curve, strict=True)
    )
    return (polyline(points, "best" if is_chosen else "axis") if len(points) > 1 else "") + marks


def _table(auto: Mapping[str, Any]) -> str:
    """One row for each trial, the one that came furthest and scored best first."""
    rungs = [f"after {passes}" for passes in auto["rungs"]]
    titles = ("", "trial", "learning rate", "batch", *rungs, "cost, passes")
    head = "".join(f"<th>{escape(title)}</th>" for title in titles)
    rows = "".join(
        _row(trial, len(rungs), is_chosen=trial["trial"] == auto["chosen"]["trial"])
        for trial in sorted(auto["trials"], key=_by_success)
    )
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>'


def _by_success(trial: Mapping[str, Any]) -> tuple[float, float, float, float, int]:
    score, loss = trial["scores"][-1], trial["losses"][-1]
    worth = (math.inf, math.inf) if score is None else (-score, loss)
    return (-len(trial["scores"]), *worth, trial["cost"], trial["trial"])


def _row(trial: Mapping[str, Any], n_rungs: int, *, is_chosen: bool) -> str:
    pairs = zip(trial["scores"], trial["losses"], strict=True)
    scores = [
        UNKNOWN if score is None else f"{number(score, 3)} ({number(loss, 3)})" for score, loss in pairs
    ]
    scores += [UNKNOWN] * (n_rungs - len(scores))
    cells = (
        number(trial["trial"], 0),
        f"{trial['learning_rate']:g}",
        number(trial["batch_size"], 0),
        *scores,
        number(trial["cost"], 2),
    )
    css = ' class="chosen"' if is_chosen else ""
    return (
        f"<tr{css}><th>{escape(trial['arm'])}</th>"
        + "".join(f"<td>{escape(cell)}</td>" for cell in cells)
        + "</tr>"
    )
