"""Products of matrices: those of double precision, to rounding, whichever library multiplies."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.core import products
from tasks.core.products import times_transposed


@pytest.fixture(params=[True, False], ids=["onednn if there is one", "plain"], autouse=True)
def library(request, monkeypatch):
    if not request.param:
        monkeypatch.setattr(products, "_HAS_ONEDNN", False)


def matrix(rows: int, columns: int, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).normal(size=(rows, columns)))


def assert_product(left: torch.Tensor, right: torch.Tensor) -> None:
    """Within 1e-5 of what the lengths of the rows allow at most."""
    found = times_transposed(left, right)
    wide, other = left.double().numpy(), right.double().numpy()
    bound = np.linalg.norm(wide, axis=1)[:, None] * np.linalg.norm(other, axis=1)
    assert found.dtype == left.dtype
    assert found.shape == (len(left), len(right))
    part = 1e-5 if left.dtype == torch.float32 else 1e-14
    assert (np.abs(found.double().numpy() - wide @ other.T) <= part * bound).all()


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 70), st.integers(0, 300), st.integers(0, 70), st.integers(0, 99), st.booleans())
def test_any_shape_gives_the_product(m, k, n, seed, is_single):
    precision = torch.float32 if is_single else torch.float64
    assert_product(matrix(m, k, seed).to(precision), matrix(n, k, seed + 1).to(precision))


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 500, 1), (1, 7, 300), (257, 1, 3), (33, 65, 129)])
@pytest.mark.parametrize("precision", [torch.float32, torch.float64])
def test_odd_shapes_give_the_product(shape, precision):
    m, k, n = shape
    assert_product(matrix(m, k).to(precision), matrix(n, k, 1).to(precision))


@pytest.mark.parametrize("precision", [torch.float32, torch.float64])
def test_arguments_need_not_lie_in_one_piece(precision):
    left, right = matrix(60, 40).to(precision), matrix(40, 60, 1).to(precision)
    assert_product(left[::3], right[:, ::2].T[:, :40])
    assert_product(left[:, ::2], right[:20].T)
    assert_product(left.T, right)
    assert_product(left[5:7].expand(2, 40), right.T)
    assert_product(left[0].expand(9, 40), right.T)


def test_the_arguments_are_left_as_they_were():
    left, right = matrix(5, 7).float(), matrix(4, 7).float()
    times_transposed(left, right).add_(1)
    assert torch.equal(left, matrix(5, 7).float())
    assert torch.equal(right, matrix(4, 7).float())


def test_a_long_sum_of_equal_numbers_keeps_single_precision():
    """A product in fewer bits would be off in the third digit."""
    left, right = torch.full((3, 10_000), 1.001), torch.full((2, 10_000), 0.999)
    assert times_transposed(left, right).numpy() == pytest.approx(10_000 * 1.001 * 0.999, rel=1e-5)


def test_a_second_product_gives_the_same_bits():
    left, right = matrix(40, 333).float(), matrix(50, 333, 1).float()
    assert torch.equal(times_transposed(left, right), times_transposed(left, right))


def test_where_the_product_is_not_as_expected_the_plain_one_is_taken(monkeypatch):
    monkeypatch.setattr(torch.ops.mkldnn, "_linear_pointwise", lambda *of: torch.zeros(2, 4))
    assert not products._has_onednn()

    def missing(*of):
        raise NotImplementedError

    monkeypatch.setattr(torch.ops.mkldnn, "_linear_pointwise", missing)
    assert not products._has_onednn()
