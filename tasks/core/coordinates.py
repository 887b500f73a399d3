"""Rows of features, standardised and turned into the eigenbasis of their covariance.

An L2 penalty does not change when the features are turned, so a search may run in whichever basis is the
roundest. With N < D the basis spans the rows alone, where the optimum lies. Rows that fit in memory are
turned once; rows that are streamed stay as they are, and the weights are turned instead.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from tasks.core.predictors import Linear

FLAT = 1e-6
"""A feature whose deviation is no more than this part of its largest value does not vary."""


class Source(Protocol):
    """Rows of features that can be read again and again, some at a time.

    Attributes:
        shape: (N, D).
    """

    @property
    def shape(self) -> tuple[int, int]:
        """(N, D)."""
        ...

    def blocks(self) -> Iterator[tuple[slice, np.ndarray]]:
        """Give all rows in order: which they are, and they, (n, D) of any float type."""
        ...


@dataclass(frozen=True)
class InMemory:
    """An array (N, D) as a source of one block."""

    features: np.ndarray

    @property
    def shape(self) -> tuple[int, int]:
        """(N, D)."""
        rows, columns = self.features.shape
        return rows, columns

    def blocks(self) -> Iterator[tuple[slice, np.ndarray]]:
        """All rows at once."""
        yield slice(0, len(self.features)), self.features


@dataclass(frozen=True)
class Standardisation:
    """Centre and scale of each feature; both (D,) float64."""

    mean: np.ndarray
    scale: np.ndarray

    def apply(self, features: np.ndarray) -> np.ndarray:
        """Centre and scale rows; (N, D) -> (N, D) float64."""
        rows: np.ndarray = (features.astype(np.float64) - self.mean) / self.scale
        return rows

    def on_raw(self, weight: np.ndarray, bias: np.ndarray) -> Linear:
        """Fold the standardisation into a linear map of standardised rows; (C, D), (C,)."""
        folded = np.ascontiguousarray(weight / self.scale)
        return Linear(folded, bias - folded @ self.mean)


def standardisation(features: np.ndarray, weights: np.ndarray) -> Standardisation:
    """Find the weighted mean and deviation of each feature.

    A feature that does not vary is left unscaled, so that its column becomes zero.

    Args:
        features: (N, D).
        weights: (N,) at least zero, some above.
    """
    share = weights / weights.sum()
    rows = features.astype(np.float64)
    mean = share @ rows  # (D,)
    scale = np.sqrt(share @ np.square(rows - mean))
    return Standardisation(mean, _varying(scale, np.abs(rows[weights > 0]).max(axis=0)))


class Coordinates(Protocol):
    """Standardised rows seen in an orthonormal basis of R directions.

    Attributes:
        rows: N.
        held: whether the rows are in memory, so that a pass over them is cheap.
        standard: centre and scale of the raw features.
        basis: (D, R) float64, orthonormal.
        variance: (R,) float64, of the rows in each direction.
    """

    rows: int
    held: bool
    standard: Standardisation
    basis: Tensor
    variance: Tensor

    def blocks(self, precision: torch.dtype) -> Iterator[tuple[slice, Tensor]]:
        """Give all rows as (n, K), where K is what `lift` turns R into."""
        ...

    def lift(self, weight: Tensor) -> Tensor:
        """Turn weights of coordinates into weights of a block's columns; (..., R) -> (..., K)."""
        ...

    def drop(self, gradient: Tensor) -> Tensor:
        """Turn a gradient by a block's columns into one by coordinates; (..., K) -> (..., R)."""
        ...


class Held:
    """Coordinates of rows that fit in memory, turned once; see `Coordinates`."""

    held = True

    def __init__(self, features: np.ndarray, weights: np.ndarray) -> None:
        self.rows, self.standard = len(features), standardisation(features, weights)
        standardised = torch.from_numpy(self.standard.apply(features))  # (N, D)
        share = torch.from_numpy(weights / weights.sum())
        self.basis, self.variance = _eigenbasis(standardised, share)
        turned = standardised @ self.basis  # (N, R)
        self._turned = {torch.float64: turned, torch.float32: turned.float()}

    def blocks(self, precision: torch.dtype) -> Iterator[tuple[slice, Tensor]]:
        """All rows at once, (N, R)."""
        yield slice(0, self.rows), self._turned[precision]

    def lift(self, weight: Tensor) -> Tensor:
        """The columns are the coordinates."""
        return weight

    def drop(self, gradient: Tensor) -> Tensor:
        """The columns are the coordinates."""
        return gradient


