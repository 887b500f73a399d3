"""Predictors say the same from their arrays alone, and what the formula or torch says."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from scipy.special import log_softmax as reference
from torch import nn

from tasks.core.predictors import Layers, Linear, Predictor, log_softmax


def some_layers(*widths: int, seed: int = 0) -> Layers:
    rng = np.random.default_rng(seed)
    weights = tuple(rng.normal(size=(b, a)).astype("float32") for a, b in pairwise(widths))
    return Layers(weights, tuple(rng.normal(size=len(weight)).astype("float32") for weight in weights))


def as_torch(layers: Layers) -> nn.Sequential:
    network = nn.Sequential()
    for weight, bias in zip(layers.weights, layers.biases, strict=True):
        full = nn.Linear(weight.shape[1], weight.shape[0])
        full.load_state_dict({"weight": torch.from_numpy(weight), "bias": torch.from_numpy(bias)})
        network.extend([full, nn.ReLU()])
    return network[:-1].append(nn.LogSoftmax(dim=1)).eval()


def some_rows(n: int, columns: int, dtype: str = "float32") -> np.ndarray:
    return np.random.default_rng(1).normal(size=(n, columns)).astype(dtype)


SOME = [
    Linear(np.random.default_rng(0).normal(size=(3, 7)), np.array([0.1, -2.0, 5.0])),
    some_layers(7, 3),
    some_layers(7, 16, 4),
    some_layers(7, 20, 12, 2),
]


@pytest.mark.parametrize("predictor", SOME, ids=lambda predictor: predictor.kind)
def test_a_predictor_is_its_arrays(predictor):
    kept = {name: array.copy() for name, array in predictor.arrays().items()}
    shuffled = dict(sorted(kept.items(), reverse=True))  # a file keeps names, not their order
    again: Predictor = type(predictor).of(shuffled)
    assert again.arrays().keys() == kept.keys()
    for name, array in again.arrays().items():
        assert array.dtype == kept[name].dtype
        np.testing.assert_array_equal(array, kept[name])
    rows = some_rows(20, 7)
    np.testing.assert_array_equal(again.log_proba(rows), predictor.log_proba(rows))


@pytest.mark.parametrize("widths", [(5, 3), (5, 8, 2), (9, 64, 32, 6)])
def test_layers_are_torchs_network(widths):
    layers, rows = some_layers(*widths), some_rows(30, widths[0])
    with torch.no_grad():
        expected = as_torch(layers)(torch.from_numpy(rows)).double().numpy()
    np.testing.assert_allclose(layers.log_proba(rows), expected, rtol=1e-5, atol=1e-4)


def test_eleven_layers_stay_in_order():
    layers = some_layers(*[4] * 12)
    again = Layers.of(layers.arrays())
    for one, other in zip(again.weights + again.biases, layers.weights + layers.biases, strict=True):
        np.testing.assert_array_equal(one, other)


def test_linear_is_the_softmax_of_the_linear_map():
    head, rows = SOME[0], some_rows(20, 7, "float64")
    scores = np.array(
        [[sum(w * x for w, x in zip(c, row, strict=True)) for c in head.weight] for row in rows]
    )
    np.testing.assert_allclose(head.log_proba(rows), reference(scores + head.bias, axis=1), atol=1e-12)


@pytest.mark.parametrize("predictor", SOME, ids=lambda predictor: predictor.kind)
@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_half_and_single_features_are_taken_as_the_numbers_that_they_are(predictor, dtype):
    rows = some_rows(20, 7, dtype)
    found = predictor.log_proba(rows)
    assert found.dtype == np.float64
    np.testing.assert_array_equal(found, predictor.log_proba(rows.astype("float64")))
    np.testing.assert_allclose(np.exp(found).sum(axis=1), 1)


@given(arrays(np.float64, array_shapes(min_dims=1, max_dims=3), elements=st.floats(-1e300, 1e300)))
def test_log_softmax_is_scipys_for_any_finite_scores(scores):
    found = log_softmax(scores)
    assert (found <= 0).all()
    np.testing.assert_allclose(found, reference(scores, axis=-1), rtol=1e-12, atol=1e-12)


def test_log_softmax_of_huge_scores_keeps_their_distance():
    np.testing.assert_array_equal(log_softmax(np.array([1e5, 1e5 - 3e4, -1e5])), [0, -3e4, -2e5])
    np.testing.assert_allclose(log_softmax(np.array([-1e9, -1e9])), np.log([0.5, 0.5]))
