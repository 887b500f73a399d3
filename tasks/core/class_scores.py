"""Scores of each class by itself, with intervals: precision, recall, F1 and average precision."""

import numpy as np

from tasks.core.metrics import Drawn, Draws, TestPart, margins, replicate_blocks
from tasks.core.ranking import average_precision, average_precisions, ranking, ratio

CLASS_METRICS = ("precision", "recall", "F1", "average precision")


def draw_classes(part: TestPart, draws: Draws) -> list[dict[str, Drawn]]:
    """Score each class of a test part against the rest, and again under each replicate; rows count alike.

    A row is called what is likeliest.

    Returns:
        For each class, metric -> its value and draws, for each of `CLASS_METRICS`. Precision is tested by the
        groups of the called rows, F1 by those of the called or true rows, the others by those of the
        true rows. Precision is NaN without called rows, F1 without either, the others without true rows.
    """
    classes, odds = part.log_proba.shape[1], margins(part.log_proba)
    numbers = np.arange(classes)
    true = np.equal.outer(numbers, part.labels)  # (C, n)
    called = np.equal.outer(numbers, part.log_proba.argmax(axis=1))
    counted = np.concatenate([true & called, called, true]).astype(np.float32)
    ranked = [ranking(true[c], odds[:, c]) for c in range(classes)]
    drawn = np.empty((len(CLASS_METRICS), classes, draws.counts.shape[1]))
    for block in replicate_blocks(draws.counts.shape[1], len(part.rows)):
        times = draws.times(part.rows, block)
        drawn[:3, :, block] = _rates((counted @ times).astype(np.float64))
        drawn[3, :, block] = [average_precisions(each, times) for each in ranked]
    value = np.empty((len(CLASS_METRICS), classes))
    value[:3] = _rates(counted.sum(axis=1, dtype=np.float64)[:, None])[..., 0]
    value[3] = [average_precision(each) for each in ranked]
    members = draws.members[part.rows]
    found = []
    for c in range(classes):
        tested = [np.unique(members[rows]) for rows in (called[c], true[c], called[c] | true[c], true[c])]
        found.append(
            {
                metric: Drawn(float(value[m, c]), drawn[m, c], tested[m])
                for m, metric in enumerate(CLASS_METRICS)
            }
        )
    return found


def _rates(sums: np.ndarray) -> np.ndarray:
    """Precision, recall and F1 of counts; (3 C, B) hits, called and true of each class -> (3, C, B)."""
    hits, called, true = np.split(sums, 3)
    return np.stack([ratio(hits, called), ratio(hits, true), ratio(2 * hits, called + true)])
