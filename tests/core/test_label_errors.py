"""Suspected label errors: those of the paper's confident joint, and better than chance at finding planted ones."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made import noisy_classes
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from tasks.core.label_errors import NONE, likened, suspected_errors, thresholds


def some_labels(n: int, classes: int, seed: int, skill: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, n)
    scores = np.exp(rng.normal(size=(n, classes)) + skill * np.eye(classes)[labels])
    return labels, scores / scores.sum(axis=1, keepdims=True)


def by_a_loop(labels: np.ndarray, proba: np.ndarray) -> tuple[list[float], list[int], list[tuple[int, int]]]:
    """Thresholds, what each sample is like, and (row, suggested) of the suspected, all by the definitions."""
    n, classes = proba.shape
    limits = []
    for j in range(classes):
        own = [proba[row, j] for row in range(n) if labels[row] == j]
        limits.append(math.fsum(own) / len(own) if own else math.inf)
    like = []
    for row in range(n):
        confident = [j for j in range(classes) if proba[row, j] >= limits[j] - 1e-12]
        like.append(max(confident, key=lambda j: (proba[row, j], -j)) if confident else NONE)
    margins = [
        (proba[row, labels[row]] - proba[row, like[row]], row)
        for row in range(n)
        if like[row] not in (NONE, labels[row]) and proba[row, like[row]] > proba[row, labels[row]]
    ]
    return limits, like, [(row, like[row]) for _, row in sorted(margins)]


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 60), st.integers(2, 5), st.integers(0, 10**6), st.floats(0, 3))
def test_suspects_are_those_of_a_plain_loop(n, classes, seed, skill):
    labels, proba = some_labels(n, classes, seed, skill)
    limits, like, listed = by_a_loop(labels, proba)
    np.testing.assert_allclose(thresholds(labels, proba), limits)
    assert likened(labels, proba).tolist() == like
    found = suspected_errors(labels, proba)
    assert list(zip(found.rows.tolist(), found.suggested.tolist(), strict=True)) == listed


def test_the_worst_margin_comes_first():
    found = suspected_errors(*some_labels(400, 3, seed=1))
    labels, proba = some_labels(400, 3, seed=1)
    margin = proba[found.rows, labels[found.rows]] - proba[found.rows, found.suggested]
    assert len(margin) > 10
    assert (np.diff(margin) >= 0).all()
    assert (margin < 0).all()


def test_of_a_head_that_knows_nothing_no_label_is_suspected():
    labels = np.arange(30) % 3
    assert not len(suspected_errors(labels, np.full((30, 3), 1 / 3)).rows)


@pytest.mark.parametrize("n", range(3, 40))
def test_a_probability_that_all_samples_share_reaches_its_own_mean(n):
    """The sum's rounding would put the mean above the numbers that it is of."""
    labels, proba = np.arange(n) % 3, np.tile([0.1, 0.7, 0.2], (n, 1))
    assert (likened(labels, proba) == 1).all()


def test_a_sample_that_is_more_of_its_label_is_not_suspected_however_rare_the_other_class():
    """The rare class is given 0.3 at best: 0.45 is confidently like it, and yet less than the label's 0.55."""
    labels = np.array([0] * 9 + [1])
    proba = np.array([[0.95, 0.05]] * 8 + [[0.55, 0.45], [0.7, 0.3]])
    assert likened(labels, proba)[8] == 1
    assert not len(suspected_errors(labels, proba).rows)


def test_a_class_without_samples_is_suggested_to_nobody():
    labels, proba = some_labels(80, 3, seed=3)
    left = labels != 2
    assert thresholds(labels[left], proba[left])[2] == math.inf
    assert 2 not in suspected_errors(labels[left], proba[left]).suggested


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("classes", [2, 4])
def test_planted_flips_are_found(seed, classes):
    """One label in ten is another class's: most are found, and few others, fewer than by argmax alone."""
    features, truth, _ = noisy_classes(800, 12, classes, seed=seed, noise=1.2)
    rng = np.random.default_rng(seed)
    flipped = rng.random(len(truth)) < 0.1
    labels = np.where(flipped, (truth + rng.integers(1, classes, len(truth))) % classes, truth)
    head = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    proba = cross_val_predict(head, features, labels, cv=5, method="predict_proba")
    found = suspected_errors(labels, proba)
    precision, recall = flipped[found.rows].mean(), flipped[found.rows].sum() / flipped.sum()
    plain = flipped[proba.argmax(axis=1) != labels].mean()
    assert precision > 4 * flipped.mean()
    assert recall > 0.6
    assert precision >= plain
    best = found.rows[: flipped.sum() // 2]
    assert flipped[best].mean() >= precision  # the order says where to begin
    assert (found.suggested == truth[found.rows])[flipped[found.rows]].mean() > 0.8
