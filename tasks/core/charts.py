"""Where the lines and dots of the report's drawings lie: numbers in, places on a drawing out."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

PLACES = 1
"""Decimals of a place on a drawing, whose unit is about a pixel."""

STEPS = (1, 2, 2.5, 5, 10)
"""Of round numbers, times a power of ten."""


@dataclass(frozen=True)
class Axis:
    """A stretch of numbers, and the stretch of a drawing that it is laid on.

    Attributes:
        low: the least number,
        high: and the largest.
        start: where on the drawing the least lies,
        end: and the largest.
        ticks: round numbers from the least to the largest.
    """

    low: float
    high: float
    start: float
    end: float
    ticks: tuple[float, ...]

    def at(self, number: float) -> float:
        """Say where a number lies."""
        share = (number - self.low) / (self.high - self.low)
        return round(self.start + share * (self.end - self.start), PLACES)


@dataclass(frozen=True)
class Plot:
    """Points joined by a line, within a band of their intervals.

    Attributes:
        across: the axis from left to right.
        up: the axis from bottom to top.
        dots: (x, y) of each point.
        line: the points as a polyline has them.
        band: the intervals' ends, around, as a polygon has them.
    """

    across: Axis
    up: Axis
    dots: list[tuple[float, float]]
    line: str
    band: str


@dataclass(frozen=True)
class Dot:
    """A score on an axis: where it lies, and its interval's ends, where it has one."""

    at: float
    ends: tuple[float, float] | None


@dataclass(frozen=True)
class Box:
    """The part of a drawing that is drawn on."""

    left: float
    top: float
    right: float
    bottom: float


CURVE = Box(44, 10, 336, 170)
HISTORY = Box(44, 10, 308, 84)
STRIP = (6.0, 154.0)


def round_axis(numbers: Sequence[float], start: float, end: float, about: int = 4) -> Axis:
    """Lay numbers on a stretch of a drawing, from a round number to a round number.

    Args:
        numbers: one or more, finite; the axis holds them all.
        start: where it starts,
        end: and ends.
        about: how many steps there are between ticks, more or less.
    """
    low, high = min(numbers), max(numbers)
    if high - low <= 1e-9 * max(
        1.0, abs(high)
    ):  # one number: something must lie beside it, and no share above 1
        low, high = (low - 0.01, high) if low >= 0.01 else (low, high + 0.01)
    step = _round_step((high - low) / about)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    ticks = tuple(float(f"{number * step:.12g}") for number in range(first, last + 1))
    return Axis(ticks[0], ticks[-1], start, end, ticks)


def curve_plot(points: Sequence[Mapping[str, Any]]) -> Plot | None:
    """Draw scores over the number of training samples; None without two points that are known.

    Args:
        points: "train", "value" and "ci95" of each, in the order of "train".
    """
    known = [point for point in points if _known(point["value"], *point["ci95"])]
    if len(known) < 2:
        return None
    train = [float(point["train"]) for point in known]
    across = Axis(0.0, max(train), CURVE.left, CURVE.right, tuple(train))
    return _plot(across, train, known, CURVE)


def history_plot(rows: Sequence[Mapping[str, Any]]) -> Plot | None:
    """Draw scores from run to run, one step a run; None without two runs.

    Args:
        rows: "value", "low" and "high" of each, known.
    """
    if len(rows) < 2:
        return None
    last = len(rows) - 1
    across = Axis(0.0, float(last), HISTORY.left, HISTORY.right, (0.0, float(last)))
    points = [{"value": row["value"], "ci95": [row["low"], row["high"]]} for row in rows]
    return _plot(across, [float(run) for run in range(len(rows))], points, HISTORY, about=2)


def strip_axis(scores: Sequence[Mapping[str, Any]], others: Sequence[float]) -> Axis | None:
    """Lay scores, their intervals and some other numbers on one axis; None where none is known.

    Args:
        scores: "value" and "ci95" of each; None or NaN where not known.
        others: finite numbers.
    """
    numbers = [number for found in scores for number in (found["value"], *found["ci95"]) if _known(number)]
    return round_axis([*numbers, *others], *STRIP, about=3) if numbers or others else None


def dot(axis: Axis, found: Mapping[str, Any]) -> Dot | None:
    """Place a score and its interval on an axis; None if it is not known."""
    if not _known(found["value"]):
        return None
    low, high = found.get("ci95", (None, None))
    return Dot(axis.at(found["value"]), (axis.at(low), axis.at(high)) if _known(low, high) else None)


def _plot(
    across: Axis, places: Sequence[float], points: Sequence[Mapping[str, Any]], box: Box, about: int = 4
) -> Plot:
    ends = [end for point in points for end in (point["value"], *point["ci95"])]
    up = round_axis(ends, box.bottom, box.top, about)
    xs = [across.at(place) for place in places]
    dots = [(x, up.at(point["value"])) for x, point in zip(xs, points, strict=True)]
    low, high = ([(x, up.at(p["ci95"][end])) for x, p in zip(xs, points, strict=True)] for end in (0, 1))
    return Plot(across, up, dots, _joined(dots), _joined([*high, *reversed(low)]))


def _joined(dots: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{x:g},{y:g}" for x, y in dots)


def _round_step(least: float) -> float:
    """The first round number that is not less."""
    power = 10.0 ** math.floor(math.log10(least))
    return next(step * power for step in STEPS if step * power >= least * (1 - 1e-9))


def _known(*numbers: float | None) -> bool:
    return all(number is not None and math.isfinite(number) for number in numbers)
