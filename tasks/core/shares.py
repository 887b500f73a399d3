"""Ever smaller shares of a training part, each within the one before."""

from collections.abc import Sequence

import numpy as np

from tasks.core.errors import RequestError
from tasks.core.splits import split_by_group

LEAST = 2
"""Samples of each class, below which a share is not trained on."""


def nested(
    training: np.ndarray, groups: np.ndarray, labels: np.ndarray, shares: Sequence[float], *, seed: int
) -> list[np.ndarray]:
    """Take ever smaller shares of a training part: stratified by label, no group in part.

    Args:
        training: (N,) bool, the part.
        groups: (N,) ids; samples that share one stay together.
        labels: (N,) int.
        shares: of the part, each smaller than the one before, below 1.
        seed: same seed and same samples give the same shares on any machine.

    Returns:
        (N,) bool for each share, each within the one before. Where every sample is a group of its own, a
        class gives its part of what the share before left of it, rounded up at a half, though neither
        nothing nor all. There are fewer where a class has all its samples in one group, so that none of it
        could be left.
    """
    found: list[np.ndarray] = []
    rows, before = np.flatnonzero(training), 1.0
    for share in shares:
        names = labels[rows].astype(str).tolist()
        try:
            kept = split_by_group(groups[rows].tolist(), names, names, test=share / before, seed=seed)
        except RequestError:
            break
        rows, before = rows[kept], share
        taken = np.zeros(len(training), dtype=bool)
        taken[rows] = True
        found.append(taken)
    return found


def keeps_every_class(
    labels: np.ndarray, weights: np.ndarray, training: np.ndarray, taken: np.ndarray
) -> bool:
    """Whether each class of a training part keeps `LEAST` samples of weight in a share of it.

    Args:
        labels: (N,) int.
        weights: (N,).
        training: (N,) bool, the part.
        taken: (N,) bool, the share.
    """
    weighed = weights > 0
    whole = np.bincount(labels[training & weighed])
    left = np.bincount(labels[taken & weighed], minlength=len(whole))
    return bool((left[whole > 0] >= LEAST).all())
