"""Linear heads for many targets in one go: each is what it would be alone, and so what all would be together."""

import numpy as np
import torch

from tasks.core.answers import UNKNOWN, Answers
from tasks.core.coordinates import standardisation
from tasks.core.hyper import Softmax
from tasks.core.linear import fit_sigmoid, train_answers, train_softmax

HYPERS = [Softmax(0.03), Softmax(0.3), Softmax(0.3, "balanced")]


def questions(
    rows: int = 150, targets: int = 3, unknown: float = 0.4
) -> tuple[np.ndarray, Answers, np.ndarray]:
    random = np.random.default_rng(7)
    features = random.normal(2, 3, (rows, 8))
    scores = features @ random.normal(size=(8, targets)) + random.normal(size=(rows, targets)) * 5
    labels = (scores > np.median(scores, axis=0)).astype(np.int64)
    labels[random.random(labels.shape) < unknown] = UNKNOWN
    names = tuple(f"t{n}" for n in range(targets))
    return features, Answers(names, (("0", "1"),) * targets, labels), random.uniform(0.2, 2, rows)


def folded(rows: int, folds: int = 3) -> list[tuple[np.ndarray, np.ndarray]]:
    parts = np.array_split(np.random.default_rng(0).permutation(rows), folds)
    return [(np.setdiff1d(np.arange(rows), held), held) for held in parts]


def test_where_all_is_known_each_is_the_softmax_head_of_its_target() -> None:
    features, answers, weights = questions(unknown=0)
    folds = folded(150)
    together = train_answers(features, answers, weights, hypers=HYPERS, folds=folds)
    for target, fits in enumerate(together):
        alone = train_softmax(
            features, answers.labels[:, target], weights, classes=2, hypers=HYPERS, folds=folds
        )
        for ours, theirs in zip(fits, alone, strict=True):
            np.testing.assert_allclose(
                ours.predictor.log_proba(features), theirs.predictor.log_proba(features), atol=1e-3
            )
            np.testing.assert_allclose(ours.inner, theirs.inner, atol=2e-3)
            assert ours.converged


def test_inner_predictions_are_those_of_a_naive_loop_that_forgets_the_held_out_answers() -> None:
    features, answers, weights = questions()
    folds = folded(150)
    fits = train_answers(features, answers, weights, hypers=HYPERS[:2], folds=folds)
    for target, alike in enumerate(fits):
        for hyper, fit in zip(HYPERS, alike, strict=False):
            for _, held in folds:
                known = np.where(answers.known[:, target], answers.labels[:, target], np.nan).astype(float)
                known[held] = np.nan
                [[naive]] = fit_sigmoid(features, known[None], weights, strengths=[hyper.strength / 2])
                np.testing.assert_allclose(
                    fit.inner[held], naive.predictor.log_proba(features[held]), atol=2e-3
                )


def test_joint_is_separate_where_features_are_frozen_and_heads_are_linear() -> None:
    """The sum of the targets' losses, minimised over all heads at once by torch, tape and all."""
    features, answers, weights = questions()
    fits = train_answers(features, answers, weights, hypers=HYPERS[:1], folds=[])
    rows = torch.from_numpy(standardisation(features, weights).apply(features)).double()
    truth = torch.from_numpy(answers.labels == 1).double()
    share = torch.from_numpy(np.where(answers.known, weights[:, None], 0))
    share /= share.sum(0)
    weight, bias = torch.zeros(3, 8, dtype=torch.double), torch.zeros(3, dtype=torch.double)
    numbers = [weight.requires_grad_(), bias.requires_grad_()]
    optimiser = torch.optim.LBFGS(
        numbers, max_iter=500, tolerance_grad=1e-10, tolerance_change=1e-14, line_search_fn="strong_wolfe"
    )

    def loss() -> torch.Tensor:
        optimiser.zero_grad()
        said = rows @ weight.T + bias
        each = torch.nn.functional.binary_cross_entropy_with_logits(said, truth, reduction="none")
        total = (each * share).sum() + HYPERS[0].strength / 4 * weight.square().sum()
        total.backward()
        return total

    optimiser.step(loss)
    joint = torch.nn.functional.logsigmoid(rows @ weight.T + bias).detach().numpy()
    for target, [fit] in enumerate(fits):
        np.testing.assert_allclose(fit.predictor.log_proba(features)[:, 1], joint[:, target], atol=1e-3)


def test_progress_counts_every_head_once() -> None:
    features, answers, weights = questions()
    told: list[int] = []
    train_answers(features, answers, weights, hypers=HYPERS, folds=folded(150), advance=told.append)
    assert told[-1] == 9
    assert told == sorted(told)
