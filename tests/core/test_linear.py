"""Convex heads: the optimum is reached, and it is the optimum that other roads lead to."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made import Blocks, noisy_classes
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from tasks.core import linear
from tasks.core import path as path_module
from tasks.core.coordinates import Source, standardisation
from tasks.core.fits import Fit, Folds
from tasks.core.hyper import Softmax
from tasks.core.lbfgs import minimise
from tasks.core.linear import SINGLE, TOLERANCE, ConvexHead, fit_sigmoid, fit_softmax, train_softmax
from tasks.core.predictors import Linear

TIGHT = 1e-9


@dataclass(frozen=True)
class Problem:
    """Rows (N, D), labels (N,), weights (N,), and the number of classes."""

    features: np.ndarray
    labels: np.ndarray
    weights: np.ndarray
    classes: int

    def fit(self, *strengths: float, **how: object) -> list[ConvexHead]:
        return fit_softmax(
            self.features, self.labels, self.weights, classes=self.classes, strengths=strengths, **how
        )


def problem(rows: int, columns: int, classes: int, seed: int = 0, noise: float = 1.0) -> Problem:
    return Problem(*noisy_classes(rows, columns, classes, seed, noise), classes)


def standardised(given: Problem) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Centre and scale column by column; (N, D), (D,), (D,)."""
    rows = given.features.astype(np.float64)
    mean, scale = np.empty(rows.shape[1]), np.empty(rows.shape[1])
    for d in range(rows.shape[1]):
        mean[d] = np.average(rows[:, d], weights=given.weights)
        scale[d] = np.sqrt(np.average((rows[:, d] - mean[d]) ** 2, weights=given.weights))
        if scale[d] <= 1e-6 * np.abs(rows[:, d]).max():
            scale[d] = 1.0
    return (rows - mean) / scale, mean, scale


def gradient_norm(given: Problem, head: ConvexHead, strength: float) -> float:
    """||grad J|| of a head in standardised features, by the formula alone."""
    rows, mean, scale = standardised(given)
    weight, bias = head.predictor.weight * scale, head.predictor.bias + head.predictor.weight @ mean
    share = given.weights / given.weights.sum()
    scores = np.exp(rows @ weight.T + bias - (rows @ weight.T + bias).max(axis=1, keepdims=True))
    proba = scores / scores.sum(axis=1, keepdims=True)
    slope = share[:, None] * (proba - np.eye(given.classes)[given.labels])  # (N, C)
    return float(np.sqrt(np.square(slope.T @ rows + strength * weight).sum() + np.square(slope.sum(0)).sum()))


def objective(given: Problem, head: ConvexHead, strength: float) -> float:
    """J of a head in standardised features, by the formula alone."""
    _, _, scale = standardised(given)
    loss = -head.predictor.log_proba(given.features)[np.arange(len(given.labels)), given.labels]
    penalty = strength / 2 * np.square(head.predictor.weight * scale).sum()
    return float(np.average(loss, weights=given.weights) + penalty)


def newton(given: Problem, strength: float) -> np.ndarray:
    """Log probabilities (N, C) at the optimum, by Newton's method with the whole Hessian."""
    rows = np.column_stack([standardised(given)[0], np.ones(len(given.labels))])  # (N, D + 1)
    share, hot = given.weights / given.weights.sum(), np.eye(given.classes)[given.labels]
    P = rows.shape[1]
    ridge = strength * np.diag(np.append(np.ones(P - 1), 0))
    theta = np.zeros((given.classes, P))

    def log_proba(theta: np.ndarray) -> np.ndarray:
        scores = rows @ theta.T
        scores = scores - scores.max(axis=1, keepdims=True)
        return scores - np.log(np.exp(scores).sum(axis=1, keepdims=True))

    def value(theta: np.ndarray) -> float:
        return float(-share @ (log_proba(theta) * hot).sum(axis=1) + ((theta @ ridge) * theta).sum() / 2)

    for _ in range(100):
        proba = np.exp(log_proba(theta))
        gradient = (share[:, None] * (proba - hot)).T @ rows + theta @ ridge
        hessian = np.zeros((given.classes, P, given.classes, P))
        for a in range(given.classes):
            for b in range(given.classes):
                curve = share * proba[:, a] * ((a == b) - proba[:, b])
                hessian[a, :, b] = (rows * curve[:, None]).T @ rows + (a == b) * ridge
        step = np.linalg.lstsq(hessian.reshape(theta.size, -1), -gradient.ravel(), rcond=1e-14)[0]
        rate = 1.0
        while value(theta + rate * step.reshape(theta.shape)) > value(theta) + 1e-14 and rate > 1e-8:
            rate /= 2
        theta = theta + rate * step.reshape(theta.shape)
        if np.linalg.norm(gradient) < 1e-13:
            break
    return log_proba(theta)


# The same optimum by other roads


