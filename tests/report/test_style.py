"""The style sheet needs nothing from outside and styles what the plots draw."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from rlnas.report.html import render
from rlnas.report.style import STYLE

if TYPE_CHECKING:
    from rlnas.trial import Trial


def test_nothing_is_loaded_from_outside():
    assert "url(" not in STYLE
    assert "@import" not in STYLE


def test_every_class_of_the_page_is_styled(summary: dict[str, Any], trials: tuple[Trial, ...]):
    page = render(summary, trials)
    used = {name for value in re.findall(r'class="([^"]+)"', page) for name in value.split()}
    assert {"tiles", "legend", "dot", "ring"} <= used
    styled = set(re.findall(r"\.([a-z]+)", STYLE))
    assert used - styled == {"label"}  # as any text of a plot


def test_colours_are_defined_for_light_and_dark():
    light, dark = STYLE.split("@media (prefers-color-scheme: dark)")
    colours = set(re.findall(r"(--[a-z]+):", light))
    assert colours == set(re.findall(r"(--[a-z]+):", dark))
    assert set(re.findall(r"var\((--[a-z]+)\)", STYLE)) == colours
