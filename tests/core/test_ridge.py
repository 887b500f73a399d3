"""Ridge heads: scikit-learn's optimum, and what fitting again without some rows would say of them."""

from dataclasses import dataclass, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made import noisy_classes
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax
from sklearn.linear_model import Ridge as Reference

from tasks.core import ridge as module
from tasks.core.fits import Fit, Folds
from tasks.core.hyper import Ridge
from tasks.core.ridge import fit_ridge, leave_folds_out, leave_one_out
from tasks.core.weights import class_weighted

STRENGTHS = (1e-3, 0.1, 4.0)


@dataclass(frozen=True)
class Problem:
    """Rows (N, D), labels (N,), weights (N,), and the number of classes."""

    features: np.ndarray
    labels: np.ndarray
    weights: np.ndarray
    classes: int

    @property
    def targets(self) -> np.ndarray:
        return np.eye(self.classes)[self.labels]

    def fit(self, *hypers: Ridge, folds: Folds = ()) -> list[Fit]:
        return fit_ridge(
            self.features, self.labels, self.weights, classes=self.classes, hypers=hypers, folds=folds
        )


def problem(rows: int, columns: int, classes: int, seed: int = 0) -> Problem:
    return Problem(*noisy_classes(rows, columns, classes, seed), classes)


def some_folds(rows: int, number: int, seed: int = 0) -> Folds:
    """Each row held out once, in folds whose sizes differ by one at most."""
    order = np.random.default_rng(seed).permutation(rows)
    return [(np.setdiff1d(order, held), np.sort(held)) for held in np.array_split(order, number)]


