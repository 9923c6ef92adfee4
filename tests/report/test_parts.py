"""Pieces of HTML: names are escaped, bars are in proportion."""

from __future__ import annotations

import math

from rlnas.report.parts import bars, figure, legend, note, section


def test_a_section_escapes_its_title_alone():
    assert section("<b>", "<p>text</p>") == "<section><h2>&lt;b&gt;</h2><p>text</p></section>"


def test_small_print_without_content_is_left_out():
    assert note("") == ""
    assert note("<i>so</i>") == '<p class="note"><i>so</i></p>'


def test_a_picture_is_a_figure():
    assert figure("<svg/>") == "<figure><svg/></figure>"


def test_a_legend_has_a_mark_for_each_name():
    page = legend([("dot", "trial"), ("mark chosen", "chosen subnet")])
    assert page.count("<li>") == 2
    assert '<circle class="dot"' in page
    assert '<path class="mark chosen"' in page


def test_bars_are_in_proportion_to_the_greatest():
    page = bars(
        [("<one>", 4.0, "4 s"), ("two", 1.0, "1 s"), ("unknown", math.nan, "-"), ("none", None, "-")]
    )
    assert "&lt;one&gt;" in page
    assert [part.split("%")[0] for part in page.split("width:")[1:]] == ["100.0", "25.0", "0.0", "0.0"]


def test_no_bars_are_nothing():
    assert bars([]) == ""