@pytest.mark.parametrize(("rows", "columns", "classes"), [(150, 5, 3), (60, 12, 2), (30, 50, 4), (200, 8, 6)])
@pytest.mark.parametrize("strength", [1e-3, 0.1, 3.0])
def test_the_optimum_is_scikit_learns(rows, columns, classes, strength):
    given = problem(rows, columns, classes)
    [head] = given.fit(strength, tolerance=TIGHT)
    scaler = StandardScaler().fit(given.features, sample_weight=given.weights)
    # for two classes scikit-learn has one weight vector w, the softmax two, w / 2 and -w / 2
    C = (2 if classes == 2 else 1) / (strength * given.weights.sum())
    reference = LogisticRegression(C=C, tol=1e-10, max_iter=100_000)
    reference.fit(scaler.transform(given.features), given.labels, sample_weight=given.weights)
    expected = reference.predict_log_proba(scaler.transform(given.features))
    np.testing.assert_allclose(head.predictor.log_proba(given.features), expected, rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize(("rows", "columns", "classes"), [(80, 4, 3), (40, 3, 2), (15, 20, 3)])
@pytest.mark.parametrize("strength", [2.0**-9, 0.125, 2.0])  # exact in every precision
def test_the_optimum_is_newtons(rows, columns, classes, strength):
    given = problem(rows, columns, classes, seed=1)
    [head] = given.fit(strength, tolerance=1e-11)
    np.testing.assert_allclose(
        head.predictor.log_proba(given.features), newton(given, strength), rtol=0, atol=1e-7
    )


# The certificate


@settings(max_examples=25, deadline=None)
@given(
    rows=st.integers(6, 60),
    columns=st.integers(1, 40),
    classes=st.sampled_from([2, 3, 6]),
    strength=st.sampled_from([1e-4, 1e-2, 0.316, 10.0]),
    noise=st.sampled_from([0.01, 1.0, 10.0]),
    seed=st.integers(0, 100),
)
def test_the_gradient_is_below_the_tolerance_and_as_certified(rows, columns, classes, strength, noise, seed):
    given = problem(rows, columns, classes, seed, noise)
    [head] = given.fit(strength)
    assert head.has_converged
    norm = gradient_norm(given, head, strength)
    assert norm <= TOLERANCE
    assert norm == pytest.approx(head.gradient_norm, rel=0.05, abs=1e-7)


def test_the_strength_used_is_the_strength_asked():
    given = problem(200, 20, 4)
    [head] = given.fit(0.1, tolerance=1e-11)
    assert gradient_norm(given, head, 0.1) <= 1e-10


def test_the_certificate_holds_for_features_that_are_near_copies():
    rng = np.random.default_rng(0)
    source = rng.normal(size=(2000, 1))
    features = source + 1e-5 * rng.normal(size=(2000, 600))
    labels = (features[:, 0] > source[:, 0]).astype(int)
    given = Problem(features, labels, np.ones(2000), 2)
    [head] = given.fit(0.01)
    assert not head.has_converged or gradient_norm(given, head, 0.01) <= TOLERANCE


@pytest.mark.parametrize("classes", [2, 3])
def test_a_head_that_did_not_converge_says_so(classes, monkeypatch):
    """With two classes the search knows one vector; the certificate is that of the softmax's two."""
    monkeypatch.setattr("tasks.core.path.minimise", lambda *of: minimise(*of, most=3))
    given = problem(100, 10, classes)
    [head] = given.fit(1e-3)
    assert not head.has_converged
    assert head.gradient_norm == pytest.approx(gradient_norm(given, head, 1e-3), rel=1e-9)
    assert head.objective == pytest.approx(objective(given, head, 1e-3), rel=1e-12)


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("noise", [0.01, 1.0])
def test_a_tolerance_that_no_precision_reaches_ends_and_is_said(classes, noise):
    given = problem(100, 10, classes, noise=noise)
    for head in given.fit(1e-8, 1e-3, 1.0, tolerance=1e-30):
        assert not head.has_converged
        assert gradient_norm(given, head, head.strength) <= TOLERANCE


@pytest.mark.parametrize("classes", [2, 3, 5])
def test_the_objective_is_the_formulas(classes):
    given = problem(100, 10, classes)
    for head in given.fit(1e-3, 0.1, 10.0):
        assert head.objective == pytest.approx(objective(given, head, head.strength), rel=1e-12)


# Hard data


def assert_optimal(given: Problem, *strengths: float) -> list[ConvexHead]:
    heads = given.fit(*strengths)
    for head, strength in zip(heads, strengths, strict=True):
        assert np.isfinite(head.predictor.weight).all()
        assert np.isfinite(head.predictor.bias).all()
        assert gradient_norm(given, head, strength) <= TOLERANCE
    return heads


@pytest.mark.parametrize("strength", [1e-6, 1e-3, 1.0])
def test_separable_classes_have_a_finite_optimum(strength):
    given = problem(60, 5, 3, noise=0.01)
    [head] = assert_optimal(given, strength)
    assert (head.predictor.log_proba(given.features).argmax(axis=1) == given.labels).all()


def test_dependent_and_constant_features_do_no_harm():
    base = problem(80, 4, 3)
    mixed = base.features @ np.random.default_rng(0).normal(size=(4, 6))
    constant = np.repeat([[0.0, 0.1, -1e6]], 80, axis=0)
    given = Problem(np.column_stack([mixed, mixed[:, :2], constant]), base.labels, base.weights, 3)
    [head] = assert_optimal(given, 0.01)
    without = Problem(np.column_stack([mixed, mixed[:, :2]]), base.labels, base.weights, 3)
    [other] = assert_optimal(without, 0.01)
    np.testing.assert_allclose(
        head.predictor.log_proba(given.features),
        other.predictor.log_proba(without.features),
        rtol=0,
        atol=1e-4,
    )
    np.testing.assert_allclose(head.predictor.weight[:, -3:], 0, atol=1e-6)


def test_without_any_varying_feature_the_weighted_shares_are_predicted():
    labels, weights = np.array([0, 1, 1, 2]), np.array([1.0, 2.0, 3.0, 4.0])
    [head] = fit_softmax(np.full((4, 3), 0.1), labels, weights, classes=3, strengths=[0.1])
    np.testing.assert_allclose(
        np.exp(head.predictor.log_proba(np.full((1, 3), 0.1)))[0], [0.1, 0.5, 0.4], atol=1e-5
    )


@pytest.mark.parametrize(("rows", "columns"), [(10, 300), (3, 40), (2, 1), (64, 64), (65, 64)])
def test_any_shape_is_solved(rows, columns):
    assert_optimal(problem(rows, columns, 2), 1e-3, 1.0)


def test_a_class_without_rows_gets_no_chance_and_changes_nothing_else():
    given = problem(60, 4, 3)
    gap = Problem(given.features, np.array([0, 2, 3])[given.labels], given.weights, 5)  # 1 and 4 are empty
    [head], [narrow] = assert_optimal(gap, 0.01), assert_optimal(given, 0.01)
    log_proba = head.predictor.log_proba(given.features)
    assert log_proba[:, [1, 4]].max() < np.log(1e-4)
    np.testing.assert_allclose(
        log_proba[:, [0, 2, 3]], narrow.predictor.log_proba(given.features), rtol=0, atol=2e-4
    )


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([(40, 5), (12, 30)]))
def test_rows_of_weight_zero_do_not_count(seed, shape):
    given = problem(*shape, 3, seed)
    kept = np.random.default_rng(seed).random(shape[0]) < 0.6
    kept[:3] = True
    emptied = Problem(given.features, given.labels, np.where(kept, given.weights, 0.0), 3)
    rest = Problem(given.features[kept], given.labels[kept], given.weights[kept], 3)
    [one], [other] = emptied.fit(0.05, tolerance=TIGHT), rest.fit(0.05, tolerance=TIGHT)
    np.testing.assert_allclose(
        one.predictor.log_proba(given.features), other.predictor.log_proba(given.features), rtol=0, atol=1e-6
    )


