"""Scores without training: the maximum of the dense evidence, the dense H-score, and what must not change them."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import solve_triangular
from scipy.optimize import minimize
from scipy.stats import ortho_group
from sklearn.covariance import ledoit_wolf

from tasks.core.errors import RequestError
from tasks.core.transferability import h_score, log_me

SCORES = pytest.mark.parametrize("score", [log_me, h_score])
SHAPES = pytest.mark.parametrize(
    ("N", "D", "C"), [(24, 3, 2), (20, 8, 3), (12, 30, 3), (15, 15, 2), (16, 15, 4), (18, 1, 3), (9, 200, 2)]
)


def clusters(
    N: int, D: int, C: int, seed: int = 0, apart: float = 1.0, offset: float = 1.0
) -> tuple[np.ndarray, np.ndarray]:
    """Rows (N, D) around a centre for each class, and their labels (N,); every class has some."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.concatenate([np.arange(C), rng.integers(0, C, N - C)]))
    centres = apart * rng.normal(size=(C, D))
    return centres[labels] + rng.normal(size=(N, D)) + offset * rng.normal(size=D), labels


def turned(features: np.ndarray, seed: int = 0) -> np.ndarray:
    """Rows in another orthonormal basis."""
    D = features.shape[1]
    return features @ (ortho_group.rvs(D, random_state=seed) if D > 1 else -np.eye(1))


# LogME


def dense_log_evidence(features: np.ndarray, target: np.ndarray, alpha: float, beta: float) -> float:
    """Log density of the targets (N,), Gaussian by noise and by weights that are integrated out."""
    covariance = np.eye(len(target)) / beta + features @ features.T / alpha
    try:
        root = np.linalg.cholesky(covariance)
    except np.linalg.LinAlgError:  # within rounding of singular
        return -1e9
    white = solve_triangular(root, target, lower=True)
    return float(-np.log(np.diag(root)).sum() - (white @ white + len(target) * np.log(2 * np.pi)) / 2)


def dense_log_me(features: np.ndarray, labels: np.ndarray) -> float:
    """Climb the dense evidence over log alpha and log beta from many starts, class by class."""
    highest = []
    for label in np.unique(labels):
        target = (labels == label).astype(float)

        def loss(logs: np.ndarray, target: np.ndarray = target) -> float:
            return -dense_log_evidence(features, target, *np.exp(logs))

        how = {"xatol": 1e-5, "fatol": 1e-8, "maxiter": 1000}
        ends = [
            minimize(loss, [ratio + 2, 2], method="Nelder-Mead", bounds=[(-6, 24)] * 2, options=how).fun
            for ratio in range(-8, 20, 4)
        ]
        highest.append(-min(ends) / len(labels))
    return float(np.mean(highest))


def published_log_me(features: np.ndarray, labels: np.ndarray) -> float:
    """You et al.'s iteration as they print it, in full matrices, until alpha and beta stay."""
    N, D = features.shape
    highest = []
    for label in np.unique(labels):
        target, alpha, beta, before = (labels == label).astype(float), 1.0, 1.0, np.inf
        while abs(np.log(alpha / beta) - before) > 1e-10:
            before = np.log(alpha / beta)
            posterior = alpha * np.eye(D) + beta * features.T @ features
            mean = beta * np.linalg.solve(posterior, features.T @ target)
            gamma = D - alpha * np.trace(np.linalg.inv(posterior))
            alpha = gamma / (mean @ mean)
            beta = (N - gamma) / np.sum((target - features @ mean) ** 2)
        highest.append(dense_log_evidence(features, target, alpha, beta) / N)
    return float(np.mean(highest))


@SHAPES
def test_log_me_is_the_highest_dense_evidence(N, D, C):
    features, labels = clusters(N, D, C)
    assert log_me(features, labels, classes=C) == pytest.approx(dense_log_me(features, labels), abs=1e-5)


