"""Neighbours and centroids: what scikit-learn and naive loops find, and finite where those are not."""

from dataclasses import dataclass, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made import noisy_classes
from sklearn.metrics import log_loss
from sklearn.model_selection import StratifiedKFold
from sklearn.neighbors import KNeighborsClassifier, NearestCentroid

from tasks.core import predictors
from tasks.core.calibration import temperature
from tasks.core.fits import Fit
from tasks.core.hyper import Neighbours
from tasks.core.neighbours import NO_CHANCE, fit_centroid, fit_neighbours
from tasks.core.predictors import GRID, KINDS, Linear, Voting, log_softmax

FINE = 1e-3
"""The grid moves a distance of a few deviations by less than this."""


@dataclass(frozen=True)
class Problem:
    """Rows (N, D), labels (N,), weights (N,), the number of classes, and folds."""

    features: np.ndarray
    labels: np.ndarray
    weights: np.ndarray
    classes: int
    folds: tuple[tuple[np.ndarray, np.ndarray], ...] = ()

    def neighbours(self, *ks: int) -> list[Fit]:
        return fit_neighbours(
            self.features,
            self.labels,
            self.weights,
            classes=self.classes,
            hypers=[Neighbours(k) for k in ks],
            folds=self.folds,
        )

    def centroid(self) -> Fit:
        return fit_centroid(self.features, self.labels, self.weights, classes=self.classes, folds=self.folds)


def problem(rows: int, columns: int, classes: int, seed: int = 0, folds: int = 0) -> Problem:
    return Problem(*noisy_classes(rows, columns, classes, seed), classes, cut(rows, folds, seed))


def cut(rows: int, folds: int, seed: int = 0) -> tuple[tuple[np.ndarray, np.ndarray], ...]:
    """Cut rows into folds at random; labels play no part."""
    if not folds:
        return ()
    parts = np.array_split(np.random.default_rng(seed).permutation(rows), folds)
    return tuple((np.setdiff1d(np.arange(rows), part), part) for part in parts)


def like(given: Problem, rows: int, seed: int = 99) -> np.ndarray:
    """New rows that lie where the problem's lie."""
    rng = np.random.default_rng(seed)
    drawn = given.features[rng.integers(0, len(given.features), rows)].astype(float)
    return drawn + given.features.std(axis=0) * rng.normal(size=drawn.shape)


def standardised(given: Problem, features: np.ndarray) -> np.ndarray:
    """Centre and scale rows column by column, as all rows of a problem say."""
    told = features.astype(float)
    for d, column in enumerate(given.features.astype(float).T):
        mean = np.average(column, weights=given.weights)
        scale = np.sqrt(np.average((column - mean) ** 2, weights=given.weights))
        told[:, d] = (told[:, d] - mean) / (scale if scale > 1e-6 * np.abs(column).max() else 1)
    return told


def voted(rows: np.ndarray, queries: np.ndarray, given: Problem, k: int) -> np.ndarray:
    """Probabilities (n, C) by a loop over queries and rows; the labels and weights are the problem's."""
    can = [n for n in range(len(rows)) if given.weights[n] > 0]
    average = sum(given.weights[n] for n in can) / len(can)
    prior = np.zeros(given.classes)
    for n in can:
        prior[given.labels[n]] += average * given.weights[n] / sum(given.weights[can])
    told = []
    for query in queries:
        away = sorted((float(np.square(rows[n] - query).sum()), n) for n in can)
        tally = np.maximum(prior, average * NO_CHANCE)
        for _, n in away[:k]:
            tally[given.labels[n]] += given.weights[n]
        told.append(tally / tally.sum())
    return np.array(told)


def on_grid(given: Problem, features: np.ndarray) -> np.ndarray:
    return np.round(standardised(given, features) * GRID) / GRID


def part(given: Problem, rows: np.ndarray) -> Problem:
    return Problem(given.features[rows], given.labels[rows], given.weights[rows], given.classes)


# Neighbours: the same answer by other roads