class Streamed:
    """Coordinates of rows that are read anew at each pass; see `Coordinates`. Blocks are centred only."""

    held = False

    def __init__(self, source: Source, weights: np.ndarray) -> None:
        self.source, self.rows = source, source.shape[0]
        self.standard, covariance = _moments(source, weights)
        self.variance, self.basis = _eigh(torch.from_numpy(covariance))
        turn = self.basis / torch.from_numpy(self.standard.scale)[:, None]  # (D, R)
        self._turn = {torch.float64: turn, torch.float32: turn.float()}
        self._mean = torch.from_numpy(self.standard.mean)

    def blocks(self, precision: torch.dtype) -> Iterator[tuple[slice, Tensor]]:
        """Rows less their mean, (n, D)."""
        for rows, block in self.source.blocks():
            given = torch.from_numpy(block)
            exact = torch.promote_types(given.dtype, precision)  # double rows are centred before they are cut
            yield rows, (given.to(exact) - self._mean.to(exact)).to(precision)

    def lift(self, weight: Tensor) -> Tensor:
        """Turn and scale; (..., R) -> (..., D)."""
        return weight @ self._turn[weight.dtype].T

    def drop(self, gradient: Tensor) -> Tensor:
        """Scale and turn back; (..., D) -> (..., R)."""
        return gradient @ self._turn[gradient.dtype]


def coordinates(source: Source, weights: np.ndarray) -> Coordinates:
    """Turn rows in memory, or leave them where they are and turn the weights.

    Args:
        source: (N, D) rows.
        weights: (N,) at least zero, some above; of the mean, the deviation and the covariance.
    """
    if isinstance(source, InMemory):
        return Held(source.features, weights)
    return Streamed(source, weights)


def _varying(scale: np.ndarray, largest: np.ndarray) -> np.ndarray:
    varying: np.ndarray = np.where(scale <= FLAT * largest, 1.0, scale)
    return varying


def _eigenbasis(rows: Tensor, share: Tensor) -> tuple[Tensor, Tensor]:
    """Orthonormal directions that span the rows, and their variances: (D, R), (R,), R = min(N, D)."""
    scaled = rows * share.sqrt()[:, None]  # (N, D)
    if len(scaled) < scaled.shape[1]:
        span, mixed = torch.linalg.qr(rows.T)  # (D, N), (N, N)
        inside = mixed * share.sqrt()  # the scaled rows in these directions, as columns
        variance, turn = torch.linalg.eigh(inside @ inside.T)
        return span @ turn, variance.clamp_min(0)
    variance, vectors = _eigh(scaled.T @ scaled)
    return vectors, variance


def _eigh(covariance: Tensor) -> tuple[Tensor, Tensor]:
    variance, vectors = torch.linalg.eigh(covariance)  # (D,), (D, D)
    return variance.clamp_min(0), vectors


def _moments(source: Source, weights: np.ndarray) -> tuple[Standardisation, np.ndarray]:
    """Standardisation, and the covariance (D, D) of the standardised rows, in two passes.

    The first pass finds the mean, the second the products about it, so that features whose mean is large
    beside their deviation lose nothing.
    """
    share, columns = weights / weights.sum(), source.shape[1]
    mean, largest = np.zeros(columns), np.zeros(columns)
    for rows, block in source.blocks():
        mean += share[rows] @ block.astype(np.float64)
        largest = np.maximum(largest, np.abs(block[weights[rows] > 0]).max(axis=0, initial=0))
    products = np.zeros((columns, columns))
    for rows, block in source.blocks():
        about = (block.astype(np.float64) - mean) * np.sqrt(share[rows, None])  # (n, D)
        products += about.T @ about
    scale = _varying(np.sqrt(np.diag(products)), largest.astype(np.float64))
    return Standardisation(mean, scale), products / np.outer(scale, scale)
