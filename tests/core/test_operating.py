"""Operating points: thresholds from rows that the fits have not seen, and what they give, against a plain loop."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import log_softmax
from scipy.stats import beta

from tasks.core.metrics import Draws, TestPart, draw_groups, intervals, mean_scores
from tasks.core.operating import draw_operating, threshold_for
from tasks.core.wishes import Wish

TestPart.__test__ = False  # a name that pytest would take for tests


def some_part(
    n: int, classes: int, seed: int, *, skill: float = 1.5, groups: int | None = None
) -> tuple[TestPart, Draws]:
    """Test rows that are some of a table's, and draws of the table's groups."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, n)
    log_proba = log_softmax(rng.normal(size=(n, classes)) + skill * np.eye(classes)[labels], axis=1)
    rows = rng.choice(2 * n, n, replace=False)
    draws = draw_groups([str(row % (groups or 2 * n)) for row in range(2 * n)], replicates=200, seed=seed)
    return TestPart(rows, labels, rng.uniform(0.1, 3, n), log_proba), draws


def counted(part: TestPart, column: int, threshold: float, times: np.ndarray) -> tuple[float, float]:
    """Recall and precision by a loop, NaN of nothing."""
    hits = true = called = 0
    for log_proba, label, often in zip(part.log_proba, part.labels, times, strict=True):
        is_called = math.exp(log_proba[column]) >= threshold
        hits += often * (is_called and label == column)
        true += often * (label == column)
        called += often * is_called
    return (hits / true if true else math.nan, hits / called if called else math.nan)


# Thresholds


@settings(max_examples=60, deadline=None)
@given(
    st.integers(2, 40),
    st.integers(2, 4),
    st.sampled_from(["recall", "precision"]),
    st.floats(0.05, 1),
    st.integers(0, 10**6),
)
def test_the_threshold_is_the_best_of_all_that_give_what_is_wanted(n, classes, wanted, least, seed):
    """For a recall the highest threshold, for a precision the lowest, among the rows' own probabilities."""
    part, _ = some_part(n, classes, seed)
    found = threshold_for(Wish(**{wanted: least}), 1, part.log_proba, part.labels)
    at = ("recall", "precision").index(wanted)
    fit = [
        threshold
        for threshold in np.exp(part.log_proba[:, 1])
        if counted(part, 1, threshold * (1 - 1e-9), np.ones(n))[at] >= least - 1e-12
    ]
    if not fit:
        assert found is None
    else:
        assert found == pytest.approx(max(fit) if wanted == "recall" else min(fit))


@pytest.mark.parametrize("wish", [Wish(recall=0.9), Wish(precision=0.9)])
def test_a_threshold_gives_what_was_wanted_on_the_rows_that_it_was_chosen_on(wish):
    """To the row: the threshold is compared as it was found, and kept so in single precision or in JSON."""
    for seed in range(20):
        part, draws = some_part(300, 3, seed)
        told = part.log_proba.astype(np.float32).astype(np.float64)
        threshold = threshold_for(wish, 2, told, part.labels)
        assert threshold is not None
        drawn = draw_operating(TestPart(part.rows, part.labels, part.weights, told), draws, 2, threshold)
        name, least = ("recall", wish.recall) if wish.recall else ("precision", wish.precision)
        assert drawn[name].value >= least


def test_certainties_have_thresholds():
    """Probabilities of 1 and of 0 after rounding, as a head that is sure gives them."""
    log_proba = np.array([[0.0, -200.0], [0.0, -900.0], [-200.0, 0.0], [-900.0, 0.0]])
    labels = np.array([0, 0, 1, 1])
    assert threshold_for(Wish(recall=1.0), 1, log_proba, labels) == 1.0
    assert threshold_for(Wish(precision=1.0), 1, log_proba, labels) == 1.0
    part = TestPart(np.arange(4), labels, np.ones(4), log_proba)
    drawn = draw_operating(part, draw_groups(list("abcd"), replicates=9), 1, 1.0)
    assert (drawn["recall"].value, drawn["precision"].value) == (1, 1)


@pytest.mark.parametrize("wish", [Wish(recall=0.01), Wish(precision=0.01)])
def test_a_class_that_the_rows_lack_has_no_threshold(wish):
    part, _ = some_part(30, 3, 0)
    labels = np.where(part.labels == 1, 0, part.labels)
    assert threshold_for(wish, 1, part.log_proba, labels) is None


def test_a_precision_that_is_never_reached_has_no_threshold():
    log_proba = np.log([[0.1, 0.9], [0.4, 0.6], [0.8, 0.2]])  # the surest is wrong
    assert threshold_for(Wish(precision=0.9), 1, log_proba, np.array([0, 1, 0])) is None
    assert threshold_for(Wish(precision=0.5), 1, log_proba, np.array([0, 1, 0])) == pytest.approx(0.6)


