"""Heads for several targets: separately each is what it would be alone, jointly they help each other."""

from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from tasks.core.answer_splits import inner_folds_of
from tasks.core.answers import UNKNOWN, Answers
from tasks.core.hyper import Centroid, Mlp, Ridge, Shared, Softmax
from tasks.core.joint import Asked, train_jointly, train_separately
from tasks.core.linear import fit_sigmoid
from tasks.core.predictors import log_softmax
from tasks.core.selection import Rows, Trained, train_heads

OTHERS = [Ridge(1.0), Mlp((8,), 1e-2), Centroid()]
HYPERS = [Softmax(0.1), *OTHERS]


def related(
    rows: int, targets: int, unknown: float, seed: int = 0, width: int = 20
) -> tuple[np.ndarray, Answers]:
    """Rows, and questions about four hidden directions of them, bent, so that what is learnt of one serves all."""
    random = np.random.default_rng(seed)
    features = random.normal(size=(rows, width))
    hidden = np.tanh(2 * features @ random.normal(size=(width, 4)))
    scores = hidden @ random.normal(size=(4, targets)) + 0.3 * random.normal(size=(rows, targets))
    labels = (scores > 0).astype(np.int64)
    labels[random.random(labels.shape) < unknown] = UNKNOWN
    return features, Answers(tuple(f"t{n}" for n in range(targets)), (("0", "1"),) * targets, labels)


def asked(rows: int = 120, targets: int = 3, unknown: float = 0.4, views: int = 1) -> Asked:
    features, answers = related(rows, targets, unknown)
    noise = np.random.default_rng(1)
    seen = np.concatenate([features + 0.1 * noise.normal(size=features.shape) for _ in range(views)])
    folds = inner_folds_of(answers, np.arange(rows).astype(str), seed=0)
    return Asked(seen, answers, np.linspace(0.5, 1.5, rows), folds, views)


@pytest.mark.parametrize("views", [1, 2])
def test_separately_each_target_gets_the_heads_of_its_known_rows(views: int) -> None:
    given = asked(views=views)
    for target, heads in enumerate(train_separately(given, OTHERS, seed=0)):
        known = np.flatnonzero(given.answers.known[:, target])
        place = {row: n for n, row in enumerate(known.tolist())}
        folds = [
            tuple(np.array([place[row] for row in part.tolist() if row in place]) for part in fold)
            for fold in given.folds
        ]
        where = np.concatenate([known + view * len(given.answers) for view in range(views)])
        labels = given.answers.labels[known, target]
        rows = Rows(given.features[where], labels, given.weights[known], known.astype(str), views)
        alone = train_heads(rows, OTHERS, classes=2, seed=0, folds=folds)
        for ours, theirs in zip(heads, alone, strict=True):
            assert ours.inner.shape == (len(known), 2)
            np.testing.assert_allclose(ours.inner, theirs.inner, atol=1e-6)
            assert ours.facts["inner_brier"] == theirs.facts["inner_brier"]


@pytest.mark.parametrize("views", [1, 2])
def test_softmax_heads_are_a_naive_loop_of_sigmoids_over_targets_and_folds(views: int) -> None:
    """Standardised by all rows, and each fold's answers forgotten."""
    given, strength = asked(views=views), 0.1
    samples, weights = len(given.answers), np.tile(given.weights, views) / views
    for target, [head] in enumerate(train_separately(given, [Softmax(strength)], seed=0)):
        known = given.answers.known[:, target]
        truth = np.where(known, given.answers.labels[:, target], np.nan).astype(float)
        warmth = head.facts["temperature"]
        [[whole]] = fit_sigmoid(
            given.features, np.tile(truth, views)[None], weights, strengths=[strength / 2]
        )
        np.testing.assert_allclose(
            head.predictor.log_proba(given.features),
            log_softmax(whole.predictor.log_proba(given.features) / warmth),
            atol=1e-3,
        )
        inner = np.empty((samples, 2))
        for _, held in given.folds:
            without = truth.copy()
            without[held] = np.nan
            [[fold]] = fit_sigmoid(
                given.features, np.tile(without, views)[None], weights, strengths=[strength / 2]
            )
            said = log_softmax(fold.predictor.log_proba(given.features) / warmth).reshape(views, samples, 2)
            inner[held] = np.log(np.exp(said[:, held]).mean(axis=0))
        np.testing.assert_allclose(head.inner, inner[known], atol=5e-3)


def test_a_target_of_three_classes_stands_beside_yes_and_no() -> None:
    given = asked()
    three = np.where(given.answers.known[:, :1], np.arange(120)[:, None] % 3, UNKNOWN)
    answers = Answers(
        (*given.answers.targets, "kind"),
        (*given.answers.classes, ("a", "b", "c")),
        np.concatenate([given.answers.labels, three], axis=1),
    )
    mixed = replace(given, answers=answers)
    for heads in (
        train_separately(mixed, [Softmax(0.1)], seed=0),
        train_jointly(mixed, [Shared((8,), 1e-2)]),
    ):
        assert [each[0].inner.shape[1] for each in heads] == [2, 2, 2, 3]
        np.testing.assert_allclose(np.exp(heads[3][0].inner).sum(axis=1), 1)


@pytest.mark.parametrize("views", [1, 2])
def test_jointly_every_target_speaks_through_the_same_hidden_layer(views: int) -> None:
    given = asked(views=views)
    ways = {"weigh": "known"}, {"factors": (("t0", 5.0),)}, {"class_weight": "balanced"}
    heads = train_jointly(given, [Shared((8,), 1e-2), *(Shared((8,), 1e-2, **way) for way in ways)])
    for number in range(4):
        layers = [each[number].predictor.weights[0] for each in heads]
        assert all((layer == layers[0]).all() for layer in layers)
    first = [each.predictor.weights[0] for each in heads[0]]
    assert all((first[0] != other).any() for other in first[1:])  # each way weighs the answers otherwise
    for target, each in enumerate(heads):
        assert each[0].inner.shape == (given.answers.known[:, target].sum(), 2)
        assert np.isfinite(each[0].inner).all()


def test_related_targets_with_few_answers_help_each_other() -> None:
    """A hundred answers to each of 24 questions about four directions: joint beats separate on the average question."""
    features, answers = related(2000, 24, 0.0, seed=3)
    few = answers.labels[:1000].copy()
    few[np.random.default_rng(0).random(few.shape) < 0.9] = UNKNOWN
    known = Answers(answers.targets, answers.classes, few)
    folds = inner_folds_of(known, np.arange(1000).astype(str), seed=0)
    given = Asked(features[:1000], known, np.ones(1000), folds)

    def precision(heads: list[list[Trained]]) -> float:
        said = [each.predictor.log_proba(features[1000:])[:, 1] for [each] in heads]
        truth = answers.labels[1000:].T
        return float(np.mean([average_precision_score(*pair) for pair in zip(truth, said, strict=True)]))

    joint = precision(train_jointly(given, [Shared((32,), 3e-3)]))
    assert joint > precision(train_separately(given, [Mlp((32,), 3e-3)], seed=0)) + 0.015
    assert joint > precision(train_separately(given, [Softmax(0.1)], seed=0)) + 0.005


def test_progress_counts_every_head_once() -> None:
    told: list[int] = []
    train_separately(asked(), HYPERS, seed=0, advance=told.append)
    assert told[-1] == 12
    assert told == sorted(told)
    told.clear()
    train_jointly(asked(), [Shared((8,)), Shared((4,)), Shared((4,), weigh="known")], advance=told.append)
    assert told[-1] == 9
    assert told == sorted(told)
