"""Scores of each class: against scikit-learn, and each replicate against rows repeated as often as it says."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import log_softmax
from sklearn.metrics import average_precision_score, precision_recall_fscore_support

from tasks.core import metrics
from tasks.core.class_scores import CLASS_METRICS, draw_classes
from tasks.core.metrics import Draws, TestPart, draw_groups, intervals, margins, mean_scores

TestPart.__test__ = False  # a name that pytest would take for tests


def some_part(n: int, classes: int, seed: int, skill: float = 1.5) -> tuple[TestPart, Draws]:
    """Test rows that are some of a table's, and draws of the table's groups."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, n)
    log_proba = log_softmax(rng.normal(size=(n, classes)) + skill * np.eye(classes)[labels], axis=1)
    rows = rng.choice(2 * n, n, replace=False)
    draws = draw_groups([str(row % max(2, n // 2)) for row in range(2 * n)], replicates=60, seed=seed)
    return TestPart(rows, labels, np.ones(n), log_proba), draws


def by_scikit_learn(part: TestPart, times: np.ndarray) -> np.ndarray:
    """(C, 4) scores of rows repeated so many times, NaN where there is nothing to divide by."""
    log_proba, labels = (np.repeat(each, times, axis=0) for each in (part.log_proba, part.labels))
    classes = part.log_proba.shape[1]
    if not len(labels):
        return np.full((classes, 4), np.nan)
    three = precision_recall_fscore_support(
        labels, log_proba.argmax(axis=1), labels=range(classes), zero_division=np.nan
    )[:3]
    odds = margins(log_proba)
    areas = [
        average_precision_score(labels == c, odds[:, c]) if (labels == c).any() else np.nan
        for c in range(classes)
    ]
    return np.stack([*three, areas], axis=1)


@settings(max_examples=25, deadline=None)
@given(st.integers(3, 30), st.integers(2, 4), st.integers(0, 10**6))
def test_values_and_replicates_are_scikit_learns(n, classes, seed):
    part, draws = some_part(n, classes, seed)
    found = draw_classes(part, draws)
    once = by_scikit_learn(part, np.ones(n, dtype=int))
    for c, scores in enumerate(found):
        np.testing.assert_allclose([scores[name].value for name in CLASS_METRICS], once[c], atol=1e-9)
    times = draws.counts[draws.members[part.rows]].astype(int)
    for replicate in range(0, 60, 20):
        expected = by_scikit_learn(part, times[:, replicate])
        for c, scores in enumerate(found):
            drawn = [scores[name].draws[replicate] for name in CLASS_METRICS]
            np.testing.assert_allclose(drawn, expected[c], atol=1e-5)


def test_draws_do_not_depend_on_how_many_are_held_at_once(monkeypatch):
    part, draws = some_part(40, 3, seed=2)
    whole = draw_classes(part, draws)
    monkeypatch.setattr(metrics, "COUNTS_AT_ONCE", 7 * 40)
    for one, other in zip(whole, draw_classes(part, draws), strict=True):
        for name in CLASS_METRICS:
            np.testing.assert_allclose(one[name].draws, other[name].draws, rtol=1e-6)


def test_a_class_that_is_never_called_has_no_precision_and_finds_nothing():
    labels = np.array([0, 0, 1, 1])
    part = TestPart(np.arange(4), labels, np.ones(4), np.log(np.tile([0.6, 0.4], (4, 1))))
    one = draw_classes(part, draw_groups(list("abcd"), replicates=50))[1]
    assert np.isnan(one["precision"].value)
    assert np.isnan(one["precision"].draws).all()
    assert one["recall"].value == one["F1"].value == 0


def test_a_class_that_is_found_without_a_fault_has_the_exact_bound_of_its_own_groups():
    """Two true rows in two groups say less than the twenty rows of the other class."""
    labels = np.array([0] * 20 + [1] * 2)
    proba = np.where(labels[:, None] == [0, 1], 0.9, 0.1)
    part = TestPart(np.arange(22), labels, np.ones(22), np.log(proba))
    scores = [intervals(each) for each in draw_classes(part, draw_groups([str(r) for r in range(22)]))]
    for name in CLASS_METRICS:
        assert scores[0][name].value == scores[1][name].value == 1
        assert scores[1][name].low == pytest.approx(0.025 ** (1 / 2))
        assert scores[0][name].low == pytest.approx(0.025 ** (1 / 20))


def test_each_score_is_tested_by_the_groups_that_it_counts():
    labels, called = np.array([0, 1, 1, 0]), np.array([0, 0, 1, 1])
    log_proba = np.log(np.where(called[:, None] == [0, 1], 0.9, 0.1))
    scores = draw_classes(TestPart(np.arange(4), labels, np.ones(4), log_proba), draw_groups(list("abcd")))[0]
    groups = {name: scores[name].groups.tolist() for name in CLASS_METRICS}
    assert groups == {"precision": [0, 1], "recall": [0, 3], "F1": [0, 1, 3], "average precision": [0, 3]}


def test_the_mean_over_seeds_lies_within_its_interval():
    parts = [some_part(120, 3, seed=5)[0], some_part(120, 3, seed=6)[0]]
    draws = draw_groups([str(row) for row in range(240)])
    drawn = [draw_classes(part, draws) for part in parts]
    for c in range(3):
        for found in intervals(mean_scores([each[c] for each in drawn])).values():
            assert found.low < found.value < found.high
            assert found.high - found.low < 0.4
