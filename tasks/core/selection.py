"""Choosing a head's strength on inner folds of the training part; the test part is not seen here."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

from tasks.core.linear import SoftmaxHead, fit_softmax

FOLDS = 5
ROUGH = 1e-4
"""Gradient norm at which strengths are compared, in single precision; the head that is kept gets `TOLERANCE`."""


@dataclass(frozen=True)
class Rows:
    """Labelled rows of features.

    Attributes:
        features: (N, D) any float type.
        labels: (N,) int, from 0.
        weights: (N,) sample weights.
        groups: (N,) ids; rows of one group stay together.
    """

    features: np.ndarray
    labels: np.ndarray
    weights: np.ndarray
    groups: np.ndarray

    def at(self, rows: np.ndarray) -> "Rows":
        """Take some of the rows, by number or by mask."""
        return Rows(self.features[rows], self.labels[rows], self.weights[rows], self.groups[rows])


def stacked(views: Sequence[Rows]) -> Rows:
    """Put the views of the same samples below each other; together they weigh what the samples weigh.

    Args:
        views: the same labels, weights and groups in each. Views of a sample share its group, so that
            inner folds do not part them.
    """
    if len(views) == 1:
        return views[0]
    return Rows(
        np.concatenate([view.features for view in views]),
        np.concatenate([view.labels for view in views]),
        np.concatenate([view.weights for view in views]) / len(views),
        np.concatenate([view.groups for view in views]),
    )


def mean_log_proba(views: Sequence[np.ndarray]) -> np.ndarray:
    """Average probabilities over views.

    Args:
        views: (N, C) log probabilities each.

    Returns:
        (N, C) the logarithm of the mean probability.
    """
    if len(views) == 1:
        return views[0]
    mean: np.ndarray = np.logaddexp.reduce(views) - np.log(len(views))
    return mean


@dataclass(frozen=True)
class Chosen:
    """A head trained on the whole training part, with the strength that the inner folds chose.

    Attributes:
        head: the trained head.
        brier: that strength's weighted Brier score on the inner folds, the lower the better; None
            when there were too few samples to make folds.
    """

    head: SoftmaxHead
    brier: float | None


def train_softmax(rows: Rows, *, classes: int, strengths: Sequence[float], seed: int) -> Chosen:
    """Choose the strength by cross-validation, then train on all rows given.

    The strength with the lowest weighted Brier score on the inner folds is taken (Brier 1950). Like log
    loss it is best for the true probabilities, but it is not ruled by a few confident mistakes, and it
    varies less than accuracy. Where no folds can be made the middle strength is taken.

    Args:
        rows: the training part.
        classes: C.
        strengths: S positive numbers, one of which is chosen.
        seed: shuffles the folds.
    """
    folds = inner_folds(rows.labels, rows.groups, seed=seed)
    scores = _brier_scores(rows, folds, classes, strengths) if folds else None  # (S,)
    best = len(strengths) // 2 if scores is None else int(scores.argmin())
    [head] = fit_softmax(
        rows.features, rows.labels, rows.weights, classes=classes, strengths=[strengths[best]]
    )
    return Chosen(head, None if scores is None else float(scores[best]))


def inner_folds(labels: np.ndarray, groups: np.ndarray, *, seed: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Cut rows into folds, stratified by label, no group in two.

    Args:
        labels: (N,) int.
        groups: (N,) ids.
        seed: same seed and rows in the same order give the same folds.

    Returns:
        (training rows, held-out rows) for each of `FOLDS` folds, or of as many as the class with the
        fewest groups allows; none when that is one.
    """
    folds = min(FOLDS, *(len(np.unique(groups[labels == c])) for c in np.unique(labels)))
    if folds < 2:
        return []
    if len(np.unique(groups)) == len(groups):
        return list(StratifiedKFold(folds, shuffle=True, random_state=seed).split(labels, labels))
    return list(StratifiedGroupKFold(folds, shuffle=True, random_state=seed).split(labels, labels, groups))


def _brier_scores(
    rows: Rows, folds: list[tuple[np.ndarray, np.ndarray]], classes: int, strengths: Sequence[float]
) -> np.ndarray:
    """Weighted mean over all held-out rows of the squared distance to the truth, (S,)."""
    total = np.zeros(len(strengths))
    for train, held_out in folds:
        seen, unseen = rows.at(train), rows.at(held_out)
        heads = fit_softmax(
            seen.features,
            seen.labels,
            seen.weights,
            classes=classes,
            strengths=strengths,
            tolerance=ROUGH,
            precision=torch.float32,
        )
        truth = np.eye(classes)[unseen.labels]  # (n, C)
        for s, head in enumerate(heads):
            distance = np.square(np.exp(head.log_proba(unseen.features)) - truth).sum(axis=1)  # (n,)
            total[s] += unseen.weights @ distance
    scores: np.ndarray = total / rows.weights.sum()
    return scores
