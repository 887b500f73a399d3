"""What is known of samples that layers learn from, of one target or of several, and how it judges them."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from tasks.core.answer_splits import folds_by_answers
from tasks.core.answers import Answers, label_weights
from tasks.core.calibration import scaled, temperature
from tasks.core.fits import Fact, Folds
from tasks.core.selection import inner_folds, inner_scores, mean_log_proba

SCORES = ("inner_brier", "inner_log_loss", "inner_accuracy")


@dataclass(frozen=True)
class Judged:
    """What is said of training rows by layers that did not see them.

    Attributes:
        inner: (n, C) log probabilities, the mean over the views, each target's at its own temperature.
        warmth: the temperature of each target.
        facts: of each target its `SCORES`.
    """

    inner: np.ndarray
    warmth: tuple[float, ...]
    facts: tuple[dict[str, Fact], ...]


class Truth(Protocol):
    """What is known of N samples besides how they look; its targets have C classes together."""

    @property
    def blocks(self) -> tuple[int, ...]:
        """How many classes each target has; they stand side by side."""
        ...

    def targets(self, rows: np.ndarray) -> Tensor:
        """(N, C) float32, one-hot answers times what they weigh among some rows; nought of unknown ones."""
        ...

    def folds(self, rows: np.ndarray, *, seed: int, most: int) -> Folds:
        """Cut rows into folds; none where one would have nothing to learn from, or to judge by."""
        ...

    def prior(self, rows: np.ndarray) -> np.ndarray:
        """(C,) log share of each answer to its target among rows, none of them nought."""
        ...

    def brier(self, said: np.ndarray, rows: np.ndarray) -> float:
        """Score what is said of rows, (V, n, C), at the temperature that suits it; of several targets the mean."""
        ...

    def judged(self, said: np.ndarray, able: np.ndarray, rows: np.ndarray) -> Judged:
        """Judge what is said of rows, (V, n, C); of those that are not able, (n,) bool, a prior spoke."""
        ...


@dataclass(frozen=True)
class Known:
    """One target.

    Attributes:
        labels: (N,) int.
        weights: (N,) at least zero.
        groups: (N,) ids.
        classes: C.
    """

    labels: np.ndarray
    weights: np.ndarray
    groups: np.ndarray
    classes: int

    @property
    def blocks(self) -> tuple[int, ...]:
        """See `Truth`."""
        return (self.classes,)

    def targets(self, rows: np.ndarray) -> Tensor:
        """See `Truth`; the mean weight of the rows is 1."""
        share = self.weights / self.weights[rows].mean()
        return torch.from_numpy(np.eye(self.classes)[self.labels] * share[:, None]).float()

    def folds(self, rows: np.ndarray, *, seed: int, most: int) -> Folds:
        """See `Truth`."""
        folds = inner_folds(self.labels[rows], self.groups[rows], seed=seed, most=most)
        weighed = all(self.weights[rows[part]].any() for fold in folds for part in fold)
        return folds if weighed else []

    def prior(self, rows: np.ndarray) -> np.ndarray:
        """See `Truth`."""
        counts = np.bincount(self.labels[rows], self.weights[rows], self.classes)
        prior: np.ndarray = np.log((counts + 1 / len(counts)) / (counts.sum() + 1))
        return prior

    def brier(self, said: np.ndarray, rows: np.ndarray) -> float:
        """See `Truth`."""
        found = self.judged(said, np.ones(len(rows), dtype=bool), rows)
        return float(str(found.facts[0]["inner_brier"]))

    def judged(self, said: np.ndarray, able: np.ndarray, rows: np.ndarray) -> Judged:
        """See `Truth`."""
        labels, weights, views = self.labels[rows], self.weights[rows], len(said)
        warmth = 1.0
        if able.any():
            own = said[:, able].reshape(-1, self.classes)
            warmth = temperature(own, np.tile(labels[able], views), np.tile(weights[able], views))
        told = np.where(able[:, None], scaled(said, warmth), said)  # priors are calibrated as they are
        inner = mean_log_proba(list(told))
        return Judged(inner, (warmth,), (inner_scores(inner, labels, weights),))


@dataclass(frozen=True)
class KnownAnswers:
    """Several targets, of which some answers are unknown.

    Attributes:
        answers: (N, T).
        weights: (N,) of the samples, at least zero.
        groups: (N,) ids.
        weigh: how targets weigh in the loss, as `label_weights` has it.
        factors: target -> what its weight is multiplied with.
        class_weight: how answers of a target weigh, likewise.
    """

    answers: Answers
    weights: np.ndarray
    groups: np.ndarray
    weigh: str = "equal"
    factors: tuple[tuple[str, float], ...] = ()
    class_weight: str = "none"

    @property
    def blocks(self) -> tuple[int, ...]:
        """See `Truth`."""
        return self.answers.sizes

    @cached_property
    def each(self) -> list[Known]:
        """Each target by itself; what stands in place of an unknown answer is not asked for."""
        return [
            Known(labels, self.weights, self.groups, size)
            for labels, size in zip(self.answers.labels.T, self.answers.sizes, strict=True)
        ]

    def targets(self, rows: np.ndarray) -> Tensor:
        """See `Truth`; a known answer weighs 1 on average."""
        some = self.answers.take(rows)
        share = np.zeros(self.answers.labels.shape)
        share[rows] = label_weights(
            some, self.weights[rows], self.weigh, dict(self.factors), self.class_weight
        )
        share *= some.known.sum()
        wide = np.repeat(share, self.answers.sizes, axis=1)  # (N, C)
        return torch.from_numpy(self.answers.hot * wide).float()

    def folds(self, rows: np.ndarray, *, seed: int, most: int) -> Folds:
        """See `Truth`."""
        groups, some = self.groups[rows], self.answers.take(rows)
        count = min(most, len(np.unique(groups.astype(str))))
        folds = folds_by_answers(groups.tolist(), some, folds=count, seed=seed) if count > 1 else []
        weighed = some.known & (self.weights[rows] > 0)[:, None]  # (n, T)
        return folds if all(weighed[part].any(axis=0).all() for fold in folds for part in fold) else []

    def prior(self, rows: np.ndarray) -> np.ndarray:
        """See `Truth`."""
        known = self.answers.known[rows]
        return np.concatenate([one.prior(rows[known[:, t]]) for t, one in enumerate(self.each)])

    def brier(self, said: np.ndarray, rows: np.ndarray) -> float:
        """See `Truth`."""
        found = self.judged(said, np.ones(len(rows), dtype=bool), rows)
        return float(np.mean([float(str(facts["inner_brier"])) for facts in found.facts]))

    def judged(self, said: np.ndarray, able: np.ndarray, rows: np.ndarray) -> Judged:
        """See `Truth`; of rows whose answer is unknown something is said, too, and not scored."""
        inner, warmths, facts = np.empty(said.shape[1:]), [], []
        for target, (one, block) in enumerate(zip(self.each, self.answers.blocks, strict=True)):
            known = self.answers.known[rows, target]
            found = one.judged(said[:, known][..., block], able[known], rows[known])
            whole = np.where(able[:, None], scaled(said[..., block], found.warmth[0]), said[..., block])
            inner[:, block] = mean_log_proba(list(whole))
            warmths.append(found.warmth[0])
            facts.append(found.facts[0])
        return Judged(inner, tuple(warmths), tuple(facts))


def warmed(said: np.ndarray, blocks: Sequence[int], warmth: Sequence[float]) -> np.ndarray:
    """Put each target's log probabilities at its temperature; (..., C) -> (..., C)."""
    ends = np.cumsum(blocks)[:-1]
    parts = np.split(said, ends, axis=-1)
    return np.concatenate([scaled(part, each) for part, each in zip(parts, warmth, strict=True)], axis=-1)