@pytest.mark.parametrize(("rows", "columns", "classes"), [(150, 5, 3), (60, 12, 2), (30, 50, 4)])
@pytest.mark.parametrize("k", [1, 4, 25])
def test_the_neighbours_are_scikit_learns(rows, columns, classes, k):
    given = problem(rows, columns, classes)
    queries = like(given, 200)
    reference = KNeighborsClassifier(k, algorithm="brute").fit(
        standardised(given, given.features), given.labels
    )
    away, near = reference.kneighbors(standardised(given, queries), k + 1)
    clear = (
        np.diff(np.square(away), axis=1)[:, -1] > FINE * away[:, -1]
    )  # who is in does not hang on the grid
    assert clear.mean() > 0.8
    [fit] = given.neighbours(k)
    tally = np.zeros((200, classes))
    np.add.at(tally, (np.arange(200)[:, None], given.labels[near[:, :k]]), given.weights[near[:, :k]])
    tally += given.weights.mean() * np.bincount(given.labels, given.weights) / given.weights.sum()
    expected = tally / tally.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(np.exp(fit.predictor.log_proba(queries))[clear], expected[clear], rtol=1e-9)


@pytest.mark.parametrize("k", [1, 5, 20])
def test_with_equal_weights_and_classes_the_winner_is_scikit_learns(k):
    given = problem(120, 6, 3)
    even = Problem(given.features, np.arange(120) % 3, np.ones(120), 3)
    queries = like(even, 300)
    reference = KNeighborsClassifier(k).fit(standardised(even, even.features), even.labels)
    rows = standardised(even, queries)
    away = reference.kneighbors(rows, k + 1)[0]
    first, second = np.sort(reference.predict_proba(rows), axis=1)[:, :-3:-1].T
    clear = (np.diff(away, axis=1)[:, -1] > FINE) & (first > second)
    assert clear.mean() > 0.5
    [fit] = even.neighbours(k)
    told = fit.predictor.log_proba(queries).argmax(axis=1)
    np.testing.assert_array_equal(told[clear], reference.predict(rows)[clear])


@settings(max_examples=25, deadline=None)
@given(
    rows=st.integers(6, 40),
    columns=st.integers(1, 12),
    classes=st.sampled_from([2, 3, 6]),
    k=st.integers(1, 50),
    seed=st.integers(0, 100),
)
def test_the_votes_are_those_of_a_naive_loop(rows, columns, classes, k, seed):
    given = problem(rows, columns, classes, seed)
    queries = like(given, 20, seed)
    [fit] = given.neighbours(k)
    expected = voted(on_grid(given, given.features), on_grid(given, queries), given, k)
    np.testing.assert_allclose(np.exp(fit.predictor.log_proba(queries)), expected, rtol=1e-9)


@pytest.mark.parametrize("folds", [2, 3, 7])
def test_each_row_is_told_by_the_rows_outside_of_its_fold(folds):
    given = problem(50, 4, 3, folds=folds)
    ks = [1, 3, 8, 60]
    rows = on_grid(given, given.features)
    for k, fit in zip(ks, given.neighbours(*ks), strict=True):
        assert fit.predictor.k == k
        for train, held_out in given.folds:
            expected = voted(rows[train], rows[held_out], part(given, train), k)
            np.testing.assert_allclose(np.exp(fit.inner[held_out]), expected, rtol=1e-9)


def test_numbers_of_neighbours_in_one_call_give_what_each_alone_gives():
    given = problem(40, 5, 3, folds=4)
    ks = [7, 1, 30]
    for k, fit in zip(ks, given.neighbours(*ks), strict=True):
        [alone] = given.neighbours(k)
        np.testing.assert_array_equal(fit.inner, alone.inner)
        np.testing.assert_array_equal(
            fit.predictor.log_proba(given.features), alone.predictor.log_proba(given.features)
        )


def test_small_blocks_give_the_same_bits(monkeypatch):
    given = problem(60, 5, 3, folds=4)
    [whole] = given.neighbours(6)
    monkeypatch.setattr(predictors, "BLOCK", 130)
    [pieces] = given.neighbours(6)
    assert whole.inner.tobytes() == pieces.inner.tobytes()
    one, other = (fit.predictor.log_proba(given.features) for fit in (whole, pieces))
    assert one.tobytes() == other.tobytes()