def test_a_far_value_in_a_row_of_weight_zero_does_not_count():
    given = problem(50, 3, 2)
    far = given.features.copy()
    far[5, 0] = 1e7 * given.features[:, 0].std()
    kept = np.arange(50) != 5
    rest = Problem(given.features[kept], given.labels[kept], given.weights[kept], 2)
    [one] = Problem(far, given.labels, np.where(kept, given.weights, 0.0), 2).fit(0.05)
    [other] = rest.fit(0.05)
    np.testing.assert_allclose(
        one.predictor.log_proba(rest.features), other.predictor.log_proba(rest.features), rtol=0, atol=1e-4
    )


def test_a_row_of_weight_two_counts_as_two_rows():
    given = problem(30, 5, 3)
    twice = np.random.default_rng(0).integers(1, 4, 30)
    weighted = Problem(given.features, given.labels, twice.astype(float), 3)
    copies = Problem(
        np.repeat(given.features, twice, 0), np.repeat(given.labels, twice), np.ones(sum(twice)), 3
    )
    [one], [other] = weighted.fit(0.05, tolerance=TIGHT), copies.fit(0.05, tolerance=TIGHT)
    np.testing.assert_allclose(
        one.predictor.log_proba(given.features), other.predictor.log_proba(given.features), rtol=0, atol=1e-6
    )


def test_the_scale_of_the_weights_does_not_matter():
    given = problem(30, 5, 3)
    [one] = given.fit(0.05, tolerance=TIGHT)
    heavier = Problem(given.features, given.labels, 1000 * given.weights, 3)
    [other] = heavier.fit(0.05, tolerance=TIGHT)
    np.testing.assert_allclose(
        one.predictor.weight, other.predictor.weight, rtol=0, atol=1e-7 * np.abs(one.predictor.weight).max()
    )


@pytest.mark.parametrize("classes", [2, 50])
def test_few_and_many_classes(classes):
    assert_optimal(problem(150, 20, classes), 0.003, 0.3)


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_half_and_single_features_are_taken_as_the_numbers_that_they_are(dtype):
    given = problem(60, 5, 3)
    narrow = Problem(given.features.astype(dtype), given.labels, given.weights, 3)
    wide = Problem(narrow.features.astype("float64"), given.labels, given.weights, 3)
    [one], [other] = narrow.fit(0.01), wide.fit(0.01)
    np.testing.assert_array_equal(one.predictor.weight, other.predictor.weight)
    np.testing.assert_array_equal(
        one.predictor.log_proba(narrow.features), other.predictor.log_proba(wide.features)
    )


def test_a_thousand_classes():
    rng = np.random.default_rng(0)
    labels = np.concatenate([np.arange(1000), rng.integers(0, 1000, 2000)])
    features = rng.normal(size=(1000, 20))[labels] + 0.5 * rng.normal(size=(3000, 20))
    [head] = assert_optimal(Problem(features, labels, np.ones(3000), 1000), 1e-2)
    assert head.has_converged


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize(("dtype", "mean"), [("float16", 1000.0), ("float32", 1e4), ("float64", 1e5)])
def test_features_far_from_zero_are_solved(dtype, mean, classes):
    rng = np.random.default_rng(0)
    labels = np.arange(200) % classes
    features = (rng.normal(size=(200, 8)) + labels[:, None] + mean).astype(dtype)
    given = Problem(features, labels, np.ones(200), classes)
    assert all(head.has_converged for head in assert_optimal(given, 1e-4, 1.0))


@pytest.mark.parametrize("classes", [2, 3])
def test_far_values_are_solved(classes):
    """A few numbers that are 1e4 deviations of the others away, in rows of usual and of little weight."""
    given = problem(200, 10, classes)
    far = given.features.copy()
    far[[0, 1, 2], [0, 3, 3]] += 1e4 * far.std(axis=0)[[0, 3, 3]]
    far[5] -= 1e4 * given.features.std(axis=0)
    light = given.weights.copy()
    light[[0, 2, 5]] *= 1e-8
    for weights in (given.weights, light):
        assert_optimal(Problem(far, given.labels, weights, classes), 1e-6, 1e-3, 1.0)


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize(("rows", "columns"), [(120, 10), (21, 20), (20, 20), (15, 60)])
def test_weights_and_strengths_far_apart_are_solved(rows, columns, classes):
    given = problem(rows, columns, classes)
    uneven = 10 ** np.random.default_rng(0).uniform(-4, 4, rows)
    for weights in (given.weights, uneven):
        spread = Problem(given.features, given.labels, weights, classes)
        assert all(head.has_converged for head in assert_optimal(spread, 1e-8, 1e-4, 1.0, 1e8))


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("label", [0, 1])
def test_labels_that_are_all_the_same_are_predicted_almost_for_sure(label, classes):
    features = np.random.default_rng(0).normal(size=(20, 3))
    given = Problem(features, np.full(20, label), np.ones(20), classes)
    for head in assert_optimal(given, 1e-8, 1.0, 1e8):
        log_proba = head.predictor.log_proba(features)
        assert np.isfinite(log_proba).all()
        assert log_proba[:, label].min() > np.log1p(-1e-5)


