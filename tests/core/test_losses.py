"""Losses in place: values and slopes are the formula's, in both precisions, whatever the scores."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit, log_expit, log_softmax, softmax

from tasks.core.losses import LEAST_SHARE, Loss, SigmoidLoss, SoftmaxLoss

EVERY = slice(0, None)


def some(lanes: int, rows: int, seed: int) -> tuple[np.random.Generator, np.ndarray]:
    """Chance, and shares (L, N) of which some are zero."""
    rng = np.random.default_rng(seed)
    share = rng.uniform(0, 1, (lanes, rows)) * (rng.random((lanes, rows)) < 0.8)
    share[:, 0] = 0.5
    return rng, share / share.sum(axis=1, keepdims=True)


def told(loss: Loss, scores: np.ndarray, share: np.ndarray, lanes: list[int], rows: slice = EVERY):
    """Values (A,) and slopes (A, C, n)."""
    slopes = torch.from_numpy(scores.copy())
    values = loss.slope(slopes, torch.from_numpy(share).to(slopes.dtype), torch.tensor(lanes), rows)
    return values.numpy(), slopes.numpy()


@settings(max_examples=30, deadline=None)
@given(
    st.integers(1, 4), st.integers(2, 7), st.integers(1, 30), st.integers(0, 999), st.sampled_from([1, 1e3])
)
def test_softmax_values_and_slopes_are_scipys(problems, classes, rows, seed, scale):
    rng, share = some(problems, rows, seed)
    labels, scores = rng.integers(0, classes, rows), scale * rng.normal(size=(problems, classes, rows))
    values, slopes = told(
        SoftmaxLoss(torch.from_numpy(labels), classes), scores, share, list(range(problems))
    )
    hot = np.eye(classes)[labels].T  # (C, N)
    np.testing.assert_allclose(
        values, -(share * (log_softmax(scores, axis=1) * hot).sum(axis=1)).sum(axis=1), rtol=1e-10
    )
    np.testing.assert_allclose(
        slopes, share[:, None] * (softmax(scores, axis=1) - hot), rtol=1e-9, atol=1e-15
    )


@settings(max_examples=30, deadline=None)
@given(
    st.integers(1, 4), st.integers(1, 3), st.integers(1, 30), st.integers(0, 999), st.sampled_from([1, 1e3])
)
def test_sigmoid_values_and_slopes_are_scipys(problems, targets, rows, seed, scale):
    rng, share = some(problems, rows, seed)
    truth, target = rng.integers(0, 2, (targets, rows)), rng.integers(0, targets, problems)
    scores = scale * rng.normal(size=(problems, 1, rows))
    loss = SigmoidLoss(torch.from_numpy(truth).float(), torch.from_numpy(target))
    values, slopes = told(loss, scores, share, list(range(problems)))
    yes, s = truth[target], scores[:, 0]
    np.testing.assert_allclose(
        values, -(share * log_expit(np.where(yes, s, -s))).sum(axis=1), rtol=1e-10, atol=1e-300
    )
    np.testing.assert_allclose(slopes[:, 0], share * (expit(s) - yes), rtol=1e-9, atol=1e-15)


def both(rows: int = 20) -> list[tuple[Loss, int]]:
    """Each loss on the same random labels, and its number of scores."""
    rng = np.random.default_rng(0)
    truth = torch.from_numpy(rng.integers(0, 2, (3, rows))).float()
    labels = torch.from_numpy(rng.integers(0, 4, rows))
    return [(SigmoidLoss(truth, torch.tensor([2, 0, 1])), 1), (SoftmaxLoss(labels, 4), 4)]


@pytest.mark.parametrize("number", [0, 1])
def test_slopes_are_what_the_value_changes_by(number):
    loss, classes = both()[number]
    rng, share = some(3, 20, 0)
    scores, way = rng.normal(size=(2, 3, classes, 20))
    _, slopes = told(loss, scores, share, [0, 1, 2])
    ahead, back = (told(loss, scores + h * way, share, [0, 1, 2])[0] for h in (1e-6, -1e-6))
    np.testing.assert_allclose((slopes * way).sum(axis=(1, 2)), (ahead - back) / 2e-6, rtol=1e-6)


@pytest.mark.parametrize("number", [0, 1])
def test_rows_in_parts_add_up_to_all(number):
    loss, classes = both()[number]
    rng, share = some(3, 20, 0)
    scores = rng.normal(size=(3, classes, 20))
    values, slopes = told(loss, scores, share, [0, 1, 2])
    parts = [slice(0, 7), slice(7, 8), slice(8, 20)]
    each = [told(loss, scores[:, :, part], share[:, part], [0, 1, 2], part) for part in parts]
    np.testing.assert_allclose(sum(value for value, _ in each), values)
    np.testing.assert_allclose(np.concatenate([slope for _, slope in each], axis=2), slopes)


@pytest.mark.parametrize("number", [0, 1])
def test_lanes_may_be_asked_in_any_order_and_again(number):
    loss, classes = both()[number]
    rng, share = some(3, 20, 0)
    scores = rng.normal(size=(3, classes, 20))
    values, slopes = told(loss, scores, share, [0, 1, 2])
    order = [2, 0, 2, 1]
    again, again_slopes = told(loss, scores[order], share[order], order)
    np.testing.assert_array_equal(again, values[order])
    np.testing.assert_array_equal(again_slopes, slopes[order])


@pytest.mark.parametrize("precision", ["float32", "float64"])
@pytest.mark.parametrize("number", [0, 1])
def test_extreme_scores_give_numbers(number, precision):
    loss, classes = both()[number]
    _, share = some(3, 20, 0)
    for scale in (1e2, 1e4, 1e30):
        scores = scale * np.random.default_rng(1).choice([-1.0, 0.0, 1.0], (3, classes, 20))
        values, slopes = told(loss, scores.astype(precision), share, [0, 1, 2])
        assert np.isfinite(values).all()
        assert (np.abs(slopes) <= share[:, None] * (1 + 1e-6)).all()


@pytest.mark.parametrize("number", [0, 1])
def test_rows_without_a_share_have_no_slope_whatever_their_label(number):
    rng, share = some(3, 20, 0)
    loss, classes = both()[number]
    scores = rng.normal(size=(3, classes, 20))
    _, slopes = told(loss, scores, share, [0, 1, 2])
    assert (slopes[np.broadcast_to(share[:, None] == 0, slopes.shape)] == 0).all()


# Where a search starts


@settings(max_examples=20, deadline=None)
@given(st.integers(2, 6), st.integers(0, 999))
def test_a_head_without_features_has_no_slope_at_the_softmax_prior(classes, seed):
    rng, share = some(3, 40, seed)
    labels = np.concatenate([np.arange(classes), rng.integers(0, classes, 40 - classes)])
    share[:, :classes] += 0.01
    share /= share.sum(axis=1, keepdims=True)
    loss = SoftmaxLoss(torch.from_numpy(labels), classes)
    bias, spread = loss.prior(torch.from_numpy(share))
    scores = np.repeat(bias.numpy()[:, :, None], 40, axis=2)
    _, slopes = told(loss, scores, share, [0, 1, 2])
    np.testing.assert_allclose(slopes.sum(axis=2), 0, atol=1e-12)
    chance = np.stack([np.bincount(labels, row, classes) for row in share])
    curvature = np.stack([np.trace(np.diag(p) - np.outer(p, p)) / (classes - 1) for p in chance])
    np.testing.assert_allclose(spread, curvature)


def test_a_head_without_features_has_no_slope_at_the_sigmoid_prior():
    loss, _ = both()[0]
    _, share = some(3, 20, 0)
    bias, spread = loss.prior(torch.from_numpy(share))
    _, slopes = told(loss, np.repeat(bias.numpy()[:, :, None], 20, axis=2), share, [0, 1, 2])
    np.testing.assert_allclose(slopes.sum(axis=2), 0, atol=1e-12)
    np.testing.assert_allclose(spread, expit(bias.numpy()[:, 0]) * expit(-bias.numpy()[:, 0]))


@pytest.mark.parametrize("label", [0, 1])
def test_a_class_without_rows_starts_at_a_finite_bias(label):
    share = torch.full((1, 8), 1 / 8, dtype=torch.float64)
    sigmoid = SigmoidLoss(torch.full((1, 8), float(label)), torch.tensor([0]))
    for loss in (sigmoid, SoftmaxLoss(torch.full((8,), label), 3)):
        bias, spread = loss.prior(share)
        assert bias.isfinite().all()
        assert (spread >= LEAST_SHARE).all()