# Neighbours: hard data


def test_rows_at_the_same_distance_come_by_number():
    features = np.array([[1.0], [-1.0], [1.0], [-1.0], [0.0]])
    given = Problem(features, np.arange(5), np.ones(5), 5)
    for k, members in [(1, [4]), (2, [4, 0]), (3, [4, 0, 1]), (4, [4, 0, 1, 2])]:
        [fit] = given.neighbours(k)
        [log_proba] = fit.predictor.log_proba(np.zeros((1, 1)))
        assert sorted(np.argsort(-log_proba, kind="stable")[:k]) == sorted(members)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 400), st.integers(1, 25), st.sampled_from([1, 3, 100]))
def test_copies_of_a_row_tie_exactly_wherever_they_stand(seed, columns, k, distinct):
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(min(distinct, 9), columns)).astype("float16")
    features = features[rng.integers(0, len(features), 60)]
    given = Problem(features, rng.integers(0, 3, 60), rng.uniform(0.5, 2, 60), 3, cut(60, 4))
    [fit] = given.neighbours(k)
    rows = on_grid(given, features)
    np.testing.assert_allclose(
        np.exp(fit.predictor.log_proba(features)), voted(rows, rows, given, k), rtol=1e-9
    )
    train, held_out = given.folds[0]
    expected = voted(rows[train], rows[held_out], part(given, train), k)
    np.testing.assert_allclose(np.exp(fit.inner[held_out]), expected, rtol=1e-9)


@pytest.mark.parametrize("columns", [3, 100, 1280])
def test_equal_distances_tie_in_whatever_order_their_parts_are_added(columns):
    rng = np.random.default_rng(0)
    row, query = predictors.on_grid(rng.normal(size=(2, columns)), np.zeros(columns), np.ones(columns))
    query[:] = query[0]  # as far from a row as from that row with its coordinates in another order
    rows = np.array([rng.permutation(row) for _ in range(100)])
    voting = Voting(rows, np.arange(100), np.ones(100), np.ones(100), np.zeros(columns), np.ones(columns), 7)
    [log_proba] = voting.log_proba(query[None])
    assert np.argsort(-log_proba, kind="stable")[:7].tolist() == list(range(7))
    assert log_proba[6] > log_proba[7]


def test_a_row_far_from_the_mean_is_its_own_nearest_neighbour():
    """||x||^2 - 2 x'z + ||z||^2 would cancel to noise in single precision."""
    rng = np.random.default_rng(0)
    features = rng.normal(size=(200, 300))
    features[100:] = 1000 + 0.2 * features[100:]  # all close together, far from the others
    given = Problem(features, np.arange(200), np.ones(200), 200)
    [fit] = given.neighbours(1)
    np.testing.assert_array_equal(fit.predictor.log_proba(features).argmax(axis=1), np.arange(200))


def test_of_fewer_rows_than_k_all_vote():
    given = problem(9, 3, 2, folds=3)
    some, more, most = given.neighbours(9, 10, 1000)
    for fit in (more, most):
        np.testing.assert_array_equal(fit.inner, some.inner)
    np.testing.assert_allclose(
        np.exp(most.predictor.log_proba(like(given, 5))),
        np.tile(np.bincount(given.labels, given.weights) / given.weights.sum(), (5, 1)),
    )


def test_rows_of_weight_zero_are_no_neighbours():
    given = problem(40, 4, 3, folds=4)
    kept = np.random.default_rng(0).random(40) < 0.6
    kept[:3] = True
    emptied = replace(given, weights=np.where(kept, given.weights, 0.0))
    number = np.cumsum(kept) - 1
    folds = tuple((number[a[kept[a]]], number[b[kept[b]]]) for a, b in given.folds)
    rest = replace(part(given, kept), folds=folds)
    [one], [other] = emptied.neighbours(5), rest.neighbours(5)
    np.testing.assert_allclose(one.inner[kept], other.inner, rtol=1e-12)
    assert np.isfinite(one.inner).all()
    queries = like(given, 30)
    np.testing.assert_allclose(
        one.predictor.log_proba(queries), other.predictor.log_proba(queries), rtol=1e-12
    )


