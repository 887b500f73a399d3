"""A head learns from nested shares of its training part: stratified, groups whole, and trained as ever."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made import noisy_classes

import tasks.core.selection
from tasks.core.curve import SHARES, Known, Lesson, halvings, learn, shorter
from tasks.core.hyper import Centroid, Hyper, Mlp, Neighbours, Ridge, Softmax
from tasks.core.selection import Rows, said_of, train_heads

KINDS: dict[str, Hyper] = {
    "softmax": Softmax(0.1),
    "balanced": Softmax(1.0, "balanced"),
    "ridge": Ridge(1.0),
    "knn": Neighbours(3),
    "centroid": Centroid(),
    "mlp": Mlp((8,), learning_rate=0.01),
}


def singles(n: int) -> np.ndarray:
    return np.array([f"sample {row}" for row in range(n)], dtype=object)


# Shares


@given(st.lists(st.integers(0, 2), min_size=12, max_size=80), st.integers(0, 5), st.data())
def test_shares_are_nested_and_each_class_gives_its_part_rounded_up(labels, seed, data):
    labels = np.array([*range(3)] * 4 + labels)
    training = np.array(data.draw(st.lists(st.booleans(), min_size=len(labels), max_size=len(labels))))
    training[:12] = True  # four of each class, so that each can be halved
    within = training
    halves = halvings(training, singles(len(labels)), labels, seed=seed)
    for share, taken in zip(SHARES, halves, strict=False):
        assert not (taken & ~within).any()
        for name in range(3):
            assert (taken & (labels == name)).sum() == np.ceil(share * (training & (labels == name)).sum())
        within = taken
    assert len(halves) >= 2


@given(st.lists(st.tuples(st.integers(0, 1), st.integers(1, 9)), min_size=8, max_size=40), st.integers(0, 5))
def test_groups_stay_whole_and_classes_keep_their_parts_to_within_a_group(groups, seed):
    ids = np.concatenate([[f"group {n}"] * size for n, (_, size) in enumerate(groups)]).astype(object)
    labels = np.concatenate([[label] * size for label, size in groups])
    training = np.ones(len(ids), dtype=bool)
    within = training
    for share, taken in zip(SHARES, halvings(training, ids, labels, seed=seed), strict=False):
        assert not (taken & ~within).any()
        assert set(ids[taken]).isdisjoint(ids[within & ~taken])
        for label in set(labels.tolist()):
            largest = max(size for each, size in groups if each == label)
            assert abs((taken & (labels == label)).sum() - share * (labels == label).sum()) <= 2 * largest + 1
        within = taken


@given(st.permutations(range(24)))
def test_the_order_of_samples_moves_no_share(order):
    labels, groups = np.arange(24) % 2, singles(24)
    whole = np.ones(24, dtype=bool)
    for one, other in zip(
        halvings(whole, groups, labels, seed=3),
        halvings(whole, groups[order], labels[order], seed=3),
        strict=True,
    ):
        assert set(groups[one]) == set(groups[order][other])


def test_another_seed_takes_other_samples():
    labels, whole = np.arange(40) % 2, np.ones(40, dtype=bool)
    first, second = (halvings(whole, singles(40), labels, seed=seed)[0] for seed in (0, 1))
    assert (first != second).any()


def test_a_class_that_lies_in_one_group_cannot_be_halved():
    groups = np.array(["a"] * 4 + ["b"] * 4 + ["c"] * 4, dtype=object)
    labels = np.array([0] * 8 + [1] * 4)
    assert halvings(np.ones(12, dtype=bool), groups, labels, seed=0) == []


# Lessons


def lessons(n: int, hyper: Hyper, *seeds: int) -> list[Lesson]:
    """One lesson for each seed; another quarter of the samples is asked about in each."""
    asked = [np.arange(n) % 4 == number % 4 for number in range(len(seeds))]
    return [Lesson(hyper, ~each, each, seed) for each, seed in zip(asked, seeds, strict=True)]


def test_lessons_keep_all_but_what_is_learnt():
    known = Known(np.arange(64) % 2, np.ones(64), singles(64))
    whole = lessons(64, Ridge(1.0), 7, 8)
    shares = shorter(known, whole)
    assert list(shares) == sorted(SHARES)
    for share, some in shares.items():
        assert [each.seed for each in some] == [7, 8]
        for small, large in zip(some, whole, strict=True):
            assert replace(small, taken=large.taken) == large
            assert small.taken.sum() == 48 * share


def test_a_share_that_is_too_small_for_one_seed_is_left_out_for_all():
    labels = np.zeros(64, dtype=int)
    labels[[0, 4, 8, 12, 1, 2, 3]] = (
        1  # of class 1, four are asked about with the first seed, one with the second
    )
    known = Known(labels, np.ones(64), singles(64))
    assert list(shorter(known, lessons(64, Ridge(1.0), 0, 1))) == [0.5]
    assert list(shorter(known, lessons(64, Ridge(1.0), 0, 1)[1:])) == [0.25, 0.5]


def test_samples_without_weight_do_not_make_a_class():
    labels, weights = np.arange(64) % 2, np.ones(64)
    known = Known(labels, weights, singles(64))
    assert len(shorter(known, lessons(64, Ridge(1.0), 0))) == 3
    weights[8:][labels[8:] == 1] = 0  # four of the class are left
    assert len(shorter(known, lessons(64, Ridge(1.0), 0))) < 3
    weights[labels == 1] = 0  # the whole part has none, so that no share needs any
    assert len(shorter(known, lessons(64, Ridge(1.0), 0))) == 3


@pytest.mark.parametrize(("k", "views", "left"), [(5, 1, 3), (6, 1, 2), (12, 1, 1), (24, 1, 0), (24, 2, 1)])
def test_a_share_of_which_all_would_vote_is_left_out(k, views, left):
    known = Known(np.arange(64) % 2, np.ones(64), singles(64), views)
    assert len(shorter(known, lessons(64, Neighbours(k), 0))) == left


# Learning


def some_rows(views: int = 1) -> tuple[Known, np.ndarray]:
    """Known labels of 160 rows in groups of two, and features."""
    features, labels, weights = noisy_classes(160, 30, 3, noise=2.0)
    groups = np.array([f"g{row // 2}" for row in range(160)], dtype=object)
    shown = [features, features + np.random.default_rng(1).normal(size=features.shape)]
    return Known(labels, weights, groups, views), np.concatenate(shown[:views])


@pytest.mark.parametrize("views", [1, 2])
@pytest.mark.parametrize("kind", KINDS)
def test_the_answers_are_those_of_a_head_trained_by_hand(kind, views):
    known, features = some_rows(views)
    whole = lessons(160, KINDS[kind], 0, 1)
    for lesson in (lesson for some in shorter(known, whole).values() for lesson in some):
        rows = np.flatnonzero(lesson.taken)
        every = np.concatenate([rows + 160 * view for view in range(views)])
        by_hand = Rows(features[every], known.labels[rows], known.weights[rows], known.groups[rows], views)
        [head] = train_heads(by_hand, [lesson.hyper], classes=3, seed=lesson.seed)
        asked = np.concatenate([np.flatnonzero(lesson.asked) + 160 * view for view in range(views)])
        [expected] = said_of([head.predictor], features[asked], views)
        found = learn(known, features, lesson, classes=3)
        assert found.argmax(axis=1).tolist() == expected.argmax(axis=1).tolist()
        if views > 1 or kind == "mlp":
            assert np.allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize(
    ("kind", "views", "folds"), [("softmax", 1, 0), ("knn", 1, 0), ("mlp", 1, 5), ("softmax", 2, 5)]
)
def test_inner_folds_are_made_only_where_they_move_the_answer(kind, views, folds, monkeypatch):
    made = []
    plain = tasks.core.selection.inner_folds
    monkeypatch.setattr(
        tasks.core.selection, "inner_folds", lambda *of, **named: made.append(plain(*of, **named)) or made[-1]
    )
    known, features = some_rows(views)
    learn(known, features, lessons(160, KINDS[kind], 0)[0], classes=3)
    assert [len(each) for each in made] == [folds]


@settings(max_examples=15, deadline=None)
@given(st.sampled_from(list(KINDS)), st.integers(0, 10**6), st.integers(8, 40), st.booleans())
def test_what_is_learnt_from_few_is_always_a_probability(kind, seed, n, weighed):
    features, labels, weights = noisy_classes(n, 5, 2, seed)
    known = Known(labels, weights if weighed else np.ones(n), singles(n))
    for some in shorter(known, lessons(n, KINDS[kind], seed)).values():
        said = learn(known, features, some[0], classes=2)
        assert np.isfinite(said).all()
        assert np.allclose(np.exp(said).sum(axis=1), 1)
