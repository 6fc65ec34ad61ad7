"""Geometry of line charts, scatter plots and intervals, in the units of their SVG; the template only draws them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from edgeq.verification.diagram import Tick

Range = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Series:
    """One line of a chart.

    Attributes:
        key: Of its colour and dashes in the style sheet.
        name: For readers.
        points: (x, y) of the data, in the order in which they are joined.
        labels: What a pointer over each point reads; empty for none.
    """

    key: str
    name: str
    points: tuple[tuple[float, float], ...]
    labels: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Dot:
    """A marked point: position, and what a pointer over it reads."""

    x: float
    y: float
    label: str


@dataclass(frozen=True, slots=True)
class Line:
    """A line as the template draws it: colour, name, the points attribute of its polyline, its dots."""

    key: str
    name: str
    path: str
    dots: tuple[Dot, ...]


@dataclass(frozen=True, slots=True)
class Frame:
    """Where a chart lies in its drawing: of the whole, and of the plot within."""

    width: float
    height: float
    left: float
    top: float
    inner_width: float
    inner_height: float

    @property
    def right(self) -> float:
        """Right edge of the plot."""
        return self.left + self.inner_width

    @property
    def bottom(self) -> float:
        """Lower edge of the plot."""
        return self.top + self.inner_height


SMALL = Frame(170.0, 122.0, 34.0, 8.0, 128.0, 92.0)
"""One of many panels."""
SQUARE = Frame(340.0, 330.0, 46.0, 12.0, 280.0, 268.0)
WIDE = Frame(348.0, 258.0, 48.0, 12.0, 280.0, 206.0)


@dataclass(frozen=True, slots=True)
class Chart:
    """Lines or points over two axes.

    Attributes:
        frame: Its sizes.
        title: Short.
        description: The chart in words, for readers who cannot see it.
        lines: What is drawn.
        ticks_x: Marks of the horizontal axis.
        ticks_y: Marks of the vertical axis.
        name_x: What the horizontal axis shows.
        name_y: What the vertical axis shows.
        front: The points attribute of a polyline through the Pareto front, or empty.
    """

    frame: Frame
    title: str
    description: str
    lines: tuple[Line, ...]
    ticks_x: tuple[Tick, ...]
    ticks_y: tuple[Tick, ...]
    name_x: str = ""
    name_y: str = ""
    front: str = ""


def chart(
    frame: Frame,
    title: str,
    description: str,
    series: Sequence[Series],
    ranges: tuple[Range, Range],
    ticks: tuple[Sequence[tuple[float, str]], Sequence[tuple[float, str]]],
    names: tuple[str, str] = ("", ""),
    front: Sequence[tuple[float, float]] = (),
) -> Chart:
    """Places data in a frame.

    Args:
        frame: Sizes.
        title: Short.
        description: In words.
        series: The data.
        ranges: What the horizontal and the vertical axis span.
        ticks: (value, text) of each axis.
        names: Of the axes.
        front: Points of a Pareto front, by rising x.
    """
    (left, right), (low, high) = ranges

    def x(value: float) -> float:
        return frame.left + (value - left) / ((right - left) or 1.0) * frame.inner_width

    def y(value: float) -> float:
        return frame.bottom - (value - low) / ((high - low) or 1.0) * frame.inner_height

    def line(one: Series) -> Line:
        labels = one.labels or ("",) * len(one.points)
        dots = tuple(Dot(x(a), y(b), label) for (a, b), label in zip(one.points, labels, strict=True))
        return Line(one.key, one.name, _path(dots), dots)

    return Chart(
        frame=frame,
        title=title,
        description=description,
        lines=tuple(line(one) for one in series),
        ticks_x=tuple(Tick(x(value), text) for value, text in ticks[0]),
        ticks_y=tuple(Tick(y(value), text) for value, text in ticks[1]),
        name_x=names[0],
        name_y=names[1],
        front=_path([Dot(x(a), y(b), "") for a, b in _steps(front)]),
    )


def _path(dots: Sequence[Dot]) -> str:
    return " ".join(f"{dot.x:.1f},{dot.y:.1f}" for dot in dots)


def _steps(front: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """The front as stairs: what costs less than the next point reaches this one's value only."""
    corners: list[tuple[float, float]] = []
    for a, b in front:
        if corners:
            corners.append((a, corners[-1][1]))
        corners.append((a, b))
    return corners


def round_range(values: Sequence[float], least: float, bounds: Range | None = None) -> Range:
    """A range with round ends that holds the values and spans `least` at least.

    Args:
        values: Finite, at least one.
        least: Positive.
        bounds: The range never leaves them.
    """
    low, high = min(values), max(values)
    grow = max(least - (high - low), 0.0) / 2
    low, high = low - grow, high + grow
    step = nice_step(high - low, 4)
    low, high = math.floor(low / step + 1e-9) * step, math.ceil(high / step - 1e-9) * step
    return (low, high) if bounds is None else (max(low, bounds[0]), min(high, bounds[1]))


def nice_step(span: float, count: int) -> float:
    """The step of 1, 2 or 5 times a power of ten that divides a positive span into `count` parts or fewer."""
    raw = span / count
    power: float = 10.0 ** math.floor(math.log10(raw))
    return power * next(factor for factor in (1.0, 2.0, 5.0, 10.0) if factor * power >= raw * (1 - 1e-9))


def round_ticks(low: float, high: float, count: int = 4) -> list[float]:
    """Round values within [low, high], about `count` steps of them; low below high."""
    step = nice_step(high - low, count)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [index * step for index in range(first, last + 1)]


def percent_text(value: float, step: float = 0.01) -> str:
    """A share in percent, with the decimals that a step of it needs."""
    decimals = max(0, -math.floor(math.log10(step) + 2 + 1e-9))
    return f"{100 * value:.{decimals}f}"


def percent_ticks(low: float, high: float, count: int = 4) -> list[tuple[float, str]]:
    """Marks of shares within [low, high], in percent."""
    step = nice_step(high - low, count)
    return [(value, percent_text(value, step)) for value in round_ticks(low, high, count)]


def pareto_front(points: Sequence[tuple[float, float]]) -> tuple[int, ...]:
    """Which points no other beats: none costs less or the same and is worth more or the same, one of them truly.

    Args:
        points: (cost, value).

    Returns:
        Positions, by rising cost.
    """
    kept = [
        place
        for place, (cost, value) in enumerate(points)
        if not any(a <= cost and b >= value and (a, b) != (cost, value) for a, b in points)
    ]
    return tuple(sorted(kept, key=lambda place: points[place]))
