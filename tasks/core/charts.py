"""Where the lines and dots of the report's drawings lie: numbers in, places on a drawing out."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy.optimize import isotonic_regression

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
class LogAxis(Axis):
    """An axis on which equal factors lie equally far apart; its numbers are above nought."""

    def at(self, number: float) -> float:
        """Say where a number lies."""
        share = math.log(number / self.low) / math.log(self.high / self.low)
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


@dataclass(frozen=True)
class Spot:
    """A depth's score with so many training samples.

    Attributes:
        x: where it lies; depths with the same samples stand side by side around their place.
        y: where its score lies.
        ends: where its interval's lie, where it has one.
        chosen: whether the inner folds chose the depth for these samples.
        cell: what was measured.
    """

    x: float
    y: float
    ends: tuple[float, float] | None
    chosen: bool
    cell: Mapping[str, Any]


@dataclass(frozen=True)
class Way:
    """A depth's scores, joined, and its name at their end.

    Attributes:
        depth: its name, whole,
        label: and as long as there is room for.
        at: how far up the label stands.
        tone: the number of its colour,
        shape: its spots, as a path around nought has them,
        dash: and its line's dashes; no two of 30 depths share both.
        spots: from few samples to many.
        line: the spots as a polyline has them.
    """

    depth: str
    label: str
    at: float
    tone: int
    shape: str
    dash: str
    spots: list[Spot]
    line: str


@dataclass(frozen=True)
class DepthPlot:
    """Scores over training samples, a line for each depth.

    Attributes:
        box: what the lines lie in; the labels stand to the right of it.
        across: the axis from left to right; its ticks have room for their numbers.
        up: the axis from bottom to top.
        ways: one for each depth that has a score.
    """

    box: Box
    across: LogAxis
    up: Axis
    ways: list[Way]


CURVE = Box(44, 10, 336, 170)
DEPTHS = Box(44, 10, 360, 226)
"""With room for the labels, which is taken off at the right."""

LINE = 14.0
"""From one label to the next one below."""

LETTER = 6.7
"""The width of a letter or digit, on the safe side."""

LETTERS = 14
"""Of a label, at most: a longer one loses its beginning, for modules' names differ at their ends."""

KEY = 24
"""Between the box and a label: a spot that says whose label it is."""

BESIDE, ALONE = 4.0, 34.0
"""How far depths with the same samples stand apart, at most: among others, and where all have the same."""

SHAPES = (
    "M-3.5 0a3.5 3.5 0 1 0 7 0a3.5 3.5 0 1 0-7 0z",
    "M-3.2-3.2h6.4v6.4h-6.4z",
    "M0-4.2l4 7h-8z",
    "M0-4.6l4.6 4.6l-4.6 4.6l-4.6-4.6z",
    "M0 4.2l4-7h-8z",
    "M-1.3-4h2.6v2.7h2.7v2.6h-2.7v2.7h-2.6v-2.7h-2.7v-2.6h2.7z",
)
"""Circle, square, triangle, diamond, a triangle on its tip, cross."""

DASHES = ("", "7 3", "2 3", "9 3 2 3", "4 4")
TONES = 6
"""Colours of `report_tones.html.j2`."""

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


