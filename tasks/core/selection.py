"""Choosing a head's strength on inner folds of the training part; the test part is not seen here."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

from tasks.core.linear import SoftmaxHead, fit_softmax

FOLDS = 5
ROUGH = 1e-4
"""Gradient norm at which strengths are compared; the head that is kept is trained to `TOLERANCE`."""


@dataclass(frozen=True)
class Chosen:
    """A head trained on the whole training part, with the strength that the inner folds chose.

    Attributes:
        head: the trained head.
        losses: (S,) weighted mean log loss of each strength on the inner folds; empty when there
            were too few samples to make folds, and then the middle strength is taken.
    """

    head: SoftmaxHead
    losses: list[float]


def train_softmax(
    features: np.ndarray,
    labels: np.ndarray,
    weights: np.ndarray,
    groups: np.ndarray,
    *,
    classes: int,
    strengths: Sequence[float],
    seed: int,
) -> Chosen:
    """Choose the strength by cross-validation, then train on all rows given.

    Args:
        features: (N, D) rows of the training part.
        labels: (N,) int.
        weights: (N,) sample weights; they count in the loss that chooses, too.
        groups: (N,) rows of one group stay in one fold.
        classes: C.
        strengths: S positive numbers, one of which is chosen.
        seed: shuffles the folds.
    """
    losses = _inner_losses(features, labels, weights, groups, classes, strengths, seed)
    best = int(np.argmin(losses)) if losses else len(strengths) // 2
    [head] = fit_softmax(features, labels, weights, classes=classes, strengths=[strengths[best]])
    return Chosen(head, losses)


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
    folds = min(FOLDS, *(len(set(groups[labels == c])) for c in np.unique(labels)))
    if folds < 2:
        return []
    if len(set(groups)) == len(groups):
        return list(StratifiedKFold(folds, shuffle=True, random_state=seed).split(labels, labels))
    return list(StratifiedGroupKFold(folds, shuffle=True, random_state=seed).split(labels, labels, groups))


def _inner_losses(
    features: np.ndarray,
    labels: np.ndarray,
    weights: np.ndarray,
    groups: np.ndarray,
    classes: int,
    strengths: Sequence[float],
    seed: int,
) -> list[float]:
    """Weighted mean log loss of each strength over all held-out rows, (S,)."""
    totals = np.zeros(len(strengths))
    folds = inner_folds(labels, groups, seed=seed) if len(strengths) > 1 else []
    for train, held_out in folds:
        heads = fit_softmax(
            features[train], labels[train], weights[train], classes=classes, strengths=strengths, tolerance=ROUGH
        )
        truth = np.arange(len(held_out)), labels[held_out]
        totals += [-(weights[held_out] * head.log_proba(features[held_out])[truth]).sum() for head in heads]
    return list(totals / weights.sum()) if folds else []
