"""Training heads on the training part, and what inner folds of it say of each; the test part is not seen here."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

from tasks.core.calibration import scaled, temperature
from tasks.core.coordinates import InMemory, Source
from tasks.core.fits import FOLDS, Fact, Fit, Folds
from tasks.core.hyper import Centroid, Hyper, Mlp, Neighbours, Ridge, Softmax
from tasks.core.linear import train_softmax
from tasks.core.mlp import fit_mlp
from tasks.core.neighbours import fit_centroid, fit_neighbours
from tasks.core.predictors import Predictor, say
from tasks.core.ridge import fit_ridge


@dataclass(frozen=True)
class Rows:
    """Labelled rows of features.

    Attributes:
        features: (V * N, D) any float type: all rows of the first view, then of the next; or a source of such.
        labels: (N,) int, from 0.
        weights: (N,) sample weights.
        groups: (N,) ids; rows of one group stay together, and so do the views of a row.
        views: V.
    """

    features: np.ndarray | Source
    labels: np.ndarray
    weights: np.ndarray
    groups: np.ndarray
    views: int = 1


@dataclass(frozen=True)
class Trained:
    """A head trained on all rows given.

    Attributes:
        predictor: the head, its probabilities calibrated on the inner folds.
        inner: (N, C) log probabilities of each row by a fit that did not see its fold, the mean over the
            views; None where no folds could be made.
        facts: what inner folds say of it ("inner_brier", "inner_log_loss", "inner_accuracy", all weighted,
            None without folds), "temperature", "converged", and what its training told.
    """

    predictor: Predictor
    inner: np.ndarray | None
    facts: dict[str, Fact]


def train_heads(
    rows: Rows,
    hypers: Sequence[Hyper],
    *,
    classes: int,
    seed: int,
    folds: Folds | None = None,
    advance: Callable[[int], None] = lambda done: None,
) -> list[Trained]:
    """Train a head for each setting; those of one kind are trained together.

    Args:
        rows: the training part.
        hypers: H heads and their hyper-parameters, all different.
        classes: C.
        seed: shuffles the folds.
        folds: of the N samples, where they are given.
        advance: is told how many of the hypers are done.

    Returns:
        H heads in the order of `hypers`.
    """
    labels, weights = np.tile(rows.labels, rows.views), np.tile(rows.weights, rows.views) / rows.views
    if folds is None:
        folds = inner_folds(labels, np.tile(rows.groups, rows.views), seed=seed)
    else:
        folds = in_views(folds, len(rows.labels), rows.views)
    if not all(weights[train].any() for train, _ in folds):
        folds = []  # one fold holds all weight; without it there is nothing to learn from
    trained: dict[Hyper, Trained] = {}
    for kind in dict.fromkeys(hyper.kind for hyper in hypers):
        alike = [hyper for hyper in hypers if hyper.kind == kind]
        before = len(trained)
        fits = _fit(rows.features, labels, weights, classes, alike, folds, lambda n: advance(before + n))  # noqa: B023
        for hyper, fit in zip(alike, fits, strict=True):
            trained[hyper] = calibrated(fit, rows)
        advance(len(trained))
    return [trained[hyper] for hyper in hypers]


def _fit(
    features: np.ndarray | Source,
    labels: np.ndarray,
    weights: np.ndarray,
    classes: int,
    hypers: Sequence[Hyper],
    folds: Folds,
    advance: Callable[[int], None],
) -> list[Fit]:
    """Train the heads of one kind."""
    softmax = [hyper for hyper in hypers if isinstance(hyper, Softmax)]
    if softmax:
        return train_softmax(
            features, labels, weights, classes=classes, hypers=softmax, folds=folds, advance=advance
        )
    held = features if isinstance(features, np.ndarray) else _read(features)
    if ridge := [hyper for hyper in hypers if isinstance(hyper, Ridge)]:
        return fit_ridge(held, labels, weights, classes=classes, hypers=ridge, folds=folds)
    if near := [hyper for hyper in hypers if isinstance(hyper, Neighbours)]:
        return fit_neighbours(held, labels, weights, classes=classes, hypers=near, folds=folds)
    if small := [hyper for hyper in hypers if isinstance(hyper, Mlp)]:
        count = heads_of(len(folds) + 1, advance)
        return fit_mlp(held, labels, weights, classes=classes, hypers=small, folds=folds, advance=count)
    means = [hyper for hyper in hypers if isinstance(hyper, Centroid)]
    return [fit_centroid(held, labels, weights, classes=classes, folds=folds) for _ in means]


def heads_of(networks: int, advance: Callable[[int], None]) -> Callable[[int], None]:
    """Count heads done where one is told of more networks done, so many to a head."""
    done = 0

    def add(more: int) -> None:
        nonlocal done
        done += more
        advance(done // networks)

    return add


def _read(source: Source) -> np.ndarray:
    if isinstance(source, InMemory):
        return source.features
    return np.concatenate([block for _, block in source.blocks()])


def in_views(folds: Folds, samples: int, views: int) -> Folds:
    """Spell folds of N samples as folds of V * N rows, all samples of the first view, then of the next."""
    starts = samples * np.arange(views)[:, None]
    return [((starts + learnt).ravel(), (starts + held).ravel()) for learnt, held in folds]


def calibrated(fit: Fit, rows: Rows) -> Trained:
    """Scale a head's temperature by what the folds say, and score it on them.

    Args:
        fit: a head, and (V * N, C) what fits that did not see a row's fold say of it.
        rows: what it was trained on.
    """
    labels, weights = np.tile(rows.labels, rows.views), np.tile(rows.weights, rows.views) / rows.views
    facts: dict[str, Fact] = {"converged": fit.converged, **fit.facts}
    if fit.inner is None:
        blank = dict.fromkeys(("inner_brier", "inner_log_loss", "inner_accuracy"))
        return Trained(fit.predictor, None, {"temperature": 1.0, **facts, **blank})
    warmth = temperature(fit.inner, labels, weights)
    told = scaled(fit.inner, warmth).reshape(rows.views, len(rows.labels), -1)
    inner = mean_log_proba(list(told))  # (N, C)
    return Trained(
        fit.predictor.tempered(warmth),
        inner,
        {**facts, **inner_scores(inner, rows.labels, rows.weights), "temperature": warmth},
    )


def inner_scores(log_proba: np.ndarray, labels: np.ndarray, weights: np.ndarray) -> dict[str, Fact]:
    """Score predictions of rows by fits that did not see them.

    The Brier score (Brier 1950) is what experiments are chosen by. Like log loss it is best for the true
    probabilities, but it is not ruled by a few confident mistakes, and it varies less than accuracy.

    Args:
        log_proba: (N, C).
        labels: (N,) int.
        weights: (N,) at least zero, some above.
    """
    share, here = weights / weights.sum(), np.arange(len(labels))
    truth = np.zeros_like(log_proba)
    truth[here, labels] = 1
    return {
        "inner_brier": float(share @ np.square(np.exp(log_proba) - truth).sum(axis=1)),
        "inner_log_loss": float(-share @ log_proba[here, labels]),
        "inner_accuracy": float(share @ (log_proba.argmax(axis=1) == labels)),
    }


def said_of(predictors: Sequence[Predictor], features: np.ndarray | Source, views: int) -> list[np.ndarray]:
    """Ask heads about rows that they were not trained on.

    Args:
        predictors: H heads.
        features: (V * n, D) as `Rows` has them.
        views: V.

    Returns:
        (n, C) log probabilities of each head, the mean over the views.
    """
    source = InMemory(features) if isinstance(features, np.ndarray) else features
    told = zip(*(say(predictors, block) for _, block in source.blocks()), strict=True)
    stacked = (np.concatenate(parts) for parts in told)  # (V * n, C) of each head
    return [mean_log_proba(np.split(each, views)) for each in stacked]


def mean_log_proba(views: Sequence[np.ndarray]) -> np.ndarray:
    """Average probabilities over views.

    Args:
        views: (N, C) log probabilities each.

    Returns:
        (N, C) the logarithm of the mean probability.
    """
    if len(views) == 1:
        return views[0]
    mean: np.ndarray = np.logaddexp.reduce(views) - np.log(len(views))
    return mean


def inner_folds(
    labels: np.ndarray, groups: np.ndarray, *, seed: int, most: int = FOLDS
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Cut rows into folds, stratified by label, no group in two.

    Args:
        labels: (N,) int.
        groups: (N,) ids.
        seed: same seed and rows in the same order give the same folds.
        most: how many are wanted.

    Returns:
        (training rows, held-out rows) for each of `most` folds, or of as many as the class with the
        fewest groups allows; none when that is one.
    """
    folds = min(most, *(len(np.unique(groups[labels == c])) for c in np.unique(labels)))
    if folds < 2:
        return []
    if len(np.unique(groups)) == len(groups):
        return list(StratifiedKFold(folds, shuffle=True, random_state=seed).split(labels, labels))
    return list(StratifiedGroupKFold(folds, shuffle=True, random_state=seed).split(labels, labels, groups))
