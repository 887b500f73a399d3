"""Scores of several targets are scikit-learn's, each, together, and under every replicate."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, f1_score, roc_auc_score

from tasks.core.answer_scores import (
    ANSWER_METRICS,
    Question,
    best_threshold,
    draw_question,
    draw_targets,
    less,
    questions_of,
)
from tasks.core.answers import MACRO, MICRO
from tasks.core.metrics import Drawn, draw_groups, intervals
from tasks.core.metrics import TestPart as Told
from tasks.core.predictors import log_softmax


def question(rows: int, seed: int, ties: bool = False) -> Question:
    random = np.random.default_rng(seed)
    truth = random.random(rows) < 0.4
    truth[:2] = True, False
    margin = random.normal(size=rows) + truth
    if ties:
        margin = np.round(margin)
    return Question(np.arange(rows), truth, margin, margin > 0.3)


def by_sklearn(asked: Question, times: np.ndarray) -> list[float]:
    rows = np.repeat(np.arange(len(times)), times)
    truth, margin, called = asked.truth[rows], asked.margin[rows], asked.called[rows]
    return [
        average_precision_score(truth, margin),
        roc_auc_score(truth, margin),
        f1_score(truth, called, zero_division=0),
    ]


@settings(deadline=None, max_examples=30)
@given(st.integers(4, 60), st.integers(0, 999), st.booleans())
def test_a_question_is_scored_as_scikit_learn_does_and_so_is_every_replicate(
    rows: int, seed: int, ties: bool
) -> None:
    asked = question(rows, seed, ties)
    draws = draw_groups([str(n) for n in range(rows)], replicates=8, seed=seed)
    found = draw_question(asked, draws)
    values = by_sklearn(asked, np.ones(rows, dtype=int))
    assert [found[metric].value for metric in ANSWER_METRICS] == pytest.approx(values)
    for replicate in range(8):
        times = draws.counts[draws.members, replicate].astype(int)
        answers = {bool(answer) for answer in asked.truth[times > 0]}
        if len(answers) == 2:
            drawn = [found[metric].draws[replicate] for metric in ANSWER_METRICS]
            assert drawn == pytest.approx(by_sklearn(asked, times), abs=1e-5)


@pytest.mark.parametrize(("yes", "auroc"), [(3, 3), (490, 10)])
def test_where_all_is_right_few_rows_bound_what_they_decide(yes: int, auroc: int) -> None:
    truth = np.arange(500) < yes
    question = Question(np.arange(500), truth, np.where(truth, 2.0, -2.0), truth)
    found = intervals(draw_question(question, draw_groups([str(row) for row in range(500)])))
    for metric, trials in (("average precision", yes), ("AUROC", auroc), ("F1", yes)):
        assert (found[metric].value, found[metric].high) == (1.0, 1.0)
        assert found[metric].low == pytest.approx(0.025 ** (1 / trials))


def test_where_all_is_right_the_rarest_answer_bounds_the_means() -> None:
    labels = np.repeat([0, 1, 2], [200, 200, 3])
    told = Told(np.arange(403), labels, np.ones(403), np.where(np.eye(3)[labels] > 0, -0.01, -6.0))
    common = Question(np.arange(403), labels == 1, np.where(labels == 1, 2.0, -2.0), labels == 1)
    never = Question(np.arange(403), labels > 2, np.full(403, -2.0), labels > 2)  # no score, no say
    asked = {"weather": questions_of(told, None), "car": [common], "snow": [never]}
    found = draw_targets(asked, draw_groups([str(row) for row in range(403)]))
    for target, trials in (("weather", 3), ("car", 200), (MACRO, 3)):
        score = intervals(found[target])["average precision"]
        assert (score.value, score.low) == (1.0, pytest.approx(0.025 ** (1 / trials)))


def test_without_a_yes_or_a_no_there_is_no_score() -> None:
    rows, margin = np.arange(3), np.array([0.1, 0.2, 0.3])
    draws = draw_groups(["a", "b", "c"], replicates=4)
    none = draw_question(Question(rows, np.zeros(3, bool), margin, margin > 0.2), draws)
    assert all(np.isnan(none[metric].value) for metric in ANSWER_METRICS)
    all_yes = draw_question(Question(rows, np.ones(3, bool), margin, margin > 0.2), draws)
    assert np.isnan(all_yes["AUROC"].value)
    assert all_yes["average precision"].value == 1


@settings(deadline=None)
@given(st.integers(2, 40), st.integers(0, 999))
def test_no_threshold_has_a_higher_f1(rows: int, seed: int) -> None:
    asked = question(rows, seed, ties=True)
    log_proba = log_softmax(np.column_stack([np.zeros(rows), asked.margin]))
    labels = asked.truth.astype(int)
    found = best_threshold(log_proba, labels)
    chance = np.exp(log_proba[:, 1])

    def score(threshold: float) -> float:
        return float(f1_score(labels, chance >= threshold - 1e-12, zero_division=0))

    assert score(found) == pytest.approx(max(score(threshold) for threshold in chance))


def test_a_threshold_needs_a_yes_and_two_answers() -> None:
    two = log_softmax(np.zeros((3, 2)))
    assert best_threshold(two, np.zeros(3, int)) is None
    assert best_threshold(log_softmax(np.zeros((3, 3))), np.arange(3)) is None


def part(rows: np.ndarray, classes: int, seed: int) -> Told:
    random = np.random.default_rng(seed)
    labels = random.integers(0, classes, len(rows))
    labels[:classes] = np.arange(classes)
    scores = random.normal(size=(len(rows), classes)) + np.eye(classes)[labels]
    return Told(rows, labels, np.ones(len(rows)), log_softmax(scores))


def test_a_target_of_three_answers_is_the_mean_of_three_questions() -> None:
    told = part(np.arange(30), 3, 0)
    draws = draw_groups([str(n) for n in range(30)], replicates=10)
    found = draw_targets({"kind": questions_of(told, None)}, draws)["kind"]
    hot = np.eye(3)[told.labels]
    proba = np.exp(told.log_proba)
    assert found["average precision"].value == pytest.approx(
        average_precision_score(hot, proba, average="macro")
    )
    assert found["AUROC"].value == pytest.approx(roc_auc_score(told.labels, proba, multi_class="ovr"))
    assert found["F1"].value == pytest.approx(f1_score(told.labels, proba.argmax(1), average="macro"))


def test_macro_is_the_mean_over_targets_and_micro_is_all_rows_together() -> None:
    parts = {"a": part(np.arange(40), 2, 1), "b": part(np.arange(20, 35), 2, 2)}
    draws = draw_groups([str(n) for n in range(40)], replicates=10)
    found = draw_targets({name: questions_of(each, 0.5) for name, each in parts.items()}, draws)
    for metric in ANSWER_METRICS:
        assert found[MACRO][metric].value == pytest.approx(
            (found["a"][metric].value + found["b"][metric].value) / 2
        )
        np.testing.assert_allclose(
            found[MACRO][metric].draws, (found["a"][metric].draws + found["b"][metric].draws) / 2
        )
    truth = np.concatenate([each.labels for each in parts.values()])
    chance = np.concatenate([np.exp(each.log_proba[:, 1]) for each in parts.values()])
    assert found[MICRO]["average precision"].value == pytest.approx(average_precision_score(truth, chance))
    assert found[MICRO]["AUROC"].value == pytest.approx(roc_auc_score(truth, chance))
    assert found[MICRO]["F1"].value == pytest.approx(f1_score(truth, chance >= 0.5))


def test_a_difference_is_paired_over_draws_and_seeds() -> None:
    random = np.random.default_rng(0)
    shared = random.normal(0.8, 0.05, (3, 2000))
    ones = [Drawn(0.82, each + 0.02, np.arange(9)) for each in shared]
    others = [Drawn(0.80, each, np.arange(9)) for each in shared]
    found = less(ones, others)
    assert found.value == pytest.approx(0.02)
    assert (found.low, found.high) == (pytest.approx(0.02), pytest.approx(0.02))
