"""Taps are written `cut:pooling`."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.core.errors import RequestError
from tasks.core.taps import LAST, POOLINGS, Tap, parse_tap

cuts = st.text(st.characters(codec="ascii", exclude_characters=":"), min_size=1)


@settings(deadline=None)
@given(cut=cuts, pooling=st.sampled_from(POOLINGS))
def test_what_a_tap_writes_is_what_it_is_read_from(cut, pooling):
    tap = Tap(cut, pooling)
    assert str(tap) == f"{cut}:{pooling}"
    assert parse_tap(str(tap)) == tap


@settings(deadline=None)
@given(cut=cuts)
def test_the_mean_is_taken_if_no_pooling_is_written(cut):
    assert parse_tap(cut) == parse_tap(f"{cut}:mean") == Tap(cut) == Tap(cut, "mean")


@pytest.mark.parametrize(
    "text",
    ["", ":", ":mean", "last:men", "last:Mean", "last:mean+", "last: mean", "last:mean:max", "a:b:mean"],
)
def test_a_wrong_tap_is_refused_with_the_poolings_named(text):
    with pytest.raises(RequestError) as told:
        parse_tap(text)
    assert str(told.value).startswith(f"tap {text!r}: write cut:pooling")
    assert all(pooling in str(told.value) for pooling in POOLINGS)
    assert "\n" not in str(told.value)


@settings(deadline=None)
@given(cut=cuts, pooling=st.sampled_from(POOLINGS), name=cuts)
def test_last_stands_for_the_backbones_own_and_other_cuts_stay(cut, pooling, name):
    assert Tap(LAST, pooling).at(name) == Tap(name, pooling)
    assert Tap(cut, pooling).at(name) == Tap(name if cut == LAST else cut, pooling)


@settings(deadline=None)
@given(taps=st.lists(st.builds(Tap, cuts, st.sampled_from(POOLINGS))))
def test_taps_have_one_order_and_equal_ones_are_one(taps):
    assert [(tap.cut, tap.pooling) for tap in sorted(set(taps))] == sorted(
        {(tap.cut, tap.pooling) for tap in taps}
    )