@pytest.mark.parametrize("shape", [(24, 3, 2), (12, 30, 3)])
@pytest.mark.parametrize("apart", [0.0, 3.0])
def test_log_me_is_the_highest_dense_evidence_of_noise_and_of_clear_classes(shape, apart):
    features, labels = clusters(*shape, seed=3, apart=apart)
    expected = dense_log_me(features, labels)
    assert log_me(features, labels, classes=shape[2]) == pytest.approx(expected, abs=1e-5)


@settings(max_examples=15, deadline=None)
@given(st.integers(6, 14), st.integers(1, 16), st.integers(1, 3), st.integers(0, 999))
def test_log_me_is_the_highest_dense_evidence_whatever_the_shape(N, D, C, seed):
    features, labels = clusters(N, D, C, seed)
    assert log_me(features, labels, classes=C) == pytest.approx(dense_log_me(features, labels), abs=1e-5)


@pytest.mark.parametrize("shape", [(60, 5, 3), (80, 20, 2), (40, 60, 2)])
def test_log_me_is_where_the_published_iteration_ends(shape):
    features, labels = clusters(*shape, seed=1, apart=0.3)
    expected = published_log_me(features, labels)
    assert log_me(features, labels, classes=shape[2]) == pytest.approx(expected, abs=1e-6)


@settings(max_examples=50, deadline=None)
@given(
    st.integers(2, 30),
    st.integers(1, 40),
    st.integers(0, 999),
    st.floats(-12, 12),
    st.floats(-8, 8),
)
def test_no_alpha_and_beta_have_more_evidence(N, D, seed, log_alpha, log_beta):
    features, labels = clusters(N, D, 2, seed)
    other = [
        dense_log_evidence(features, (labels == label).astype(float), np.exp(log_alpha), np.exp(log_beta))
        for label in np.unique(labels)
    ]
    assert log_me(features, labels, classes=2) >= np.mean(other) / N - 1e-6


def test_the_higher_of_two_maxima_is_found_where_the_published_iteration_ends_on_either():
    """The constant feature tells how many rows a class has, the others which; their scale is where one starts."""
    features, labels = clusters(20, 4, 2, offset=0)
    features = np.column_stack([features, np.full(20, 0.1)])
    scales = 10.0 ** np.arange(-3, 4)
    ends = [published_log_me(scale * features, labels) for scale in scales]
    assert max(ends) > min(ends) + 0.01
    for scale in scales:
        assert log_me(scale * features, labels, classes=2) == pytest.approx(max(ends), abs=1e-6)


def test_features_that_tell_nothing_leave_the_evidence_of_noise_alone():
    labels = np.array([0, 0, 0, 1, 1, 0])
    noise = [-(np.log(2 * np.pi * count / 6) + 1) / 2 for count in (4, 2)]
    assert log_me(np.zeros((6, 3)), labels, classes=2) == pytest.approx(np.mean(noise))
    as_often_up_as_down = np.array([[1.0], [-1.0]] * 3)
    expected = -(np.log(2 * np.pi) + 1) / 2
    assert log_me(as_often_up_as_down, np.zeros(6, int), classes=1) == pytest.approx(expected)


def test_a_perfect_telling_is_finite_and_the_longer_the_better():
    labels = np.arange(40) % 2
    scores = [log_me(np.eye(2)[labels[:N]], labels[:N], classes=2) for N in (4, 10, 40)]
    assert np.isfinite(scores).all()
    assert scores == sorted(scores)
    assert scores[0] > 5


@pytest.mark.parametrize("constant", [0.0, 0.1, 100.0])
@pytest.mark.parametrize("D", [4, 50])
def test_log_me_takes_a_constant_feature_for_the_intercept_that_it_is(constant, D):
    features, labels = clusters(20, D, 2, offset=0)
    with_one = np.column_stack([features, np.full(20, constant)])
    assert log_me(with_one, labels, classes=2) == pytest.approx(dense_log_me(with_one, labels), abs=1e-5)


@pytest.mark.parametrize("D", [3, 30])
def test_constant_features_alone_tell_how_many_rows_a_class_has(D):
    features, labels = np.full((20, D), 0.1), np.arange(20) % 3
    found = log_me(features, labels, classes=3)
    assert found == pytest.approx(dense_log_me(features, labels), abs=1e-5)
    assert found > log_me(np.zeros((20, D)), labels, classes=3)


