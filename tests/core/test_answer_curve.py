"""Heads learn from shares of what is known of each target: those of many targets at once are those of each alone."""

from dataclasses import replace

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score

from tasks.core.answer_curve import Classroom
from tasks.core.answers import UNKNOWN, Answers
from tasks.core.curve import SHARES
from tasks.core.hyper import Hyper, Mlp, Ridge, Softmax
from tasks.core.metrics import draw_groups

N, D = 240, 12


@pytest.fixture
def classroom() -> Classroom:
    """Two yes/no targets and one of three answers, each known of some samples; of the last class little is known."""
    random = np.random.default_rng(0)
    features = random.normal(size=(N, D)).astype(np.float32)
    noisy = features[:, :3] + random.normal(size=(N, 3))
    labels = np.column_stack([noisy[:, 0] > 0, noisy[:, 1] > 0.5, np.digitize(noisy[:, 2], [-0.5, 0.9])])
    labels = np.where(random.random((N, 3)) < 0.3, UNKNOWN, labels)
    answers = Answers(("car", "sign", "weather"), (("0", "1"), ("0", "1"), ("fog", "rain", "sun")), labels)
    groups = np.array([f"g{row}" for row in range(N)], dtype=object)
    weights = random.uniform(0.5, 2.0, N)
    return Classroom(answers, features, weights, groups, np.arange(N), draw_groups(groups.tolist()))


def test_of(seed: int) -> np.ndarray:
    return np.random.default_rng([9, seed]).random(N) < 0.3


test_of.__test__ = False  # type: ignore[attr-defined]


def values(scores: dict) -> dict[tuple[str, str], float]:
    return {(target, metric): drawn.value for target, of in scores.items() for metric, drawn in of.items()}


def test_what_weighs_nothing_teaches_nothing_and_is_tested(classroom):
    weights = np.where(np.arange(N) % 3 == 0, 0.0, classroom.weights)
    lesson = replace(classroom, weights=weights).lesson("car", Softmax(0.1), test_of(0), 0)
    known = classroom.answers.known[:, 0]
    assert (lesson.taken == (known & ~test_of(0) & (weights > 0))).all()
    assert (lesson.asked == (known & test_of(0))).all()


def test_lessons_take_and_ask_what_is_known_alone(classroom):
    for number, target in enumerate(classroom.answers.targets):
        known = classroom.answers.known[:, number]
        whole = [classroom.lesson(target, Softmax(0.1), test_of(seed), seed) for seed in (0, 1)]
        for share, lessons in classroom.shorter(target, whole).items():
            for seed, lesson in enumerate(lessons):
                assert not (lesson.taken & (test_of(seed) | ~known)).any()
                assert (lesson.asked == (test_of(seed) & known)).all()
                of = (known & ~test_of(seed)).sum()
                assert lesson.taken.sum() == pytest.approx(share * of, abs=6)
        assert list(classroom.shorter(target, whole)) == sorted(SHARES)


@pytest.mark.parametrize("hyper", [Softmax(0.1), Softmax(1.0, "balanced"), Ridge(1.0), Mlp((6,), 0.01)])
def test_heads_of_all_targets_are_those_of_each_by_itself(classroom, hyper: Hyper):
    lessons = {
        target: classroom.shorter(target, [classroom.lesson(target, hyper, test_of(0), 0)])[0.5][0]
        for target in classroom.answers.targets
    }
    together = values(classroom.score(lessons, ~test_of(0)))
    alone = {
        place: value
        for target, lesson in lessons.items()
        for place, value in values(classroom.score({target: lesson}, ~test_of(0))).items()
    }
    assert together.keys() == alone.keys()
    assert [together[place] for place in alone] == pytest.approx(list(alone.values()), abs=1e-3)


def test_a_head_on_a_share_is_what_scikit_learn_makes_of_it(classroom):
    strength = 0.1
    [lesson] = classroom.shorter("sign", [classroom.lesson("sign", Softmax(strength), test_of(3), 3)])[0.25]
    found = classroom.score({"sign": lesson}, ~test_of(3))["sign"]["average precision"].value
    x, y, w = classroom.features, classroom.answers.labels[:, 1], classroom.weights
    taken, asked = lesson.taken, lesson.asked
    everyone = (
        np.where(test_of(3), 0, w) / w[~test_of(3)].sum()
    )  # all pictures are there, of which answers are fewer
    mean = everyone @ x
    scale = np.sqrt(everyone @ (x - mean) ** 2)
    model = LogisticRegression(C=1 / strength, tol=1e-9, max_iter=10_000)
    model.fit((x[taken] - mean) / scale, y[taken], sample_weight=w[taken] / w[taken].sum())
    expected = average_precision_score(y[asked], model.decision_function((x[asked] - mean) / scale))
    assert found == pytest.approx(expected, abs=5e-3)


def test_each_head_has_hyper_parameters_of_its_own(classroom):
    weak = classroom.lesson("car", Softmax(100.0), test_of(0), 0)
    strong = classroom.lesson("sign", Softmax(0.01), test_of(0), 0)
    both = values(classroom.score({"car": weak, "sign": strong}, ~test_of(0)))
    apart = values(classroom.score({"car": weak}, ~test_of(0))) | values(
        classroom.score({"sign": strong}, ~test_of(0))
    )
    assert [both[place] for place in apart] == pytest.approx(list(apart.values()), abs=1e-3)


@pytest.mark.parametrize("hyper", [Mlp((6,), 0.01), Softmax(0.1)])
def test_few_answers_in_few_groups_are_learnt_from_too(classroom, hyper: Hyper):
    """Most groups answer nothing: folds are made of those that do."""
    groups = np.array([f"g{row // 20}" for row in range(N)], dtype=object)
    labels = classroom.answers.labels.copy()
    labels[60:200] = UNKNOWN
    answers = replace(classroom.answers, labels=labels)
    features = np.concatenate([classroom.features] * 2)
    sparse = replace(
        classroom,
        answers=answers,
        groups=groups,
        features=features,
        views=2,
        draws=draw_groups(groups.tolist()),
    )
    test = np.arange(N) >= 220
    lesson = sparse.lesson("car", hyper, test, 0)
    [less] = sparse.shorter("car", [lesson])[0.5]
    found = sparse.score({"car": less}, ~test)["car"]["average precision"]
    assert 0 < found.value <= 1


def test_views_speak_together(classroom):
    twice = replace(classroom, features=np.concatenate([classroom.features] * 2), views=2)
    lesson = classroom.lesson("car", Softmax(0.1), test_of(0), 0)
    one, other = (values(each.score({"car": lesson}, ~test_of(0))) for each in (classroom, twice))
    assert other["car", "average precision"] == pytest.approx(one["car", "average precision"], abs=0.01)
