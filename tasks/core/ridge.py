"""Ridge heads: least squares on one-hot targets, in closed form.

For rows x_i with targets y_i and weights w_i the objective is

    J(W, b) = sum_i w_i * ||y_i - W x_i - b||^2 / sum_i w_i  +  strength * ||W||^2,

with the bias free and the features standardised as in `tasks.core.linear`. scikit-learn's alpha is
strength * sum_i w_i (Hoerl & Kennard 1970).

With p_i = w_i / sum w, let V hold the directions of the standardised rows Z and v their variances, so
that V' (Z' P Z) V = diag(v), and let Q = Z V. The rows' weighted mean is zero, and the predictions are

    Z W' + b = H Y,   H = G P,   G = 1 + Q diag(1 / (v + strength)) Q'.

One decomposition thus serves every strength. It also tells what a fit without the rows F says of them,
because replacing their targets by these very predictions would not move that fit (Allen 1974; Golub,
Heath & Wahba 1979):

    Y_F - (predictions without F) = (I - H_FF)^-1 (Y - H Y)_F.

The objective is a mean over the rows that remain, so the penalty of a fit without F weighs
strength * (1 - sum of p over F) beside these p. The standardisation is that of all rows: it sees their
features, not their labels. So are the factors that balance the classes: of the labels they see how many
there are of each.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tasks.core.calibration import temperature
from tasks.core.coordinates import standardisation
from tasks.core.fits import Fit, Folds
from tasks.core.hyper import Ridge
from tasks.core.predictors import log_softmax
from tasks.core.weights import class_weighted


def fit_ridge(
    features: np.ndarray,
    labels: np.ndarray,
    weights: np.ndarray,
    *,
    classes: int,
    hypers: Sequence[Ridge],
    folds: Folds,
) -> list[Fit]:
    """Train one ridge head for each of several hyper-parameters.

    Least squares gives scores, not probabilities: these are the softmax of the scores, at a temperature that
    is found on the folds like that of any head (`tasks.core.selection`), or here by the leave-one-out scores
    where there are no folds; it is among the fit's facts. Classes are balanced over all rows, whatever the fold.

    Args:
        features: (N, D) any float type.
        labels: (N,) int, 0 <= label < classes; a class may have no row.
        weights: (N,) sample weights, at least zero, some above outside of each fold.
        classes: C.
        hypers: H of them, with strengths above zero; those that weigh classes alike are solved together.
        folds: (training rows, held-out rows), each row held out once; may be empty.

    Returns:
        H fits in the order of `hypers`.
    """
    fits: dict[int, Fit] = {}
    for how in dict.fromkeys(hyper.class_weight for hyper in hypers):
        alike = [number for number, hyper in enumerate(hypers) if hyper.class_weight == how]
        strengths = [hypers[number].strength for number in alike]
        balanced = class_weighted(weights, labels, how)
        fits |= zip(alike, _fit_strengths(features, labels, balanced, classes, strengths, folds), strict=True)
    return [fits[number] for number in range(len(hypers))]


def leave_one_out(
    features: np.ndarray, targets: np.ndarray, weights: np.ndarray, strengths: Sequence[float]
) -> np.ndarray:
    """Predict each row by the ridge fit on the other rows, without fitting again.

    Args:
        features: (N, D) any float type; standardised by all rows.
        targets: (N, C).
        weights: (N,) at least zero, above zero for two rows or more.
        strengths: S positive numbers.

    Returns:
        (S, N, C).

    Raises:
        ValueError: if one row holds all weight, so that nothing is left to fit without it.
    """
    rows = standardisation(features, weights).apply(features)
    return _Ridge.of(rows, targets, weights).without_each(strengths)


def leave_folds_out(
    features: np.ndarray,
    targets: np.ndarray,
    weights: np.ndarray,
    strengths: Sequence[float],
    folds: Folds,
) -> np.ndarray:
    """Predict each fold by the ridge fit on the other rows, without fitting again.

    Args:
        features: (N, D) any float type; standardised by all rows.
        targets: (N, C).
        weights: (N,) at least zero, some above outside of each fold.
        strengths: S positive numbers.
        folds: (training rows, held-out rows), each row held out once and in training otherwise.

    Returns:
        (S, N, C).

    Raises:
        ValueError: if a fold holds all weight, so that nothing is left to fit without it.
    """
    rows = standardisation(features, weights).apply(features)
    return _Ridge.of(rows, targets, weights).without_folds(strengths, folds)


def _fit_strengths(
    features: np.ndarray,
    labels: np.ndarray,
    weights: np.ndarray,
    classes: int,
    strengths: Sequence[float],
    folds: Folds,
) -> list[Fit]:
    """Train one head for each strength from one decomposition; arguments as `fit_ridge`."""
    standard = standardisation(features, weights)
    problem = _Ridge.of(standard.apply(features), np.eye(classes)[labels], weights)
    unseen = problem.without_folds(strengths, folds) if folds else problem.without_each(strengths)
    fits = []
    for strength, scores in zip(strengths, unseen, strict=True):
        warmth = 1.0 if folds else temperature(scores, labels, weights)
        weight, bias = problem.solution(strength)
        predictor = standard.on_raw(weight / warmth, bias / warmth)
        inner = log_softmax(scores) if folds else None
        fits.append(Fit(predictor, inner, facts={"temperature": warmth}))
    return fits


@dataclass(frozen=True)
class _Ridge:
    """Standardised rows in the directions of their variance.

    Attributes:
        directions: (D, R) orthonormal.
        variance: (R,) above zero.
        rows: (N, R) coordinates Q.
        share: (N,) weights, whose sum is 1.
        targets: (N, C).
    """

    directions: np.ndarray
    variance: np.ndarray
    rows: np.ndarray
    share: np.ndarray
    targets: np.ndarray

    @classmethod
    def of(cls, rows: np.ndarray, targets: np.ndarray, weights: np.ndarray) -> "_Ridge":
        """Decompose standardised rows (N, D)."""
        share = weights / weights.sum()
        weighed = share > 0  # rows without weight would only make the decomposition larger
        directions, variance = _directions(rows[weighed] * np.sqrt(share[weighed, None]))
        return cls(directions, variance, rows @ directions, share, targets.astype(np.float64))

    def cross(self) -> np.ndarray:
        """Covariance of coordinates and targets, (R, C)."""
        covariance: np.ndarray = (self.rows * self.share[:, None]).T @ self.targets
        return covariance

    def solution(self, strength: float) -> tuple[np.ndarray, np.ndarray]:
        """Weight (C, D) and bias (C,) for standardised rows."""
        weight = self.directions @ (self.cross() / (self.variance + strength)[:, None])  # (D, C)
        return weight.T, self.share @ self.targets

    def without_each(self, strengths: Sequence[float]) -> np.ndarray:
        """Predictions of each row by a fit without it, (S, N, C)."""
        rest = self._rest(self.share)  # (N,)
        cross, mean = self.cross(), self.share @ self.targets
        told = np.empty((len(strengths), *self.targets.shape))
        for s, strength in enumerate(strengths):
            shrunk = self.rows / (self.variance + strength * rest[:, None])  # (N, R)
            gram = 1 + np.einsum("nr,nr->n", shrunk, self.rows)
            fitted = mean + shrunk @ cross  # (N, C)
            leverage = gram * self.share
            told[s] = fitted - (leverage / (1 - leverage))[:, None] * (self.targets - fitted)
        return told

    def without_folds(self, strengths: Sequence[float], folds: Folds) -> np.ndarray:
        """Predictions of each fold by a fit without it, (S, N, C)."""
        told = np.empty((len(strengths), *self.targets.shape))
        for _, held_out in folds:
            # the system to solve has a row for each row held out, or for each direction
            without = self._by_rows if len(held_out) <= len(self.variance) else self._by_directions
            told[:, held_out] = without(strengths, held_out)
        return told

    def _by_rows(self, strengths: Sequence[float], fold: np.ndarray) -> np.ndarray:
        """Predictions of a fold without it (S, n, C), by (I - H_FF); H is made symmetric by sqrt(p)."""
        rows, targets, root = self.rows[fold], self.targets[fold], np.sqrt(self.share[fold, None])
        rest = self._rest(self.share[fold].sum())
        cross, mean = self.cross(), self.share @ self.targets
        told = np.empty((len(strengths), *targets.shape))
        for s, strength in enumerate(strengths):
            penalised = self.variance + strength * rest  # (R,)
            half = rows / np.sqrt(penalised)
            gram = 1 + half @ half.T  # (n, n)
            fitted = mean + rows @ (cross / penalised[:, None])  # (n, C)
            unexplained = np.eye(len(fold)) - root * gram * root.T
            residual = np.linalg.solve(unexplained, root * (targets - fitted))  # (n, C), by sqrt(p)
            told[s] = fitted - gram @ (root * residual)
        return told

    def _by_directions(self, strengths: Sequence[float], fold: np.ndarray) -> np.ndarray:
        """Predictions of a fold without it (S, n, C), by the covariance of the rows that remain."""
        rows, targets, share = self.rows[fold], self.targets[fold], self.share[fold]
        rest = self._rest(share.sum())
        weighed = rows * share[:, None]
        centre = -weighed.sum(axis=0) / rest  # (R,)
        mean = (self.share @ self.targets - share @ targets) / rest  # (C,)
        half = rows * np.sqrt(share)[:, None]
        covariance = (np.diag(self.variance) - half.T @ half) / rest - np.outer(centre, centre)  # (R, R)
        cross = (self.cross() - weighed.T @ targets) / rest - np.outer(centre, mean)  # (R, C)
        told = np.empty((len(strengths), *targets.shape))
        for s, strength in enumerate(strengths):
            penalised = covariance + strength * np.eye(len(centre))
            told[s] = mean + (rows - centre) @ np.linalg.solve(penalised, cross)
        return told

    def _rest(self, held_out: np.ndarray) -> np.ndarray:
        """Share of the weight outside of what is held out."""
        rest: np.ndarray = 1 - held_out
        if np.min(rest) <= 1e-12:
            raise ValueError("A fold holds all weight; without it at least one row with weight is needed.")
        return rest


def _directions(scaled_rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Orthonormal directions in which rows (n, D) vary, and their variances: (D, R), (R,).

    The fit lies in the span of the rows, so the smaller of the two Gram matrices is enough. Variances
    within rounding of zero are left out: no fit can use them.
    """
    n, D = scaled_rows.shape
    gram = scaled_rows @ scaled_rows.T if n < D else scaled_rows.T @ scaled_rows
    variance, vectors = np.linalg.eigh(gram)
    kept = variance > max(n, D) * np.finfo(np.float64).eps * variance.max(initial=0)
    variance, vectors = variance[kept], vectors[:, kept]
    if n < D:
        return scaled_rows.T @ (vectors / np.sqrt(variance)), variance
    return vectors, variance