# What they give


@settings(max_examples=20, deadline=None)
@given(st.integers(2, 40), st.integers(2, 4), st.floats(0.05, 0.95), st.integers(0, 10**6))
def test_recall_and_precision_are_those_of_a_loop_under_every_draw(n, classes, threshold, seed):
    part, draws = some_part(n, classes, seed, groups=n)
    drawn = draw_operating(part, draws, 1, threshold)
    expected = counted(part, 1, threshold, np.ones(n))
    assert (drawn["recall"].value, drawn["precision"].value) == pytest.approx(expected, nan_ok=True)
    for b in range(0, 200, 23):
        times = np.array([draws.counts[draws.members[row], b] for row in part.rows], dtype=int)
        expected = counted(part, 1, threshold, times)
        found = (drawn["recall"].draws[b], drawn["precision"].draws[b])
        assert found == pytest.approx(expected, nan_ok=True)


def test_intervals_are_those_of_a_naive_bootstrap():
    part, _ = some_part(200, 3, 0)
    draws = draw_groups([str(row) for row in range(400)], replicates=4000)
    found = intervals(draw_operating(part, draws, 1, 0.4))
    rng = np.random.default_rng(1)
    naive = []
    for _ in range(2000):
        picked = rng.integers(0, 200, 200)
        naive.append(counted(part, 1, 0.4, np.bincount(picked, minlength=200)))
    for name, values in zip(("recall", "precision"), np.array(naive).T, strict=True):
        low, high = np.percentile(values, [2.5, 97.5])
        assert found[name].low == pytest.approx(low, abs=0.02)
        assert found[name].high == pytest.approx(high, abs=0.02)
        assert found[name].low < found[name].value < found[name].high


def test_sample_weights_do_not_count():
    part, draws = some_part(50, 3, 0)
    other = TestPart(part.rows, part.labels, part.weights[::-1], part.log_proba)
    one, two = (draw_operating(each, draws, 1, 0.5) for each in (part, other))
    assert one["recall"].value == two["recall"].value
    np.testing.assert_array_equal(one["precision"].draws, two["precision"].draws)


@pytest.mark.parametrize(("name", "trials"), [("recall", 3), ("precision", 5)])
def test_where_no_draw_tells_anything_the_exact_interval_counts_only_the_rows_that_matter(name, trials):
    """Three true rows among a hundred, all found: that is three trials, not a hundred; for precision the called."""
    labels = np.r_[np.ones(3), np.zeros(97)].astype(int)
    log_proba = np.tile(np.log([0.9, 0.1]), (100, 1))
    log_proba[:3] = np.log([0.1, 0.9])
    if name == "precision":  # all called are true, but not all true are called
        labels[:7] = 1
        log_proba[:5] = np.log([0.1, 0.9])
    part = TestPart(np.arange(100), labels, np.ones(100), log_proba)
    draws = draw_groups([str(row) for row in range(100)])
    found = intervals(draw_operating(part, draws, 1, 0.5))[name]
    assert (found.value, found.high) == (1, 1)
    assert found.low == pytest.approx(beta.ppf(0.025, trials, 1))


def test_a_class_that_the_test_part_lacks_has_no_recall():
    part, draws = some_part(30, 3, 0)
    part = TestPart(part.rows, np.zeros(30, dtype=int), part.weights, part.log_proba)
    found = intervals(draw_operating(part, draws, 1, 0.2))
    assert all(math.isnan(end) for end in (found["recall"].value, found["recall"].low, found["recall"].high))
    assert found["precision"].value == 0
    assert found["precision"].low == 0 < found["precision"].high < 1


def test_where_nothing_is_called_there_is_no_precision():
    part, draws = some_part(30, 3, 0)
    found = intervals(draw_operating(part, draws, 1, 1.0))
    assert all(math.isnan(end) for end in vars(found["precision"]).values())
    assert found["recall"].value == 0


def test_seeds_are_averaged_and_their_tested_groups_counted_once():
    parts = [some_part(40, 2, seed)[0] for seed in range(3)]
    draws = draw_groups([str(row) for row in range(80)], replicates=100)
    each = [draw_operating(part, draws, 1, 0.5) for part in parts]
    mean = mean_scores(each)
    for name in ("recall", "precision"):
        assert mean[name].value == pytest.approx(np.mean([drawn[name].value for drawn in each]))
        assert len(mean[name].groups) == len({group for drawn in each for group in drawn[name].groups})
        assert len(mean[name].groups) < 80
