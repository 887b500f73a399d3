"""Average precision under each replicate is scikit-learn's, whatever the ties and the counts."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score

from tasks.core import ranking as module
from tasks.core.ranking import average_precision, average_precisions, ranking, ratio

ROWS = st.lists(
    st.tuples(st.booleans(), st.integers(-3, 3), st.lists(st.integers(0, 3), min_size=4, max_size=4)),
    min_size=1,
    max_size=30,
).filter(lambda rows: any(truth for truth, _, _ in rows))


def columns(rows: list[tuple[bool, int, list[int]]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Truth (n,), scores (n,) with many ties, counts (n, 4)."""
    truth, scores, times = zip(*rows, strict=True)
    return np.array(truth), np.array(scores, dtype=float), np.array(times, dtype=float)


@settings(max_examples=100, deadline=None)
@given(ROWS)
def test_average_precision_is_scikit_learns_with_ties(rows):
    truth, scores, _ = columns(rows)
    expected = average_precision_score(truth, scores)
    assert average_precision(ranking(truth, scores)) == pytest.approx(expected, abs=1e-12)


@settings(max_examples=100, deadline=None)
@given(ROWS)
def test_each_replicate_has_scikit_learns_average_precision_with_ties_and_counts(rows):
    truth, scores, times = columns(rows)
    found = average_precisions(ranking(truth, scores), times)
    for b, counts in enumerate(times.T):
        if counts[truth].sum():
            expected = average_precision_score(truth, scores, sample_weight=counts)
            assert found[b] == pytest.approx(expected, abs=1e-12)
        else:
            assert np.isnan(found[b])


@pytest.mark.parametrize("at_once", [1, 7, 10_000])
def test_how_many_thresholds_are_taken_at_once_changes_nothing(at_once, monkeypatch):
    rng = np.random.default_rng(0)
    truth, scores, times = rng.random(200) < 0.4, rng.integers(0, 90, 200) / 7, rng.poisson(1, (200, 30))
    expected = average_precisions(ranking(truth, scores), times.astype(float))
    monkeypatch.setattr(module, "THRESHOLDS_AT_ONCE", at_once)
    found = average_precisions(ranking(truth, scores), times.astype(float))
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)


def test_single_precision_is_enough():
    rng = np.random.default_rng(0)
    truth, scores, times = rng.random(5000) < 0.3, rng.normal(size=5000), rng.poisson(1, (5000, 20))
    ranked = ranking(truth, scores + truth)
    found = average_precisions(ranked, times.astype(np.float32))
    np.testing.assert_allclose(found, average_precisions(ranked, times.astype(float)), rtol=0, atol=1e-6)


def test_rows_that_share_a_score_are_found_together_in_any_order():
    truth, scores = np.array([True, False, True, False, False]), np.array([1.0, 1.0, 1.0, 1.0, 2.0])
    for order in ([0, 1, 2, 3, 4], [3, 1, 4, 2, 0], [2, 0, 1, 4, 3]):
        assert average_precision(ranking(truth[order], scores[order])) == pytest.approx(2 / 5)


def test_scores_without_end_are_ranked():
    """Log odds of a certainty are infinite; rows that are equally certain are tied."""
    truth = np.array([True, False, True, False])
    scores = np.array([np.inf, np.inf, 0.0, -np.inf])
    expected = average_precision_score(truth, [2.0, 2.0, 1.0, 0.0])
    assert average_precision(ranking(truth, scores)) == pytest.approx(expected)


def test_without_a_true_row_there_is_none():
    ranked = ranking(np.zeros(3, dtype=bool), np.arange(3.0))
    assert np.isnan(average_precision(ranked))
    assert np.isnan(average_precisions(ranked, np.ones((3, 2)))).all()


def test_a_ratio_of_nothing_is_unknown():
    found = ratio(np.array([1.0, 0.0, 0.0]), np.array([2.0, 1.0, 0.0]))
    np.testing.assert_array_equal(found, [0.5, 0.0, np.nan])
