"""Operating points: a threshold chosen on inner folds for a wanted recall or precision, and what it gives."""

import numpy as np
from scipy.special import expit

from tasks.core.calibration import operating_point
from tasks.core.metrics import Drawn, Draws, TestPart, margins, replicate_blocks
from tasks.core.ranking import ratio
from tasks.core.wishes import Wish


def threshold_for(wish: Wish, column: int, log_proba: np.ndarray, labels: np.ndarray) -> float | None:
    """Choose the threshold of a class's probability on rows that the fits have not seen.

    Args:
        wish: what is wanted.
        column: number of the class.
        log_proba: (N, C).
        labels: (N,) int.

    Returns:
        The threshold; None where none gives what is wanted.
    """
    found = operating_point(
        margins(log_proba)[:, column],
        labels == column,
        np.ones(len(labels)),
        recall=wish.recall,
        precision=wish.precision,
    )
    return None if found is None else found.threshold


def draw_operating(part: TestPart, draws: Draws, column: int, threshold: float) -> dict[str, Drawn]:
    """Recall and precision of a test part at a threshold, and under each replicate; rows count alike.

    Returns:
        "recall", NaN without true rows, tested by their groups; "precision", NaN without called rows, by theirs.
    """
    true = part.labels == column
    called = expit(margins(part.log_proba)[:, column]) >= threshold
    counted = np.stack([called & true, true, called]).astype(np.float32)  # (3, n)
    once = counted.sum(axis=1, keepdims=True).astype(np.float64)
    blocks = replicate_blocks(draws.counts.shape[1], len(part.rows))
    sums = [counted @ draws.times(part.rows, block) for block in blocks]
    drawn = np.concatenate(sums, axis=1).astype(np.float64)  # (3, B) whole numbers
    return {
        name: Drawn(
            float(ratio(once[0], once[of])[0]),
            ratio(drawn[0], drawn[of]),
            np.unique(draws.members[part.rows[among]]),
        )
        for name, of, among in (("recall", 1, true), ("precision", 2, called))
    }
