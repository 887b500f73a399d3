"""Standardised rows in an orthonormal basis: the same from memory and from a stream, nothing lost on the way."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from made import Blocks
from sklearn.preprocessing import StandardScaler

from tasks.core.coordinates import (
    Coordinates,
    Held,
    InMemory,
    Standardisation,
    Streamed,
    coordinates,
    standardisation,
)


def rows_of(N: int, D: int, seed: int = 0, offset: float = 5.0) -> tuple[np.ndarray, np.ndarray]:
    """Correlated features of different scales, and weights of which some are zero."""
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(N, D)) @ rng.normal(size=(D, D)) * 10 ** rng.uniform(-2, 2, D)
    features += offset * features.std(axis=0) * rng.normal(size=D)
    weights = rng.uniform(0.2, 3, N) * (rng.random(N) < 0.8)
    weights[:2] = 1
    return features, weights


def both(features: np.ndarray, weights: np.ndarray) -> tuple[Held, Streamed]:
    thirds = [len(features) // 3, len(features) // 3 + 1]
    return Held(features, weights), Streamed(Blocks(features, thirds), weights)


def naive(features: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Standardised rows by scikit-learn, in double precision."""
    scaler = StandardScaler().fit(features[weights > 0].astype("f8"), sample_weight=weights[weights > 0])
    return scaler.transform(features.astype("f8"))


def seen(place: Coordinates, weight: torch.Tensor) -> torch.Tensor:
    """Scores of all rows by weights of coordinates (A, R); (A, N)."""
    blocks = [block for _, block in place.blocks(weight.dtype)]
    return torch.cat([place.lift(weight) @ block.T for block in blocks], dim=1)


SHAPES = pytest.mark.parametrize(("N", "D"), [(60, 7), (7, 20), (20, 20), (21, 20), (2, 3), (50, 1)])


# In memory and streamed


@SHAPES
def test_memory_and_stream_agree_in_standardisation_and_variance(N, D):
    held, streamed = both(*rows_of(N, D))
    np.testing.assert_allclose(streamed.standard.mean, held.standard.mean, rtol=1e-12)
    np.testing.assert_allclose(streamed.standard.scale, held.standard.scale, rtol=1e-10)
    R = min(N, D)
    np.testing.assert_allclose(streamed.variance[-R:], held.variance, rtol=0, atol=1e-9 * D)
    np.testing.assert_allclose(streamed.variance[:-R], 0, atol=1e-9 * D)


@SHAPES
@pytest.mark.parametrize("way", [0, 1])
def test_the_basis_is_orthonormal_and_its_directions_do_not_vary_together(N, D, way):
    features, weights = rows_of(N, D)
    place = both(features, weights)[way]
    basis, rows = place.basis.numpy(), naive(features, weights)
    np.testing.assert_allclose(basis.T @ basis, np.eye(basis.shape[1]), rtol=0, atol=1e-10)
    covariance = (rows * (weights / weights.sum())[:, None]).T @ rows
    np.testing.assert_allclose(
        basis.T @ covariance @ basis, np.diag(place.variance.numpy()), rtol=0, atol=1e-9 * D
    )


@SHAPES
@pytest.mark.parametrize("way", [0, 1])
def test_the_basis_spans_every_row(N, D, way):
    features, weights = rows_of(N, D)
    place = both(features, weights)[way]
    basis, rows = place.basis.numpy(), naive(features, weights)
    np.testing.assert_allclose(rows @ basis @ basis.T, rows, rtol=0, atol=1e-8)


@SHAPES
@pytest.mark.parametrize("way", [0, 1])
@pytest.mark.parametrize(("precision", "near"), [(torch.float64, 1e-9), (torch.float32, 1e-4)])
def test_blocks_and_lifted_weights_give_the_scores_of_standardised_rows(N, D, way, precision, near):
    features, weights = rows_of(N, D)
    place = both(features, weights)[way]
    weight = torch.randn(3, len(place.variance), generator=torch.Generator().manual_seed(0)).to(precision)
    expected = weight.double().numpy() @ place.basis.numpy().T @ naive(features, weights).T
    np.testing.assert_allclose(seen(place, weight), expected, rtol=0, atol=near * np.abs(expected).max())


@SHAPES
@pytest.mark.parametrize("way", [0, 1])
def test_dropping_is_the_adjoint_of_lifting(N, D, way):
    """<lift(w), g> is <w, drop(g)>: a gradient by columns becomes the gradient by coordinates."""
    place = both(*rows_of(N, D))[way]
    generator = torch.Generator().manual_seed(1)
    weight = torch.randn(4, len(place.variance), generator=generator, dtype=torch.float64)
    lifted = place.lift(weight)
    gradient = torch.randn(lifted.shape, generator=generator, dtype=torch.float64)
    torch.testing.assert_close((lifted * gradient).sum(1), (weight * place.drop(gradient)).sum(1))