def test_a_class_without_rows_gets_no_chance_but_a_finite_loss():
    given = replace(problem(30, 3, 2, folds=3), classes=3)  # class 2 has no row
    [fit] = given.neighbours(4)
    for log_proba in (fit.inner, fit.predictor.log_proba(given.features)):
        assert np.isfinite(log_proba).all()
        assert np.exp(log_proba[:, 2]).max() <= NO_CHANCE
        np.testing.assert_allclose(np.exp(log_proba).sum(axis=1), 1)


def test_a_class_that_a_fold_lacks_gets_no_chance_there():
    given = problem(30, 3, 3)
    folds = tuple((np.flatnonzero(given.labels != c), np.flatnonzero(given.labels == c)) for c in range(3))
    [fit] = replace(given, folds=folds).neighbours(4)
    own = fit.inner[np.arange(30), given.labels]
    assert np.isfinite(own).all()
    assert np.exp(own).max() <= NO_CHANCE
    assert np.isfinite(log_loss(given.labels, np.exp(fit.inner)))


def test_a_fold_with_all_the_weight_is_refused():
    given = replace(problem(12, 3, 2, folds=3), weights=np.zeros(12))
    given.weights[given.folds[1][1]] = 1
    with pytest.raises(ValueError, match="A fold holds all weight"):
        given.neighbours(1)
    with pytest.raises(ValueError, match="A fold holds all weight"):
        given.centroid()


def test_without_folds_there_is_no_inner():
    [fit] = problem(12, 3, 2).neighbours(2)
    assert fit.inner is None
    assert problem(12, 3, 2).centroid().inner is None


# Centroids


@pytest.mark.parametrize(("rows", "columns", "classes"), [(150, 5, 3), (60, 12, 2), (30, 50, 4)])
def test_the_nearest_mean_is_scikit_learns(rows, columns, classes):
    given = replace(problem(rows, columns, classes), weights=np.full(rows, 2.0))
    queries = like(given, 300)
    reference = NearestCentroid().fit(standardised(given, given.features), given.labels)
    np.testing.assert_array_equal(
        given.centroid().predictor.log_proba(queries).argmax(axis=1),
        reference.predict(standardised(given, queries)),
    )


def distances(given: Problem, rows: np.ndarray, train: np.ndarray, queries: np.ndarray) -> np.ndarray:
    """-||x - m_c||^2 / 2 by loops, (n, C); the means are those of the training rows."""
    scores = np.empty((len(queries), given.classes))
    for c in range(given.classes):
        of = [n for n in train if given.labels[n] == c]
        mean = sum(given.weights[n] * rows[n] for n in of) / sum(given.weights[n] for n in of)
        for q, query in enumerate(queries):
            scores[q, c] = -np.square(query - mean).sum() / 2
    return scores


def stratified(given: Problem, folds: int) -> Problem:
    parts = StratifiedKFold(folds, shuffle=True, random_state=0).split(given.features, given.labels)
    return replace(given, folds=tuple(parts))


@pytest.mark.parametrize(("rows", "columns", "classes"), [(90, 5, 3), (40, 12, 2), (24, 60, 3)])
def test_the_scores_are_distances_at_the_temperature_of_the_folds(rows, columns, classes):
    given = problem(rows, columns, classes)
    given = stratified(replace(given, labels=np.arange(rows) % classes), 4)
    seen, queries = standardised(given, given.features), like(given, 20)
    unseen = np.empty((rows, classes))
    for train, held_out in given.folds:
        unseen[held_out] = distances(given, seen, train, seen[held_out])
    T = temperature(unseen, given.labels, given.weights)
    fit = given.centroid()
    np.testing.assert_allclose(fit.inner, log_softmax(unseen / T), rtol=0, atol=1e-6)
    expected = distances(given, seen, np.arange(rows), standardised(given, queries))
    np.testing.assert_allclose(fit.predictor.log_proba(queries), log_softmax(expected / T), rtol=0, atol=1e-6)


