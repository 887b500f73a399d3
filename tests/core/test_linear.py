"""Convex heads: the optimum is reached, and it is the optimum that other roads lead to."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from tasks.core.lbfgs import minimise
from tasks.core.linear import TOLERANCE, SoftmaxHead, fit_softmax, standardisation

TIGHT = 1e-9


@dataclass(frozen=True)
class Problem:
    """Rows (N, D), labels (N,), weights (N,), and the number of classes."""

    features: np.ndarray
    labels: np.ndarray
    weights: np.ndarray
    classes: int

    def fit(self, *strengths: float, **how: object) -> list[SoftmaxHead]:
        return fit_softmax(
            self.features, self.labels, self.weights, classes=self.classes, strengths=strengths, **how
        )


def problem(rows: int, columns: int, classes: int, seed: int = 0, noise: float = 1.0) -> Problem:
    """Noisy classes on features of very different scales and offsets, every class with some rows."""
    rng = np.random.default_rng(seed)
    labels = np.concatenate([np.arange(classes), rng.integers(0, classes, rows - classes)])
    centres = rng.normal(size=(classes, columns))
    features = centres[labels] + noise * rng.normal(size=(rows, columns))
    features = features * 10 ** rng.uniform(-2, 2, columns) + rng.normal(size=columns) * 5
    return Problem(features, labels, rng.uniform(0.2, 3, rows), classes)


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


def gradient_norm(given: Problem, head: SoftmaxHead, strength: float) -> float:
    """||grad J|| of a head in standardised features, by the formula alone."""
    rows, mean, scale = standardised(given)
    weight, bias = head.weight * scale, head.bias + head.weight @ mean
    share = given.weights / given.weights.sum()
    scores = np.exp(rows @ weight.T + bias - (rows @ weight.T + bias).max(axis=1, keepdims=True))
    proba = scores / scores.sum(axis=1, keepdims=True)
    slope = share[:, None] * (proba - np.eye(given.classes)[given.labels])  # (N, C)
    return float(np.sqrt(np.square(slope.T @ rows + strength * weight).sum() + np.square(slope.sum(0)).sum()))


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
    np.testing.assert_allclose(head.log_proba(given.features), expected, rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize(("rows", "columns", "classes"), [(80, 4, 3), (40, 3, 2), (15, 20, 3)])
@pytest.mark.parametrize("strength", [2.0**-9, 0.125, 2.0])  # exact in every precision
def test_the_optimum_is_newtons(rows, columns, classes, strength):
    given = problem(rows, columns, classes, seed=1)
    [head] = given.fit(strength, tolerance=1e-11)
    np.testing.assert_allclose(head.log_proba(given.features), newton(given, strength), rtol=0, atol=1e-7)


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


def test_a_head_that_did_not_converge_says_so(monkeypatch):
    monkeypatch.setattr("tasks.core.linear.minimise", lambda *of: minimise(*of, most=3))
    given = problem(100, 10, 3)
    [head] = given.fit(1e-3)
    assert not head.has_converged
    assert head.gradient_norm == pytest.approx(gradient_norm(given, head, 1e-3), rel=1e-3)


# Hard data


def assert_optimal(given: Problem, *strengths: float) -> list[SoftmaxHead]:
    heads = given.fit(*strengths)
    for head, strength in zip(heads, strengths, strict=True):
        assert np.isfinite(head.weight).all()
        assert np.isfinite(head.bias).all()
        assert gradient_norm(given, head, strength) <= TOLERANCE
    return heads


@pytest.mark.parametrize("strength", [1e-6, 1e-3, 1.0])
def test_separable_classes_have_a_finite_optimum(strength):
    given = problem(60, 5, 3, noise=0.01)
    [head] = assert_optimal(given, strength)
    assert (head.log_proba(given.features).argmax(axis=1) == given.labels).all()


def test_dependent_and_constant_features_do_no_harm():
    base = problem(80, 4, 3)
    mixed = base.features @ np.random.default_rng(0).normal(size=(4, 6))
    constant = np.repeat([[0.0, 0.1, -1e6]], 80, axis=0)
    given = Problem(np.column_stack([mixed, mixed[:, :2], constant]), base.labels, base.weights, 3)
    [head] = assert_optimal(given, 0.01)
    without = Problem(np.column_stack([mixed, mixed[:, :2]]), base.labels, base.weights, 3)
    [other] = assert_optimal(without, 0.01)
    np.testing.assert_allclose(
        head.log_proba(given.features), other.log_proba(without.features), rtol=0, atol=1e-4
    )
    np.testing.assert_allclose(head.weight[:, -3:], 0, atol=1e-6)


def test_without_any_varying_feature_the_weighted_shares_are_predicted():
    labels, weights = np.array([0, 1, 1, 2]), np.array([1.0, 2.0, 3.0, 4.0])
    [head] = fit_softmax(np.full((4, 3), 0.1), labels, weights, classes=3, strengths=[0.1])
    np.testing.assert_allclose(np.exp(head.log_proba(np.full((1, 3), 0.1)))[0], [0.1, 0.5, 0.4], atol=1e-5)


@pytest.mark.parametrize(("rows", "columns"), [(10, 300), (3, 40), (2, 1), (64, 64), (65, 64)])
def test_any_shape_is_solved(rows, columns):
    assert_optimal(problem(rows, columns, 2), 1e-3, 1.0)


def test_a_class_without_rows_gets_no_chance_and_changes_nothing_else():
    given = problem(60, 4, 3)
    gap = Problem(given.features, np.array([0, 2, 3])[given.labels], given.weights, 5)  # 1 and 4 are empty
    [head], [narrow] = assert_optimal(gap, 0.01), assert_optimal(given, 0.01)
    log_proba = head.log_proba(given.features)
    assert log_proba[:, [1, 4]].max() < np.log(1e-4)
    np.testing.assert_allclose(log_proba[:, [0, 2, 3]], narrow.log_proba(given.features), rtol=0, atol=2e-4)


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
        one.log_proba(given.features), other.log_proba(given.features), rtol=0, atol=1e-6
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
        one.log_proba(rest.features), other.log_proba(rest.features), rtol=0, atol=1e-4
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
        one.log_proba(given.features), other.log_proba(given.features), rtol=0, atol=1e-6
    )


def test_the_scale_of_the_weights_does_not_matter():
    given = problem(30, 5, 3)
    [one] = given.fit(0.05, tolerance=TIGHT)
    heavier = Problem(given.features, given.labels, 1000 * given.weights, 3)
    [other] = heavier.fit(0.05, tolerance=TIGHT)
    np.testing.assert_allclose(one.weight, other.weight, rtol=0, atol=1e-7 * np.abs(one.weight).max())


@pytest.mark.parametrize("classes", [2, 50])
def test_few_and_many_classes(classes):
    assert_optimal(problem(150, 20, classes), 0.003, 0.3)


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_half_and_single_features_are_taken_as_the_numbers_that_they_are(dtype):
    given = problem(60, 5, 3)
    narrow = Problem(given.features.astype(dtype), given.labels, given.weights, 3)
    wide = Problem(narrow.features.astype("float64"), given.labels, given.weights, 3)
    [one], [other] = narrow.fit(0.01), wide.fit(0.01)
    np.testing.assert_array_equal(one.weight, other.weight)
    np.testing.assert_array_equal(one.log_proba(narrow.features), other.log_proba(wide.features))


# Many at once


@pytest.mark.parametrize(("rows", "columns"), [(100, 8), (20, 60)])
def test_strengths_in_one_batch_give_the_heads_that_each_alone_gives(rows, columns):
    given = problem(rows, columns, 3)
    strengths = [10.0**power for power in range(-4, 3)]
    together = given.fit(*strengths, tolerance=TIGHT)
    assert [head.strength for head in together] == strengths
    for strength, head in zip(strengths, together, strict=True):
        [alone] = given.fit(strength, tolerance=TIGHT)
        np.testing.assert_allclose(
            head.log_proba(given.features), alone.log_proba(given.features), rtol=0, atol=1e-4
        )


@pytest.mark.parametrize(("rows", "columns"), [(300, 100), (60, 200), (400, 300)])
def test_features_of_very_different_directions_take_tens_of_steps(rows, columns, monkeypatch):
    """Without scaling by curvature these take hundreds."""
    steps = []

    def count(*of):
        found = minimise(*of)
        steps.append(found.steps)
        return found

    monkeypatch.setattr("tasks.core.linear.minimise", count)
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
        assert one.weight.tobytes() == other.weight.tobytes()
        assert one.bias.tobytes() == other.bias.tobytes()


def test_single_precision_reaches_its_tolerance():
    given = problem(200, 30, 4)
    for head in given.fit(1e-3, 0.1, 1.0, tolerance=1e-4, precision=torch.float32):
        assert gradient_norm(given, head, head.strength) <= 1.1e-4


def test_single_precision_finds_the_predictions_of_double_precision():
    rng = np.random.default_rng(0)
    spread = 1 / np.arange(1, 401)  # deviations of the directions: what real features look like
    turn = np.linalg.qr(rng.normal(size=(400, 400)))[0]
    features = rng.normal(size=(500, 400)) * spread @ turn
    labels = (features @ turn.T @ (rng.normal(size=400) / spread) > 0).astype(int)
    given = Problem(features, labels, np.ones(500), 2)
    rough = given.fit(0.01, 1.0, tolerance=1e-4, precision=torch.float32)
    for one, other in zip(rough, given.fit(0.01, 1.0), strict=True):
        np.testing.assert_allclose(
            np.exp(one.log_proba(features)), np.exp(other.log_proba(features)), rtol=0, atol=0.02
        )


# Parts


def test_standardised_rows_have_weighted_mean_zero_and_deviation_one():
    given = problem(50, 6, 3)
    rows = standardisation(given.features, given.weights).apply(given.features)
    scaler = StandardScaler().fit(given.features, sample_weight=given.weights)
    np.testing.assert_allclose(rows, scaler.transform(given.features), rtol=0, atol=1e-12)


def test_log_probabilities_of_extreme_scores_are_finite_and_sum_to_one():
    head = SoftmaxHead(np.array([[1e4], [-1e4], [0.0]]), np.zeros(3), 1.0, 0.0)
    log_proba = head.log_proba(np.array([[1.0], [-1.0], [0.0]], "float16"))
    assert np.isfinite(log_proba).all()
    np.testing.assert_allclose(np.exp(log_proba).sum(axis=1), 1)
    np.testing.assert_allclose(log_proba[0], [0, -2e4, -1e4])


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 6), st.integers(1, 12), st.integers(0, 1000))
def test_quadratic_functions_are_minimised_each_for_itself(problems, size, seed):
    rng = np.random.default_rng(seed)
    root = torch.from_numpy(rng.normal(size=(problems, size, size)))
    hessian = root @ root.mT + 0.1 * torch.eye(size, dtype=torch.float64)  # (S, P, P)
    least = torch.from_numpy(rng.normal(size=(problems, size)))

    def objective(x, which):
        gradient = torch.einsum("apq,aq->ap", hessian[which], x - least[which])
        return ((x - least[which]) * gradient).sum(1) / 2, gradient

    found = minimise(
        objective, torch.zeros_like(least), lambda gradient, value, which: gradient.norm(dim=1) < 1e-9
    )
    torch.testing.assert_close(found.x, least, rtol=0, atol=1e-7)
    torch.testing.assert_close(found.value, objective(found.x, torch.arange(problems))[0])
