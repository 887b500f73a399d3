"""Temperatures, reliability and operating points against plain searches and loops."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from scipy.special import expit, log_softmax, logit

from tasks.core.calibration import (
    SHARPEST,
    SMOOTHEST,
    expected_calibration_error,
    operating_point,
    reliability,
    scaled,
    temperature,
)


def some_rows(
    n: int, classes: int, seed: int, *, skill: float = 1.0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scores (n, C) of some skill, labels (n,) and weights (n,)."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, n)
    return rng.normal(size=(n, classes)) + skill * np.eye(classes)[labels], labels, rng.uniform(0.1, 3, n)


def loss(scores: np.ndarray, labels: np.ndarray, weights: np.ndarray, warmth: float) -> float:
    """Weighted log loss at a temperature."""
    log_proba = log_softmax(scores / warmth, axis=1)
    return float(-np.average(log_proba[np.arange(len(labels)), labels], weights=weights))


def lead(scores: np.ndarray, weights: np.ndarray) -> float:
    """Weighted mean of how far the best class leads the mean of the others."""
    ranked = np.sort(scores, axis=1)
    return float(np.average(ranked[:, -1] - ranked[:, :-1].mean(axis=1), weights=weights))


# Temperature


@pytest.mark.parametrize("unit", [0.02, 1.0, 300.0])
@pytest.mark.parametrize(("n", "classes"), [(50, 2), (200, 5), (1000, 3)])
def test_the_temperature_minimises_the_weighted_log_loss(n, classes, unit):
    scores, labels, weights = some_rows(n, classes, 0)
    scores = unit * scores
    found = minimize_scalar(
        lambda log_warmth: loss(scores, labels, weights, math.exp(log_warmth)),
        bounds=(math.log(unit) - 4, math.log(unit) + 4),
        method="bounded",
        options={"xatol": 1e-9},
    )
    assert temperature(scores, labels, weights) == pytest.approx(math.exp(found.x), rel=1e-5)


@settings(max_examples=50, deadline=None)
@given(st.integers(2, 30), st.integers(2, 5), st.floats(-1, 6), st.integers(0, 10**6))
def test_no_temperature_within_the_ends_has_a_smaller_loss(n, classes, skill, seed):
    scores, labels, weights = some_rows(n, classes, seed, skill=skill)
    least = loss(scores, labels, weights, temperature(scores, labels, weights))
    for warmth in np.geomspace(lead(scores, weights) / SHARPEST, lead(scores, weights) / SMOOTHEST, 60):
        assert least <= loss(scores, labels, weights, warmth) + 1e-12


@pytest.mark.parametrize("known", [0.3, 1.0, 4.0])
def test_a_known_temperature_is_recovered(known):
    """Labels are drawn from the probabilities at that temperature."""
    rng = np.random.default_rng(0)
    scores = rng.normal(size=(40_000, 3)) * 2
    proba = np.exp(log_softmax(scores / known, axis=1))
    labels = (rng.random((40_000, 1)) > proba.cumsum(axis=1)).sum(axis=1).clip(0, 2)
    found = temperature(scores, labels, np.ones(40_000))
    assert found == pytest.approx(known, rel=0.05)
    assert expected_calibration_error(scaled(scores, found), labels, np.ones(40_000)) < 0.01


@settings(max_examples=50, deadline=None)
@given(st.floats(1e-4, 1e4), st.floats(-0.5, 8), st.integers(0, 10**6))
def test_scores_in_another_unit_have_the_temperature_in_that_unit(unit, skill, seed):
    scores, labels, weights = some_rows(20, 3, seed, skill=skill)
    expected = unit * temperature(scores, labels, weights)
    assert temperature(unit * scores, labels, weights) == pytest.approx(expected, rel=1e-6)


def test_a_constant_in_each_row_changes_nothing():
    scores, labels, weights = some_rows(50, 3, 0)
    shifted = scores + np.random.default_rng(1).normal(size=(50, 1)) * 10
    expected = temperature(scores, labels, weights)
    assert temperature(shifted, labels, weights) == pytest.approx(expected, rel=1e-6)


def test_where_all_rows_are_right_it_is_the_coldest():
    scores, labels, weights = some_rows(50, 3, 0, skill=20)
    found = temperature(scores, labels, weights)
    assert found == pytest.approx(lead(scores, weights) / SHARPEST)
    assert lead(scaled(scores, found), weights) == pytest.approx(SHARPEST)
    assert np.isfinite(scaled(scores, found)).all()


@pytest.mark.parametrize("classes", [2, 10])
def test_where_all_rows_are_right_a_row_that_is_wrong_does_not_cost_the_earth(classes):
    """One wrong of a hundred, none of which was among the rows that the temperature was chosen on."""
    scores, labels, weights = some_rows(100, classes, 0, skill=20)
    found = scaled(scores, temperature(scores, labels, weights))
    assert loss(found, labels, weights, 1.0) < 0.001
    assert loss(found[:1], (labels[:1] + 1) % classes, weights[:1], 1.0) < 20


def test_where_all_rows_are_wrong_it_is_the_warmest():
    scores, labels, weights = some_rows(50, 3, 0, skill=20)
    found = temperature(scores, (labels + 1) % 3, weights)
    assert found == pytest.approx(lead(scores, weights) / SMOOTHEST)
    assert loss(scores, (labels + 1) % 3, weights, found) == pytest.approx(math.log(3), abs=0.02)


def test_where_it_makes_no_difference_it_is_one():
    assert temperature(np.zeros((4, 3)), np.array([0, 1, 2, 0]), np.ones(4)) == 1.0


def test_rows_without_weight_have_no_say_and_a_row_of_weight_two_has_two():
    scores, labels, _ = some_rows(60, 3, 0)
    times = np.random.default_rng(1).integers(0, 4, 60)
    repeated = temperature(np.repeat(scores, times, 0), np.repeat(labels, times), np.ones(times.sum()))
    assert temperature(scores, labels, times.astype(float)) == pytest.approx(repeated, rel=1e-6)


def test_a_temperature_of_one_changes_no_log_probabilities():
    log_proba = log_softmax(some_rows(20, 4, 0)[0], axis=1)
    np.testing.assert_allclose(scaled(log_proba, 1.0), log_proba, atol=1e-14)
    np.testing.assert_allclose(np.exp(scaled(log_proba, 0.01)).sum(axis=1), 1)


# Reliability


def naive_bins(
    log_proba: np.ndarray, labels: np.ndarray, weights: np.ndarray, bins: int
) -> list[tuple[float, float, float, float, float]]:
    """(lower end, upper end, confidence, accuracy, share) of each bin that has weight."""
    found = []
    for b in range(bins):
        low, high, held, sure, hit = b / bins, (b + 1) / bins, 0.0, 0.0, 0.0
        for row, label, weight in zip(np.exp(log_proba), labels, weights, strict=True):
            if low < max(row) <= high or (b == bins - 1 and max(row) > high):  # 1 to within rounding
                held += weight
                sure += weight * max(row)
                hit += weight * (list(row).index(max(row)) == label)
        if held:
            found.append((low, high, sure / held, hit / held, held / weights.sum()))
    return found


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 60),
    st.integers(2, 5),
    st.sampled_from([1, 2, 7, 15]),
    st.floats(0, 5),
    st.integers(0, 999),
)
def test_reliability_is_that_of_a_naive_loop(n, classes, bins, skill, seed):
    scores, labels, weights = some_rows(n, classes, seed, skill=skill)
    weights[1::3] = 0
    log_proba = log_softmax(3 * scores, axis=1)
    found = reliability(log_proba, labels, weights, bins)
    expected = np.array(naive_bins(log_proba, labels, weights, bins))
    np.testing.assert_allclose(found.edges, expected[:, :2])
    np.testing.assert_allclose(found.confidence, expected[:, 2])
    np.testing.assert_allclose(found.accuracy, expected[:, 3])
    np.testing.assert_allclose(found.share, expected[:, 4])
    assert found.share.sum() == pytest.approx(1)
    error = sum(share * abs(right - sure) for _, _, sure, right, share in expected)
    assert expected_calibration_error(log_proba, labels, weights, bins) == pytest.approx(error)


def test_a_confidence_at_the_upper_end_is_inside_its_bin():
    log_proba = np.log([[0.5, 0.5], [0.75, 0.25], [1e-300, 1.0], [0.25, 0.75]])
    found = reliability(log_proba, np.array([0, 0, 1, 0]), np.array([1.0, 2.0, 3.0, 4.0]), bins=4)
    np.testing.assert_array_equal(found.edges, [[0.25, 0.5], [0.5, 0.75], [0.75, 1]])
    np.testing.assert_allclose(found.share, [0.1, 0.6, 0.3])
    np.testing.assert_allclose(found.accuracy, [1, 1 / 3, 1])


def test_the_calibration_error_is_nought_where_confidence_is_accuracy_and_else_their_distance():
    labels = np.array([0] * 9 + [1])
    for sure in (0.9, 0.6, 0.99):
        log_proba = np.log(np.tile([sure, 1 - sure], (10, 1)))
        assert expected_calibration_error(log_proba, labels, np.ones(10)) == pytest.approx(abs(sure - 0.9))


# Operating points


ROWS = st.lists(
    st.tuples(
        st.sampled_from([-40.0, -1.0, -0.5, 0.0, 0.25, 1.0, 3.0, 50.0, 60.0]),
        st.booleans(),
        st.sampled_from([0.0, 0.1, 0.3, 1.0, 2.0]),
    ),
    min_size=1,
    max_size=15,
)
WISHES = st.sampled_from([0.0, 0.2, 0.5, 2 / 3, 0.9, 1.0])


def columns(rows: list[tuple[float, bool, float]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    margin, truth, weights = (np.array(column) for column in zip(*rows, strict=True))
    return margin, truth, weights


def brute_force(rows: list[tuple[float, bool, float]]) -> list[tuple[float, float, float]]:
    """(threshold, recall, precision) for each weighed row's probability as the threshold, highest first."""
    points, true = [], sum(weight for _, truth, weight in rows if truth)
    for threshold in sorted({float(expit(margin)) for margin, _, weight in rows if weight}, reverse=True):
        found = sum(weight for margin, _, weight in rows if expit(margin) >= threshold)
        hits = sum(weight for margin, truth, weight in rows if truth and expit(margin) >= threshold)
        if true:
            points.append((threshold, hits / true, hits / found))
    return points