@settings(max_examples=15, deadline=None)
@given(
    rows=st.integers(2, 25),
    columns=st.integers(1, 30),
    classes=st.sampled_from([2, 3]),
    seed=st.integers(0, 10**6),
    decades=st.sampled_from([0, 4, 8]),
    dtype=st.sampled_from(["float16", "float64"]),
)
def test_whatever_comes_the_answer_has_numbers_and_the_certificate_is_true(
    rows, columns, classes, seed, decades, dtype
):
    """Any labels, weights over up to eight decades and some zero, features of which some are copies."""
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(rows, columns)) * 10 ** rng.uniform(-1, 1, columns) + rng.normal(size=columns)
    features[:, rng.random(columns) < 0.3] = features[:, :1]
    features[rng.random(rows) < 0.3] = features[0]
    weights = 10 ** rng.uniform(-decades / 2, decades / 2, rows) * (rng.random(rows) < 0.8)
    weights[0] = 1
    given = Problem(features.astype(dtype), rng.integers(0, classes, rows), weights, classes)
    for head in given.fit(1e-4, 1e-2, 1e8):
        assert np.isfinite(head.predictor.weight).all()
        assert np.isfinite(head.predictor.bias).all()
        assert head.has_converged == (head.gradient_norm <= TOLERANCE)
        assert gradient_norm(given, head, head.strength) == pytest.approx(
            head.gradient_norm, rel=0.05, abs=1e-7
        )


# Many at once


@pytest.mark.parametrize(("rows", "columns"), [(100, 8), (20, 60)])
def test_strengths_in_one_batch_give_the_heads_that_each_alone_gives(rows, columns):
    given = problem(rows, columns, 3)
    strengths = [10.0**power for power in range(-3, 3)]
    together = given.fit(*strengths, tolerance=TIGHT)
    assert [head.strength for head in together] == strengths
    for strength, head in zip(strengths, together, strict=True):
        [alone] = given.fit(strength, tolerance=TIGHT)
        np.testing.assert_allclose(
            head.predictor.log_proba(given.features),
            alone.predictor.log_proba(given.features),
            rtol=0,
            atol=1e-4,
        )


@pytest.mark.parametrize("classes", [2, 3])
def test_strengths_may_come_in_any_order_and_more_than_once(classes):
    given = problem(100, 8, classes)
    mixed = [0.1, 10.0, 0.1, 1e-3, 1.0, 1e-3]
    heads, sorted_heads = given.fit(*mixed), given.fit(1e-3, 0.1, 1.0, 10.0)
    by_strength = {head.strength: head for head in sorted_heads}
    assert [head.strength for head in heads] == mixed
    for head in heads:
        assert head.has_converged
        np.testing.assert_allclose(
            head.predictor.log_proba(given.features),
            by_strength[head.strength].predictor.log_proba(given.features),
            rtol=0,
            atol=1e-3,
        )


@pytest.mark.parametrize(("rows", "columns"), [(300, 100), (60, 200), (400, 300)])
def test_features_of_very_different_directions_take_tens_of_steps(rows, columns, monkeypatch):
    """Without scaling by curvature these take hundreds."""
    steps = []

    def count(*of):
        found = minimise(*of)
        steps.append(found.steps)
        return found

    monkeypatch.setattr("tasks.core.path.minimise", count)
    rng = np.random.default_rng(0)
    turn = np.linalg.qr(rng.normal(size=(columns, columns)))[0]
    features = rng.normal(size=(rows, columns)) * np.arange(1, columns + 1) ** -1.5 @ turn
    uneven = 10 ** rng.uniform(-2, 2, rows)
    given = Problem(features, rng.integers(0, 3, rows), uneven, 3)
    assert_optimal(given, 0.01, 0.0316, 0.1, 0.316, 1.0, 3.16, 10.0)
    assert steps[0] < 120


def test_a_second_call_gives_the_same_bits():
    given = problem(200, 30, 4)
    for one, other in zip(given.fit(1e-3, 0.1, 1.0), given.fit(1e-3, 0.1, 1.0), strict=True):
        assert one.predictor.weight.tobytes() == other.predictor.weight.tobytes()
        assert one.predictor.bias.tobytes() == other.predictor.bias.tobytes()


def test_single_precision_reaches_its_tolerance():
    given = problem(200, 30, 4)
    for head in given.fit(1e-3, 0.1, 1.0, tolerance=1e-4):
        assert gradient_norm(given, head, head.strength) <= 1.1e-4


def test_single_precision_finds_the_predictions_of_double_precision():
    rng = np.random.default_rng(0)
    spread = 1 / np.arange(1, 401)  # deviations of the directions: what real features look like
    turn = np.linalg.qr(rng.normal(size=(400, 400)))[0]
    features = rng.normal(size=(500, 400)) * spread @ turn
    labels = (features @ turn.T @ (rng.normal(size=400) / spread) > 0).astype(int)
    given = Problem(features, labels, np.ones(500), 2)
    rough = given.fit(0.01, 1.0, tolerance=1e-4)
    for one, other in zip(rough, given.fit(0.01, 1.0), strict=True):
        np.testing.assert_allclose(
            np.exp(one.predictor.log_proba(features)),
            np.exp(other.predictor.log_proba(features)),
            rtol=0,
            atol=0.02,
        )


