"""Heads for several targets on the same rows: each target by itself, or all by one small network that they share.

What is trained separately and what is trained jointly learns from the same rows and is judged on the same inner
folds, and each target's probabilities are calibrated by themselves, so that the two may be compared target by target.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from tasks.core.answers import Answers, label_weights
from tasks.core.coordinates import Source
from tasks.core.fits import Fit, Folds
from tasks.core.hyper import Hyper, Shared, Softmax
from tasks.core.linear import train_answers
from tasks.core.mlp import fit_shared
from tasks.core.selection import Rows, Trained, calibrated, heads_of, in_views, train_heads

Advance = Callable[[int], None]


@dataclass(frozen=True)
class Asked:
    """Rows of features, and what is known of the samples behind them.

    Attributes:
        features: (V * N, D) as `Rows` has them; or a source of such.
        answers: (N, T).
        weights: (N,) of the samples.
        folds: of the samples, as `inner_folds_of` gives them; may be empty.
        views: V.
    """

    features: np.ndarray | Source
    answers: Answers
    weights: np.ndarray
    folds: Folds
    views: int = 1

    def about(self, target: int) -> tuple[Rows, Folds]:
        """What is known of one target: its rows, which are in memory, and the folds of these alone."""
        assert isinstance(self.features, np.ndarray)  # noqa: S101 - checked before
        known = np.flatnonzero(self.answers.known[:, target])
        everywhere = in_views([(known, known)], len(self.answers), self.views)[0][0]
        rows = Rows(
            self.features[everywhere],
            self.answers.labels[known, target],
            self.weights[known],
            np.arange(len(known)),
            self.views,
        )
        place = np.full(len(self.answers), -1)
        place[known] = np.arange(len(known))
        folds = [tuple(place[part][place[part] >= 0] for part in fold) for fold in self.folds]
        return rows, [(learnt, held) for learnt, held in folds]


def train_separately(
    asked: Asked, hypers: Sequence[Hyper], *, seed: int, advance: Advance = lambda done: None
) -> list[list[Trained]]:
    """Train heads for each target by itself; softmax heads of all targets with two classes in one go.

    Args:
        asked: what is learnt from; of every target some answers outside of each fold are known.
        hypers: H heads, all different, none of them shared.
        seed: of whatever is drawn.
        advance: is told how many of the T * H heads are done.

    Returns:
        T lists of H heads, in the order of `hypers`. "inner" speaks of the rows whose answer is known.
    """
    linear = [hyper for hyper in hypers if isinstance(hyper, Softmax)]
    found: dict[tuple[int, Hyper], Trained] = {}
    pairs = [n for n, size in enumerate(asked.answers.sizes) if size == 2]
    if linear and pairs:
        some = asked.answers.only([asked.answers.targets[n] for n in pairs])
        for target, fits in zip(pairs, _linear(replace(asked, answers=some), linear, advance), strict=True):
            found |= {(target, hyper): each for hyper, each in zip(linear, fits, strict=True)}
    for target in range(len(asked.answers.targets)):
        others = [hyper for hyper in hypers if (target, hyper) not in found]
        if others:
            rows, folds = asked.about(target)
            classes, before = asked.answers.sizes[target], len(found)
            trained = train_heads(
                rows,
                others,
                classes=classes,
                seed=seed,
                folds=folds,
                advance=lambda n: advance(before + n),  # noqa: B023
            )
            found |= {(target, hyper): each for hyper, each in zip(others, trained, strict=True)}
    return [[found[target, hyper] for hyper in hypers] for target in range(len(asked.answers.targets))]


def _linear(asked: Asked, hypers: Sequence[Softmax], advance: Advance) -> list[list[Trained]]:
    weights = np.tile(asked.weights, asked.views) / asked.views
    everyone = asked.answers.take(np.tile(np.arange(len(asked.answers)), asked.views))
    folds = in_views(asked.folds, len(asked.answers), asked.views)
    fits = train_answers(asked.features, everyone, weights, hypers=hypers, folds=folds, advance=advance)
    return [[_known(fit, asked, target) for fit in alike] for target, alike in enumerate(fits)]


def train_jointly(
    asked: Asked, hypers: Sequence[Shared], *, advance: Advance = lambda done: None
) -> list[list[Trained]]:
    """Train small networks whose hidden layers all targets share.

    Args:
        asked: as `train_separately`; features in memory.
        hypers: H networks, all different.
        advance: is told how many of the T * H heads are done.

    Returns:
        As `train_separately`.
    """
    assert isinstance(asked.features, np.ndarray)  # noqa: S101 - checked before
    everyone = asked.answers.take(np.tile(np.arange(len(asked.answers)), asked.views))
    folds = in_views(asked.folds, len(asked.answers), asked.views)
    found: dict[Shared, list[Fit]] = {}
    ways = dict.fromkeys(map(_way, hypers))
    heads = len(asked.answers.targets)
    for way in ways:
        alike = [hyper for hyper in hypers if _way(hyper) == way]
        weigh, factors, classes = way
        weights = label_weights(everyone, np.tile(asked.weights, asked.views), weigh, dict(factors), classes)
        done = len(found)
        fits = fit_shared(
            asked.features,
            everyone,
            weights,
            hypers=alike,
            folds=folds,
            advance=heads_of(len(folds) + 1, lambda n: advance(heads * (done + n))),  # noqa: B023
        )
        found |= dict(zip(alike, fits, strict=True))
    return [[_known(found[hyper][target], asked, target) for hyper in hypers] for target in range(heads)]


def _way(hyper: Shared) -> tuple[str, tuple[tuple[str, float], ...], str]:
    """How a network's loss weighs the answers."""
    return hyper.weigh, hyper.factors, hyper.class_weight


def _known(fit: Fit, asked: Asked, target: int) -> Trained:
    """Calibrate a head on the rows whose answer is known, and leave what it says of the others."""
    known = np.flatnonzero(asked.answers.known[:, target])
    [(rows, _)] = in_views([(known, known)], len(asked.answers), asked.views)
    about = Rows(
        np.empty((0, 0)), asked.answers.labels[known, target], asked.weights[known], known, asked.views
    )
    return calibrated(replace(fit, inner=None if fit.inner is None else fit.inner[rows]), about)