@settings(max_examples=200, deadline=None)
@given(ROWS, WISHES)
def test_a_wanted_recall_is_had_at_the_highest_threshold_that_reaches_it(rows, wish):
    found = operating_point(*columns(rows), recall=wish)
    reaching = [point for point in brute_force(rows) if point[1] >= wish - 1e-9]
    if found is None:
        assert not reaching
    else:
        assert (found.threshold, found.recall, found.precision) == pytest.approx(max(reaching))


@settings(max_examples=200, deadline=None)
@given(ROWS, WISHES)
def test_a_wanted_precision_is_had_at_the_lowest_threshold_that_reaches_it(rows, wish):
    found = operating_point(*columns(rows), precision=wish)
    reaching = [point for point in brute_force(rows) if point[2] >= wish - 1e-9]
    if found is None:
        assert not reaching
    else:
        assert (found.threshold, found.recall, found.precision) == pytest.approx(min(reaching))


@settings(max_examples=100, deadline=None)
@given(ROWS, WISHES, st.sampled_from(["recall", "precision"]))
def test_a_point_gives_at_its_threshold_what_it_promises(rows, wish, of):
    found = operating_point(*columns(rows), **{of: wish})
    if found is not None:
        called = [expit(margin) >= found.threshold for margin, _, _ in rows]
        hits = sum(
            weight for (_, truth, weight), is_called in zip(rows, called, strict=True) if truth and is_called
        )
        assert hits == pytest.approx(found.recall * sum(weight for _, truth, weight in rows if truth))
        said = sum(weight for (_, _, weight), is_called in zip(rows, called, strict=True) if is_called)
        assert hits == pytest.approx(found.precision * said)


