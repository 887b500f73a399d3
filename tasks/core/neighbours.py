"""Heads that hardly train, to hold the others against: nearest neighbours and nearest class mean.

Both take Euclidean distances between features that are standardised by the weighted mean and deviation
of all rows. Fits on folds use the same standardisation: it sees the features of the fold, not its labels.

The score of class c with the weighted mean m_c is -||x - m_c||^2 / 2. What does not depend on c drops
out of the softmax, which leaves a linear map of x,

    m_c' x - ||m_c||^2 / 2.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from tasks.core.calibration import temperature
from tasks.core.coordinates import Standardisation, standardisation
from tasks.core.fits import Fit, Folds
from tasks.core.hyper import Neighbours
from tasks.core.predictors import Linear, Voting, on_grid

NO_CHANCE = 1e-6
"""Probability, at most, of a class without rows; above zero, so that log loss stays finite."""


def fit_neighbours(
    features: np.ndarray,
    labels: np.ndarray,
    weights: np.ndarray,
    *,
    classes: int,
    hypers: Sequence[Neighbours],
    folds: Folds,
) -> list[Fit]:
    """Let the k nearest rows vote with their weights.

    To their votes comes one average vote (the mean weight of the rows that have any), shared out by the
    classes' shares of the weight, so that no class is told to be impossible. Rows without weight are no
    neighbours, rows at the same distance come by number, and of fewer than k rows all vote.

    Args:
        features: (N, D) any float type.
        labels: (N,) int, 0 <= label < classes; a class may have no row.
        weights: (N,) sample weights, at least zero, some above outside of each fold.
        classes: C.
        hypers: S numbers of neighbours.
        folds: (training rows, held-out rows), each row held out once; may be empty.

    Returns:
        S fits in the order of `hypers`. `inner` has each row by the rows outside of its fold.

    Raises:
        ValueError: if a fold holds all weight, so that nothing is left to vote without it.
    """
    _check(weights, folds)
    standard = standardisation(features, weights)
    rows = on_grid(features, standard.mean, standard.scale)
    ks = [hyper.k for hyper in hypers]
    inner = np.empty((len(ks), len(labels), classes))
    for train, held_out in folds:
        voters = _voters(rows[train], labels[train], weights[train], classes, standard)
        inner[:, held_out] = voters.by_each(rows[held_out], ks)
    voters = _voters(rows, labels, weights, classes, standard)
    return [Fit(replace(voters, k=k), inner[s] if folds else None) for s, k in enumerate(ks)]


def fit_centroid(
    features: np.ndarray, labels: np.ndarray, weights: np.ndarray, *, classes: int, folds: Folds
) -> Fit:
    """Take the class whose weighted mean is nearest.

    The probabilities are the softmax of the scores at the temperature that suits the out-of-fold scores,
    or the leave-one-out scores where there are no folds; fits that lack a class which has rows do not
    count for it. Where none is left the temperature is D, so that scores are mean squares over features.

    Args:
        features: (N, D) any float type.
        labels: (N,) int, 0 <= label < classes; a class may have no row.
        weights: (N,) sample weights, at least zero, some above outside of each fold.
        classes: C.
        folds: (training rows, held-out rows), each row held out once; may be empty.

    Raises:
        ValueError: if a fold holds all weight, so that no mean is left without it.
    """
    _check(weights, folds)
    standard = standardisation(features, weights)
    rows = standard.apply(features)
    whole = _Centroids.of(rows, labels, weights, classes)
    parts = [_Centroids.of(rows[train], labels[train], weights[train], classes) for train, _ in folds]
    if folds:
        scores, complete = whole.without_folds(parts, rows, folds)
    else:
        scores, complete = whole.without_each(rows, labels, weights)
    warmth = whole.warmth(scores, labels, np.where(complete, weights, 0.0))
    inner = np.empty((len(rows), classes))
    for part, (_, held_out) in zip(parts, folds, strict=True):
        inner[held_out] = part.at(warmth).log_proba(rows[held_out])
    told = whole.at(warmth)
    return Fit(standard.on_raw(told.weight, told.bias), inner if folds else None)


def _check(weights: np.ndarray, folds: Folds) -> None:
    """Refuse folds outside of which no row has weight."""
    if not all(weights[train].any() for train, _ in folds):
        raise ValueError("A fold holds all weight; without it at least one row with weight is needed.")


def _voters(
    rows: np.ndarray, labels: np.ndarray, weights: np.ndarray, classes: int, standard: Standardisation
) -> Voting:
    """Let the rows on the grid that have weight vote; k = 1."""
    can = weights > 0
    votes = weights[can].astype(np.float64)
    share = np.bincount(labels[can], votes, classes) / votes.sum()  # (C,)
    prior = votes.mean() * np.maximum(share, NO_CHANCE)
    return Voting(rows[can], labels[can], votes, prior, standard.mean, standard.scale, 1)


@dataclass(frozen=True)
class _Centroids:
    """Weighted class means of standardised rows.

    Attributes:
        means: (C, D), zero for a class without weight.
        held: (C,) the weight of each class.
    """

    means: np.ndarray
    held: np.ndarray

    @classmethod
    def of(cls, rows: np.ndarray, labels: np.ndarray, weights: np.ndarray, classes: int) -> "_Centroids":
        """Take the means of rows (N, D)."""
        hot = np.eye(classes)[labels] * weights[:, None]  # (N, C)
        held = hot.sum(axis=0)
        return cls(hot.T @ rows / np.where(held > 0, held, 1.0)[:, None], held)

    def scores(self, rows: np.ndarray) -> np.ndarray:
        """-||x - m_c||^2 / 2 for each row and class; (N, D) -> (N, C)."""
        lengths = [np.square(of).sum(axis=1) for of in (rows, self.means)]
        scores: np.ndarray = rows @ self.means.T - (lengths[0][:, None] + lengths[1]) / 2
        return scores

    def at(self, warmth: float) -> Linear:
        """Give a head for standardised rows at a temperature.

        A class without rows stays `NO_CHANCE` below the weighted mean of the other scores, and so below
        the best of them, wherever x lies.
        """
        share, absent = self.held / self.held.sum(), self.held == 0
        weight, bias = self.means / warmth, np.square(self.means).sum(axis=1) / (-2 * warmth)
        weight[absent] = share @ weight
        bias[absent] = share @ bias + np.log(NO_CHANCE)
        return Linear(weight, bias)

    def warmth(self, scores: np.ndarray, labels: np.ndarray, weights: np.ndarray) -> float:
        """Find the temperature that suits scores (N, C) of rows which they have not seen; D without weight."""
        used, present = weights > 0, self.held > 0
        if not used.any():
            return float(self.means.shape[1])
        numbers = np.cumsum(present) - 1  # (C,) among those present
        return temperature(scores[np.ix_(used, present)], numbers[labels[used]], weights[used])

    def without_folds(
        self, parts: Sequence["_Centroids"], rows: np.ndarray, folds: Folds
    ) -> tuple[np.ndarray, np.ndarray]:
        """Scores of each row by the part without its fold (N, C), and whether that has every class (N,)."""
        scores, complete = np.empty((len(rows), len(self.held))), np.empty(len(rows), bool)
        for part, (_, held_out) in zip(parts, folds, strict=True):
            scores[held_out] = part.scores(rows[held_out])
            complete[held_out] = ((part.held > 0) == (self.held > 0)).all()
        return scores, complete

    def without_each(
        self, rows: np.ndarray, labels: np.ndarray, weights: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Scores of each row by the means without it (N, C), and whether its class then has any (N,).

        Without x of weight w the mean m of its class, of weight W, lies farther off by W / (W - w).
        """
        scores, own = self.scores(rows), (np.arange(len(rows)), labels)
        rest = self.held[labels] - weights  # (N,)
        complete = rest > 0
        scores[own] *= np.square(self.held[labels] / np.where(complete, rest, 1.0))
        return scores, complete
