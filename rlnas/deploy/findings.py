"""What an audit has found, in text and in JSON."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        name: What was looked at, in a word or two.
        passed: Whether it is as it should be; None where nothing is claimed, or it could not be judged.
        sentence: What was found.
        value: The figure behind it, or None.
        tolerance: How far the figure may be off, or None where it has to be exact.
    """

    name: str
    passed: bool | None
    sentence: str
    value: Any = None
    tolerance: float | None = None

    def __str__(self) -> str:
        verdict = {True: "pass", False: "FAIL", None: "-"}[self.passed]
        return f"{self.name:<12} {verdict:<5} {self.sentence}"


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two forms of one model on the same items.

    Attributes:
        first: Name of a form.
        second: Name of another one.
        largest_difference: Largest absolute difference of a logit; infinite if one is not a finite number.
        n_flips: Items whose largest logit is that of another class; None where there is one output.
        n_items: Items that both answered.
        tolerance: Largest difference that counts as rounding.
    """

    first: str
    second: str
    largest_difference: float
    n_flips: int | None
    n_items: int
    tolerance: float

    @property
    def passed(self) -> bool:
        """Whether the forms agree."""
        return self.largest_difference <= self.tolerance


@dataclass(frozen=True, slots=True)
class Audit:
    """Whether the forms of a model agree, and what is claimed of it holds.

    Attributes:
        model: What was audited.
        findings: What was looked at; the failed ones say what is wrong.
        comparisons: Every pair of forms that should agree.
        notes: What the audit covers and what it does not, one sentence each.
    """

    model: str
    findings: tuple[Finding, ...]
    comparisons: tuple[Comparison, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether nothing has failed."""
        return all(finding.passed is not False for finding in self.findings)

    @property
    def verdict(self) -> str:
        """One line: what has passed, or the first sentence that says what has failed."""
        failed = [finding for finding in self.findings if finding.passed is False]
        if failed:
            return f"audit FAILED: {failed[0].sentence}"
        held = sum(finding.passed is True and finding.name != "forms" for finding in self.findings)
        parts = []
        if self.comparisons:
            n_forms = len({name for pair in self.comparisons for name in (pair.first, pair.second)})
            parts.append(f"{n_forms} forms agree on {self.comparisons[0].n_items:,} items")
        parts.append(f"{held} claim{'s hold' if held != 1 else ' holds'}")
        return f"audit passed: {', '.join(parts)}"

    def __str__(self) -> str:
        table = _table(self.comparisons)
        lines = [f"audit of {self.model}", *table, *([""] if table else []), *map(str, self.findings)]
        return "\n".join([*lines, *(f"{'note':<18} {note}" for note in self.notes), self.verdict])

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; an infinite difference is null."""
        return {
            "model": self.model,
            "passed": self.passed,
            "verdict": self.verdict,
            "findings": [asdict(finding) for finding in self.findings],
            "comparisons": [_plain(pair) for pair in self.comparisons],
            "notes": list(self.notes),
        }


def _plain(pair: Comparison) -> dict[str, Any]:
    difference = pair.largest_difference if math.isfinite(pair.largest_difference) else None
    return {**asdict(pair), "largest_difference": difference, "passed": pair.passed}


def _table(comparisons: Sequence[Comparison]) -> list[str]:
    """A row for each form beside the first of its group; the JSON has every pair."""
    lines, compared = [], set()
    for pair in comparisons:
        if pair.first not in compared and pair.second not in compared:
            items = "items" if pair.n_flips is None else f"flips of {pair.n_items:,} items"
            lines.append(f"{'form':<12} {f'beside {pair.first}':>16}   {items}")
        elif pair.second in compared:
            continue
        flips = f"{pair.n_items:,}" if pair.n_flips is None else f"{pair.n_flips:,}"
        verdict = "" if pair.passed else f"   FAIL, at most {pair.tolerance:.1e}"
        lines.append(f"{pair.second:<12} {pair.largest_difference:>16.1e}   {flips}{verdict}")
        compared |= {pair.first, pair.second}
    return lines