# Yes or no


@dataclass(frozen=True)
class Questions:
    """Rows (N, D), answers (T, N) with NaN where unknown, weights (N,)."""

    features: np.ndarray
    targets: np.ndarray
    weights: np.ndarray

    def fit(self, *strengths: float, tolerance: float = TIGHT) -> list[list[ConvexHead]]:
        return fit_sigmoid(
            self.features, self.targets, self.weights, strengths=strengths, tolerance=tolerance
        )

    def log_odds(self, head: ConvexHead) -> np.ndarray:
        log_proba = head.predictor.log_proba(self.features)
        return log_proba[:, 1] - log_proba[:, 0]

    @property
    def rows(self) -> np.ndarray:
        """Standardised by all rows, known or not."""
        return standardised(Problem(self.features, np.zeros(0), self.weights, 2))[0]


def questions(rows: int, columns: int, targets: int, seed: int = 0, known: float = 0.7) -> Questions:
    """Noisy answers, some unknown, each target's own; both are known of every target."""
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(rows, columns)) * 10 ** rng.uniform(-2, 2, columns) + rng.normal(size=columns)
    lean = (features / features.std(axis=0)) @ rng.normal(size=(columns, targets))
    answers = (lean.T + rng.normal(size=(targets, rows)) > 0).astype(float)
    answers[rng.random(answers.shape) > known] = np.nan
    answers[:, :2] = [0, 1]
    return Questions(features, answers, rng.uniform(0.2, 3, rows))


def newton_sigmoid(rows: np.ndarray, truth: np.ndarray, weights: np.ndarray, strength: float) -> np.ndarray:
    """Weight and bias (D + 1,) at the optimum for standardised rows, by Newton's method."""
    wide = np.column_stack([rows, np.ones(len(rows))])
    share, ridge = weights / weights.sum(), strength * np.diag(np.append(np.ones(rows.shape[1]), 0))

    def value(theta: np.ndarray) -> float:
        return float(
            share @ np.logaddexp(0, np.where(truth, -1, 1) * (wide @ theta)) + theta @ ridge @ theta / 2
        )

    theta = np.zeros(wide.shape[1])
    for _ in range(100):
        proba = 1 / (1 + np.exp(-wide @ theta))
        gradient = wide.T @ (share * (proba - truth)) + ridge @ theta
        hessian = (wide * (share * proba * (1 - proba))[:, None]).T @ wide + ridge
        step, rate = np.linalg.solve(hessian, -gradient), 1.0
        while value(theta + rate * step) > value(theta) + 1e-14 and rate > 1e-8:
            rate /= 2
        theta = theta + rate * step
        if np.linalg.norm(gradient) < 1e-13:
            break
    return theta


@pytest.mark.parametrize(("rows", "columns"), [(150, 5), (40, 12), (30, 50)])
@pytest.mark.parametrize("strength", [1e-3, 0.1, 3.0])
def test_each_target_is_scikit_learns_on_its_known_rows(rows, columns, strength):
    asked = questions(rows, columns, 3)
    for target, [head] in zip(asked.targets, asked.fit(strength), strict=True):
        known = ~np.isnan(target)
        weights = asked.weights[known]
        reference = LogisticRegression(C=1 / (strength * weights.sum()), tol=1e-10, max_iter=100_000)
        reference.fit(asked.rows[known], target[known], sample_weight=weights)
        expected = reference.decision_function(asked.rows)
        np.testing.assert_allclose(asked.log_odds(head), expected, rtol=1e-4, atol=1e-4)


@settings(max_examples=20, deadline=None)
@given(
    st.integers(4, 40),
    st.integers(1, 20),
    st.integers(1, 4),
    st.integers(0, 999),
    st.sampled_from([0.01, 1.0]),
)
def test_each_target_is_newtons_on_its_known_rows(rows, columns, targets, seed, strength):
    asked = questions(rows, columns, targets, seed)
    for target, [head] in zip(asked.targets, asked.fit(strength), strict=True):
        known = ~np.isnan(target)
        theta = newton_sigmoid(asked.rows[known], target[known], asked.weights[known], strength)
        np.testing.assert_allclose(
            asked.log_odds(head), asked.rows @ theta[:-1] + theta[-1], rtol=0, atol=1e-5
        )
        assert head.has_converged


def test_what_stands_in_unknown_rows_plays_no_part_beyond_standardisation():
    asked = replace(questions(80, 5, 1), weights=np.ones(80))
    unknown = np.flatnonzero(np.isnan(asked.targets[0]))
    turned = asked.features.copy()
    turned[unknown] = turned[np.roll(unknown, 1)]  # the same mean and deviation
    [[one]], [[other]] = asked.fit(0.01), replace(asked, features=turned).fit(0.01)
    np.testing.assert_allclose(asked.log_odds(one), asked.log_odds(other), rtol=0, atol=1e-6)


@pytest.mark.parametrize("strengths", [(0.01,), (0.01, 1.0)])
def test_unknown_answers_never_turn_into_numbers_that_are_none(strengths, monkeypatch):
    """Not in a value, not in a gradient, not in a weight."""

    def watched(ask, start, is_done):
        def checked(x, which):
            value, gradient = ask(x, which)
            assert value.isfinite().all()
            assert gradient.isfinite().all()
            return value, gradient

        return minimise(checked, start, is_done)

    monkeypatch.setattr(path_module, "minimise", watched)
    asked = questions(60, 10, 5, known=0.2)
    for head in [head for heads in asked.fit(*strengths) for head in heads]:
        assert np.isfinite(head.predictor.weight).all()
        assert np.isfinite(head.predictor.bias).all()
        assert np.isfinite([head.objective, head.gradient_norm]).all()