@pytest.mark.parametrize(("rows", "columns"), [(40, 4), (20, 50)])
def test_without_folds_the_temperature_is_that_of_leaving_each_row_out(rows, columns):
    given = replace(problem(rows, columns, 3), labels=np.arange(rows) % 3)
    seen, queries = standardised(given, given.features), like(given, 20)
    others = [np.setdiff1d(np.arange(rows), [n]) for n in range(rows)]
    unseen = np.concatenate([distances(given, seen, others[n], seen[n : n + 1]) for n in range(rows)])
    T = temperature(unseen, given.labels, given.weights)
    expected = distances(given, seen, np.arange(rows), standardised(given, queries))
    np.testing.assert_allclose(
        given.centroid().predictor.log_proba(queries), log_softmax(expected / T), rtol=0, atol=1e-6
    )


def test_a_single_row_of_a_class_has_no_say_in_the_temperature():
    given = problem(31, 4, 3)
    labels = np.append(np.arange(30) % 2, 2)
    alone = replace(given, labels=labels)
    seen = standardised(alone, given.features)
    others = [np.setdiff1d(np.arange(31), [n]) for n in range(30)]
    unseen = np.concatenate([distances(alone, seen, others[n], seen[n : n + 1]) for n in range(30)])
    T = temperature(unseen, labels[:30], given.weights[:30])
    expected = log_softmax(distances(alone, seen, np.arange(31), seen) / T)
    np.testing.assert_allclose(
        alone.centroid().predictor.log_proba(given.features), expected, rtol=0, atol=1e-6
    )


def test_one_row_of_each_class_is_scored_by_mean_squares():
    given = problem(3, 8, 3)
    seen = standardised(given, given.features)
    expected = log_softmax(distances(given, seen, np.arange(3), seen) / 8)
    np.testing.assert_allclose(
        given.centroid().predictor.log_proba(given.features), expected, rtol=0, atol=1e-9
    )


def test_the_mean_of_a_class_without_rows_has_no_chance_anywhere():
    given = problem(40, 5, 3, folds=4)
    gap = replace(given, labels=np.array([0, 2, 3])[given.labels], classes=5)  # 1 and 4 are empty
    wide, narrow = gap.centroid(), given.centroid()
    far = given.features.mean(axis=0) + 1e3 * given.features.std(axis=0) * np.eye(5)
    queries = np.concatenate([like(given, 50), far, -far])
    log_proba = wide.predictor.log_proba(queries)
    assert np.isfinite(log_proba).all()
    assert np.exp(log_proba[:, [1, 4]]).max() <= NO_CHANCE * (1 + 1e-6)
    np.testing.assert_allclose(
        log_proba[:, [0, 2, 3]], narrow.predictor.log_proba(queries), rtol=1e-6, atol=1e-5
    )
    np.testing.assert_allclose(wide.inner[:, [0, 2, 3]], narrow.inner, rtol=0, atol=1e-5)


def test_between_classes_that_lie_far_apart_one_without_rows_has_no_chance():
    rng, labels = np.random.default_rng(0), np.arange(30) % 2
    features = 100.0 * np.eye(2)[labels] + rng.normal(size=(30, 2))
    fit = Problem(features, labels, np.ones(30), 3).centroid()
    log_proba = fit.predictor.log_proba(features.mean(axis=0, keepdims=True))
    assert np.isfinite(log_proba).all()
    assert np.exp(log_proba[0, 2]) <= NO_CHANCE


def test_far_rows_of_a_class_that_their_fold_lacks_have_no_chance():
    rows, labels = np.arange(40), np.append(np.arange(36) % 2, [2, 2, 2, 2])
    fold = np.append(rows[:36] % 3, [0, 0, 0, 0])
    features = 100.0 * np.eye(3)[labels] + np.random.default_rng(0).normal(size=(40, 3))
    folds = tuple((rows[fold != f], rows[fold == f]) for f in range(3))
    fit = Problem(features, labels, np.ones(40), 3, folds).centroid()
    assert np.isfinite(fit.inner).all()
    assert np.exp(fit.inner[fold == 0, 2]).max() <= NO_CHANCE