def test_an_array_is_held_and_any_other_source_is_streamed():
    features, weights = rows_of(20, 4)
    assert coordinates(InMemory(features), weights).held
    assert not coordinates(Blocks(features, [5]), weights).held


# The stream


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("precision", [torch.float32, torch.float64])
def test_features_far_from_zero_lose_nothing_in_the_stream(dtype, precision):
    """The mean is some thousand deviations; double features hold more digits than single precision."""
    rng = np.random.default_rng(0)
    far = 1e6 if dtype == "float64" else 1e3
    features = (rng.normal(size=(300, 4)) + far * np.array([1, -1, 2, 0])).astype(dtype)
    weights = rng.uniform(1, 2, 300)
    place = Streamed(Blocks(features, [100, 130]), weights)
    rows = torch.cat([block for _, block in place.blocks(precision)]).double().numpy()
    expected = features.astype("f8") - place.standard.mean
    shift = rows - expected
    np.testing.assert_allclose(shift - shift.mean(axis=0), 0, atol=1e-6)  # a bias takes up what is constant
    np.testing.assert_allclose(shift, 0, atol=1e-4)
    np.testing.assert_allclose(place.standard.mean, np.average(features.astype("f8"), 0, weights), rtol=1e-12)
    np.testing.assert_allclose(place.standard.scale, Held(features, weights).standard.scale, rtol=1e-9)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("precision", [torch.float32, torch.float64])
def test_a_source_may_hand_out_its_own_memory(dtype, precision):
    features = rows_of(30, 4)[0].astype(dtype)

    class Own(Blocks):
        def blocks(self):
            yield slice(0, 10), features[:10]
            yield slice(10, 30), features[10:]

    before = features.copy()
    place = Streamed(Own(features, []), np.ones(30))
    first, second = (torch.cat([block for _, block in place.blocks(precision)]) for _ in range(2))
    np.testing.assert_array_equal(features, before)
    assert torch.equal(first, second)


def test_no_more_than_one_block_is_kept_when_the_next_comes():
    features, weights = rows_of(100, 4)
    source = Blocks(features, list(range(5, 100, 5)))
    place = Streamed(source, weights)
    for _ in place.blocks(torch.float32):
        pass
    assert source.most_held <= 2
    assert source.held == 0


def test_blocks_may_be_empty_or_hold_one_row():
    features, weights = rows_of(30, 4)
    one, other = (Streamed(Blocks(features, ends), weights) for ends in ([], [0, 1, 2, 2, 29]))
    np.testing.assert_allclose(other.standard.mean, one.standard.mean)
    np.testing.assert_allclose(other.variance, one.variance)
    assert [len(block) for _, block in other.blocks(torch.float32)] == [0, 1, 1, 0, 27, 1]


# Standardisation


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 40), st.integers(1, 6), st.integers(0, 999), st.sampled_from(["f2", "f4", "f8"]))
def test_standardised_rows_are_scikit_learns(N, D, seed, dtype):
    rng = np.random.default_rng(seed)
    features, weights = (rng.normal(size=(N, D)) * 3 + 7).astype(dtype), rng.uniform(0.1, 3, N)
    for standard in (place.standard for place in both(features, weights)):
        np.testing.assert_allclose(standard.apply(features), naive(features, weights), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("constant", [0.0, 0.1, -1e6, 1e-6])
@pytest.mark.parametrize("way", [0, 1])
def test_a_feature_that_does_not_vary_becomes_zero(constant, way):
    features, weights = rows_of(40, 3)
    features[:, 1] = constant
    standard = both(features, weights)[way].standard
    assert standard.scale[1] == 1
    np.testing.assert_allclose(standard.apply(features)[:, 1], 0, atol=1e-9)


@pytest.mark.parametrize("way", [0, 1])
def test_rows_of_weight_zero_have_no_part_in_it(way):
    features, weights = rows_of(40, 3)
    far = np.where((weights == 0)[:, None], 1e9, features)
    one, other = both(features, weights)[way].standard, both(far, weights)[way].standard
    np.testing.assert_allclose(other.mean, one.mean)
    np.testing.assert_allclose(other.scale, one.scale)


def test_the_scale_of_the_weights_does_not_matter():
    features, weights = rows_of(40, 3)
    one, other = standardisation(features, weights), standardisation(features, 1e8 * weights)
    np.testing.assert_allclose(one.mean, other.mean)
    np.testing.assert_allclose(one.scale, other.scale)


def test_a_map_of_standardised_rows_is_the_folded_map_of_raw_rows():
    features, weights = rows_of(40, 3)
    standard, rng = standardisation(features, weights), np.random.default_rng(0)
    weight, bias = rng.normal(size=(4, 3)), rng.normal(size=4)
    folded = standard.on_raw(weight, bias)
    np.testing.assert_allclose(
        features @ folded.weight.T + folded.bias, standard.apply(features) @ weight.T + bias, atol=1e-9
    )
    assert isinstance(standard, Standardisation)