@pytest.mark.parametrize("N", [12, 60])
def test_copied_columns_tell_log_me_nothing_more(N):
    features, labels = clusters(N, 6, 3)
    copied = np.column_stack([features] * 5)
    expected = log_me(features, labels, classes=3)
    assert log_me(copied, labels, classes=3) == pytest.approx(expected, abs=1e-9)


# H-score


def dense_h_score(features: np.ndarray, labels: np.ndarray) -> float:
    """Both covariances as matrices, class by class and row by row."""
    covariance, shrinkage = ledoit_wolf(features)
    between = np.zeros_like(covariance)
    for label in labels:
        off = features[labels == label].mean(axis=0) - features.mean(axis=0)
        between += np.outer(off, off) / len(labels)
    return float(np.trace(np.linalg.pinv(covariance) @ ((1 - shrinkage) * between)))


@SHAPES
@pytest.mark.parametrize("apart", [0.0, 0.5, 3.0])
def test_h_score_is_the_dense_trace(N, D, C, apart):
    features, labels = clusters(N, D, C, apart=apart)
    assert h_score(features, labels, classes=C) == pytest.approx(dense_h_score(features, labels), abs=1e-10)


@settings(max_examples=100, deadline=None)
@given(st.integers(4, 40), st.integers(1, 50), st.integers(1, 4), st.integers(0, 999), st.floats(0, 100))
def test_h_score_is_the_dense_trace_and_no_more_than_classes_less_one(N, D, C, seed, apart):
    features, labels = clusters(N, D, C, seed, apart)
    found = h_score(features, labels, classes=C)
    assert found == pytest.approx(dense_h_score(features, labels), abs=1e-8)
    assert -1e-12 <= found <= C - 1 + 1e-12


def test_the_h_score_of_classes_far_apart_nears_their_number_less_one():
    features, labels = clusters(300, 4, 3, apart=1000)
    assert h_score(features, labels, classes=3) == pytest.approx(2, abs=0.05)


def test_the_h_score_of_one_feature_is_its_share_of_variance_between_classes():
    features, labels = clusters(30, 1, 3)
    means = np.array([features[labels == label].mean() for label in labels])
    assert h_score(features, labels, classes=3) == pytest.approx(means.var() / features.var())


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 999), st.floats(1e-4, 1e4), st.floats(-100, 100))
def test_scale_and_offset_of_all_features_do_not_move_the_h_score(seed, scale, offset):
    features, labels = clusters(25, 10, 3, seed)
    moved = scale * (features + offset)
    expected = h_score(features, labels, classes=3)
    assert h_score(moved, labels, classes=3) == pytest.approx(expected, rel=1e-7)


@pytest.mark.parametrize("constant", [0.1, -1e6])
@pytest.mark.parametrize("N", [7, 30])
def test_features_that_do_not_vary_have_no_h_score(constant, N):
    labels = np.arange(N) % 3
    assert h_score(np.full((N, 20), constant), labels, classes=3) == 0
    assert h_score(np.full((1, 20), constant), labels[:1], classes=3) == 0


# Both


@SCORES
@settings(max_examples=30, deadline=None)
@given(shape=st.sampled_from([(30, 6, 3), (12, 25, 2), (20, 20, 4)]), seed=st.integers(0, 999))
def test_order_basis_and_the_names_of_classes_do_not_matter(score, shape, seed):
    features, labels = clusters(*shape, seed)
    rng, C = np.random.default_rng(seed), shape[2]
    order, names = rng.permutation(shape[0]), rng.permutation(C)
    expected = score(features, labels, classes=C)
    assert score(features[order], labels[order], classes=C) == pytest.approx(expected, abs=1e-8)
    assert score(turned(features, seed), labels, classes=C) == pytest.approx(expected, abs=1e-8)
    assert score(features, names[labels], classes=C) == pytest.approx(expected, abs=1e-8)
    assert score(0.01 * features, labels, classes=C) == pytest.approx(expected, abs=1e-8)