def standardised(features: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Centre and scale column by column, by the rows with weight; (N, D)."""
    rows = features.astype(np.float64)
    for d in range(rows.shape[1]):
        rows[:, d] -= np.average(rows[:, d], weights=weights)
        scale = np.sqrt(np.average(rows[:, d] ** 2, weights=weights))
        rows[:, d] /= scale if scale > 1e-6 * np.abs(features[weights > 0, d]).max() else 1.0
    return rows


def refitted(given: Problem, strength: float, train: np.ndarray, held_out: np.ndarray) -> np.ndarray:
    """Scores (n, C) of the held-out rows by scikit-learn's fit on the others; the scale is all rows'."""
    rows, weights = standardised(given.features, given.weights), given.weights[train]
    model = Reference(alpha=strength * weights.sum(), solver="svd")
    model.fit(rows[train], given.targets[train], sample_weight=weights)
    return model.predict(rows[held_out]).reshape(len(held_out), -1)


def naive(given: Problem, strengths: tuple[float, ...], folds: Folds) -> np.ndarray:
    """Scores (S, N, C) of each fold by a fit on the other rows."""
    told = np.empty((len(strengths), *given.targets.shape))
    for s, strength in enumerate(strengths):
        for train, held_out in folds:
            told[s, held_out] = refitted(given, strength, train, held_out)
    return told


def scores(fit: Fit, features: np.ndarray) -> np.ndarray:
    """What least squares says, before it is scaled to log probabilities; (N, C)."""
    head, warmth = fit.predictor.arrays(), fit.facts["temperature"]
    return warmth * (features.astype(np.float64) @ head["weight"].T + head["bias"])


SHAPES = [(40, 5, 3), (30, 3, 2), (12, 40, 3), (20, 20, 4), (21, 20, 2)]


# The optimum


@pytest.mark.parametrize("shape", SHAPES)
def test_the_optimum_is_scikit_learns(shape):
    given, every = problem(*shape), np.arange(shape[0])
    for strength, fit in zip(STRENGTHS, given.fit(*map(Ridge, STRENGTHS)), strict=True):
        expected = refitted(given, strength, every, every)
        np.testing.assert_allclose(scores(fit, given.features), expected, rtol=0, atol=1e-8)


def test_the_slope_vanishes_at_the_optimum():
    given, strength = problem(50, 6, 3), 0.3
    [fit] = given.fit(Ridge(strength))
    rows = standardised(given.features, given.weights)
    by_row = np.column_stack([rows, np.ones(50)])
    weight = np.linalg.lstsq(by_row, scores(fit, given.features), rcond=None)[0][:-1]  # (D, C)
    off = (given.weights / given.weights.sum())[:, None] * (scores(fit, given.features) - given.targets)
    np.testing.assert_allclose(rows.T @ off + strength * weight, 0, atol=1e-10)
    np.testing.assert_allclose(off.sum(axis=0), 0, atol=1e-12)


def test_without_any_varying_feature_the_weighted_shares_are_scored():
    given = Problem(np.full((4, 3), 0.1), np.array([0, 1, 1, 2]), np.array([1.0, 2.0, 3.0, 4.0]), 3)
    [fit] = given.fit(Ridge(0.1))
    np.testing.assert_allclose(scores(fit, given.features), np.tile([0.1, 0.5, 0.4], (4, 1)), atol=1e-12)


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_half_and_single_features_are_taken_as_the_numbers_that_they_are(dtype):
    base = problem(30, 5, 3)
    given = replace(base, features=base.features.astype(dtype))
    wide = replace(base, features=given.features.astype("float64"))
    [one], [other] = given.fit(Ridge(0.1)), wide.fit(Ridge(0.1))
    np.testing.assert_array_equal(one.predictor.weight, other.predictor.weight)


def test_a_second_call_gives_the_same_bits_and_a_head_kept_on_disk_says_the_same():
    given, folds = problem(40, 9, 3), some_folds(40, 4)
    for one, other in zip(*(given.fit(*map(Ridge, STRENGTHS), folds=folds) for _ in range(2)), strict=True):
        np.testing.assert_array_equal(one.predictor.weight, other.predictor.weight)
        np.testing.assert_array_equal(one.inner, other.inner)
        kept = {
            name: np.frombuffer(array.tobytes()).reshape(array.shape)
            for name, array in one.predictor.arrays().items()
        }
        again = type(one.predictor).of(kept)
        np.testing.assert_array_equal(
            again.log_proba(given.features), one.predictor.log_proba(given.features)
        )


# Fits without some rows


@pytest.mark.parametrize("shape", SHAPES)
def test_leaving_one_out_is_fitting_again_without_each(shape):
    given = problem(*shape)
    found = leave_one_out(given.features, given.targets, given.weights, STRENGTHS)
    expected = naive(given, STRENGTHS, some_folds(shape[0], shape[0]))
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-8)


@pytest.mark.parametrize("number", [2, 3, 7])
@pytest.mark.parametrize("shape", SHAPES)
def test_leaving_folds_out_is_fitting_again_without_each(shape, number):
    given, folds = problem(*shape), some_folds(shape[0], number)
    found = leave_folds_out(given.features, given.targets, given.weights, STRENGTHS, folds)
    np.testing.assert_allclose(found, naive(given, STRENGTHS, folds), rtol=0, atol=1e-8)


@st.composite
def hard_problems(draw: st.DrawFn) -> tuple[Problem, Folds]:
    """Dependent and constant columns, rows without weight, and folds that lack a class, in any mixture."""
    rows, columns, classes = draw(st.integers(6, 30)), draw(st.integers(1, 35)), draw(st.integers(2, 5))
    given = problem(rows, columns, classes, draw(st.integers(0, 10**6)))
    features, weights = given.features, given.weights.copy()
    if draw(st.booleans()):
        features = np.column_stack([features, features[:, ::-1], features @ np.ones(columns)])
    if draw(st.booleans()):
        features = np.column_stack([features, np.repeat([[0.0, 0.1, -1e6]], rows, axis=0)])
    order = np.argsort(given.labels) if draw(st.booleans()) else np.arange(rows)
    fold = (np.arange(rows) * draw(st.integers(2, 5)) // rows)[np.argsort(order)]
    if draw(st.booleans()):
        weights[np.flatnonzero(np.arange(rows) % 3 == 1)] = 0
    folds = [(np.flatnonzero(fold != f), np.flatnonzero(fold == f)) for f in np.unique(fold)]
    return Problem(features, given.labels, weights, classes), folds


@settings(max_examples=30, deadline=None)
@given(hard_problems(), st.lists(st.sampled_from([1e-4, 1e-2, 0.3, 10.0]), min_size=1, max_size=4))
def test_hard_problems_without_folds_or_rows_are_as_fitted_again(hard, strengths):
    given, folds = hard
    found = leave_folds_out(given.features, given.targets, given.weights, strengths, folds)
    np.testing.assert_allclose(found, naive(given, tuple(strengths), folds), rtol=0, atol=1e-6)
    each = [(np.delete(np.arange(len(given.labels)), n), np.array([n])) for n in range(len(given.labels))]
    one = leave_one_out(given.features, given.targets, given.weights, strengths)
    np.testing.assert_allclose(one, naive(given, tuple(strengths), each), rtol=0, atol=1e-6)


@settings(max_examples=30, deadline=None)
@given(hard_problems())
def test_leaving_one_out_is_leaving_out_folds_of_one(hard):
    given, _ = hard
    one = leave_one_out(given.features, given.targets, given.weights, STRENGTHS)
    folds = some_folds(len(given.labels), len(given.labels))
    of_one = leave_folds_out(given.features, given.targets, given.weights, STRENGTHS, folds)
    np.testing.assert_allclose(one, of_one, rtol=0, atol=1e-8)


def test_a_class_that_only_the_held_out_fold_has_is_scored_nought():
    given = problem(30, 4, 3)
    fold = (given.labels == 2).astype(int)
    folds = [(np.flatnonzero(fold != f), np.flatnonzero(fold == f)) for f in (0, 1)]
    found = leave_folds_out(given.features, given.targets, given.weights, [0.1], folds)[0]
    np.testing.assert_allclose(found[fold == 1, 2], 0, atol=1e-10)


def test_many_strengths_are_those_of_one_at_a_time():
    given, folds = problem(30, 8, 3), some_folds(30, 3)
    strengths = [10.0**power for power in range(-6, 5)]
    together = leave_folds_out(given.features, given.targets, given.weights, strengths, folds)
    for strength, of in zip(strengths, together, strict=True):
        [alone] = leave_folds_out(given.features, given.targets, given.weights, [strength], folds)
        np.testing.assert_array_equal(of, alone)


def test_a_fold_that_holds_all_weight_is_refused():
    given = problem(10, 2, 2)
    heavy = replace(given, weights=np.where(np.arange(10) == 3, 1.0, 0.0))
    with pytest.raises(ValueError, match="holds all weight"):
        leave_one_out(heavy.features, heavy.targets, heavy.weights, [0.1])
    with pytest.raises(ValueError, match="holds all weight"):
        leave_folds_out(heavy.features, heavy.targets, heavy.weights, [0.1], some_folds(10, 2))


# Weights


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([(40, 5), (12, 30)]))
def test_rows_of_weight_zero_do_not_count(seed, shape):
    given = problem(*shape, 3, seed)
    kept = np.random.default_rng(seed).random(shape[0]) < 0.6
    kept[:3] = True
    emptied = replace(given, weights=np.where(kept, given.weights, 0.0))
    rest = Problem(given.features[kept], given.labels[kept], given.weights[kept], 3)
    for how in ("none", "balanced"):
        [one], [other] = emptied.fit(Ridge(0.05, how)), rest.fit(Ridge(0.05, how))
        np.testing.assert_allclose(
            one.predictor.log_proba(given.features), other.predictor.log_proba(given.features), atol=1e-5
        )


def test_a_row_of_weight_two_counts_as_two_rows():
    given = problem(30, 5, 3)
    twice = np.random.default_rng(0).integers(1, 4, 30)
    copies = Problem(
        np.repeat(given.features, twice, 0), np.repeat(given.labels, twice), np.ones(sum(twice)), 3
    )
    [one], [other] = replace(given, weights=twice.astype(float)).fit(Ridge(0.05)), copies.fit(Ridge(0.05))
    np.testing.assert_allclose(scores(one, given.features), scores(other, given.features), atol=1e-10)


def test_the_scale_of_the_weights_does_not_matter():
    given, folds = problem(30, 5, 3), some_folds(30, 3)
    [one] = given.fit(Ridge(0.05), folds=folds)
    [other] = replace(given, weights=1000 * given.weights).fit(Ridge(0.05), folds=folds)
    np.testing.assert_allclose(one.predictor.weight, other.predictor.weight, rtol=1e-6)
    np.testing.assert_allclose(one.inner, other.inner, rtol=1e-6)


def test_balanced_is_a_fit_with_balanced_weights():
    given, folds = problem(40, 5, 3), some_folds(40, 4)
    even = replace(given, weights=class_weighted(given.weights, given.labels, "balanced"))
    [plain], [found], [expected] = (
        given.fit(Ridge(0.05), folds=folds),
        given.fit(Ridge(0.05, "balanced"), folds=folds),
        even.fit(Ridge(0.05), folds=folds),
    )
    np.testing.assert_array_equal(found.predictor.weight, expected.predictor.weight)
    np.testing.assert_array_equal(found.inner, expected.inner)
    assert np.abs(found.inner - plain.inner).max() > 0.01


# Many at once


def test_fits_come_in_the_order_of_their_hypers_and_are_those_of_each_alone():
    given, folds = problem(40, 5, 3), some_folds(40, 4)
    hypers = [Ridge(1.0, "balanced"), Ridge(0.1), Ridge(0.01, "balanced"), Ridge(10.0), Ridge(0.1)]
    for hyper, fit in zip(hypers, given.fit(*hypers, folds=folds), strict=True):
        [alone] = given.fit(hyper, folds=folds)
        np.testing.assert_array_equal(fit.predictor.weight, alone.predictor.weight)
        np.testing.assert_array_equal(fit.inner, alone.inner)
        assert fit.facts == alone.facts


def test_hypers_that_weigh_classes_alike_share_one_decomposition(monkeypatch):
    calls = []
    decompose = module._directions
    monkeypatch.setattr(module, "_directions", lambda rows: calls.append(1) or decompose(rows))
    hypers = [Ridge(strength, how) for strength in (0.1, 1.0, 10.0) for how in ("none", "balanced")]
    assert len(problem(40, 5, 3).fit(*hypers, folds=some_folds(40, 4))) == 6
    assert len(calls) == 2


def test_no_hypers_no_fits():
    assert problem(10, 2, 2).fit() == []


# Probabilities


def best_temperature(given: Problem, unseen: np.ndarray) -> float:
    """The temperature of the least weighted log loss, by golden sections in its logarithm."""

    def loss(log_temperature: float) -> float:
        log_proba = log_softmax(unseen / np.exp(log_temperature), axis=1)
        return -np.average(log_proba[np.arange(len(unseen)), given.labels], weights=given.weights)

    return float(np.exp(minimize_scalar(loss, bounds=(-7, 5), method="bounded", options={"xatol": 1e-9}).x))


def test_with_folds_the_scores_are_left_at_their_own_temperature():
    given, folds = problem(60, 5, 3), some_folds(60, 4)
    unseen = naive(given, STRENGTHS, folds)
    for fit, of in zip(given.fit(*map(Ridge, STRENGTHS), folds=folds), unseen, strict=True):
        assert fit.facts["temperature"] == 1
        np.testing.assert_allclose(fit.inner, log_softmax(of, axis=1), rtol=0, atol=1e-7)
        assert fit.converged


def test_without_folds_the_temperature_suits_what_fits_without_each_row_say():
    given = problem(60, 5, 3)
    unseen = naive(given, STRENGTHS, some_folds(60, 60))
    for fit, of in zip(given.fit(*map(Ridge, STRENGTHS)), unseen, strict=True):
        assert fit.facts["temperature"] == pytest.approx(best_temperature(given, of), rel=1e-5)
        assert fit.inner is None


def test_a_class_without_any_row_is_scored_nought_everywhere():
    given = problem(40, 5, 3)
    gap = Problem(given.features, np.array([0, 2, 3])[given.labels], given.weights, 5)  # 1 and 4 are empty
    for hyper in (Ridge(0.1), Ridge(0.1, "balanced")):
        [fit], [narrow] = gap.fit(hyper), given.fit(hyper)
        np.testing.assert_allclose(scores(fit, given.features)[:, [1, 4]], 0, atol=1e-12)
        np.testing.assert_allclose(
            scores(fit, given.features)[:, [0, 2, 3]], scores(narrow, given.features), atol=1e-10
        )
