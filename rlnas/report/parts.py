"""Pieces of HTML that the sections of the page are made of."""

from __future__ import annotations

import math
from html import escape
from typing import TYPE_CHECKING

from rlnas.report.plots import EARLY

if TYPE_CHECKING:
    from collections.abc import Sequence


def section(title: str, content: str) -> str:
    """A part of the page under its heading; the content is HTML already."""
    return f"<section><h2>{escape(title)}</h2>{content}</section>"


def note(content: str) -> str:
    """Small print; its content is HTML already."""
    return f'<p class="note">{content}</p>' if content else ""


def figure(plot: str) -> str:
    """An SVG element as a figure."""
    return f"<figure>{plot}</figure>"


def legend(entries: Sequence[tuple[str, str]]) -> str:
    """Marks with names; the names are HTML already."""
    marks = {
        "dot": '<circle class="dot" cx="9" cy="8" r="3.5"/>',
        "early": f'<g opacity="{EARLY}"><circle class="dot" cx="9" cy="8" r="3.5"/></g>',
        "fdot": '<path class="front" d="M0 8H18"/><circle class="fdot" cx="9" cy="8" r="4"/>',
        "ring": '<circle class="ring" cx="9" cy="8" r="6"/>',
        "mean": '<path class="mean" d="M0 8H18"/>',
        "best": '<path class="best" d="M0 8H18"/>',
    }
    diamond = '<path class="{}" d="M9 1l7 7 -7 7 -7 -7z"/>'
    items = "".join(
        f'<li><svg viewBox="0 0 18 16" width="18" height="16" aria-hidden="true">'
        f"{marks.get(css, diamond.format(css))}</svg>{name}</li>"
        for css, name in entries
    )
    return f'<ul class="legend">{items}</ul>'


def bars(rows: Sequence[tuple[str, object, str]]) -> str:
    """Names, bars in proportion to the greatest value, and figures."""
    values = [float(v) if isinstance(v, int | float) and math.isfinite(v) else 0.0 for _, v, _ in rows]
    most = max([*values, 0.0]) or 1.0
    lines = "".join(
        f'<tr><th>{escape(name)}</th><td><i style="width:{100 * max(0.0, value) / most:.1f}%"></i></td>'
        f"<td>{escape(shown)}</td></tr>"
        for (name, _, shown), value in zip(rows, values, strict=True)
    )
    return f'<table class="bars"><tbody>{lines}</tbody></table>' if rows else ""
