"""Geometry of a reliability diagram, in the units of its SVG; the template only draws it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edgeq.metrics import ReliabilityBin

SIDE = 280.0
"""Width and height of the square plot of accuracy over confidence."""
HISTOGRAM_HEIGHT = 70.0
LEFT, TOP, BETWEEN = 46.0, 14.0, 46.0
WIDTH = LEFT + SIDE + 12.0
HISTOGRAM_TOP = TOP + SIDE + BETWEEN
HEIGHT = HISTOGRAM_TOP + HISTOGRAM_HEIGHT + 40.0


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle of the drawing: left, top, width, height, and what a pointer over it reads."""

    x: float
    y: float
    width: float
    height: float
    label: str = ""


@dataclass(frozen=True, slots=True)
class Tick:
    """A mark on an axis: its position and its text."""

    at: float
    text: str


@dataclass(frozen=True, slots=True)
class Diagram:
    """A reliability diagram with the histogram of confidences below it.

    Attributes:
        bars: Accuracy of each filled bin; empty bins have none.
        over: Gaps where confidence exceeds accuracy.
        under: Gaps where accuracy exceeds confidence.
        histogram: Number of samples of each filled bin.
        ticks_x: Marks of the confidence axis.
        ticks_y: Marks of the accuracy axis.
        histogram_top: What the highest bar of the histogram stands for.
        mean_confidence: The mean confidence on the confidence axis, in words.
        accuracy: The accuracy on the confidence axis, in words.
        description: The diagram in words, for readers who cannot see it.
    """

    bars: tuple[Box, ...]
    over: tuple[Box, ...]
    under: tuple[Box, ...]
    histogram: tuple[Box, ...]
    ticks_x: tuple[Tick, ...]
    ticks_y: tuple[Tick, ...]
    histogram_top: int
    mean_confidence: Tick
    accuracy: Tick
    description: str


def draw(bins: Sequence[ReliabilityBin], mean_confidence: float, ece: float) -> Diagram:
    """The reliability diagram of one model.

    Args:
        bins: Its samples by confidence; at least one holds some.
        mean_confidence: Over all samples.
        ece: Expected calibration error.
    """
    filled = [one for one in bins if one.count]
    gaps = [(one, _gap(one)) for one in filled]
    highest, count = max(one.count for one in filled), sum(one.count for one in filled)
    accuracy = sum(one.count * (one.accuracy or 0.0) for one in filled) / count
    return Diagram(
        bars=tuple(_bar(one) for one in filled),
        over=tuple(gap for one, gap in gaps if _signed(one) > 0),
        under=tuple(gap for one, gap in gaps if _signed(one) < 0),
        histogram=tuple(_count_bar(one, highest, count) for one in filled),
        ticks_x=tuple(Tick(_x(value / 5), f"{value / 5:.1f}") for value in range(6)),
        ticks_y=tuple(Tick(_y(value / 5), f"{value / 5:.1f}") for value in range(6)),
        histogram_top=highest,
        mean_confidence=Tick(_x(mean_confidence), f"mean confidence {mean_confidence:.3f}"),
        accuracy=Tick(_x(accuracy), f"accuracy {accuracy:.3f}"),
        description=_describe(mean_confidence, accuracy, ece, filled, len(bins)),
    )


def _x(value: float) -> float:
    return LEFT + value * SIDE


def _y(value: float) -> float:
    return TOP + (1.0 - value) * SIDE


def _signed(one: ReliabilityBin) -> float:
    """Confidence minus accuracy of a filled bin."""
    return (one.confidence or 0.0) - (one.accuracy or 0.0)


def _range(one: ReliabilityBin) -> str:
    return f"confidence {one.lower:.2f} to {one.upper:.2f}"


def _bar(one: ReliabilityBin) -> Box:
    accuracy = one.accuracy or 0.0
    label = f"{_range(one)}: accuracy {accuracy:.3f}, mean confidence {one.confidence:.3f}, n = {one.count}"
    return Box(_x(one.lower) + 1, _y(accuracy), (one.upper - one.lower) * SIDE - 2, accuracy * SIDE, label)


def _gap(one: ReliabilityBin) -> Box:
    top = max(one.confidence or 0.0, one.accuracy or 0.0)
    label = f"{_range(one)}: gap {_signed(one):+.3f} (confidence minus accuracy)"
    return Box(_x(one.lower) + 1, _y(top), (one.upper - one.lower) * SIDE - 2, one.gap * SIDE, label)


def _count_bar(one: ReliabilityBin, highest: int, count: int) -> Box:
    height = max(one.count / highest * HISTOGRAM_HEIGHT, 1.0)
    label = f"{_range(one)}: {one.count} inputs, {100 * one.count / count:.1f} %"
    top = HISTOGRAM_TOP + HISTOGRAM_HEIGHT - height
    return Box(_x(one.lower) + 1, top, (one.upper - one.lower) * SIDE - 2, height, label)


def _describe(
    mean_confidence: float, accuracy: float, ece: float, filled: list[ReliabilityBin], bins: int
) -> str:
    worst = max(filled, key=lambda one: one.gap)
    lean = "over-confident" if mean_confidence > accuracy else "under-confident"
    return (
        f"Accuracy {accuracy:.3f} at a mean confidence of {mean_confidence:.3f}: {lean} on the whole. Expected "
        f"calibration error {ece:.4f}. The widest gap, {worst.gap:.3f}, is at {_range(worst)} with {worst.count} "
        f"inputs. {len(filled)} of {bins} bins hold inputs."
    )