@pytest.mark.parametrize("answer", [0.0, 1.0])
@pytest.mark.parametrize("strength", [1e-8, 1.0, 1e8])
def test_a_target_with_one_known_answer_is_predicted_almost_for_sure(answer, strength):
    asked = questions(40, 5, 3)
    asked.targets[1] = np.where(np.isnan(asked.targets[1]), np.nan, answer)
    heads = asked.fit(strength, tolerance=TOLERANCE)
    log_odds = asked.log_odds(heads[1][0]) * (1 if answer else -1)
    assert np.isfinite(log_odds).all()
    assert log_odds.min() > np.log(1e5)
    assert all(head.has_converged for [head] in heads)


@pytest.mark.parametrize("of_weight_zero", [False, True])
def test_a_target_that_is_nowhere_known_is_refused_by_its_number(of_weight_zero):
    asked = questions(40, 5, 3)
    if of_weight_zero:
        asked.weights[np.flatnonzero(~np.isnan(asked.targets[1]))] = 0
        asked.targets[[0, 2]] = np.arange(40) % 2
    else:
        asked.targets[1] = np.nan
    with pytest.raises(ValueError, match=r"target 1: no known row has weight; leave it out"):
        asked.fit(1.0)


def test_forty_targets_at_once_are_what_each_is_alone():
    asked = questions(120, 10, 40)
    strengths = (1.0, 0.01, 0.1)
    together = asked.fit(*strengths)
    assert len(together) == 40
    for number, heads in enumerate(together):
        [alone] = replace(asked, targets=asked.targets[number : number + 1]).fit(*strengths)
        assert tuple(head.strength for head in heads) == strengths
        for one, other in zip(heads, alone, strict=True):
            np.testing.assert_allclose(asked.log_odds(one), asked.log_odds(other), rtol=0, atol=1e-5)


def test_two_classes_are_a_question_with_half_the_penalty():
    given = problem(80, 6, 2)
    asked = Questions(given.features, given.labels[None].astype(float), given.weights)
    [head], [[other]] = given.fit(0.1, tolerance=TIGHT), asked.fit(0.05)
    np.testing.assert_allclose(
        head.predictor.log_proba(given.features),
        other.predictor.log_proba(given.features),
        rtol=0,
        atol=1e-7,
    )
    assert head.objective == pytest.approx(other.objective, rel=1e-9)


# All rows, and all but each fold


def folds_of(rows: int, count: int, seed: int = 0) -> list[tuple[np.ndarray, np.ndarray]]:
    fold = np.random.default_rng(seed).permutation(rows) % count
    return [(np.flatnonzero(fold != number), np.flatnonzero(fold == number)) for number in range(count)]


def trained(given: Problem, hypers: Sequence[Softmax], folds: Folds, **how) -> list[Fit]:
    return train_softmax(
        given.features, given.labels, given.weights, classes=given.classes, hypers=hypers, folds=folds, **how
    )


def balanced(weights: np.ndarray, labels: np.ndarray) -> np.ndarray:
    total = {c: weights[labels == c].sum() for c in set(labels)}
    return np.array(
        [w * weights.sum() / (len(total) * total[c]) for w, c in zip(weights, labels, strict=True)]
    )


def naive_inner(given: Problem, hyper: Softmax, folds: Folds) -> np.ndarray:
    """Log probabilities (N, C) of held-out rows by scikit-learn, fold by fold; classes not seen get -inf."""
    rows, _, _ = standardised(given)
    told = np.full((len(rows), given.classes), -np.inf)
    for train, held_out in folds:
        weights, labels = given.weights[train], given.labels[train]
        if hyper.class_weight == "balanced":
            weights = balanced(weights, labels)
        C = (2 if len(set(labels)) == 2 else 1) / (hyper.strength * weights.sum())
        model = LogisticRegression(C=C, tol=1e-9, max_iter=100_000)
        model.fit(rows[train], labels, sample_weight=weights)
        told[np.ix_(held_out, model.classes_)] = model.predict_log_proba(rows[held_out])
    return told


HYPERS = [
    Softmax(0.1),
    Softmax(3.0, "balanced"),
    Softmax(0.01, "balanced"),
    Softmax(10.0),
    Softmax(0.1, "balanced"),
]
"""In no order, and no grid."""


@pytest.mark.parametrize(("rows", "columns", "classes"), [(90, 6, 3), (60, 8, 2), (40, 60, 4)])
@pytest.mark.parametrize(("rough", "near"), [(linear.ROUGH, 0.02), (SINGLE, 2e-3)])
def test_inner_predictions_are_those_of_a_naive_loop(rows, columns, classes, rough, near, monkeypatch):
    monkeypatch.setattr(linear, "ROUGH", rough)
    given, folds = problem(rows, columns, classes), folds_of(rows, 4)
    for hyper, fit in zip(HYPERS, trained(given, HYPERS, folds), strict=True):
        assert fit.inner.shape == (rows, classes)
        expected = naive_inner(given, hyper, folds)
        np.testing.assert_allclose(np.exp(fit.inner), np.exp(expected), rtol=0, atol=near)
        np.testing.assert_allclose(np.exp(fit.inner).sum(axis=1), 1, atol=1e-5)
        assert fit.converged


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("count", [0, 3])
def test_the_head_of_all_rows_is_fit_softmaxs_with_folds_or_without(classes, count):
    given = problem(80, 6, classes)
    fits = trained(given, HYPERS, folds_of(80, count) if count else [])
    for hyper, fit in zip(HYPERS, fits, strict=True):
        if hyper.class_weight == "none":
            [head] = given.fit(hyper.strength)
            expected = head.predictor.log_proba(given.features)
            assert fit.facts["objective"] == pytest.approx(head.objective, rel=1e-6)
        else:  # fit_softmax would standardise by the balanced weights
            rows, weights = standardised(given)[0], balanced(given.weights, given.labels)
            C = (2 if classes == 2 else 1) / (hyper.strength * weights.sum())
            model = LogisticRegression(C=C, tol=1e-9, max_iter=100_000)
            model.fit(rows, given.labels, sample_weight=weights)
            expected = model.predict_log_proba(rows)
        np.testing.assert_allclose(fit.predictor.log_proba(given.features), expected, rtol=0, atol=1e-3)
        assert fit.facts["gradient_norm"] <= TOLERANCE
        assert fit.converged


