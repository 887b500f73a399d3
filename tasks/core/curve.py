"""Would more labels help? A head trained again on nested shares of its training part, each half of the last."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from tasks.core.hyper import Hyper, Mlp, Neighbours
from tasks.core.selection import Rows, said_of, train_heads
from tasks.core.shares import keeps_every_class, nested

SHARES = (0.5, 0.25, 0.125)
"""Of a training part, each half of the one before."""


@dataclass(frozen=True)
class Known:
    """What is known of a table's labelled samples besides their features; attributes as `Rows` has them."""

    labels: np.ndarray
    weights: np.ndarray
    groups: np.ndarray
    views: int = 1


@dataclass(frozen=True)
class Lesson:
    """A head to train on some samples, and those to ask it about.

    Attributes:
        hyper: the head.
        taken: (N,) bool, what it learns from.
        asked: (N,) bool, what it is asked about.
        seed: shuffles the inner folds.
    """

    hyper: Hyper
    taken: np.ndarray
    asked: np.ndarray
    seed: int


def shorter(known: Known, lessons: Sequence[Lesson]) -> dict[float, list[Lesson]]:
    """Cut lessons down to shares of what they learn from.

    Args:
        known: of all samples.
        lessons: on whole training parts, one for each seed of a split.

    Returns:
        share -> the lessons on it, the smallest first. A share that is too small for one lesson is left out.
    """
    cut: dict[float, list[Lesson]] = {share: [] for share in sorted(SHARES)}
    for lesson in lessons:
        halves = halvings(lesson.taken, known.groups, known.labels, seed=lesson.seed)
        for share, taken in zip(SHARES, halves, strict=False):
            if _is_enough(known, lesson, taken):
                cut[share].append(replace(lesson, taken=taken))
    return {share: some for share, some in cut.items() if len(some) == len(lessons)}


def halvings(training: np.ndarray, groups: np.ndarray, labels: np.ndarray, *, seed: int) -> list[np.ndarray]:
    """Halve a training part once for each of `SHARES`; as `nested`."""
    return nested(training, groups, labels, SHARES, seed=seed)


def _is_enough(known: Known, lesson: Lesson, taken: np.ndarray) -> bool:
    """Whether a head can learn from a share of what it learns from.

    Of nearest neighbours there must be more than vote: where all vote, every answer is the same.
    """
    voting = lesson.hyper.k if isinstance(lesson.hyper, Neighbours) else 0
    left = int((taken & (known.weights > 0)).sum())
    enough = keeps_every_class(known.labels, known.weights, lesson.taken, taken)
    return enough and known.views * left > voting


def learn(known: Known, features: np.ndarray, lesson: Lesson, *, classes: int) -> np.ndarray:
    """Train a head on what a lesson takes, and ask it about the rest.

    Inner folds cost several times what the head does, so they are made only where they move the most likely
    class: they stop small networks, and their temperature counts where probabilities of several views are
    averaged. Elsewhere what is said is not calibrated, which accuracies do not see.

    Args:
        known: of all samples.
        features: (V * N, D) theirs.
        lesson: what to learn from which of them.
        classes: C.

    Returns:
        (n, C) log probabilities of the samples asked about, the mean over the views.
    """
    needs_folds = isinstance(lesson.hyper, Mlp) or known.views > 1
    groups = known.groups[lesson.taken]
    rows = Rows(
        features[np.tile(lesson.taken, known.views)],
        known.labels[lesson.taken],
        known.weights[lesson.taken],
        groups if needs_folds else np.zeros(len(groups)),  # of one group no folds can be made
        known.views,
    )
    [trained] = train_heads(rows, [lesson.hyper], classes=classes, seed=lesson.seed)
    [said] = said_of([trained.predictor], features[np.tile(lesson.asked, known.views)], known.views)
    return said
