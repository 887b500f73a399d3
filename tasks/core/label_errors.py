"""Suspected label errors, by confident learning (Northcutt, Jiang & Chuang 2021, JAIR 70, section 3).

A network is surer of some classes than of others. So a sample is not held against one half, but against
how sure the network is of each class on average: where it is at least as sure of another class
as it is of that class's own samples, the label is suspected.
"""

from dataclasses import dataclass

import numpy as np

ROUNDING = 1e-12
"""A probability that falls short of a threshold by no more than this falls short by rounding alone."""

NONE = -1
"""Stands for a class where a sample is like none."""


@dataclass(frozen=True)
class Suspected:
    """Samples whose label may be wrong, the likeliest first.

    Attributes:
        rows: (S,) int, the samples.
        suggested: (S,) int, the class that each is like.
    """

    rows: np.ndarray
    suggested: np.ndarray


def suspected_errors(labels: np.ndarray, proba: np.ndarray) -> Suspected:
    """Find the samples that are like another class than their label's, by `likened`.

    Those are the ones beside the diagonal of the paper's confident joint. Of these only samples whose
    suggested class is also the likelier of the two are listed: where one class is rare, a sample can be
    "like" it and yet be more of its label's. The order is by the normalised margin, the probability of
    the label less that of the suggested class.

    Args:
        labels: (N,) int.
        proba: (N, C) probabilities by fits that did not see the sample.
    """
    found = likened(labels, proba)
    own = np.arange(len(labels))
    margin = proba[own, labels] - proba[own, found]  # what is like none is left out below
    rows = np.flatnonzero((found != NONE) & (found != labels) & (margin < 0))
    rows = rows[np.argsort(margin[rows], kind="stable")]
    return Suspected(rows, found[rows])


def likened(labels: np.ndarray, proba: np.ndarray) -> np.ndarray:
    """Say which class each sample is confidently like.

    A sample is like the likeliest among the classes whose probability is at least the class's threshold:
    the mean probability that samples with that label have of it.

    Args:
        labels: (N,) int.
        proba: (N, C).

    Returns:
        (N,) int, `NONE` where no probability reaches its threshold.
    """
    among = np.where(proba >= thresholds(labels, proba) - ROUNDING, proba, -np.inf)
    return np.where(np.isfinite(among).any(axis=1), among.argmax(axis=1), NONE)


def thresholds(labels: np.ndarray, proba: np.ndarray) -> np.ndarray:
    """Mean probability of each class among the samples with that label; (C,), infinite without any."""
    own, classes = proba[np.arange(len(labels)), labels], proba.shape[1]
    count = np.bincount(labels, minlength=classes)
    sums = np.bincount(labels, own, minlength=classes)
    return np.where(count > 0, sums / np.maximum(count, 1), np.inf)
