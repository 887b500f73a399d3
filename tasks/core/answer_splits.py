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
        (N,) bool, True for test. No single group could change sides and bring the counts closer to their quotas, but
        for one that stands alone on its side.
    """
    members, scaled, order, total = _weighed(groups, answers, seed)
    quota = np.floor(total * test + 0.5) / np.maximum(total, 1)
    found: np.ndarray = _settle(scaled, order, quota)[members]
    return found


def folds_by_answers(
    groups: Sequence[str], answers: Answers, *, folds: int, seed: int
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Cut rows into folds, likewise: the largest groups first, each into the fold that needs it most.

    Args:
        groups: (N,) ids.
        answers: (N, T).
        folds: K, at least two and no more than there are groups.
        seed: as `split_by_answers`.

    Returns:
        (training rows, held-out rows), by number, for each fold; none is empty.
    """
    members, scaled, order, _ = _weighed(groups, answers, seed)
    ranked = order[np.argsort(-scaled[order, -1], kind="stable")]  # by rows, of equals by ticket
    owner = _deal(scaled, ranked, folds)[members]
    everything = np.arange(len(groups))
    return [(everything[owner != fold], everything[owner == fold]) for fold in range(folds)]


def inner_folds_of(answers: Answers, groups: np.ndarray, *, seed: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Cut samples into inner folds in which every answer has its share, no group in two; none of a single group."""
    folds = min(FOLDS, len(np.unique(groups.astype(str))))
    return folds_by_answers(groups.tolist(), answers, folds=folds, seed=seed) if folds > 1 else []


def _weighed(
    groups: Sequence[str], answers: Answers, seed: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Each row's group, (N,); each group's share of every answer and of the rows, (G, S + 1); the groups in the order
    of their tickets, (G,); and how often each answer is given, and rows there are, (S + 1,)."""
    names, members = np.unique(np.asarray(groups, dtype=object).astype(str), return_inverse=True)
    counts = np.zeros((len(names), answers.hot.shape[1] + 1))
    np.add.at(counts, members, np.column_stack([answers.hot, np.ones(len(members))]))
    total = counts.sum(axis=0)
    rank = {name: place for place, name in enumerate(by_ticket(names.tolist(), seed))}
    order = np.argsort([rank[name] for name in names.tolist()])
    return members, counts / np.maximum(total, 1), order, total


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
    for side in (taken, ~taken):  # no side is empty where there are two groups, however large they are
        if not side.any() and len(scaled) > 1:
            away = np.abs(quota - scaled) if side is taken else np.abs(quota - 1 + scaled)
            taken[order[int(away.sum(axis=1)[order].argmin())]] ^= True
    return taken


def _deal(scaled: np.ndarray, order: np.ndarray, folds: int) -> np.ndarray:
    """Deal groups to folds, and deal them anew while that brings the folds closer to equal shares; (G,) int."""
    deal = _Deal(scaled, folds)
    for group in order:
        empty = deal.sizes == 0  # a group for each fold first
        deal.put(group, int(np.where(empty, np.inf, deal.gains(group)).argmax()))
    for _ in range(ROUNDS):
        moved = [deal.moved(group) for group in order]
        if not any(moved):
            break
    return deal.owner


class _Deal:
    """Groups in folds, and what of every answer each fold holds, as shares of all of it."""

    def __init__(self, scaled: np.ndarray, folds: int) -> None:
        self.scaled, self.owner = scaled, np.zeros(len(scaled), dtype=int)
        self.held, self.sizes = np.zeros((folds, scaled.shape[1])), np.zeros(folds, dtype=int)

    def gains(self, group: int) -> np.ndarray:
        """How much closer to its share a group would bring each fold; (K,)."""
        lacking = 1 / len(self.held) - self.held
        gains: np.ndarray = (np.abs(lacking) - np.abs(lacking - self.scaled[group])).sum(axis=1)
        return gains

    def put(self, group: int, fold: int, times: int = 1) -> None:
        """Put a group into a fold, or take it out."""
        self.held[fold] += times * self.scaled[group]
        self.sizes[fold] += times
        self.owner[group] = fold

    def moved(self, group: int) -> bool:
        """Move a group to the fold that it suits best, unless it is alone in its own."""
        fold = int(self.owner[group])
        if self.sizes[fold] == 1:
            return False
        self.put(group, fold, -1)
        gains = self.gains(group)
        best = int(gains.argmax())
        better = bool(gains[best] - gains[fold] > LEAST_GAIN)
        self.put(group, best if better else fold)
        return better
