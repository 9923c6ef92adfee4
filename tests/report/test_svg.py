"""Scales keep to the picture, and tick labels are round, distinct and apart."""

from __future__ import annotations

from itertools import pairwise
from xml.etree import ElementTree

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from rlnas.report.svg import (
    Frame,
    LogScale,
    Scale,
    axes,
    diamond,
    dot,
    dots,
    nice_ticks,
    padded,
    picture,
    px,
    stairs,
    stand_alone,
    text,
)

RANGES = st.tuples(st.floats(-1e5, 1e5), st.floats(1e-3, 1e5)).map(
    lambda pair: (pair[0], pair[0] + pair[1])
)


@given(RANGES, st.integers(2, 12))
def test_ticks_lie_within_the_axis_and_are_told_apart_by_their_labels(
    ends: tuple[float, float], n_ticks: int
):
    low, high = ends
    ticks, decimals = nice_ticks(low, high, n_ticks)
    labels = [f"{tick:.{decimals}f}" for tick in ticks]
    assert len(set(labels)) == len(labels)
    assert 1 <= len(ticks) <= n_ticks + 1
    for tick, label in zip(ticks, labels, strict=True):
        assert low - 1e-6 * (high - low) <= tick <= high + 1e-6 * (high - low)
        assert float(label) == pytest.approx(tick, rel=1e-9, abs=1e-9)


@pytest.mark.parametrize(
    ("low", "high", "n_ticks", "ticks", "decimals"),
    [
        (0, 10, 5, [0, 2, 4, 6, 8, 10], 0),
        (0.46, 0.83, 6, [0.5, 0.6, 0.7, 0.8], 1),
        (0.0, 0.5, 2, [0.0, 0.25, 0.5], 2),
        (-3, 4, 3, [-2.5, 0.0, 2.5], 1),
        (0, 100, 4, [0, 25, 50, 75, 100], 0),
    ],
)
def test_ticks_are_round(low: float, high: float, n_ticks: int, ticks: list[float], decimals: int):
    assert nice_ticks(low, high, n_ticks) == (ticks, decimals)


@given(st.lists(st.floats(-1e6, 1e6), min_size=1))
def test_room_is_made_around_any_values(values: list[float]):
    low, high = padded(values, 0.05)
    assert low < min(values)
    assert high > max(values)


@given(RANGES, st.floats(-1e6, 1e6))
def test_a_scale_never_leaves_the_picture(ends: tuple[float, float], value: float):
    assert 66 <= Scale(*ends, 66, 844)(value) <= 844


def test_a_scale_is_a_straight_line():
    scale = Scale(0, 10, 300, 100)
    assert [scale(value) for value in (0, 2.5, 10, 99)] == [300, 250, 100, 100]


@given(RANGES)
@example((10_000.0, 10_000.002))
def test_tick_labels_do_not_touch(ends: tuple[float, float]):
    frame = Frame()
    x, y = frame.x_scale(ends), frame.y_scale(ends)
    root = ElementTree.fromstring(f"<g>{axes(frame, x, y, 'latency, ms', 'accuracy')}</g>")
    ticks = [tick for tick in root.iter("text") if tick.get("class") == "tick"]
    across = [tick for tick in ticks if tick.get("text-anchor") == "middle"]
    places = [(float(tick.get("x", "")), len(tick.text or "") * 7.5 / 2) for tick in across]
    for (left, half), (right, other_half) in pairwise(places):
        assert left + half < right - other_half
    up = [float(tick.get("y", "")) for tick in ticks if tick.get("text-anchor") == "end"]
    assert all(lower - upper > 14 for lower, upper in pairwise(up))


def test_texts_and_titles_are_escaped():
    content = text(1, 2, "<a&b>", "tick") + dot(1, 2, 3, "dot", "<t>") + diamond(5, 5, 2, "mark", "<d>")
    root = ElementTree.fromstring(picture(10, 10, '"<label>"', content))
    assert root.get("aria-label") == '"<label>"'
    assert [node.text for node in root.iter() if node.text] == ["<a&b>", "<t>", "<d>"]


def test_a_dot_without_a_title_has_none():
    assert "title" not in dot(1, 2, 3, "dot")


def test_stairs_go_across_before_they_rise():
    assert 'points="0,9 4,9 4,5 8,5 8,1"' in stairs([(0, 9), (4, 5), (8, 1)], "best")


def test_stairs_of_nothing_are_nothing():
    assert stairs([], "best") == ""


def test_dots_are_one_path():
    assert dots([(1, 2), (3.25, 4)], "dots") == '<path class="dots" d="M1 2h0M3.2 4h0"/>'


@pytest.mark.parametrize(("value", "shown"), [(3.0, "3"), (3.14, "3.1"), (-0.01, "0"), (-2.5, "-2.5")])
def test_pixels_are_short(value: float, shown: str):
    assert px(value) == shown


@given(st.floats(1e-3, 1e3), st.floats(8, 1e6), st.integers(4, 9))
def test_logarithmic_ticks_lie_on_the_axis_and_are_told_apart(low: float, factor: float, n_ticks: int):
    scale = LogScale(low, low * factor, 0, 100)
    ticks = scale.ticks(n_ticks)
    pixels = [scale(value) for value, _ in ticks]
    assert pixels == sorted(pixels)
    assert len({label for _, label in ticks}) == len(ticks) <= n_ticks + 3
    for value, label in ticks:
        assert low <= value <= low * factor
        assert float(label.replace(",", "")) == pytest.approx(value)


def test_equal_factors_are_equally_far_apart():
    scale = LogScale(1, 100, 0, 200)
    assert [scale(value) for value in (0.1, 1, 10, 100, 1000)] == pytest.approx([0, 0, 100, 200, 200])
    assert [label for _, label in scale.ticks(9)] == ["1", "2", "5", "10", "20", "50", "100"]
    assert [label for _, label in LogScale(0.002, 20_000, 0, 1).ticks(9)][-2:] == ["1,000", "10,000"]


def test_a_stand_alone_picture_brings_its_name_space_and_style():
    svg = stand_alone(picture(10, 20, "a > b", text(1, 2, "x", "label")), ".label { color: red }")
    root = ElementTree.fromstring(svg)
    assert root.get("aria-label") == "a > b"
    assert [node.tag.rpartition("}")[2] for node in root] == ["style", "text"]
