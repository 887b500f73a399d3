"""Convex heads: L2-regularised softmax and sigmoid on features, trained to the optimum, many at once.

For rows x_i with class y_i and weight w_i the objective is the weighted mean loss plus a penalty,

    J(W, b) = sum_i w_i * -log softmax(W x_i + b)[y_i] / sum_i w_i  +  strength / 2 * ||W||^2,

with the bias free; for a yes/no question the sigmoid takes the softmax's place. scikit-learn's C is
1 / (strength * sum_i w_i). The features are standardised first, by the weighted mean and deviation of the
training part, which its folds share.

Every problem on the same rows (strengths, folds, targets, class weights) shares each pass over them. The
search runs in the eigenbasis of the features (`tasks.core.coordinates`), each direction scaled by its
curvature, so that tens of steps do where thousands would be needed. Strengths are solved from the largest
down, each starting where the last two point to (a path, as in Friedman, Hastie & Tibshirani 2010, section
2.5). Single precision finds the way, double precision ends it where that is asked for, and what was reached
is certified by the gradient's norm, computed afresh from the raw features.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from tasks.core.answers import Answers
from tasks.core.coordinates import InMemory, Source, coordinates
from tasks.core.fits import Fit, Folds
from tasks.core.hyper import Softmax
from tasks.core.losses import SigmoidLoss, SoftmaxLoss
from tasks.core.path import SINGLE, Found, Lanes, Path, Problem, certify, standardised
from tasks.core.predictors import Linear, log_softmax
from tasks.core.weights import class_weighted

TOLERANCE = 1e-5
"""A head has converged when ||grad J|| is at most this, in standardised features."""
ROUGH = 1e-4
"""The same for the fits on inner folds, which are compared and not kept: single precision reaches it."""


@dataclass(frozen=True)
class ConvexHead:
    """A head on raw features: the standardisation is folded in.

    Attributes:
        predictor: its softmax over C classes.
        strength: the L2 strength that it was trained with.
        objective: J where the search ended, in double precision.
        gradient_norm: ||grad J|| there, likewise; the certificate.
        has_converged: whether that is within the tolerance asked for.
    """

    predictor: Linear
    strength: float
    objective: float
    gradient_norm: float
    has_converged: bool


def fit_softmax(
    features: np.ndarray | Source,
    labels: np.ndarray,
    weights: np.ndarray,
    *,
    classes: int,
    strengths: Sequence[float],
    tolerance: float = TOLERANCE,
) -> list[ConvexHead]:
    """Train one softmax head for each strength.

    Args:
        features: (N, D) any float type, or a source of such rows that need not fit in memory.
        labels: (N,) int, 0 <= label < classes; a class may have no row.
        weights: (N,) sample weights, at least zero, some above.
        classes: C, at least two.
        strengths: S positive numbers.
        tolerance: the gradient norm to reach; single precision ends at 1e-5.

    Returns:
        S heads in the order of `strengths`. One that did not converge says so.
    """
    lanes = _softmax_lanes(labels, classes, [weights])
    wanted = [(0, float(strength)) for strength in strengths]
    return _solve(_source(features), weights, lanes, wanted, tolerance)


def fit_sigmoid(
    features: np.ndarray | Source,
    targets: np.ndarray,
    weights: np.ndarray,
    *,
    strengths: Sequence[float],
    tolerance: float = TOLERANCE,
) -> list[list[ConvexHead]]:
    """Train one sigmoid head for each target and strength, on the rows where the target is known.

    The features are standardised by all rows with weight, known or not, so that targets share each pass.

    Args:
        features: (N, D) any float type, or a source of such rows.
        targets: (T, N) 0, 1, or NaN where the answer is unknown; some known and of weight in each.
        weights: (N,) sample weights, at least zero.
        strengths: S positive numbers; of the penalty strength / 2 * ||w||^2 on the one weight vector.
        tolerance: as for `fit_softmax`.

    Returns:
        T lists of S heads. Their predictors have two classes, no and yes.

    Raises:
        ValueError: if a target has no known row of weight.
    """
    known = ~np.isnan(targets)
    shares = [weights * row for row in known]
    unknown = [number for number, share in enumerate(shares) if not share.sum() > 0]
    if unknown:
        raise ValueError(f"target {unknown[0]}: no known row has weight; leave it out")
    truth = torch.from_numpy(np.where(known, targets, 0.0)).float()
    lanes = Lanes(SigmoidLoss(truth, torch.arange(len(targets))), _shares(shares))
    wanted = [(lane, float(strength)) for lane in range(len(targets)) for strength in strengths]
    heads = _solve(_source(features), weights, lanes, wanted, tolerance)
    return [heads[start : start + len(strengths)] for start in range(0, len(heads), len(strengths))]


def train_softmax(
    features: np.ndarray | Source,
    labels: np.ndarray,
    weights: np.ndarray,
    *,
    classes: int,
    hypers: Sequence[Softmax],
    folds: Folds,
    advance: Callable[[int], None] = lambda done: None,
) -> list[Fit]:
    """Train a head for each setting on all rows, and on all but each fold, in one go.

    Args:
        features: (N, D) any float type, or a source of such rows.
        labels: (N,) int, 0 <= label < classes; a class may have no row.
        weights: (N,) sample weights, at least zero, some above outside of each fold.
        classes: C, at least two.
        hypers: strengths and class weights, all different.
        folds: (training rows, held-out rows), each row held out once; may be empty.
        advance: is told how many of the hypers are done.

    Returns:
        A fit for each of `hypers`, in order, with the facts "gradient_norm" and "objective". Folds are
        fitted to `ROUGH`, all rows to `TOLERANCE`.
    """
    ways = list(dict.fromkeys(hyper.class_weight for hyper in hypers))
    parts = [np.arange(len(labels)), *(train for train, _ in folds)]  # all rows, then all but each fold
    lanes = _softmax_lanes(
        labels, classes, [_within(weights, labels, part, way) for way in ways for part in parts]
    )
    whole = [(ways.index(hyper.class_weight) * len(parts), float(hyper.strength)) for hyper in hypers]
    return _train(_source(features), weights, lanes, whole, folds, classes, advance)


def train_answers(
    features: np.ndarray | Source,
    answers: Answers,
    weights: np.ndarray,
    *,
    hypers: Sequence[Softmax],
    folds: Folds,
    advance: Callable[[int], None] = lambda done: None,
) -> list[list[Fit]]:
    """Train a head for each target of two classes and each setting, all of them in one go.

    Each is what `train_softmax` makes of the rows whose answer is known, but for the standardisation, which all rows
    with weight share. Linear heads of different targets share no number, so that training them by the sum of their
    losses would give the same.

    Args:
        features: (N, D) any float type, or a source of such rows.
        answers: (N, T) to questions of two classes.
        weights: (N,) sample weights, at least zero.
        hypers: H strengths and class weights, all different.
        folds: (training rows, held-out rows), each row held out once; may be empty. Outside of each, and in all,
            every target has a known row of weight.
        advance: is told how many of the T * H heads are done.

    Returns:
        T lists of H fits. Their `inner`, (N, 2), speaks of rows whose answer is unknown, too.
    """
    ways = list(dict.fromkeys(hyper.class_weight for hyper in hypers))
    parts = [np.arange(len(answers)), *(train for train, _ in folds)]
    shares, asked = [], []
    for target in range(len(answers.targets)):
        known = np.flatnonzero(answers.known[:, target])
        labels = answers.labels[:, target]
        for way in ways:
            shares += [_within(weights, labels, np.intersect1d(part, known), way) for part in parts]
            asked += [target] * len(parts)
    truth = torch.from_numpy(answers.labels == 1).float().T.contiguous()
    lanes = Lanes(SigmoidLoss(truth, torch.tensor(asked)), _shares(shares), penalty=0.5)
    whole = [
        ((target * len(ways) + ways.index(hyper.class_weight)) * len(parts), float(hyper.strength))
        for target in range(len(answers.targets))
        for hyper in hypers
    ]
    fits = _train(_source(features), weights, lanes, whole, folds, 2, advance)
    return [fits[first : first + len(hypers)] for first in range(0, len(fits), len(hypers))]


def _train(
    source: Source,
    weights: np.ndarray,
    lanes: Lanes,
    whole: Sequence[Problem],
    folds: Folds,
    classes: int,
    advance: Callable[[int], None],
) -> list[Fit]:
    """Solve problems on all rows, and on all but each fold: the lanes that follow a problem's own."""
    path, rows_in_all = Path(coordinates(source, weights), lanes), len(weights)
    parts = 1 + len(folds)
    inner = {problem: np.empty((rows_in_all, classes), dtype=np.float32) for problem in whole}
    found: dict[Problem, Found] = {}
    inner_converged, done = dict.fromkeys(whole, True), 0
    wanted = dict.fromkeys(((lane + part, s) for lane, s in whole for part in range(parts)), ROUGH)
    for solved in path.walk(wanted | dict.fromkeys(whole, TOLERANCE)):
        found |= {(each.lane, each.strength): each for each in solved if not each.lane % parts}
        for part, (_, held_out) in enumerate(folds, start=1):
            unseen, rows = [each for each in solved if each.lane % parts == part], np.sort(held_out)
            for each, scores in zip(unseen, path.say(unseen, rows), strict=True):
                problem = each.lane - part, each.strength
                inner[problem][rows] = log_softmax(_each_class(scores))
                inner_converged[problem] &= each.done
        done += len(solved)
        advance(done // parts)
    heads = _certified(source, path, [found[problem] for problem in whole], TOLERANCE)
    return [
        Fit(
            head.predictor,
            inner[problem].astype(np.float64) if folds else None,
            head.has_converged and inner_converged[problem],
            {"gradient_norm": head.gradient_norm, "objective": head.objective},
        )
        for head, problem in zip(heads, whole, strict=True)
    ]


def _source(features: np.ndarray | Source) -> Source:
    return InMemory(features) if isinstance(features, np.ndarray) else features


def _softmax_lanes(labels: np.ndarray, classes: int, weights: Sequence[np.ndarray]) -> Lanes:
    """One lane for each weighting of the rows.

    With two classes W is -v / 2 and v / 2 by symmetry: a sigmoid of the difference, with half the penalty.
    """
    if classes == 2:
        truth = torch.from_numpy(labels == 1).float()[None]
        asked = torch.zeros(len(weights), dtype=torch.int64)
        return Lanes(SigmoidLoss(truth, asked), _shares(weights), penalty=0.5)
    return Lanes(SoftmaxLoss(torch.from_numpy(labels).long(), classes), _shares(weights))


def _shares(weights: Sequence[np.ndarray]) -> Tensor:
    """Make each row of (L, N) sum to 1."""
    return torch.from_numpy(np.stack([each / each.sum() for each in weights]).astype(np.float64))


def _within(weights: np.ndarray, labels: np.ndarray, part: np.ndarray, way: str) -> np.ndarray:
    """Weights of a part of the rows, the classes balanced within it if asked for; (N,), zero elsewhere."""
    inside: np.ndarray = np.zeros(len(weights))
    inside[part] = class_weighted(weights[part], labels[part], way)
    return inside


def _each_class(scores: np.ndarray) -> np.ndarray:
    """Spell the difference of two classes as a score for each; (..., C), and (..., 1) -> (..., 2)."""
    return np.concatenate([-scores / 2, scores / 2], axis=-1) if scores.shape[-1] == 1 else scores


def _solve(
    source: Source, weights: np.ndarray, lanes: Lanes, wanted: Sequence[Problem], tolerance: float
) -> list[ConvexHead]:
    path = Path(coordinates(source, weights), lanes)
    steps = path.walk(dict.fromkeys(wanted, max(tolerance, SINGLE)))
    found = {(each.lane, each.strength): each for solved in steps for each in solved}
    return _certified(source, path, [found[problem] for problem in wanted], tolerance)


def _certified(source: Source, path: Path, found: Sequence[Found], tolerance: float) -> list[ConvexHead]:
    """Evaluate solutions afresh; what single precision did not finish, double precision does."""
    heads = _evaluated(source, path, found, tolerance)
    short = [number for number, head in enumerate(heads) if not head.has_converged]
    if short:
        finished = path.polish([found[number] for number in short], tolerance)
        for number, head in zip(short, _evaluated(source, path, finished, tolerance), strict=True):
            heads[number] = head
    return heads


def _evaluated(source: Source, path: Path, found: Sequence[Found], tolerance: float) -> list[ConvexHead]:
    """Certify solutions, and fold the standardisation in."""
    weight, standard = standardised(path.place, found), path.place.standard
    objectives, norms = certify(source, standard, path.lanes, found, weight)
    if path.lanes.penalty != 1:
        norms = norms * 2**0.5  # by each of two classes, not by their difference
    heads = []
    for each, solution, objective, norm in zip(found, weight.numpy(), objectives, norms, strict=True):
        by_class = _each_class(solution.T).T  # (C, D + 1)
        predictor = standard.on_raw(by_class[:, :-1], by_class[:, -1])
        heads.append(
            ConvexHead(predictor, each.strength, float(objective), float(norm), bool(norm <= tolerance))
        )
    return heads
