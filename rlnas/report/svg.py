"""The few pieces of SVG that the plots are made of: scales, ticks and a frame with axes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from html import escape
from itertools import pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

CHARACTER = 7.5
"""Width of a character of a tick's label, in pixels."""


@dataclass(frozen=True, slots=True)
class Scale:
    """A straight line from values to pixels.

    Attributes:
        low: Value at `start`.
        high: Value at `end`, above `low`.
        start: Pixel.
        end: Pixel; below `start` for an axis that points up.
    """

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        """Pixel of a value; values outside are clipped to the ends."""
        share = (value - self.low) / (self.high - self.low)
        return self.start + min(1.0, max(0.0, share)) * (self.end - self.start)

    def ticks(self, n_ticks: int) -> list[tuple[float, str]]:
        """Round values on the axis, about so many, and how they are written."""
        values, decimals = nice_ticks(self.low, self.high, n_ticks)
        return [(value, f"{value:,.{decimals}f}") for value in values]


@dataclass(frozen=True, slots=True)
class LogScale:
    """As `Scale`, but equal factors are equally far apart; `low` is above 0."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        """Pixel of a value above 0; values outside are clipped to the ends."""
        share = math.log(value / self.low) / math.log(self.high / self.low)
        return self.start + min(1.0, max(0.0, share)) * (self.end - self.start)

    def ticks(self, n_ticks: int) -> list[tuple[float, str]]:
        """Powers of ten on the axis, and twice and five times these where there is room."""
        powers = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
        factors = (1, 2, 5) if 3 * math.log10(self.high / self.low) <= n_ticks else (1,)
        values = [factor * 10.0**power for power in powers for factor in factors]
        return [(value, f"{value:,.10g}") for value in values if self.low <= value <= self.high]


@dataclass(frozen=True, slots=True)
class Frame:
    """A plot's area within its picture, in pixels.

    Attributes:
        width: Of the picture.
        height: Of the picture.
        left: Of the area; the y axis and its labels are left of it.
        right: Of the area.
        top: Of the area.
        bottom: Of the area; the x axis and its labels are below it.
    """

    width: int = 860
    height: int = 400
    left: int = 66
    right: int = 844
    top: int = 26
    bottom: int = 348

    def x_scale(self, values: Iterable[float], pad: float = 0.04) -> Scale:
        """A scale from left to right that holds all values."""
        low, high = padded(values, pad)
        return Scale(low, high, self.left, self.right)

    def y_scale(self, values: Iterable[float], pad: float = 0.06) -> Scale:
        """A scale from bottom to top that holds all values."""
        low, high = padded(values, pad)
        return Scale(low, high, self.bottom, self.top)


def padded(values: Iterable[float], pad: float) -> tuple[float, float]:
    """Least and greatest value with some room around them, never equal.

    Args:
        values: At least one, all finite.
        pad: Room on either side as a share of the range.
    """
    listed = list(values)
    low, high = min(listed), max(listed)
    room = (high - low) * pad or abs(high) * 0.05 or 1.0
    return low - room, high + room


def _apart(x: Scale | LogScale) -> list[tuple[float, str]]:
    """Ticks of an x axis, about nine, or as many as have room for their labels."""
    ticks, n_ticks = x.ticks(9), 9
    while n_ticks > 1 and not _have_room(ticks, x):
        n_ticks -= 1
        ticks = x.ticks(n_ticks)
    return ticks


def _have_room(ticks: Sequence[tuple[float, str]], x: Scale | LogScale) -> bool:
    widest = CHARACTER * (1 + max((len(label) for _, label in ticks), default=0))
    return all(x(right) - x(left) > widest for (left, _), (right, _) in pairwise(ticks))


def nice_ticks(low: float, high: float, n_ticks: int = 6) -> tuple[list[float], int]:
    """Round values between `low` and `high`, and the decimals that they need.

    Args:
        low: Start of the axis.
        high: End of the axis, above `low`.
        n_ticks: About how many.

    Returns:
        Ascending multiples of 1, 2, 2.5 or 5 times a power of ten, and a number of decimals.
    """
    rough = (high - low) / max(1, n_ticks)
    power = 10.0 ** math.floor(math.log10(rough))
    factor = next(f for f in (1.0, 2.0, 2.5, 5.0, 10.0) if rough <= f * power * (1 + 1e-9))
    step = factor * power
    first, last = math.ceil(low / step), math.floor(high / step)
    decimals = max(0, -math.floor(math.log10(step) + 1e-9))
    if factor == 2.5:
        decimals += 1 if step < 10 else 0
    return [round(i * step, decimals + 1) + 0.0 for i in range(first, last + 1)], decimals


def axes(frame: Frame, x: Scale | LogScale, y: Scale | LogScale, x_label: str, y_label: str) -> str:
    """Grid lines, tick labels and axis titles."""
    parts = []
    for value, label in y.ticks(6):
        at = y(value)
        parts.append(f'<path class="grid" d="M{frame.left} {px(at)}H{frame.right}"/>')
        parts.append(text(frame.left - 9, at + 4, label, "tick", "end"))
    for value, label in _apart(x):
        at = x(value)
        parts.append(f'<path class="grid" d="M{px(at)} {frame.top}V{frame.bottom}"/>')
        parts.append(text(at, frame.bottom + 19, label, "tick", "middle"))
    parts.append(f'<path class="axis" d="M{frame.left} {frame.top}V{frame.bottom}H{frame.right}"/>')
    middle = (frame.left + frame.right) / 2
    parts.append(text(middle, frame.bottom + 42, x_label, "label", "middle"))
    height = (frame.top + frame.bottom) / 2
    parts.append(
        f'<text class="label" text-anchor="middle" transform="translate(15 {px(height)}) rotate(-90)">'
        f"{escape(y_label)}</text>"
    )
    return "".join(parts)


def picture(width: int, height: int, label: str, content: str) -> str:
    """An SVG element that scales with the page."""
    return f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{escape(label)}">{content}</svg>'


def stand_alone(picture: str, style: str) -> str:
    """A picture as the content of an ``.svg`` file, which has no page around it.

    Args:
        picture: As `picture` gives it.
        style: The style sheet that its classes are defined in.
    """
    own = "svg { font-family: system-ui, sans-serif; background: var(--bg); }"
    head, tail = picture.split(">", 1)
    name_space = 'xmlns="http://www.w3.org/2000/svg"'
    return f"{head} {name_space}><style>\n{style}{own}\n</style>{tail}\n"


def text(x: float, y: float, content: str, css: str, anchor: str = "start") -> str:
    """A line of text; `anchor` is ``start``, ``middle`` or ``end``."""
    return f'<text class="{css}" x="{px(x)}" y="{px(y)}" text-anchor="{anchor}">{escape(content)}</text>'


def dot(x: float, y: float, radius: float, css: str, title: str = "") -> str:
    """A circle, with a title that shows where the pointer rests on it."""
    shape = f'<circle class="{css}" cx="{px(x)}" cy="{px(y)}" r="{px(radius)}"'
    return f"{shape}><title>{escape(title)}</title></circle>" if title else f"{shape}/>"


def dots(points: Iterable[tuple[float, float]], css: str) -> str:
    """Many circles as one path, which is short: a stroke without length is as round as its cap."""
    return f'<path class="{css}" d="{"".join(f"M{px(x)} {px(y)}h0" for x, y in points)}"/>'


def diamond(x: float, y: float, radius: float, css: str, title: str) -> str:
    """A square on its corner."""
    path = f"M{px(x)} {px(y - radius)}l{px(radius)} {px(radius)} {px(-radius)} {px(radius)} "
    path += f"{px(-radius)} {px(-radius)}z"
    return f'<path class="{css}" d="{path}"><title>{escape(title)}</title></path>'


def polyline(points: Sequence[tuple[float, float]], css: str) -> str:
    """A line through points."""
    return f'<polyline class="{css}" points="{" ".join(f"{px(x)},{px(y)}" for x, y in points)}"/>'


def stairs(points: Sequence[tuple[float, float]], css: str) -> str:
    """A line that goes across first and then up or down, as a best-so-far does; none without points."""
    if not points:
        return ""
    corners = [points[0]]
    for (_, before), (x, y) in pairwise(points):
        corners += [(x, before), (x, y)]
    return polyline(corners, css)


def px(value: float) -> str:
    """Pixels to a tenth, without needless zeros."""
    shown = f"{value:.1f}".removesuffix(".0")
    return "0" if shown == "-0" else shown