def test_without_folds_nothing_is_said_of_rows():
    fits = trained(problem(30, 3, 3), HYPERS, [])
    assert [fit.inner for fit in fits] == [None] * len(HYPERS)


@pytest.mark.parametrize("columns", [5, 60])
def test_the_order_of_the_settings_changes_the_order_of_the_answers_alone(columns):
    given, folds = problem(50, columns, 3), folds_of(50, 3)
    ahead, back = trained(given, HYPERS, folds), trained(given, HYPERS[::-1], folds)
    for one, other in zip(ahead, back[::-1], strict=True):
        np.testing.assert_allclose(np.exp(one.inner), np.exp(other.inner), rtol=0, atol=0.02)
        np.testing.assert_allclose(
            one.predictor.log_proba(given.features),
            other.predictor.log_proba(given.features),
            rtol=0,
            atol=1e-3,
        )


@pytest.mark.parametrize("hyper", HYPERS)
def test_a_setting_alone_gives_what_it_gives_among_others(hyper):
    given, folds = problem(60, 5, 3), folds_of(60, 3)
    together, [alone] = trained(given, HYPERS, folds)[HYPERS.index(hyper)], trained(given, [hyper], folds)
    np.testing.assert_allclose(np.exp(together.inner), np.exp(alone.inner), rtol=0, atol=0.02)
    assert together.facts["objective"] == pytest.approx(alone.facts["objective"], rel=1e-6)


def test_a_class_that_a_fold_holds_out_whole_gets_no_chance_there():
    given, folds = problem(80, 5, 4), folds_of(80, 3)
    labels = given.labels.copy()
    labels[np.setdiff1d(np.flatnonzero(labels == 3), folds[1][1])] = 0  # the rest of class 3 is in fold 1
    given = replace(given, labels=labels)
    assert (labels == 3).any()
    for hyper, fit in zip(HYPERS, trained(given, HYPERS, folds), strict=True):
        assert np.isfinite(fit.inner).all()
        assert np.exp(fit.inner[folds[1][1], 3]).max() < 1e-3
        expected = np.exp(naive_inner(given, hyper, folds))
        np.testing.assert_allclose(np.exp(fit.inner), expected, rtol=0, atol=0.02)


@pytest.mark.parametrize("classes", [2, 3])
def test_a_fold_that_leaves_one_class_gives_numbers(classes):
    given = problem(30, 4, classes)
    labels = np.where(np.arange(30) < 10, np.arange(30) % classes, 1)
    folds = [(np.arange(10, 30), np.arange(10)), (np.arange(10), np.arange(10, 30))]
    for fit in trained(replace(given, labels=labels), HYPERS, folds):
        assert np.isfinite(fit.inner).all()
        assert np.exp(fit.inner[:10, 1]).min() > 0.999
        assert fit.converged


@pytest.mark.parametrize("classes", [2, 3])
def test_a_fold_without_weight_is_judged_by_the_head_of_all_rows(classes):
    given, folds = problem(60, 5, classes), folds_of(60, 3)
    weights = given.weights.copy()
    weights[folds[1][1]] = 0
    given = replace(given, weights=weights)
    for fit in trained(given, HYPERS, folds):
        said = fit.predictor.log_proba(given.features[folds[1][1]])
        np.testing.assert_allclose(np.exp(fit.inner[folds[1][1]]), np.exp(said), rtol=0, atol=0.02)


@pytest.mark.parametrize("is_streamed", [False, True])
def test_held_out_rows_need_not_come_in_order(is_streamed):
    given, folds = problem(60, 5, 3), folds_of(60, 3)
    if is_streamed:
        given = replace(given, features=Blocks(given.features, [9, 33]))
    rng = np.random.default_rng(0)
    mixed = [(rng.permutation(train), rng.permutation(held_out)) for train, held_out in folds]
    for one, other in zip(trained(given, HYPERS, folds), trained(given, HYPERS, mixed), strict=True):
        np.testing.assert_array_equal(one.inner, other.inner)


