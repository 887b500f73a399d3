"""Average precision, of many weighted replicates at once.

A replicate counts each row so many times. What is found down to a threshold is then a running sum of
counts down the ranked rows, and all replicates are summed side by side.
"""

import math
from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_array

THRESHOLDS_AT_ONCE = 256
"""Few enough for their running sums to stay in the cache and for a sum of so many to lose little."""


@dataclass(frozen=True)
class Ranking:
    """Rows from the likeliest down, cut into steps that each end at a threshold.

    Rows with equal scores share one threshold. Thresholds that no true row shares gain no recall, so
    each step goes on to the next that some true row shares; what is left over at the end is left out.

    Attributes:
        order: (n,) the rows.
        edges: (T + 1,) where in `order` the steps begin and end.
        true_order: (P,) the true rows alone.
        true_edges: (T + 1,) where in `true_order` the steps begin and end.
    """

    order: np.ndarray
    edges: np.ndarray
    true_order: np.ndarray
    true_edges: np.ndarray


def ranking(truth: np.ndarray, scores: np.ndarray) -> Ranking:
    """Rank rows by their scores, (n,), the higher the more likely true; `truth` is (n,) bool."""
    order = np.argsort(-scores, kind="stable").astype(np.int32)
    true, ranked = truth[order], scores[order]
    ends = np.append(np.flatnonzero(ranked[1:] != ranked[:-1]), len(order) - 1)  # of the thresholds
    hits = np.cumsum(true, dtype=np.int32)[ends]
    gains = np.diff(hits, prepend=np.int32(0)) > 0
    start = np.zeros(1, dtype=np.int32)
    return Ranking(
        order,
        np.concatenate([start, ends[gains].astype(np.int32) + 1]),
        order[true],
        np.concatenate([start, hits[gains]]),
    )


def average_precision(ranked: Ranking) -> float:
    """Average precision, sum over thresholds of (recall gained) x precision; NaN without a true row."""
    hits, found = ranked.true_edges, ranked.edges
    if len(hits) == 1:
        return math.nan
    return float((np.diff(hits) * (hits[1:] / found[1:])).sum() / hits[-1])


def average_precisions(ranked: Ranking, times: np.ndarray) -> np.ndarray:
    """Average precision under each replicate.

    Args:
        ranked: n rows.
        times: (n, B) float, how often each replicate counts each row; whole numbers.

    Returns:
        (B,) float64, NaN where no true row is drawn.
    """
    area = np.zeros(times.shape[1])
    hits = np.zeros(times.shape[1], dtype=times.dtype)
    found = np.full_like(hits, np.finfo(times.dtype).tiny)  # so that it may divide; 1 + tiny is 1
    for first in range(0, len(ranked.edges) - 1, THRESHOLDS_AT_ONCE):
        steps = slice(first, first + THRESHOLDS_AT_ONCE + 1)
        gained = _sums_between(ranked.true_edges[steps], ranked.true_order, times)  # (T, B)
        hits_at = _running(gained.copy(), hits)
        found_at = _running(_sums_between(ranked.edges[steps], ranked.order, times), found)
        hits, found = hits_at[-1].copy(), found_at[-1]
        area += np.einsum("tb,tb->b", gained, np.divide(hits_at, found_at, out=hits_at))
    return ratio(area, hits)


def ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """Divide, NaN where the whole is nothing."""
    return np.where(whole > 0, part / np.where(whole > 0, whole, 1), np.nan)


def _sums_between(edges: np.ndarray, order: np.ndarray, times: np.ndarray) -> np.ndarray:
    """Sum the counts of the rows between each two edges in an order; (T + 1,), (m,), (n, B) -> (T, B)."""
    rows = order[edges[0] : edges[-1]]
    chosen = csr_array(
        (np.ones(len(rows), dtype=times.dtype), rows, edges - edges[0]), shape=(len(edges) - 1, len(times))
    )
    sums: np.ndarray = chosen @ times
    return sums


def _running(sums: np.ndarray, before: np.ndarray) -> np.ndarray:
    """Add to each row all rows above it, and what was before them, in place; (T, B)."""
    for row in sums:  # the rows are long; cumsum would go down the columns, at a fifth of the speed
        before = np.add(before, row, row)
    return sums
