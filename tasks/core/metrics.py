"""Scores with intervals: the bootstrap draws groups, and each score is a weighted count.

A bootstrap replicate gives each row a count; a score under a replicate is the score with each
row's weight multiplied by its count. So all replicates are had at once, by matrix products.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import beta

REPLICATES = 2000
METRICS = ("weighted accuracy", "accuracy", "balanced accuracy", "average precision")


@dataclass(frozen=True)
class TestPart:
    """What a head said of one split's test rows.

    Attributes:
        rows: (n,) each row's place in the table of all samples.
        labels: (n,) int.
        weights: (n,) sample weights.
        log_proba: (n, C).
    """

    rows: np.ndarray
    labels: np.ndarray
    weights: np.ndarray
    log_proba: np.ndarray


@dataclass(frozen=True)
class Score:
    """A score and its 95 % interval (percentile bootstrap)."""

    value: float
    low: float
    high: float


def group_counts(groups: Sequence[str], *, replicates: int = REPLICATES, seed: int = 0) -> np.ndarray:
    """Draw groups with replacement, as many as there are (Davison & Hinkley 1997, section 3.8).

    Args:
        groups: (N,) one id a row.
        replicates: B.
        seed: same seed and same groups give the same draws.

    Returns:
        (B, N) how often each row is drawn; rows of a group are drawn together.
    """
    names, members = np.unique(np.asarray(groups, dtype=str), return_inverse=True)
    drawn = np.random.default_rng(seed).multinomial(
        len(names), np.full(len(names), 1 / len(names)), size=replicates
    )
    counts: np.ndarray = drawn[:, members].astype(np.float32)
    return counts


def score(parts: Sequence[TestPart], counts: np.ndarray, groups: Sequence[str]) -> dict[str, Score]:
    """Score one experiment: each metric's mean over its splits, with an interval.

    The splits' test parts share samples, so one draw of samples serves them all. The interval tells
    how much the mean would move with other test samples; it does not tell how much it would move
    with other training samples.

    Where no draw differs from the others (nothing in the test part is wrong, say) the bootstrap knows
    nothing; then the exact bound of a proportion is given, for as many trials as groups were tested
    (Clopper & Pearson 1934).

    Args:
        parts: one for each split.
        counts: (B, N) from `group_counts` over the table of all samples.
        groups: (N,) the groups that were drawn.

    Returns:
        metric -> score, for each of `METRICS`.
    """
    once = np.ones((1, counts.shape[1]), dtype=np.float32)
    tested = np.concatenate([part.rows for part in parts])
    trials = len(np.unique(np.asarray(groups, dtype=str)[tested]))
    found = {}
    for metric in METRICS:
        value = np.mean([_metric(metric, part, once)[0] for part in parts])
        draws = np.mean([_metric(metric, part, counts) for part in parts], axis=0)  # (B,)
        told = draws[~np.isnan(draws)]
        low, high = np.percentile(told, [2.5, 97.5]) if len(told) else (math.nan, math.nan)
        if low == high:
            low, high = _exact_interval(float(value), trials)
        found[metric] = Score(float(value), float(low), float(high))
    return found


def _exact_interval(value: float, trials: int) -> tuple[float, float]:
    """95 % interval of a proportion by the beta distribution's quantiles."""
    hits = value * trials
    low = beta.ppf(0.025, hits, trials - hits + 1) if hits > 0 else 0.0
    high = beta.ppf(0.975, hits + 1, trials - hits) if hits < trials else 1.0
    return float(low), float(high)


def _metric(metric: str, part: TestPart, counts: np.ndarray) -> np.ndarray:
    """One metric under each replicate, (B,); the weights enter "weighted accuracy" alone."""
    times = counts[:, part.rows].astype(np.float64)  # (B, n)
    right = part.log_proba.argmax(axis=1) == part.labels  # (n,)
    classes = range(part.log_proba.shape[1])
    if metric == "weighted accuracy":
        return _ratio(times @ (part.weights * right), times @ part.weights)
    if metric == "accuracy":
        return _ratio(times @ right, times.sum(axis=1))
    if metric == "balanced accuracy":
        return _mean(
            [_ratio(times @ (right & (part.labels == c)), times @ (part.labels == c)) for c in classes]
        )
    positive = classes[1:] if len(classes) == 2 else classes
    return _mean([average_precision(part.labels == c, _margin(part.log_proba, c), times) for c in positive])


def average_precision(truth: np.ndarray, scores: np.ndarray, times: np.ndarray) -> np.ndarray:
    """Average precision, sum over thresholds of (recall gained) x precision, under each replicate.

    Rows with equal scores share one threshold.

    Args:
        truth: (n,) bool.
        scores: (n,) the higher, the more likely true.
        times: (B, n) weight of each row in each replicate.

    Returns:
        (B,), NaN where no true row is drawn.
    """
    order = np.argsort(-scores, kind="stable")
    ends = np.flatnonzero(np.append(np.diff(scores[order]) != 0, True))  # last row of each threshold
    hits = np.cumsum(times[:, order] * truth[order], axis=1)[:, ends]  # (B, T)
    found = np.cumsum(times[:, order], axis=1)[:, ends]
    gained = np.diff(hits, axis=1, prepend=0)
    return _ratio((gained * hits / np.maximum(found, 1e-300)).sum(axis=1), hits[:, -1])


def _margin(log_proba: np.ndarray, c: int) -> np.ndarray:
    """Log odds of class c, which order as its probability does but do not saturate at 1."""
    others = np.delete(log_proba, c, axis=1)
    top = others.max(axis=1, keepdims=True)
    margin: np.ndarray = log_proba[:, c] - (top[:, 0] + np.log(np.exp(others - top).sum(axis=1)))
    return margin


def _mean(scores: list[np.ndarray]) -> np.ndarray:
    """Mean over the classes that were drawn, (B,)."""
    stacked = np.stack(scores)
    known = ~np.isnan(stacked)
    return _ratio(np.where(known, stacked, 0).sum(axis=0), known.sum(axis=0))


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """Divide, NaN where nothing was drawn."""
    return np.where(whole > 0, part / np.where(whole > 0, whole, 1), np.nan)
