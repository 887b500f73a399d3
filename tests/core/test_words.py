"""Numbers are said so roughly as they are known."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.core.words import about, points, size


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.2, "about a second"),
        (3.4, "about 3 seconds"),
        (13, "about 15 seconds"),
        (42, "about 40 seconds"),
        (100, "about 2 minutes"),
        (91, "about 2 minutes"),
        (3000, "about 50 minutes"),
        (2 * 3600, "about 2 hours"),
        (100 * 3600, "about 4 days"),
    ],
)
def test_times_are_told_in_round_words(seconds, words):
    assert about(seconds) == words


@given(st.floats(1.5, 1e7))
def test_words_are_never_far_from_the_time(seconds):
    _, number, unit = about(seconds).split()
    length = {"second": 1, "minute": 60, "hour": 3600, "day": 86400}[unit.removesuffix("s")]
    assert abs(int(number) * length - seconds) <= 0.35 * seconds


@pytest.mark.parametrize(
    ("count", "words"), [(0, "0 B"), (999, "999 B"), (9.9e6, "9.9 MB"), (2e13, "20.0 TB")]
)
def test_sizes_are_spelled(count, words):
    assert size(count) == words


@pytest.mark.parametrize(
    ("difference", "spelled"), [(0.0123, "+1.2"), (-0.0123, "-1.2"), (-0.0001, "+0.0"), (0.0, "+0.0")]
)
def test_differences_are_spelled_in_points(difference, spelled):
    assert points(difference) == spelled
