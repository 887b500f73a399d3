"""What inner folds choose, and how the chosen compare: by inner scores alone, and in pairs under the same draws."""

import math
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.core import standings
from tasks.core.heads import HeadFile
from tasks.core.metrics import METRICS, Drawn, TestPart, draw_groups, draw_scores, intervals
from tasks.core.predictors import Linear
from tasks.core.standings import choose_head, choose_name, columns, compare

TestPart.__test__ = False  # a name that pytest would take for tests

BRIERS = st.lists(st.sampled_from([0.1, 0.2, 0.3, math.nan]), min_size=1, max_size=6)
HEAD = Linear(np.zeros((2, 1)), np.zeros(2))


def head_of(brier: float | None) -> HeadFile:
    return HeadFile(HEAD, np.zeros((1, 2)), ["a"], None, ["b"], {"inner_brier": brier})


def row_of(name: str, split: str, brier: float | None, accuracy: float = 0.5) -> dict[str, object]:
    return {"experiment": name, "split": split, "inner_brier": brier, "accuracy": accuracy}


def some_parts(
    names: str, *, n: int = 60, groups: int = 20, seed: int = 0, replicates: int = 300
) -> dict[str, dict[str, Drawn]]:
    """Heads of rising skill, scored on the same rows under the same draws."""
    rng = np.random.default_rng(seed)
    labels, weights = np.arange(n) % 3, rng.uniform(0.5, 2, n)
    draws = draw_groups([str(row % groups) for row in range(n)], replicates=replicates)
    noise = rng.normal(size=(n, 3))
    scored = {}
    for skill, name in enumerate(names):
        scores = noise + 0.4 * skill * np.eye(3)[labels]
        log_proba = scores - np.log(np.exp(scores).sum(axis=1, keepdims=True))
        scored[name] = draw_scores(TestPart(np.arange(n), labels, weights, log_proba), draws)
    return scored


# The choice of a head


@given(BRIERS)
def test_the_head_with_the_lowest_inner_brier_is_chosen_the_first_of_equals(briers):
    known = [brier for brier in briers if not math.isnan(brier)]
    expected = briers.index(min(known)) if known else 0
    assert choose_head([head_of(brier).story for brier in briers]) == expected


@pytest.mark.parametrize(("heads", "middle"), [(1, 0), (2, 1), (3, 1), (4, 2)])
def test_without_folds_the_middle_head_is_chosen(heads, middle):
    assert choose_head([head_of(None).story] * heads) == middle


# The choice of a name


def test_the_name_with_the_lowest_inner_brier_on_the_first_split_is_chosen():
    means = [
        *(row_of("a", "one", 0.3, 0.9), row_of("b", "one", 0.2, 0.1), row_of("c", "one", 0.2, 1.0)),
        *(row_of("a", "two", 0.0, 1.0), row_of("b", "two", 0.9)),
    ]
    assert choose_name(means) is means[1]


@given(BRIERS)
def test_names_that_are_not_known_to_be_better_come_last(briers):
    means = [row_of(str(n), "s", None if math.isnan(b) else b) for n, b in enumerate(briers)]
    expected = choose_head([head_of(brier).story for brier in briers])
    assert choose_name(means)["experiment"] == str(expected)


@pytest.mark.parametrize("unknown", [None, math.nan])
def test_without_folds_the_first_name_is_chosen_and_any_known_score_is_better(unknown):
    assert choose_name([row_of("a", "s", unknown), row_of("b", "s", unknown)])["experiment"] == "a"
    assert choose_name([row_of("a", "s", unknown), row_of("b", "s", 1.9)])["experiment"] == "b"


# Comparisons


def test_each_pair_is_compared_in_each_metric_and_the_difference_is_the_firsts_less_the_seconds():
    scored = some_parts("abc", n=30)
    rows = compare(scored, "a")
    assert [(row["first"], row["second"], row["metric"]) for row in rows] == [
        (*pair, metric) for pair in combinations("abc", 2) for metric in METRICS
    ]
    for row in rows:
        one, other = (scored[row[name]][row["metric"]] for name in ("first", "second"))
        assert row["difference"] == one.value - other.value
        low, high = np.percentile(one.draws - other.draws, [2.5, 97.5])
        assert (row["low"], row["high"]) == pytest.approx((low, high))
        assert row["real"] == (low > 0 or high < 0)
    assert {row["real"] for row in rows} == {True, False}


