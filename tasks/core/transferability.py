"""How good features are for a classification target, told without training anything.

Let the rows be F = U diag(s) V', with variances v_i = s_i^2 in R directions, and let z_ic = u_i' y_c say how
much of class c, as a column y_c of noughts and ones, lies along direction i. Both scores see no more than that.

LogME (You, Liu, Wang & Long, "LogME: Practical Assessment of Pre-trained Models for Transfer Learning",
ICML 2021) is the evidence of y ~ N(F w, I / b), w ~ N(0, I / a), at its maximum over a and b. For a given
ratio r = a / b the best noise is 1 / b = q / N, which leaves one unknown:

    2 log p(y) = -N (log(2 pi q / N) + 1) - sum_i log(1 + v_i / r),
    q = |y - U z|^2 + sum_i z_i^2 r / (v_i + r).

You et al. repeat a = g / |m|^2, b = (N - g) / |y - F m|^2, where m is the mean of w given y and
g = sum_i v_i / (v_i + r). The evidence rises with log r just where that would raise r:

    2 q (d log p(y) / d log r) = g |y - F m|^2 - (N - g) r |m|^2.

Repeating crawls where the evidence is flat, and ends on whichever maximum is near the start. So the best of
many ratios is found first, and the fixed point beside it by halving.

The H-score (Bao et al., "An Information-Theoretic Approach to Transferability in Task Transfer Learning",
ICIP 2019) is trace(cov(f)^-1 cov(E[f|y])). Few rows make a poor cov(f); Ibrahim, Ponomareva & Mazumder
("Newer Is Not Always Better: Rethinking Transferability Metrics, Their Peculiarities, Stability and
Performance", ECML PKDD 2022) shrink both covariances by Ledoit and Wolf's h, the first towards the mean
variance t = trace(cov(f)) / D in every direction, the second towards nought. With centred rows and the n_c rows
of class c, this is

    H = sum_i k_i sum_c z_ic^2 / n_c,   k_i = (1 - h) v_i / ((1 - h) v_i + h t N).
"""

from dataclasses import dataclass

import numpy as np
from sklearn.covariance import ledoit_wolf_shrinkage

from tasks.core.errors import RequestError

RATIOS = 200
"""Tried to find the highest maximum; a third of a nat apart, while each direction takes some nats to turn."""

HALVINGS = 30
"""Of the ratios between two neighbours of the best; to 1e-9 of a nat."""


def log_me(features: np.ndarray, labels: np.ndarray, *, classes: int) -> float:
    """Log evidence per row of a Bayesian linear model of the classes, at its maximum, averaged over classes.

    Features are taken as they are, neither centred nor scaled; one factor for all of them changes nothing.
    Where they tell a class without any error and have directions to spare, the evidence has no bound; the
    ratio of noise to signal then stops at the rounding of double precision, and the score stays finite.

    Args:
        features: (N, D) any float type.
        labels: (N,) int, 0 <= label < classes; a class without rows has no part in it.
        classes: C.

    Returns:
        The score in nats; the higher, the better. You et al. 2021.

    Raises:
        RequestError: if the shapes do not fit, a label is none of the classes, or a feature is not finite.
    """
    rows, targets = _checked(features, labels, classes)
    seen = _Seen.of(rows, targets)
    low, high = _around_best(seen)
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        rises = _evidence_rises(seen, middle)
        low, high = np.where(rises, middle, low), np.where(rises, high, middle)
    highest = _log_evidence(seen, low).diagonal()  # each class at its own ratio
    return float(highest.mean() / len(rows))


def h_score(features: np.ndarray, labels: np.ndarray, *, classes: int) -> float:
    """Share of the features' variance that lies between classes, summed over directions, by shrunk covariances.

    Turning, shifting or scaling all features together changes nothing.

    Args:
        features: (N, D) any float type.
        labels: (N,) int, 0 <= label < classes; a class without rows has no part in it.
        classes: C.

    Returns:
        From 0 to C - 1; the higher, the better. Bao et al. 2019, Ibrahim et al. 2022.

    Raises:
        RequestError: if the shapes do not fit, a label is none of the classes, or a feature is not finite.
    """
    rows, targets = _checked(features, labels, classes)
    rows -= rows[0].copy()  # first, so that a feature that does not vary becomes nought to the bit
    rows -= rows.mean(axis=0)
    seen = _Seen.of(rows, targets)
    if not len(seen.variance):
        return 0.0
    shrinkage = ledoit_wolf_shrinkage(rows, assume_centered=True)
    level = seen.variance.sum() / rows.shape[1]
    kept = (1 - shrinkage) * seen.variance  # (R,)
    between = (seen.along / targets.sum(axis=0)[:, None]).sum(axis=0)  # (R,)
    return float(kept / (kept + shrinkage * level) @ between)