@SCORES
@pytest.mark.parametrize("D", [5, 100])
def test_classes_farther_apart_score_higher(score, D):
    scores = [score(*clusters(60, D, 3, apart=apart), classes=3) for apart in (0.0, 0.3, 1.0, 3.0)]
    assert scores == sorted(scores)
    assert len(set(scores)) == 4


@SCORES
@pytest.mark.parametrize("D", [5, 100])
@pytest.mark.parametrize("seed", range(5))
def test_true_labels_score_higher_than_shuffled_ones(score, D, seed):
    features, labels = clusters(60, D, 3, seed)
    shuffled = np.random.default_rng(seed).permutation(labels)
    assert score(features, labels, classes=3) > score(features, shuffled, classes=3)


@SCORES
@pytest.mark.parametrize("size", [10, 400])
def test_a_good_tap_ranks_above_noise_however_many_features_noise_has(score, size):
    features, labels = clusters(80, 20, 3)
    noise = np.random.default_rng(1).normal(size=(80, size))
    assert score(features, labels, classes=3) > score(noise, labels, classes=3)


@SCORES
def test_a_class_without_rows_has_no_part_in_it(score):
    features, labels = clusters(30, 5, 3)
    gaps = np.array([1, 4, 7])[labels]
    assert score(features, gaps, classes=9) == score(features, labels, classes=3)


@SCORES
@pytest.mark.parametrize("D", [3, 40])
def test_a_single_class_has_a_score(score, D):
    features, labels = clusters(20, D, 1)
    assert np.isfinite(score(features, labels, classes=1))
    assert h_score(features, labels, classes=1) == pytest.approx(0, abs=1e-12)


@SCORES
def test_half_precision_is_taken_as_the_numbers_that_it_is_and_stays_as_it_was(score):
    features, labels = clusters(20, 5, 2)
    half = features.astype(np.float16)
    wide, before = half.astype(np.float64), half.copy()
    assert score(half, labels, classes=2) == score(wide, labels, classes=2)
    np.testing.assert_array_equal(half, before)
    np.testing.assert_array_equal(wide, before)


@SCORES
def test_copied_columns_and_copied_rows_leave_a_finite_score(score):
    features, labels = clusters(12, 6, 3)
    wide = np.column_stack([features] * 5)
    assert np.isfinite(score(wide, labels, classes=3))
    assert np.isfinite(score(np.repeat(wide, 3, axis=0), np.repeat(labels, 3), classes=3))


@SCORES
def test_directions_that_are_rounding_alone_do_not_count(score):
    labels = np.arange(40) % 2
    perfect = np.eye(2)[labels]
    found = score(np.column_stack([perfect] * 5), labels, classes=2)
    assert found == pytest.approx(score(perfect, labels, classes=2), abs=1e-6)


@SCORES
@pytest.mark.parametrize(
    ("features", "labels", "told"),
    [
        (np.zeros((4, 2)), np.zeros(3, int), r"features \(4, 2\) and labels \(3,\)"),
        (np.zeros(4), np.zeros(4, int), r"features \(4,\) and labels \(4,\)"),
        (np.zeros((4, 2)), np.zeros((4, 1), int), r"labels \(4, 1\)"),
        (np.zeros((0, 2)), np.zeros(0, int), "neither empty"),
        (np.zeros((4, 0)), np.zeros(4, int), "neither empty"),
        (np.zeros((3, 2)), np.array([0, 1, -1]), "int64 labels from -1 to 1, needed int from 0 to 2"),
        (np.zeros((3, 2)), np.array([0, 1, 3]), "from 0 to 3, needed int from 0 to 2"),
        (np.zeros((3, 2)), np.array([0.0, 1.0, np.nan]), "float64 labels from 0.0 to nan"),
        (np.zeros((3, 2)), np.array(["a", "b", "a"]), "from a to b"),
        (np.array([[1.0], [np.nan]]), np.array([0, 1]), "NaN or infinite"),
        (np.array([[1.0], [np.inf]]), np.array([0, 1]), "NaN or infinite"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(score, features, labels, told):
    with pytest.raises(RequestError, match=told) as refused:
        score(features, labels, classes=3)
    assert "\n" not in str(refused.value)