def test_rows_that_share_a_probability_are_called_together():
    margin, truth = logit([0.9, 0.7, 0.7, 0.7, 0.2]), np.array([True, True, False, True, True])
    found = operating_point(margin, truth, np.ones(5), recall=0.5)
    assert found.threshold == pytest.approx(0.7)
    assert (found.recall, found.precision) == pytest.approx((3 / 4, 3 / 4))


def test_what_no_threshold_reaches_gives_none():
    margin, truth = np.array([3.0, 2.0, 1.0]), np.array([False, True, True])
    assert operating_point(margin, truth, np.ones(3), precision=0.7) is None
    assert operating_point(margin, truth, np.ones(3), precision=2 / 3) is not None
    assert operating_point(margin, truth, np.ones(3), recall=1.01) is None
    for wish in ({"recall": 0.5}, {"precision": 0.5}):
        assert operating_point(margin, np.zeros(3, dtype=bool), np.ones(3), **wish) is None
        assert operating_point(margin, truth, np.zeros(3), **wish) is None


def test_a_share_that_falls_short_by_rounding_alone_is_reached():
    """Three of four rows that weigh 0.7 have 0.7499999999999999 of the weight."""
    margin, truth, weights = np.array([3.0, 2.0, 1.0, 0.0]), np.ones(4, dtype=bool), np.full(4, 0.7)
    found = operating_point(margin, truth, weights, recall=0.75)
    assert found.recall < 0.75
    assert found.threshold == pytest.approx(expit(1.0))


def test_a_wish_is_for_one_of_both():
    for wishes in ({}, {"recall": 0.5, "precision": 0.5}):
        with pytest.raises(ValueError, match="give one of them"):
            operating_point(np.zeros(2), np.array([True, False]), np.ones(2), **wishes)