@dataclass(frozen=True)
class _Seen:
    """Classes as they are seen from the directions of the rows.

    Attributes:
        rows: N.
        variance: (R,) v, above zero; not divided by N.
        along: (C, R) z squared.
        unexplained: (C,) |y - U z|^2.
    """

    rows: int
    variance: np.ndarray
    along: np.ndarray
    unexplained: np.ndarray

    @classmethod
    def of(cls, rows: np.ndarray, targets: np.ndarray) -> "_Seen":
        """Decompose the smaller Gram matrix of rows (N, D), and look at targets (N, C)."""
        N, D = rows.shape
        variance, vectors = np.linalg.eigh(rows @ rows.T if N < D else rows.T @ rows)
        kept = variance > _rounding(N, D) * variance.max()
        variance, vectors = variance[kept], vectors[:, kept]
        if N < D:
            seen = vectors.T @ targets  # (R, C)
            fitted = vectors @ seen
        else:
            scaled = vectors / np.sqrt(variance)  # (D, R), and U is rows @ scaled
            seen = scaled.T @ (rows.T @ targets)
            fitted = rows @ (scaled @ seen)
        return cls(N, variance, np.square(seen.T), np.square(targets - fitted).sum(axis=0))


def _around_best(seen: _Seen) -> tuple[np.ndarray, np.ndarray]:
    """Find log ratios to both sides of the best of many; (C,), (C,)."""
    middle = np.log(seen.variance.max()) if len(seen.variance) else 0.0
    reach = -np.log(_rounding(seen.rows, len(seen.variance)))
    log_ratios = np.linspace(middle - reach, middle + reach, RATIOS)
    best = _log_evidence(seen, log_ratios).argmax(axis=0)
    return log_ratios[np.maximum(best - 1, 0)], log_ratios[np.minimum(best + 1, RATIOS - 1)]


def _log_evidence(seen: _Seen, log_ratios: np.ndarray) -> np.ndarray:
    """Log evidence of each class under the best noise; log ratios (L,) -> (L, C)."""
    ratios = np.exp(log_ratios)[:, None]
    misfit = seen.unexplained + ratios / (seen.variance + ratios) @ seen.along.T  # (L, C), q
    volume = np.log1p(seen.variance / ratios).sum(axis=1, keepdims=True)
    evidence: np.ndarray = -(seen.rows * (np.log(2 * np.pi * misfit / seen.rows) + 1) + volume) / 2
    return evidence


def _evidence_rises(seen: _Seen, log_ratios: np.ndarray) -> np.ndarray:
    """Whether each class has more evidence at a higher ratio than its own; log ratios (C,) -> (C,) bool."""
    ratios = np.exp(log_ratios)[:, None]
    kept, lost = seen.variance / (seen.variance + ratios), ratios / (seen.variance + ratios)  # (C, R)
    residual = seen.unexplained + (lost**2 * seen.along).sum(axis=1)  # |y - F m|^2
    size = (kept * lost * seen.along).sum(axis=1)  # r |m|^2
    free = seen.rows - len(seen.variance) + lost.sum(axis=1)  # N - g
    rises: np.ndarray = kept.sum(axis=1) * residual > free * size
    return rises


def _rounding(N: int, D: int) -> float:
    """Variance that cannot be told from nought, as a part of the largest."""
    return max(N, D) * float(np.finfo(np.float64).eps)


def _checked(features: np.ndarray, labels: np.ndarray, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Give rows (N, D) float64, a copy, and one-hot targets (N, C) of the classes that have rows."""
    if features.ndim != 2 or not features.size or labels.shape != (len(features),):
        raise RequestError(
            f"Found features {features.shape} and labels {labels.shape}, needed (N, D) and (N,), neither empty; "
            "give one row of features and one label a sample."
        )
    known = np.unique(labels)
    if labels.dtype.kind not in "iu" or known[0] < 0 or known[-1] >= classes:
        raise RequestError(
            f"Found {labels.dtype} labels from {known[0]} to {known[-1]}, needed int from 0 to {classes - 1}; "
            "leave out rows whose class is unknown."
        )
    rows = features.astype(np.float64)
    if not np.isfinite(rows).all():
        raise RequestError("Found NaN or infinite features, needed numbers; leave out those rows.")
    return rows, (labels[:, None] == known).astype(np.float64)
