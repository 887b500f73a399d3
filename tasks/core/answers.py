"""Answers to several questions about each sample, of which some are known: who knows what, and how often together.

An answer is a class of its target, a yes or no (1 or 0) in the plainest case, or unknown. Unknown is no answer: it
is neither a no nor a class of its own.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from tasks.core.weights import class_weighted

UNKNOWN = -1
"""Stands among the numbers of classes where an answer is not known."""
YES_NO = ("0", "1")

MACRO, MICRO = "macro average", "micro average"
"""What rows of scores call the mean over targets and the score of all questions together; no target's name."""


@dataclass(frozen=True)
class Answers:
    """What is known of N samples about T targets.

    Attributes:
        targets: T names.
        classes: the names of each target's classes, sorted.
        labels: (N, T) int, the number of each answer among its target's classes, or `UNKNOWN`.
    """

    targets: tuple[str, ...]
    classes: tuple[tuple[str, ...], ...]
    labels: np.ndarray

    @classmethod
    def of(cls, written: Mapping[str, Sequence[str]]) -> "Answers":
        """Number what is written.

        Args:
            written: target -> (N,) the answers as text, "" where unknown.
        """
        classes = tuple(tuple(sorted(set(column) - {""})) for column in written.values())
        numbers = [{name: n for n, name in enumerate(known)} | {"": UNKNOWN} for known in classes]
        columns = [
            [number[text] for text in column]
            for number, column in zip(numbers, written.values(), strict=True)
        ]
        return cls(tuple(written), classes, np.array(columns, dtype=np.int64).T)

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def known(self) -> np.ndarray:
        """(N, T) bool."""
        known: np.ndarray = self.labels != UNKNOWN
        return known

    @property
    def sizes(self) -> tuple[int, ...]:
        """How many classes each target has."""
        return tuple(map(len, self.classes))

    @property
    def blocks(self) -> tuple[slice, ...]:
        """Which columns are each target's where the classes of all stand side by side."""
        ends = np.cumsum(self.sizes).tolist()
        return tuple(slice(end - size, end) for end, size in zip(ends, self.sizes, strict=True))

    @cached_property
    def hot(self) -> np.ndarray:
        """(N, sum of classes) bool, who gave which answer; a block is all false where its answer is unknown."""
        columns = [
            self.labels[:, target] == number
            for target, size in enumerate(self.sizes)
            for number in range(size)
        ]
        return np.stack(columns, axis=1)

    def take(self, rows: np.ndarray) -> "Answers":
        """The answers of some samples, by mask or number; classes stay, whoever is left."""
        return Answers(self.targets, self.classes, self.labels[rows])

    def only(self, targets: Sequence[str]) -> "Answers":
        """The answers to some of the questions."""
        numbers = [self.targets.index(name) for name in targets]
        return Answers(tuple(targets), tuple(self.classes[n] for n in numbers), self.labels[:, numbers])

    def counts(self) -> list[dict[str, Any]]:
        """Count each target's answers: target, known, unknown, and the count of each class by its name."""
        return [
            {
                "target": name,
                "known": int(self.known[:, target].sum()),
                "unknown": int((~self.known[:, target]).sum()),
                "classes": {
                    of: int((self.labels[:, target] == number).sum())
                    for number, of in enumerate(self.classes[target])
                },
            }
            for target, name in enumerate(self.targets)
        ]

    def together(self) -> np.ndarray:
        """Count how often each two answers are given of the same sample.

        Returns:
            (S, S) int for S classes of all targets side by side; the diagonal counts each by itself.
        """
        hot = self.hot.astype(np.float64)  # whole numbers, exact
        counted: np.ndarray = (hot.T @ hot).astype(np.int64)
        return counted


def label_weights(
    answers: Answers,
    weights: np.ndarray,
    way: str = "equal",
    given: Mapping[str, float] | None = None,
    class_weight: str = "none",
) -> np.ndarray:
    """Say what each known answer weighs in a joint loss, which is the mean over the known answers by these weights.

    Args:
        answers: (N, T).
        weights: (N,) of the samples, at least zero.
        way: "equal" gives every target the same weight in all, however few of its answers are known; "known" gives
            every answer the weight of its sample, so that a target weighs by how much is known of it. Where a loss is
            the mean over the answers of a batch, a target that few batches hold comes to somewhat less.
        given: target -> what its weight is multiplied with; 1 for those not named.
        class_weight: "none", or "balanced": within a target every class weighs the same in all.

    Returns:
        (N, T), zero where the answer is unknown; all sum to 1. A target of which nothing known has weight stays zero.
    """
    share = np.zeros(answers.labels.shape)
    for target, known in enumerate(answers.known.T):
        share[known, target] = class_weighted(weights[known], answers.labels[known, target], class_weight)
    factors = np.array([(given or {}).get(name, 1.0) for name in answers.targets])
    if way == "equal":
        held = share.sum(axis=0)  # (T,)
        factors = np.divide(factors, held, out=np.zeros_like(factors), where=held > 0)
    share *= factors
    total = share.sum()
    return share / total if total > 0 else share
