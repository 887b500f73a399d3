"""The GPU's engine, as far as it can be told without one: format, batch and a memory that runs out."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tasks.core import gpu
from tasks.core.errors import RequestError
from tasks.core.gpu import BATCH, MOST_BATCH, best_batch, best_precision, halving


def exact(x: np.ndarray) -> list[np.ndarray]:
    return [x.reshape(len(x), -1).astype(np.float32) + 1]


def probe(n: int) -> np.ndarray:
    return np.arange(n * 3 * 2 * 2, dtype=np.uint8).reshape(n, 3, 2, 2)


def off_by(share: float):
    return lambda x: [block * np.float32(1 + share) for block in exact(x)]


def test_the_first_format_that_is_close_enough_is_taken():
    near, far = off_by(1e-3), off_by(0.1)
    assert best_precision({"float32": exact, "float16": near, "bfloat16": near}, probe(4)) == "float16"
    assert best_precision({"float32": exact, "float16": far, "bfloat16": near}, probe(4)) == "bfloat16"
    assert best_precision({"float32": exact, "float16": far, "bfloat16": far}, probe(4)) == "float32"


@pytest.mark.filterwarnings("ignore:invalid value")
def test_a_format_that_overflows_is_not_taken():
    for worst in (np.inf, np.nan):
        overflow = lambda x, worst=worst: [block * np.float32(worst) for block in exact(x)]  # noqa: E731
        assert best_precision({"float32": exact, "float16": overflow}, probe(4)) == "float32"


def limited(most: int, calls: list[int]):
    """A memory that holds so many samples at a time."""

    def forward(x: np.ndarray) -> list[np.ndarray]:
        calls.append(len(x))
        if len(x) > most:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return exact(x)

    return forward


@given(st.integers(1, 70), st.integers(1, 70))
def test_a_batch_that_does_not_fit_runs_in_halves_with_the_same_rows(n, most):
    x = probe(n)
    [rows] = halving(limited(most, []))(x)
    np.testing.assert_array_equal(rows, exact(x)[0])


def test_one_sample_that_does_not_fit_is_told():
    with pytest.raises(RequestError, match="one picture does not fit"):
        halving(limited(0, []))(probe(8))


def rated(rates: dict[int, float], most: int, monkeypatch):
    """A clock by which a batch size has a rate."""
    clock = [0.0]
    monkeypatch.setattr(gpu.time, "perf_counter", lambda: clock[0])

    def forward(x: np.ndarray) -> list[np.ndarray]:
        if len(x) > most:
            raise torch.OutOfMemoryError("CUDA out of memory")
        clock[0] += len(x) / rates[len(x)]
        return exact(x)

    return forward


def test_the_batch_doubles_while_that_is_faster(monkeypatch):
    rates = {32: 100.0, 64: 180.0, 128: 200.0, 256: 201.0, 512: 400.0, 1024: 1.0}
    assert best_batch(rated(rates, 10**6, monkeypatch), probe(BATCH)) == 128


def test_the_batch_stays_below_what_the_memory_holds(monkeypatch):
    rates = {BATCH * 2**turn: 100.0 * 2**turn for turn in range(8)}
    assert best_batch(rated(rates, 300, monkeypatch), probe(BATCH)) == 256


def test_the_batch_has_an_end(monkeypatch):
    rates = {BATCH * 2**turn: 100.0 * 2**turn for turn in range(8)}
    assert best_batch(rated(rates, 10**6, monkeypatch), probe(BATCH)) == MOST_BATCH


def test_a_memory_smaller_than_the_first_batch(monkeypatch):
    assert best_batch(rated({}, 8, monkeypatch), probe(BATCH)) == BATCH // 2
