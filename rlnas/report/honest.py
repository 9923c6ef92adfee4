"""What a choice on few items is worth, in sentences and as a part of the page."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Any

from rlnas.report.parts import section
from rlnas.report.wording import number

if TYPE_CHECKING:
    from collections.abc import Mapping


def honest_sentences(summary: Mapping[str, Any]) -> list[str]:
    """What was learnt of the best subnet and what is luck; nothing where that is not known."""
    honest = summary.get("honest")
    if not honest:
        return []
    how = (
        f", each answered by weights trained without it ({honest['n_folds']} folds)"
        if honest["n_folds"]
        else ""
    )
    sentences = [
        f"The best subnet was chosen among {number(honest['n_candidates'], 0)} by "
        f"{number(honest['n_items'], 0)} items of the {honest['split']} split{how}."
    ]
    for goal in honest["goals"]:
        title = f"Target {goal['target_ratio']:g}: " if len(honest["goals"]) > 1 else ""
        sentences.append(f"{title}{_worth_sentence(goal)} {_gain_sentence(goal)}".rstrip())
    return sentences


def _worth_sentence(goal: Mapping[str, Any]) -> str:
    low, high = goal["honest_ci"]
    optimism = 100 * (goal["seen_accuracy"] - goal["honest_accuracy"])
    return (
        f"There it has an accuracy of {number(goal['seen_accuracy'], 3)}; such a choice is worth "
        f"{number(goal['honest_accuracy'], 3)} on items that had no part in it (95 % interval "
        f"{number(low, 3)} to {number(high, 3)}), so {number(optimism, 1)} points are the luck of being "
        "chosen."
    )


def _gain_sentence(goal: Mapping[str, Any]) -> str:
    if goal["gain_ci"] is None:
        return ""
    low, high = goal["gain_ci"]
    beyond = "is" if low > 0 else "is not"
    return (
        f"Beside the best of the start it gains {number(goal['gain_points'], 1)} points on such items "
        f"({number(low, 1)} to {number(high, 1)}), which {beyond} beyond noise."
    )


def honest_section(summary: Mapping[str, Any]) -> list[str]:
    """The sentences under a heading; no section where nothing is known."""
    told = filter(None, (start_sentence(summary), *honest_sentences(summary)))
    paragraphs = "".join(f"<p>{escape(sentence)}</p>" for sentence in told)
    return [section("What was learnt and what is luck", paragraphs)] if paragraphs else []


def start_sentence(summary: Mapping[str, Any]) -> str:
    """Where the weights came from, where that is an earlier run; else nothing."""
    start = summary.get("from_run")
    if not start:
        return ""
    return (
        f"Training started from the shared weights of an earlier run, {start['run']}, on "
        f"{start['task'] or 'a task that it does not tell'}; the full model beside it did not."
    )