def test_a_difference_in_log_loss_is_real_when_the_better_one_has_less():
    [row] = [row for row in compare(some_parts("abcdef"), "a") if _is(row, "a", "f", "log loss")]
    assert row["low"] > 0
    assert row["real"] is True


def _is(row: dict, *expected: str) -> bool:
    return (row["first"], row["second"], row["metric"]) == expected


def test_pairs_need_smaller_differences_than_their_own_intervals_suggest():
    """Two heads that make nearly the same mistakes: their intervals overlap, the difference is real for all that."""
    n = 400
    draws = draw_groups([str(row) for row in range(n)])
    labels = np.arange(n) % 2
    right = np.log([[0.9, 0.1], [0.1, 0.9]])[labels]
    scored = {}
    for name, wrong in (("few", 40), ("more", 52)):
        said = right.copy()
        said[:wrong] = said[:wrong, ::-1]
        scored[name] = draw_scores(TestPart(np.arange(n), labels, np.ones(n), said), draws)
    [row] = [row for row in compare(scored, "few") if row["metric"] == "accuracy"]
    few, more = (columns(each) for each in scored.values())
    assert few["accuracy_low"] < more["accuracy_high"]
    assert row["difference"] == pytest.approx(12 / n)
    assert row["real"]


def test_a_head_does_not_differ_from_itself():
    scored = some_parts("a")
    for row in compare({"a": scored["a"], "again": scored["a"]}, "a"):
        assert (row["difference"], row["low"], row["high"], row["real"]) == (0, 0, 0, False)


def test_what_is_not_known_is_not_real():
    """A class that the test part lacks has no average precision; where one score lacks it there is no difference."""
    scored = some_parts("ab")
    gone = Drawn(math.nan, np.full(300, math.nan), scored["b"]["accuracy"].groups)
    scored["b"] |= {"average precision": gone}
    [row] = [row for row in compare(scored, "a") if row["metric"] == "average precision"]
    assert all(math.isnan(row[name]) for name in ("difference", "low", "high"))
    assert row["real"] is False


def test_one_group_alone_tells_no_difference():
    """Every draw of the one group is the same, so the interval is a point, and says nothing."""
    assert not any(row["real"] for row in compare(some_parts("ad", groups=1), "a"))


def test_one_name_has_none_to_be_compared_with():
    assert compare(some_parts("a"), "a") == []


@pytest.mark.parametrize("chosen", ["a", "b", "d"])
def test_of_many_names_each_is_compared_with_the_chosen_one(chosen, monkeypatch):
    scored = some_parts("abcd")
    every = {(row["first"], row["second"], row["metric"]): row for row in compare(scored, chosen)}
    monkeypatch.setattr(standings, "ALL_PAIRS", 3)
    rows = compare(scored, chosen)
    assert [(row["first"], row["second"]) for row in rows if row["metric"] == "accuracy"] == [
        (chosen, name) for name in "abcd" if name != chosen
    ]
    for row in rows:
        if row["first"] < row["second"]:
            assert row == every[row["first"], row["second"], row["metric"]]
        else:
            there = every[row["second"], row["first"], row["metric"]]
            ends = (-there["difference"], -there["high"], -there["low"])
            assert (row["difference"], row["low"], row["high"]) == pytest.approx(ends)
            assert row["real"] == there["real"]


# Columns


def test_scores_are_spelled_as_columns():
    scored = some_parts("c")["c"]
    found = columns(scored)
    assert len(found) == 3 * len(METRICS)
    for metric, expected in intervals(scored).items():
        name = metric.replace(" ", "_")
        assert (found[name], found[f"{name}_low"], found[f"{name}_high"]) == (
            expected.value,
            expected.low,
            expected.high,
        )