def test_folds_that_lack_a_class_do_not_set_the_temperature():
    given = replace(problem(40, 5, 3), labels=np.append(np.arange(36) % 2, [2, 2, 2, 2]))
    rows = np.arange(40)
    fold = np.append(rows[:36] % 3, [0, 0, 0, 0])  # class 2 lies in the first fold as a whole
    given = replace(given, folds=tuple((rows[fold != f], rows[fold == f]) for f in range(3)))
    fit = given.centroid()
    assert np.isfinite(fit.inner).all()
    assert np.exp(fit.inner[36:, 2]).max() <= NO_CHANCE
    seen, unseen = standardised(given, given.features), np.empty((40, 3))
    for train, held_out in given.folds[1:]:
        unseen[held_out] = distances(given, seen, train, seen[held_out])
    known = fold != 0
    T = temperature(unseen[known], given.labels[known], given.weights[known])
    np.testing.assert_allclose(fit.inner[known], log_softmax(unseen[known] / T), rtol=0, atol=1e-6)


def test_means_without_rows_of_weight_zero_are_the_same():
    given = problem(40, 4, 3)
    kept = np.random.default_rng(0).random(40) < 0.6
    kept[:6], given.labels[:6] = True, [0, 1, 2, 0, 1, 2]
    one = replace(given, weights=np.where(kept, given.weights, 0.0)).centroid()
    other = part(given, kept).centroid()
    queries = like(given, 30)
    np.testing.assert_allclose(
        one.predictor.log_proba(queries), other.predictor.log_proba(queries), rtol=0, atol=1e-7
    )


def test_constant_features_do_no_harm():
    base = problem(30, 4, 2, folds=3)
    given = replace(base, features=np.column_stack([base.features, np.full(30, 0.1), np.full(30, -1e6)]))
    np.testing.assert_allclose(given.centroid().inner, base.centroid().inner, rtol=0, atol=1e-6)
    np.testing.assert_allclose(given.neighbours(3)[0].inner, base.neighbours(3)[0].inner)


# Both


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_half_and_single_features_are_taken_as_the_numbers_that_they_are(dtype):
    given = problem(40, 5, 3, folds=4)
    narrow = replace(given, features=given.features.astype(dtype))
    wide = replace(given, features=narrow.features.astype("float64"))
    for one, other in [
        (narrow.neighbours(3)[0], wide.neighbours(3)[0]),
        (narrow.centroid(), wide.centroid()),
    ]:
        np.testing.assert_array_equal(one.inner, other.inner)
        np.testing.assert_array_equal(
            one.predictor.log_proba(narrow.features), other.predictor.log_proba(wide.features)
        )


def test_the_scale_of_the_weights_does_not_matter():
    given = problem(40, 5, 3, folds=4)
    heavy = replace(given, weights=1000 * given.weights)
    np.testing.assert_allclose(heavy.neighbours(3)[0].inner, given.neighbours(3)[0].inner, rtol=0, atol=1e-9)
    np.testing.assert_allclose(heavy.centroid().inner, given.centroid().inner, rtol=0, atol=1e-6)


def test_a_head_made_again_of_its_arrays_says_the_same():
    given = problem(40, 5, 3, folds=4)
    queries = like(given, 30)
    for predictor, kind in [(given.neighbours(3)[0].predictor, Voting), (given.centroid().predictor, Linear)]:
        again = KINDS[predictor.kind].of(predictor.arrays())
        assert type(again) is kind
        assert again.columns == 5
        np.testing.assert_array_equal(again.log_proba(queries), predictor.log_proba(queries))


def test_a_second_call_gives_the_same_bits():
    given = problem(80, 30, 4, folds=4)
    for one, other in [
        (given.neighbours(3)[0], given.neighbours(3)[0]),
        (given.centroid(), given.centroid()),
    ]:
        assert one.inner.tobytes() == other.inner.tobytes()
        arrays = other.predictor.arrays()
        for name, array in one.predictor.arrays().items():
            assert array.tobytes() == arrays[name].tobytes()
