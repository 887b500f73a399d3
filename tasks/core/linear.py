"""Convex heads: L2-regularised softmax on features, trained to the optimum.

For rows x_i with class y_i and weight w_i the objective is the weighted mean loss plus a penalty,

    J(W, b) = sum_i w_i * -log softmax(W x_i + b)[y_i] / sum_i w_i  +  strength / 2 * ||W||^2,

with the bias free. scikit-learn's C is 1 / (strength * sum_i w_i). The features are standardised
first, by the weighted mean and deviation of the same rows.

The penalty does not change when the features are rotated, so the search runs in the eigenbasis of
their covariance: with N < D the search stays in the span of the rows, where the optimum lies, and
scaling each direction by its curvature makes the problem nearly round, so that tens of steps do where
thousands would be needed. What was reached is certified by the gradient's norm.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from tasks.core.lbfgs import minimise

TOLERANCE = 1e-6
"""A head has converged when ||grad J|| is at most this, in standardised features."""


@dataclass(frozen=True)
class Standardisation:
    """Centre and scale of each feature; both (D,) float64."""

    mean: np.ndarray
    scale: np.ndarray

    def apply(self, features: np.ndarray) -> np.ndarray:
        """Centre and scale rows; (N, D) -> (N, D) float64."""
        rows: np.ndarray = (features.astype(np.float64) - self.mean) / self.scale
        return rows


@dataclass(frozen=True)
class SoftmaxHead:
    """A softmax head on raw features: the standardisation is folded in.

    Attributes:
        weight: (C, D) float64.
        bias: (C,) float64.
        strength: the L2 strength that it was trained with.
        gradient_norm: ||grad J|| where the search ended; the certificate.
    """

    weight: np.ndarray
    bias: np.ndarray
    strength: float
    gradient_norm: float

    @property
    def has_converged(self) -> bool:
        """Whether the optimum was reached to within `TOLERANCE`."""
        return self.gradient_norm <= TOLERANCE

    def log_proba(self, features: np.ndarray) -> np.ndarray:
        """Return log probabilities; (N, D) -> (N, C) float64."""
        scores = features.astype(np.float64) @ self.weight.T + self.bias  # (N, C)
        top = scores.max(axis=1, keepdims=True)
        log_proba: np.ndarray = scores - top - np.log(np.exp(scores - top).sum(axis=1, keepdims=True))
        return log_proba


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
    flat = scale <= 1e-6 * np.abs(rows[weights > 0]).max(axis=0)
    return Standardisation(mean, np.where(flat, 1.0, scale))


def fit_softmax(
    features: np.ndarray,
    labels: np.ndarray,
    weights: np.ndarray,
    *,
    classes: int,
    strengths: Sequence[float],
    tolerance: float = TOLERANCE,
    precision: torch.dtype = torch.float64,
) -> list[SoftmaxHead]:
    """Train one softmax head for each strength, all in one batch.

    Args:
        features: (N, D) any float type.
        labels: (N,) int, 0 <= label < classes; a class may have no row.
        weights: (N,) sample weights, at least zero, some above.
        classes: C.
        strengths: S positive numbers.
        tolerance: the gradient norm to reach; comparing strengths needs less than keeping a head does.
        precision: of the search; torch.float32 halves the time and reaches a tolerance of 1e-4.

    Returns:
        S heads in the order of `strengths`. One that did not converge says so.
    """
    standard = standardisation(features, weights)
    rows = torch.from_numpy(standard.apply(features)).to(precision)  # (N, D)
    share = torch.from_numpy(weights / weights.sum()).to(precision)  # (N,)
    basis, variance = _eigenbasis(rows, share)  # (D, R), (R,)
    tried = torch.tensor(strengths, dtype=precision)
    problem = _Softmax(rows @ basis, torch.from_numpy(labels), share, variance, classes, tried, tolerance)
    reached = minimise(problem.objective, problem.start(), problem.is_done)
    heads = []
    for number, strength in enumerate(strengths):
        rotated, bias = problem.unpack(reached.x[number : number + 1], torch.tensor([number]))
        weight = basis @ rotated[0]  # (D, C)
        norm = _gradient_norm(rows, problem.hot, share, weight, bias[0], strength)
        folded = weight.T.double().numpy() / standard.scale  # (C, D)
        shift = bias[0].double().numpy() - folded @ standard.mean  # (C,)
        heads.append(SoftmaxHead(folded, shift, float(strength), norm))
    return heads


def _gradient_norm(
    rows: Tensor, hot: Tensor, share: Tensor, weight: Tensor, bias: Tensor, strength: float
) -> float:
    """||grad J|| in all D directions, computed afresh: the certificate trusts no basis."""
    slope = ((rows @ weight + bias).softmax(dim=1) - hot) * share[:, None]  # (N, C)
    gradient = torch.cat([rows.T @ slope + strength * weight, slope.sum(0, keepdim=True)])  # (D + 1, C)
    return float(torch.linalg.vector_norm(gradient))


def _eigenbasis(rows: Tensor, share: Tensor) -> tuple[Tensor, Tensor]:
    """Orthonormal directions that span the rows, and their variances: (D, R), (R,), R = min(N, D).

    The gradient of the loss lies in the span of the rows, so with N < D the optimum does, too.
    """
    scaled = rows * share.sqrt()[:, None]  # (N, D)
    if len(scaled) < scaled.shape[1]:
        span, mixed = torch.linalg.qr(rows.T)  # (D, N), (N, N)
        inside = mixed * share.sqrt()  # the scaled rows in these directions, as columns
        variance, turn = torch.linalg.eigh(inside @ inside.T)
        return span @ turn, variance.clamp_min(0)
    variance, vectors = torch.linalg.eigh(scaled.T @ scaled)  # (D,), (D, D)
    return vectors, variance.clamp_min(0)


class _Softmax:
    """The objective in scaled coordinates u = W * sqrt(curvature), P = (R + 1) * C numbers a problem."""

    def __init__(
        self,
        rows: Tensor,
        labels: Tensor,
        share: Tensor,
        variance: Tensor,
        classes: int,
        strengths: Tensor,
        tolerance: float,
    ) -> None:
        self.rows, self.share, self.tolerance = rows, share, tolerance
        self.hot = torch.nn.functional.one_hot(labels, classes).to(rows)  # (N, C)
        self.strengths = strengths.to(rows)  # (S,)
        p = (share @ self.hot).clamp_min(1e-12)
        spread = float(
            (p * (1 - p)).sum() / max(1, classes - 1)
        )  # mean curvature of the loss in a logit, at the start
        curvature = spread * variance + self.strengths[:, None]  # (S, R)
        self.scale = torch.cat(
            [curvature.rsqrt(), torch.ones(len(strengths), 1).to(rows)], dim=1
        )  # (S, R + 1)
        self.classes = classes

    def start(self) -> Tensor:
        """All heads start from zero: (S, P)."""
        return torch.zeros(len(self.strengths), self.scale.shape[1] * self.classes, dtype=self.rows.dtype)

    def unpack(self, u: Tensor, which: Tensor) -> tuple[Tensor, Tensor]:
        """Return rotated weights (A, R, C) and biases (A, C)."""
        scaled = u.view(len(u), -1, self.classes) * self.scale[which, :, None]
        return scaled[:, :-1], scaled[:, -1]

    def objective(self, u: Tensor, which: Tensor) -> tuple[Tensor, Tensor]:
        """Evaluate J and its gradient in u; the rows are read twice for all problems together."""
        weight, bias = self.unpack(u, which)  # (A, R, C), (A, C)
        problems, rank, classes = weight.shape
        wide = weight.permute(1, 0, 2).reshape(rank, problems * classes)
        logits = (self.rows @ wide).view(-1, problems, classes) + bias  # (N, A, C)
        log_p = logits.log_softmax(dim=2)
        loss = -torch.einsum("n,nac,nc->a", self.share, log_p, self.hot)
        penalty = self.strengths[which] / 2 * weight.square().sum((1, 2))
        slope = (log_p.exp() - self.hot[:, None]) * self.share[:, None, None]  # (N, A, C)
        wide = self.rows.T @ slope.view(-1, problems * classes)  # (R, A * C)
        by_weight = (
            wide.view(rank, problems, classes).permute(1, 0, 2) + self.strengths[which, None, None] * weight
        )
        gradient = torch.cat([by_weight, slope.sum(0)[:, None]], dim=1) * self.scale[which, :, None]
        return loss + penalty, gradient.reshape(problems, -1)

    def norms(self, gradient: Tensor, which: Tensor) -> Tensor:
        """Return ||grad J|| in standardised features, (A,)."""
        in_weights: Tensor = gradient.view(len(gradient), -1, self.classes) / self.scale[which, :, None]
        norms: Tensor = torch.linalg.vector_norm(in_weights, dim=(1, 2))
        return norms

    def is_done(self, gradient: Tensor, value: Tensor, which: Tensor) -> Tensor:
        """Stop a problem below the certificate, with room for rounding."""
        return self.norms(gradient, which) <= self.tolerance / 2
