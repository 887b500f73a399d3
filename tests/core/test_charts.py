"""The report's drawings: everything lies where its number says, and within the drawing."""

import math
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.core.charts import (
    ALONE,
    BESIDE,
    CURVE,
    DEPTHS,
    HISTORY,
    KEY,
    LETTER,
    LINE,
    STRIP,
    curve_plot,
    depth_plot,
    dot,
    history_plot,
    round_axis,
    spread,
    strip_axis,
)

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


# How much to train


def cell(
    depth: str, train: float | None, value: float | None, *ends: float | None, share: float = 1.0
) -> dict:
    return {
        "depth": depth,
        "share": share,
        "train": train,
        "value": value,
        "ci95": list(ends or (None, None)),
    }


@st.composite
def measured(draw) -> list[dict]:
    """Cells of some depths at some shares; a few depths lack the larger shares."""
    trains = draw(st.lists(st.integers(1, 10**6), min_size=1, max_size=6, unique=True).map(sorted))
    cells = []
    for number in range(draw(st.integers(1, 9))):
        for train in trains[: draw(st.integers(1, len(trains)))]:
            low, value, high = sorted(draw(st.tuples(scores, scores, scores)))
            cells.append(cell(f"depth{number}", float(train), value, low, high, share=train / trains[-1]))
    return cells


@settings(max_examples=200, deadline=None)
@given(measured())
def test_scores_of_depths_lie_where_their_numbers_say(cells):
    plot = depth_plot(cells, [])
    box, axis = plot.box, plot.across
    assert [spot.cell for way in plot.ways for spot in way.spots] == cells
    aside = BESIDE if len(axis.ticks) > 1 else ALONE
    for way in plot.ways:
        assert {spot.cell["depth"] for spot in way.spots} == {way.depth}
        assert [spot.x for spot in way.spots] == sorted(spot.x for spot in way.spots)
        assert way.line == " ".join(f"{spot.x:g},{spot.y:g}" for spot in way.spots)
        for spot in way.spots:
            off = spot.x - axis.at(spot.cell["train"])
            assert abs(off) <= aside * (len(plot.ways) - 1) / 2 + 0.06
            assert box.left <= spot.x <= box.right
            assert spot.y == plot.up.at(spot.cell["value"])
            assert box.top <= spot.ends[1] <= spot.y <= spot.ends[0] <= box.bottom
            assert spot.ends == tuple(map(plot.up.at, spot.cell["ci95"]))


@settings(max_examples=200, deadline=None)
@given(measured())
def test_labels_of_depths_do_not_overlap_and_stand_in_the_order_of_their_lines_ends(cells):
    plot = depth_plot(cells, [])
    ways = sorted(plot.ways, key=lambda way: way.at)
    for above, below in pairwise(ways):
        assert below.at - above.at >= LINE - 1e-6
        assert above.spots[-1].y <= below.spots[-1].y
    assert all(plot.box.top - 1e-6 <= way.at <= plot.box.bottom + 1e-6 for way in ways)


@settings(max_examples=200, deadline=None)
@given(measured())
def test_numbers_of_samples_do_not_run_into_each_other(cells):
    axis = depth_plot(cells, []).across
    trains = {each["train"] for each in cells}
    assert set(axis.ticks) <= trains
    assert axis.ticks[-1] == max(trains)
    ends = [(axis.at(tick), LETTER * len(f"{tick:,.0f}") / 2) for tick in axis.ticks]
    for (left, half), (right, other) in pairwise(ends):
        assert left + half < right - other


def test_equal_factors_of_samples_lie_equally_far_apart():
    axis = depth_plot([cell("head", 10.0 * 4**n, 0.5) for n in range(4)], []).across
    places = [axis.at(10.0 * 4**n) for n in range(4)]
    assert [b - a for a, b in pairwise(places)] == pytest.approx([(places[3] - places[0]) / 3] * 3, abs=0.11)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.floats(0, 100), min_size=1, max_size=8))
def test_places_are_spread_no_more_than_it_takes(places):
    moved = spread(places, 10, 0, 100)
    assert all(-1e-6 <= place <= 100 + 1e-6 for place in moved)
    ordered = [place for _, place in sorted(zip(places, moved, strict=True))]
    assert all(b - a >= 10 - 1e-6 for a, b in pairwise(ordered))
    assert spread(moved, 10, 0, 100) == pytest.approx(moved)


def test_two_places_too_near_make_way_alike():
    assert spread([50, 52, 90], 10, 0, 100) == pytest.approx([46, 56, 90])


def test_depths_are_told_apart_without_colour():
    plot = depth_plot([cell(f"d{n}", 10.0, 0.5) for n in range(30)], [])
    assert len({(way.shape, way.dash) for way in plot.ways}) == 30
    assert len({(way.shape, way.tone) for way in plot.ways}) == 30
    assert len({(way.shape, way.dash, way.tone) for way in plot.ways[:6]}) == 6


def test_one_share_alone_has_a_dot_for_each_depth_well_apart():
    plot = depth_plot([cell(f"d{n}", 100.0, 0.5 + n / 50, 0.4, 0.9) for n in range(5)], [])
    xs = [way.spots[0].x for way in plot.ways]
    assert [len(way.spots) for way in plot.ways] == [1] * 5
    assert all(b - a > 20 for a, b in pairwise(xs))
    assert sum(xs) / 5 == pytest.approx(plot.across.at(100), abs=0.1)
    assert plot.across.ticks == (100,)


def test_the_chosen_depth_of_each_share_is_marked():
    cells = [cell(d, 100.0 * s, 0.5, share=s) for d in ("head", "deep") for s in (0.5, 1.0)]
    chosen = [{"share": 0.5, "train": 50.0, "depth": "head"}, {"share": 1.0, "train": 100.0, "depth": "deep"}]
    marked = {
        (way.depth, spot.cell["share"])
        for way in depth_plot(cells, chosen).ways
        for spot in way.spots
        if spot.chosen
    }
    assert marked == {("head", 0.5), ("deep", 1.0)}


@pytest.mark.parametrize("unknown", [None, math.nan])
def test_what_is_not_known_of_a_depth_is_not_drawn(unknown):
    nothing = [cell("a", 10.0, unknown, unknown, unknown), cell("b", unknown, 0.5, 0.4, 0.6)]
    assert depth_plot([], []) is None
    assert depth_plot(nothing, []) is None
    [way] = depth_plot([*nothing, cell("c", 10.0, 0.5, unknown, 0.6)], []).ways
    assert (way.depth, way.spots[0].ends) == ("c", None)


@pytest.mark.parametrize("name", ["head", "features.denseblock4.denselayer16", "x" * 200])
def test_a_label_fits_beside_the_lines_and_keeps_its_end(name):
    plot = depth_plot([cell(name, 10.0, 0.5)], [])
    [way] = plot.ways
    assert way.depth == name
    assert name.endswith(way.label.removeprefix("…"))
    assert plot.box.right + KEY + LETTER * len(way.label) <= DEPTHS.right + 0.06
    assert plot.box.right - plot.box.left > 180