def depth_plot(cells: Sequence[Mapping[str, Any]], chosen: Sequence[Mapping[str, Any]]) -> DepthPlot | None:
    """Draw each depth's scores over the number of training samples; None where no score is known.

    Args:
        cells: of a verdict: "depth", "share", "train", "value" and "ci95" of each.
        chosen: "share" and "depth" of each choice.
    """
    known = [cell for cell in cells if _known(cell["train"], cell["value"]) and cell["train"] > 0]
    if not known:
        return None
    depths = list(dict.fromkeys(cell["depth"] for cell in known))
    labels = [_shortened(depth) for depth in depths]
    box = _box_beside(labels)
    across = _log_axis([float(cell["train"]) for cell in known], box)
    ends = [end for cell in known for end in (cell["value"], *cell["ci95"]) if _known(end)]
    up = round_axis(ends, box.bottom, box.top, about=6)
    wanted = {(each["share"], each["depth"]) for each in chosen}
    lines = [
        _spots([cell for cell in known if cell["depth"] == depth], aside, across, up, wanted)
        for depth, aside in zip(depths, _asides(len(depths), across), strict=True)
    ]
    places = spread([line[-1].y for line in lines], LINE, box.top, box.bottom)
    ways = [
        Way(
            depth=depth,
            label=label,
            at=place,
            tone=(number + number // TONES) % TONES,  # of like spots, the colours differ
            shape=SHAPES[number % len(SHAPES)],
            dash=DASHES[number % len(DASHES)],
            spots=line,
            line=_joined([(spot.x, spot.y) for spot in line]),
        )
        for number, (depth, label, place, line) in enumerate(zip(depths, labels, places, lines, strict=True))
    ]
    return DepthPlot(box, across, up, ways)


def spread(places: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Move places as little as it takes (in squares) so that any two lie a gap apart, and keep their order.

    Args:
        places: in any order.
        gap: between two of them, at least.
        low: no place lies below,
        high: nor above; there must be room for them all.
    """
    order = np.argsort(places, kind="stable")
    steps = gap * np.arange(len(places))
    # less their steps, the places may touch but not pass each other
    moved = isotonic_regression(np.asarray(places, dtype=float)[order] - steps).x
    found = np.empty(len(places))
    found[order] = np.clip(moved, low, high - steps[-1]) + steps
    return [float(place) for place in found]


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


def _box_beside(labels: Sequence[str]) -> Box:
    """Leave room for labels at the right, and be high enough for all of them."""
    wide = KEY + LETTER * max(map(len, labels))
    bottom = max(DEPTHS.bottom, DEPTHS.top + LINE * (len(labels) - 1))
    return Box(DEPTHS.left, DEPTHS.top, round(DEPTHS.right - wide, PLACES), bottom)


def _shortened(name: str) -> str:
    return name if len(name) <= LETTERS else f"…{name[1 - LETTERS :]}"


def _log_axis(numbers: Sequence[float], box: Box) -> LogAxis:
    """Lay numbers above nought from left to right, with some room on either side."""
    low, high = min(numbers), max(numbers)
    room = max((high / low) ** 0.08, 1.02)
    axis = LogAxis(low / room, high * room, box.left, box.right, ())
    return replace(axis, ticks=tuple(_apart(sorted(set(numbers)), axis)))


def _apart(numbers: Sequence[float], axis: Axis) -> list[float]:
    """Leave those whose spelling does not run into that of the next; the last stays."""
    kept: list[float] = []
    for number in reversed(numbers):
        room = LETTER * (len(f"{number:,.0f}") + len(f"{kept[-1]:,.0f}") + 2) / 2 if kept else 0
        if not kept or axis.at(kept[-1]) - axis.at(number) >= room:
            kept.append(number)
    return kept[::-1]


def _asides(count: int, across: Axis) -> list[float]:
    """How far each of some depths stands beside the place of its samples."""
    several = len(across.ticks) > 1
    step = min(BESIDE, 30 / count) if several else min(ALONE, (across.end - across.start) / count)
    return [step * (number - (count - 1) / 2) for number in range(count)]


def _spots(
    cells: Sequence[Mapping[str, Any]], aside: float, across: Axis, up: Axis, wanted: set[tuple[float, str]]
) -> list[Spot]:
    spots = []
    for cell in sorted(cells, key=lambda cell: float(cell["train"])):
        low, high = cell["ci95"]
        ends = (up.at(low), up.at(high)) if _known(low, high) else None
        x = round(across.at(cell["train"]) + aside, PLACES)
        spots.append(Spot(x, up.at(cell["value"]), ends, (cell["share"], cell["depth"]) in wanted, cell))
    return spots


def _joined(dots: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{x:g},{y:g}" for x, y in dots)


def _round_step(least: float) -> float:
    """The first round number that is not less."""
    power = 10.0 ** math.floor(math.log10(least))
    return next(step * power for step in STEPS if step * power >= least * (1 - 1e-9))


def _known(*numbers: float | None) -> bool:
    return all(number is not None and math.isfinite(number) for number in numbers)
