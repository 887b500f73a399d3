"""The report's drawings: everything lies where its number says, and within the drawing."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.core.charts import CURVE, HISTORY, STRIP, curve_plot, dot, history_plot, round_axis, strip_axis

scores = st.floats(0, 1)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=5), st.integers(2, 6))
def test_an_axis_holds_its_numbers_and_has_a_few_round_ticks(numbers, about):
    axis = round_axis(numbers, 10, 110, about)
    assert axis.low <= min(numbers) + 1e-6
    assert max(numbers) - 1e-6 <= axis.high
    assert (axis.ticks[0], axis.ticks[-1]) == (axis.low, axis.high)
    assert 2 <= len(axis.ticks) <= about + 3
    steps = [b - a for a, b in zip(axis.ticks, axis.ticks[1:], strict=False)]
    assert steps == pytest.approx([steps[0]] * len(steps), rel=1e-6)
    mantissa = steps[0] / 10 ** math.floor(math.log10(steps[0] * (1 + 1e-6)))
    assert min(abs(mantissa - fine) for fine in (1, 2, 2.5, 5)) < 1e-3
    assert axis.at(axis.low) == 10
    assert axis.at(axis.high) == 110
    for number in numbers:
        share = (number - axis.low) / (axis.high - axis.low)
        assert axis.at(number) == pytest.approx(10 + 100 * share, abs=0.051)


@settings(max_examples=200, deadline=None)
@given(st.lists(scores, min_size=1, max_size=6))
def test_an_axis_of_shares_does_not_pass_all_or_nothing(numbers):
    axis = round_axis(numbers, 0, 1)
    assert 0 <= axis.low < axis.high <= 1


def points(*triples: tuple[float, float, float]) -> list[dict]:
    return [
        {"share": 1.0, "train": 100.0 * (n + 1), "value": value, "ci95": [low, high]}
        for n, (low, value, high) in enumerate(triples)
    ]


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(scores, scores, scores).map(sorted), min_size=2, max_size=6))
def test_a_curve_is_drawn_to_scale_within_its_box_and_its_band(triples):
    plot = curve_plot(points(*triples))
    assert len(plot.dots) == len(triples)
    band = [tuple(map(float, place.split(","))) for place in plot.band.split()]
    above, below = band[: len(triples)], band[len(triples) :][::-1]
    for n, ((x, y), top, bottom) in enumerate(zip(plot.dots, above, below, strict=True)):
        assert CURVE.left <= x <= CURVE.right
        assert x == pytest.approx(CURVE.left + (CURVE.right - CURVE.left) * (n + 1) / len(triples), abs=0.06)
        assert CURVE.top <= top[1] <= y <= bottom[1] <= CURVE.bottom  # upwards is less
        assert top[0] == bottom[0] == x
    assert plot.line == " ".join(f"{x:g},{y:g}" for x, y in plot.dots)


def test_a_curve_needs_two_points_that_are_known():
    some = points((0.5, 0.6, 0.7), (0.6, 0.7, 0.8))
    lost = some[0] | {"value": None, "ci95": [None, None]}
    assert curve_plot([]) is curve_plot(some[:1]) is curve_plot([lost, some[1]]) is None
    assert len(curve_plot([lost, *some]).dots) == 2


def test_runs_stand_one_step_apart():
    rows = [{"value": 0.8 + 0.01 * n, "low": 0.7, "high": 0.95} for n in range(5)]
    xs = [x for x, _ in history_plot(rows).dots]
    assert (xs[0], xs[-1]) == (HISTORY.left, HISTORY.right)
    assert xs == pytest.approx([HISTORY.left + n * (HISTORY.right - HISTORY.left) / 4 for n in range(5)])
    assert history_plot(rows[:1]) is None


def test_scores_and_references_share_an_axis():
    found = [{"value": 0.7, "ci95": [0.65, 0.75]}, {"value": None, "ci95": [None, None]}]
    axis = strip_axis(found, [0.9])
    assert (axis.start, axis.end) == STRIP
    assert axis.low <= 0.65
    assert axis.high >= 0.9
    assert dot(axis, found[1]) is None
    place = dot(axis, found[0])
    assert place.ends[0] < place.at < place.ends[1]
    ring = dot(axis, {"name": "paper", "value": 0.9})
    assert ring.at > place.ends[1]
    assert ring.ends is None
    assert dot(axis, {"value": math.nan, "ci95": [math.nan] * 2}) is None


def test_where_nothing_is_known_there_is_no_axis():
    assert strip_axis([{"value": None, "ci95": [None, None]}], []) is None
