"""Parts and folds for several targets at once: every answer to every question gives each part its share.

No kept library does this and respects groups: iterative-stratification (Sechidis, Tsoumakas and Vlahavas 2011) knows
none, and scikit-learn's StratifiedGroupKFold knows one target. So groups are offered one after the other in the order
of their tickets, as in `tasks.core.splits`, and one changes sides when that brings the answers' counts closer to their
quotas, each measured by how often the answer is given, so that rare answers count as much as common ones. They are
offered again, the last first, until none changes sides. As there, added samples hardly move old ones.
"""

from collections.abc import Sequence

import numpy as np

from tasks.core.answers import Answers
from tasks.core.fits import FOLDS
from tasks.core.splits import by_ticket

ROUNDS = 20
"""Of offering the groups, at most; each lowers the distance, and after a few none changes sides."""
LEAST_GAIN = 1e-9
"""What changes less than this is rounding."""


def split_by_answers(groups: Sequence[str], answers: Answers, *, test: float, seed: int) -> np.ndarray:
    """Mark the test rows so that no group stands on both sides and every answer gives its share.

    Args:
        groups: (N,) one id a row; rows that share an id stay together.
        answers: (N, T).
        test: share wanted in the test part, 0 < test < 1.
        seed: same seed and same rows give the same answer on any machine.

    Returns:
        (N,) bool, True for test. No single group could change sides and bring the counts closer to their quotas.
    """
    names, members = np.unique(np.asarray(groups, dtype=object).astype(str), return_inverse=True)
    counts = np.zeros((len(names), answers.hot.shape[1] + 1))
    np.add.at(counts, members, np.column_stack([answers.hot, np.ones(len(members))]))
    total = counts.sum(axis=0)
    scaled = counts / np.maximum(total, 1)  # (G, S + 1) each group's share of every answer, and of the rows
    rank = {name: place for place, name in enumerate(by_ticket(names.tolist(), seed))}
    order = np.argsort([rank[name] for name in names.tolist()])
    taken = _settle(scaled, order, np.floor(total * test + 0.5) / np.maximum(total, 1))
    found: np.ndarray = taken[members]
    return found


def folds_by_answers(
    groups: Sequence[str], answers: Answers, *, folds: int, seed: int
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Cut rows into folds, likewise.

    Args:
        groups: (N,) ids.
        answers: (N, T).
        folds: K, at least two and no more than there are groups.
        seed: as `split_by_answers`.

    Returns:
        (training rows, held-out rows), by number, for each fold.
    """
    ids, left = np.asarray(groups, dtype=object), np.arange(len(groups))
    held = []
    for more in range(folds, 1, -1):
        taken = split_by_answers(ids[left].tolist(), answers.take(left), test=1 / more, seed=seed + more)
        held.append(left[taken])
        left = left[~taken]
    everything = np.arange(len(groups))
    return [(np.setdiff1d(everything, rows), rows) for rows in (*held, left)]


def inner_folds_of(answers: Answers, groups: np.ndarray, *, seed: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Cut samples into inner folds in which every answer has its share, no group in two; none of a single group."""
    folds = min(FOLDS, len(np.unique(groups.astype(str))))
    return folds_by_answers(groups.tolist(), answers, folds=folds, seed=seed) if folds > 1 else []


def _settle(scaled: np.ndarray, order: np.ndarray, quota: np.ndarray) -> np.ndarray:
    """Take groups, and give them back, while that brings what is taken closer to the quota; (G,) bool."""
    taken, open_ = np.zeros(len(scaled), dtype=bool), quota.copy()
    for turn in range(ROUNDS):
        moved = False
        for group in order if turn == 0 else order[::-1]:
            step = -scaled[group] if taken[group] else scaled[group]
            if np.abs(open_).sum() - np.abs(open_ - step).sum() > LEAST_GAIN:
                taken[group] = not taken[group]
                open_ -= step
                moved = True
        if not moved:
            break
    return taken
