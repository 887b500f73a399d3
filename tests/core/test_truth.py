"""What layers are judged by: several targets are each what one alone would be, on the rows whose answer is known."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.core.answers import UNKNOWN, Answers, label_weights
from tasks.core.predictors import log_softmax
from tasks.core.truth import Known, KnownAnswers, warmed

SIZES = (2, 3)


def truths(rows: int = 40, unknown: float = 0.4, seed: int = 0, **how: object) -> KnownAnswers:
    random = np.random.default_rng(seed)
    labels = np.column_stack([random.integers(0, size, rows) for size in SIZES])
    labels[:6] = np.array([[0, 0], [1, 1], [0, 2], [1, 0], [0, 1], [1, 2]])
    labels[6:][random.random((rows - 6, 2)) < unknown] = UNKNOWN
    answers = Answers(("yes", "kind"), (("0", "1"), ("a", "b", "c")), labels)
    groups = np.array([f"g{n}" for n in range(rows)], dtype=object)
    return KnownAnswers(answers, random.uniform(0.5, 2, rows), groups, **how)


def said(truth: KnownAnswers, rows: np.ndarray, views: int = 2) -> np.ndarray:
    raw = 3 * np.random.default_rng(1).normal(size=(views, len(rows), sum(SIZES)))
    return np.concatenate([log_softmax(raw[..., :2]), log_softmax(raw[..., 2:])], axis=2)


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 99))
def test_each_target_is_judged_as_if_it_were_alone(seed: int) -> None:
    truth, rows = truths(seed=seed), np.arange(3, 37)
    told = said(truth, rows)
    able = np.arange(len(rows)) % 5 > 0
    found = truth.judged(told, able, rows)
    for target, block in enumerate(truth.answers.blocks):
        known = truth.answers.known[rows, target]
        alone = Known(truth.answers.labels[:, target], truth.weights, truth.groups, SIZES[target])
        wanted = alone.judged(told[:, known][..., block], able[known], rows[known])
        np.testing.assert_allclose(found.inner[known][:, block], wanted.inner)
        assert found.warmth[target] == wanted.warmth[0]
        assert found.facts[target] == wanted.facts[0]
    np.testing.assert_allclose(np.exp(found.inner[:, :2]).sum(axis=1), 1)


def test_the_brier_score_is_the_mean_over_targets() -> None:
    truth, rows = truths(), np.arange(40)
    told = said(truth, rows)
    each = [float(str(facts["inner_brier"])) for facts in truth.judged(told, np.ones(40, bool), rows).facts]
    assert truth.brier(told, rows) == pytest.approx(np.mean(each))


def test_priors_are_those_of_the_known_answers() -> None:
    truth, rows = truths(), np.arange(40)
    prior = truth.prior(rows)
    for target, block in enumerate(truth.answers.blocks):
        known = rows[truth.answers.known[:, target]]
        alone = Known(truth.answers.labels[:, target], truth.weights, truth.groups, SIZES[target])
        np.testing.assert_allclose(prior[block], alone.prior(known))
        assert np.exp(prior[block]).sum() == pytest.approx(1)


@pytest.mark.parametrize("weigh", ["equal", "known"])
@pytest.mark.parametrize("classes", ["none", "balanced"])
def test_what_is_learnt_is_each_known_answer_by_its_weight(weigh: str, classes: str) -> None:
    how = {"weigh": weigh, "factors": (("kind", 3.0),), "class_weight": classes}
    truth, rows = truths(**how), np.arange(5, 35)
    found = truth.targets(rows).numpy()
    assert (found[:5] == 0).all()
    share = label_weights(truth.answers.take(rows), truth.weights[rows], weigh, {"kind": 3.0}, classes)
    for target, block in enumerate(truth.answers.blocks):
        for row, number in enumerate(rows):
            label = truth.answers.labels[number, target]
            one = np.zeros(SIZES[target])
            if label != UNKNOWN:
                one[label] = share[row, target] * truth.answers.known[rows].sum()
            np.testing.assert_allclose(found[number, block], one, rtol=1e-5)
    assert found.sum() == pytest.approx(truth.answers.known[rows].sum(), rel=1e-5)


def test_folds_hold_each_row_out_once_and_none_where_a_fold_would_know_nothing() -> None:
    truth, rows = truths(unknown=0.0), np.arange(40)
    folds = truth.folds(rows, seed=0, most=4)
    assert sorted(np.concatenate([held for _, held in folds]).tolist()) == rows.tolist()
    few = truths(unknown=1.0)
    labels = few.answers.labels.copy()
    labels[1:, 0] = UNKNOWN  # one answer alone cannot be in every fold
    lone = KnownAnswers(Answers(few.answers.targets, few.answers.classes, labels), few.weights, few.groups)
    assert lone.folds(rows, seed=0, most=4) == []


def test_each_target_is_warmed_at_its_own_temperature() -> None:
    truth = truths()
    told = said(truth, np.arange(40))
    found = warmed(told, SIZES, (2.0, 0.5))
    np.testing.assert_allclose(found[..., :2], log_softmax(told[..., :2] / 2.0))
    np.testing.assert_allclose(found[..., 2:], log_softmax(told[..., 2:] / 0.5))