@pytest.mark.parametrize("at_once", [path_module.BYTES_AT_ONCE, 1])
def test_progress_rises_to_the_number_of_settings(at_once, monkeypatch):
    monkeypatch.setattr(path_module, "BYTES_AT_ONCE", at_once)
    told: list[int] = []
    trained(problem(40, 4, 3), HYPERS, folds_of(40, 3), advance=told.append)
    assert told == sorted(told)
    assert told[-1] == len(HYPERS)
    if at_once == 1:  # a setting is done when its folds are
        assert told == [number // 4 for number in range(1, 4 * len(HYPERS) + 1)]


@pytest.mark.parametrize("classes", [2, 3])
def test_problems_one_at_a_time_and_few_rows_at_a_time_give_the_same(classes, monkeypatch):
    """As where the classes and features are so many that the folds of one setting do not fit together."""
    given, folds = problem(600, 4, classes), folds_of(600, 3)
    whole = trained(given, HYPERS[:3], folds)
    monkeypatch.setattr(path_module, "BYTES_AT_ONCE", 1)
    monkeypatch.setattr(path_module, "SCORES_AT_ONCE", 1)
    for one, other in zip(whole, trained(given, HYPERS[:3], folds), strict=True):
        np.testing.assert_allclose(np.exp(one.inner), np.exp(other.inner), rtol=0, atol=5e-3)
        assert one.facts["objective"] == pytest.approx(other.facts["objective"], rel=1e-6)


def test_a_fit_whose_folds_did_not_converge_says_so(monkeypatch):
    """Single precision is cut short; double precision still ends the heads of all rows."""
    monkeypatch.setattr(
        path_module,
        "minimise",
        lambda ask, start, rule: minimise(ask, start, rule, most=1 if start.element_size() == 4 else 2000),
    )
    given = problem(60, 5, 3)
    assert not any(fit.converged for fit in trained(given, HYPERS, folds_of(60, 3)))
    assert all(fit.converged for fit in trained(given, HYPERS, []))


def test_held_out_rows_change_nothing_but_the_standardisation():
    """The labels of a fold's rows are not known to what judges them."""
    given, folds = problem(60, 5, 3), folds_of(60, 3)
    held_out = folds[2][1]
    spoilt = given.labels.copy()
    spoilt[held_out] = (spoilt[held_out] + 1) % 3
    one, other = trained(given, HYPERS, folds), trained(replace(given, labels=spoilt), HYPERS, folds)
    for before, after in zip(one, other, strict=True):
        np.testing.assert_allclose(before.inner[held_out], after.inner[held_out], rtol=0, atol=1e-5)
        assert np.abs(before.inner - after.inner).max() > 0.01


# Rows that are streamed


def far_from_zero(features: np.ndarray, dtype: str) -> np.ndarray:
    """Deviation one, mean some hundreds, as far as the type holds it."""
    moved = (features - features.mean(axis=0)) / features.std(axis=0) + 300 + np.arange(features.shape[1])
    return moved.astype(dtype)


STREAMS = pytest.mark.parametrize(
    ("columns", "dtype"), [(6, "float16"), (6, "float32"), (6, "float64"), (90, "float32")]
)


@STREAMS
@pytest.mark.parametrize("classes", [2, 3])
def test_a_stream_gives_the_softmax_heads_of_the_array(columns, dtype, classes):
    given = problem(70, columns, classes)
    given = replace(given, features=far_from_zero(given.features, dtype))
    source = Blocks(given.features, [1, 30, 47])
    streamed = replace(given, features=source).fit(1.0, 0.01, 1e-4)
    for one, other in zip(streamed, given.fit(1.0, 0.01, 1e-4), strict=True):
        assert one.has_converged
        assert one.objective == pytest.approx(other.objective, rel=1e-6, abs=TOLERANCE**2 / one.strength)
        assert gradient_norm(given, one, one.strength) <= TOLERANCE
        np.testing.assert_allclose(
            np.exp(one.predictor.log_proba(given.features)),
            np.exp(other.predictor.log_proba(given.features)),
            rtol=0,
            atol=1e-3,
        )
    assert source.most_held <= 2


@STREAMS
def test_a_stream_gives_the_sigmoid_heads_of_the_array(columns, dtype):
    asked = questions(70, columns, 4)
    asked = replace(asked, features=far_from_zero(asked.features, dtype))
    source = Blocks(asked.features, [20, 21, 60])
    for one, other in zip(replace(asked, features=source).fit(1.0, 0.01), asked.fit(1.0, 0.01), strict=True):
        for a, b in zip(one, other, strict=True):
            np.testing.assert_allclose(asked.log_odds(a), asked.log_odds(b), rtol=0, atol=1e-5)
    assert source.most_held <= 2


@STREAMS
@pytest.mark.parametrize("classes", [2, 3])
def test_a_stream_gives_the_fits_of_the_array_without_each_fold_too(columns, dtype, classes, monkeypatch):
    monkeypatch.setattr(linear, "ROUGH", SINGLE)
    given, folds = problem(70, columns, classes), folds_of(70, 3)
    given = replace(given, features=far_from_zero(given.features, dtype))
    source, told = Blocks(given.features, [1, 30, 47]), []
    streamed = trained(replace(given, features=source), HYPERS, folds, advance=told.append)
    for one, other in zip(streamed, trained(given, HYPERS, folds), strict=True):
        np.testing.assert_allclose(np.exp(one.inner), np.exp(other.inner), rtol=0, atol=2e-3)
        assert one.facts["objective"] == pytest.approx(other.facts["objective"], rel=1e-6)
        assert one.converged
    assert source.most_held <= 2
    assert source.held == 0
    assert told[-1] == len(HYPERS)


def test_a_source_that_hands_out_its_own_memory_finds_it_as_it_was():
    given = problem(40, 5, 3)
    features = given.features.astype("float32")

    class Own(Blocks):
        def blocks(self) -> Iterator[tuple[slice, np.ndarray]]:
            yield slice(0, 15), features[:15]
            yield slice(15, 40), features[15:]

    source: Source = Own(features, [])
    [head] = replace(given, features=source).fit(0.1)
    np.testing.assert_array_equal(features, given.features.astype("float32"))
    assert gradient_norm(replace(given, features=features), head, 0.1) <= TOLERANCE


# Parts


def test_standardised_rows_have_weighted_mean_zero_and_deviation_one():
    given = problem(50, 6, 3)
    rows = standardisation(given.features, given.weights).apply(given.features)
    scaler = StandardScaler().fit(given.features, sample_weight=given.weights)
    np.testing.assert_allclose(rows, scaler.transform(given.features), rtol=0, atol=1e-12)


def test_log_probabilities_of_extreme_scores_are_finite_and_sum_to_one():
    head = Linear(np.array([[1e4], [-1e4], [0.0]]), np.zeros(3))
    log_proba = head.log_proba(np.array([[1.0], [-1.0], [0.0]], "float16"))
    assert np.isfinite(log_proba).all()
    np.testing.assert_allclose(np.exp(log_proba).sum(axis=1), 1)
    np.testing.assert_allclose(log_proba[0], [0, -2e4, -1e4])
