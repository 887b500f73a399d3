"""Probabilities that mean what they say: temperature scaling, reliability, operating points."""

import math
from dataclasses import dataclass

import numpy as np
from scipy.optimize import brentq
from scipy.special import expit

from tasks.core.predictors import log_softmax

BINS = 15
SMOOTHEST, SHARPEST = 0.01, 10.0
"""At the extreme temperatures the best class leads the mean of the others by so many nats, on average.

Ten nats are odds of 1 to 22,000. That a few hundred rows are all right does not tell more, and a row that
is wrong for all that should not cost the log loss of hundreds.
"""
ROUNDING = 1e-12
"""A share that falls short of the wanted one by no more than this falls short by rounding alone."""


@dataclass(frozen=True)
class Reliability:
    """Confidence beside accuracy, by bins of confidence (Guo et al. 2017, section 2).

    The confidence of a row is the probability of its likeliest class. Bins without weight are left out.

    Attributes:
        edges: (B, 2) each bin's ends; a confidence at the upper end is inside, one at the lower is not.
        confidence: (B,) weighted mean confidence of the rows in the bin.
        accuracy: (B,) weighted share of rows whose likeliest class is right.
        share: (B,) the bin's part of all weight.
    """

    edges: np.ndarray
    confidence: np.ndarray
    accuracy: np.ndarray
    share: np.ndarray


@dataclass(frozen=True)
class OperatingPoint:
    """Where to call class 1, and what that gives on the rows that it was chosen on.

    Attributes:
        threshold: class 1 is called where its probability is at least this.
        recall: weighted share of the true rows that are called.
        precision: weighted share of the called rows that are true.
    """

    threshold: float
    recall: float
    precision: float


def temperature(log_proba: np.ndarray, labels: np.ndarray, weights: np.ndarray) -> float:
    """Find the T > 0 that minimises the weighted log loss of log_softmax(log_proba / T).

    Temperature scaling (Guo et al. 2017, section 4.2). The loss is convex in 1 / T, so the root of its
    slope is the minimum. Where all rows are right, colder is always better, and where they are no better
    than chance, warmer is: the search ends at temperatures that depend on the spread of the scores alone,
    so that c * log_proba has c times the temperature.

    Args:
        log_proba: (N, C) finite log probabilities, or scores that are such up to a constant in each row.
        labels: (N,) int.
        weights: (N,) at least zero, some above.

    Returns:
        T; 1 where it makes no difference.
    """
    share = weights / weights.sum()
    below = log_proba - log_proba.max(axis=1, keepdims=True)  # (N, C)
    classes = below.shape[1]
    lead = -float(share @ below.sum(axis=1)) / max(1, classes - 1)
    if lead == 0:
        return 1.0
    truth = below[np.arange(len(labels)), labels]  # (N,)

    def slope(log_temperature: float) -> float:
        """Derivative of the loss in 1 / T: the expected score less the true class's."""
        proba = np.exp(below * math.exp(-log_temperature))
        expected = (proba * below).sum(axis=1) / proba.sum(axis=1)
        return float(share @ (expected - truth))

    coldest, warmest = math.log(lead / SHARPEST), math.log(lead / SMOOTHEST)
    if slope(coldest) <= 0:
        return math.exp(coldest)
    if slope(warmest) >= 0:
        return math.exp(warmest)
    return math.exp(brentq(slope, coldest, warmest, xtol=1e-9))


def scaled(log_proba: np.ndarray, temperature: float) -> np.ndarray:
    """Log probabilities at another temperature; (N, C) -> (N, C)."""
    return log_softmax(log_proba / temperature)


def reliability(
    log_proba: np.ndarray, labels: np.ndarray, weights: np.ndarray, bins: int = BINS
) -> Reliability:
    """Put rows into bins of equal width by confidence.

    Args:
        log_proba: (N, C).
        labels: (N,) int.
        weights: (N,) at least zero, some above.
        bins: how many there are between 0 and 1.
    """
    ends = np.linspace(0, 1, bins + 1)
    confidence = np.exp(log_proba.max(axis=1))  # (N,)
    right = log_proba.argmax(axis=1) == labels
    which = np.digitize(confidence, ends[1:-1], right=True)
    held, sure, hit = (
        np.bincount(which, weights * of, bins) for of in (np.ones(len(labels)), confidence, right)
    )
    full = held > 0
    return Reliability(
        np.column_stack([ends[:-1], ends[1:]])[full],
        sure[full] / held[full],
        hit[full] / held[full],
        held[full] / held.sum(),
    )


def expected_calibration_error(
    log_proba: np.ndarray, labels: np.ndarray, weights: np.ndarray, bins: int = BINS
) -> float:
    """Mean distance of accuracy from confidence over the bins, by weight (Guo et al. 2017, equation 3)."""
    found = reliability(log_proba, labels, weights, bins)
    return float(found.share @ np.abs(found.accuracy - found.confidence))


def operating_point(
    margin: np.ndarray,
    truth: np.ndarray,
    weights: np.ndarray,
    *,
    recall: float | None = None,
    precision: float | None = None,
) -> OperatingPoint | None:
    """Choose the threshold that gives a wanted recall or a wanted precision.

    For a recall it is the highest threshold that reaches it, for a precision the lowest, which finds the
    most. The thresholds tried are the rows' own probabilities; rows that share one are called together,
    and rows without weight have no say.

    Args:
        margin: (N,) log odds of class 1.
        truth: (N,) bool, True for class 1.
        weights: (N,) at least zero.
        recall: the least recall wanted, or None.
        precision: the least precision wanted, or None.

    Returns:
        The point; None where no threshold reaches what is wanted.

    Raises:
        ValueError: unless one of recall and precision is given, and not both.
    """
    thresholds, recalls, precisions = recall_curve(margin, truth, weights)
    if recall is not None and precision is None:
        reached = np.flatnonzero(recalls >= recall - ROUNDING)[:1]  # recall rises along the curve
    elif precision is not None and recall is None:
        reached = np.flatnonzero(precisions >= precision - ROUNDING)[-1:]
    else:
        raise ValueError(f"recall={recall}, precision={precision}: give one of them.")
    if not len(reached):
        return None
    [at] = reached
    return OperatingPoint(float(thresholds[at]), float(recalls[at]), float(precisions[at]))


def recall_curve(
    margin: np.ndarray, truth: np.ndarray, weights: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Thresholds from the highest to the lowest, and recall and precision at each; (T,) each.

    Empty without true rows, of which no part can be found.
    """
    weighed = weights > 0
    proba, truth, weights = expit(margin[weighed]), truth[weighed], weights[weighed]
    if not truth.any():
        return np.empty(0), np.empty(0), np.empty(0)
    order = np.argsort(-proba, kind="stable")
    ends = np.flatnonzero(np.append(np.diff(proba[order]) != 0, True))  # last row at each threshold
    hits = np.cumsum(weights[order] * truth[order])[ends]
    found = np.cumsum(weights[order])[ends]
    return proba[order][ends], hits / hits[-1], hits / found
