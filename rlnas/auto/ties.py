"""Rungs at which the metric says the same of most trials, and so does not tell which are to go on."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from rlnas.auto.record import Look

FEWEST = 3
"""Trials of one score that count: two of them have it now and then by chance."""


def note_on_ties(looks: Iterable[Look], kept: Collection[int], n_passes: int) -> str | None:
    """A sentence if most trials of a rung had one score and some of them alone went on; else None.

    Args:
        looks: Those of the rung.
        kept: Numbers of the trials that went on.
        n_passes: After which they were compared.
    """
    scores = {look.candidate.number: look.score for look in looks}
    values = list(scores.values())
    usual = max(set(values), key=values.count)
    tied = {number for number, score in scores.items() if score == usual}
    is_split = bool(tied & set(kept)) and bool(tied - set(kept))
    if usual is None or len(tied) < FEWEST or 2 * len(tied) <= len(values) or not is_split:
        return None
    return (
        f"after {n_passes} pass{'es' * (n_passes != 1)} {len(tied)} of {len(values)} trials had the same "
        f"score, {usual:.3f}: their losses chose among them, which tell little so early; later rungs "
        "(--rungs) or more training items tell more"
    )
