"""Choosing a strength: on inner folds, by the score, and by nothing that will be tested on."""

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from tasks.core import selection
from tasks.core.linear import fit_softmax
from tasks.core.selection import FOLDS, Rows, inner_folds, mean_log_proba, stacked, train_softmax

STRENGTHS = (0.003, 0.03, 0.3, 3.0)


def noisy_rows(
    n: int, columns: int, classes: int, seed: int, *, noise: float = 2.0, members: int = 1
) -> Rows:
    """Classes that overlap; rows of one group, `members` in number, are nearly the same."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(n // members) % classes, members)
    centres = rng.normal(size=(classes, columns))
    features = centres[labels] + noise * np.repeat(rng.normal(size=(n // members, columns)), members, axis=0)
    features += 0.01 * rng.normal(size=features.shape)
    groups = np.repeat([f"g{number}" for number in range(n // members)], members)
    return Rows(features, labels, rng.uniform(0.1, 3, n), groups)


def naive_brier(rows: Rows, strength: float, folds: list[tuple[np.ndarray, np.ndarray]]) -> float:
    """Weighted Brier score over the held-out rows, by scikit-learn and a loop; three classes or more."""
    total = 0.0
    for train, held_out in folds:
        weights = rows.weights[train]
        scaler = StandardScaler().fit(rows.features[train], sample_weight=weights)
        model = LogisticRegression(C=1 / (strength * weights.sum()), tol=1e-5, max_iter=10_000)
        model.fit(scaler.transform(rows.features[train]), rows.labels[train], sample_weight=weights)
        proba = model.predict_proba(scaler.transform(rows.features[held_out]))
        for weight, p, label in zip(rows.weights[held_out], proba, rows.labels[held_out], strict=True):
            total += weight * sum((p[c] - (c == label)) ** 2 for c in range(len(p)))
    return total / rows.weights.sum()


# The choice


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize(
    ("shape", "noise", "members"), [((60, 30), 2.0, 1), ((90, 3), 0.7, 1), ((120, 10), 1.5, 2)]
)
def test_the_choice_is_that_of_a_naive_loop(shape, noise, members, seed):
    rows = noisy_rows(*shape, 3, seed, noise=noise, members=members)
    chosen = train_softmax(rows, classes=3, strengths=STRENGTHS, seed=seed)
    folds = inner_folds(rows.labels, rows.groups, seed=seed)
    naive = {strength: naive_brier(rows, strength, folds) for strength in STRENGTHS}
    assert max(naive.values()) - min(naive.values()) > 0.02, "the strengths must differ, or nothing is tested"
    assert chosen.brier == pytest.approx(naive[chosen.head.strength], abs=1e-3)
    assert naive[chosen.head.strength] <= min(naive.values()) + 1e-3


def test_different_data_get_different_strengths():
    easy = noisy_rows(300, 3, 3, 0, noise=0.3)
    hard = noisy_rows(60, 30, 3, 0, noise=4.0)
    chosen = [
        train_softmax(rows, classes=3, strengths=STRENGTHS, seed=0).head.strength for rows in (easy, hard)
    ]
    assert chosen[0] < chosen[1]


def test_the_head_is_trained_on_all_rows_with_the_chosen_strength():
    rows = noisy_rows(60, 5, 3, 0)
    chosen = train_softmax(rows, classes=3, strengths=STRENGTHS, seed=0)
    [head] = fit_softmax(
        rows.features, rows.labels, rows.weights, classes=3, strengths=[chosen.head.strength]
    )
    assert chosen.head.has_converged
    np.testing.assert_array_equal(chosen.head.weight, head.weight)
    np.testing.assert_array_equal(chosen.head.bias, head.bias)


def test_the_order_of_the_strengths_does_not_matter():
    rows = noisy_rows(60, 10, 3, 0)
    ahead, back = (
        train_softmax(rows, classes=3, strengths=strengths, seed=0).head.strength
        for strengths in (STRENGTHS, STRENGTHS[::-1])
    )
    assert ahead == back


def test_weights_decide_the_choice():
    """Half of the rows have labels by chance; with their weight at zero they must not be heard."""
    good, bad = noisy_rows(150, 10, 3, 0, noise=0.3), noisy_rows(150, 10, 3, 1)
    labels = np.concatenate([good.labels, np.random.default_rng(0).integers(0, 3, 150)])
    features = np.concatenate([good.features, bad.features])
    groups = np.array([str(number) for number in range(300)])
    deaf = Rows(features, labels, np.repeat([1.0, 0.0], 150), groups)
    even = Rows(features, labels, np.ones(300), groups)
    briers = [train_softmax(rows, classes=3, strengths=STRENGTHS, seed=0).brier for rows in (deaf, even)]
    assert briers[0] < 0.05 < 0.3 < briers[1]


def test_inner_scores_are_those_of_the_heads_that_would_be_kept():
    rng = np.random.default_rng(0)
    spread = np.arange(1, 301) ** -1.25  # deviations of the directions: what real features look like
    turn = np.linalg.qr(rng.normal(size=(300, 300)))[0]
    features = rng.normal(size=(600, 300)) * spread @ turn
    labels = (features @ turn.T[:, :100] @ (rng.normal(size=100) / spread[:100]) > 0).astype(int)
    rows = Rows(features, labels, np.ones(600), np.array([str(number) for number in range(600)]))
    total = 0.0
    for train, held_out in inner_folds(rows.labels, rows.groups, seed=0):
        seen, unseen = rows.at(train), rows.at(held_out)
        [head] = fit_softmax(seen.features, seen.labels, seen.weights, classes=2, strengths=[0.001])
        total += np.square(np.exp(head.log_proba(unseen.features)) - np.eye(2)[unseen.labels]).sum()
    chosen = train_softmax(rows, classes=2, strengths=[0.001], seed=0)
    assert chosen.brier == pytest.approx(total / 600, abs=1e-3)


# Too few samples


@pytest.mark.parametrize("strengths", [(1.0,), (0.1, 1.0), (0.1, 1.0, 10.0), STRENGTHS])
@pytest.mark.parametrize(
    ("labels", "groups"),
    [
        ([0, 0, 0, 1], ["a", "b", "c", "d"]),  # a class with one sample
        ([0, 0, 0, 1, 1], ["a", "b", "c", "d", "d"]),  # a class with one group
    ],
)
def test_too_few_samples_for_folds_take_the_middle_strength(strengths, labels, groups):
    features = np.random.default_rng(0).normal(size=(len(labels), 3))
    rows = Rows(features, np.array(labels), np.ones(len(labels)), np.array(groups))
    chosen = train_softmax(rows, classes=2, strengths=strengths, seed=0)
    assert chosen.head.strength == strengths[len(strengths) // 2]
    assert chosen.brier is None


def test_two_samples_of_each_class_are_enough():
    rows = Rows(np.eye(4), np.array([0, 0, 1, 1]), np.ones(4), np.array(list("abcd")))
    assert train_softmax(rows, classes=2, strengths=STRENGTHS, seed=0).brier is not None


def test_a_class_without_rows_is_no_hindrance():
    rows = noisy_rows(60, 5, 3, 0)
    gap = Rows(rows.features, np.array([0, 2, 3])[rows.labels], rows.weights, rows.groups)
    one, other = (
        train_softmax(each, classes=classes, strengths=STRENGTHS, seed=0)
        for each, classes in ((rows, 3), (gap, 4))
    )
    assert one.head.strength == other.head.strength
    assert one.brier == pytest.approx(other.brier, abs=1e-3)


# What is held out has no influence


def test_held_out_rows_do_not_touch_the_heads_that_they_score(monkeypatch):
    """Spoil each fold's held-out rows: the heads fitted for that fold must stay the same."""
    rows = noisy_rows(60, 5, 3, 0)
    folds = inner_folds(rows.labels, rows.groups, seed=0)
    fitted: list[list[bytes]] = []

    def record(*args, **how):
        heads = fit_softmax(*args, **how)
        fitted[-1].append(b"".join(head.weight.tobytes() for head in heads))
        return heads

    monkeypatch.setattr(selection, "fit_softmax", record)
    fitted.append([])
    train_softmax(rows, classes=3, strengths=STRENGTHS, seed=0)
    clean = fitted[0]
    assert len(clean) == len(folds) + 1
    for number, (_, held_out) in enumerate(folds):
        spoilt = rows.features.copy()
        spoilt[held_out] = 1e3 * np.random.default_rng(number).normal(size=spoilt[held_out].shape)
        fitted.append([])
        train_softmax(
            Rows(spoilt, rows.labels, rows.weights, rows.groups), classes=3, strengths=STRENGTHS, seed=0
        )
        same = [one == other for one, other in zip(clean, fitted[-1], strict=True)]
        assert same == [fold == number for fold in range(len(folds))] + [False]


def test_rows_outside_the_training_part_do_not_matter():
    rows = noisy_rows(90, 5, 3, 0)
    test = np.arange(90) % 3 == 1
    rng = np.random.default_rng(0)
    spoilt = Rows(
        np.where(test[:, None], rng.normal(size=rows.features.shape), rows.features),
        np.where(test, rng.permutation(rows.labels), rows.labels),
        np.where(test, 7.0, rows.weights),
        rows.groups,
    )
    one, other = (
        train_softmax(each.at(~test), classes=3, strengths=STRENGTHS, seed=0) for each in (rows, spoilt)
    )
    assert one.brier == other.brier
    assert one.head.weight.tobytes() == other.head.weight.tobytes()


def test_the_same_rows_and_seed_give_the_same_bits():
    rows = noisy_rows(60, 5, 3, 0)
    one, other = (train_softmax(rows, classes=3, strengths=STRENGTHS, seed=3) for _ in range(2))
    assert (one.brier, one.head.weight.tobytes()) == (other.brier, other.head.weight.tobytes())


# Folds


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 2), st.integers(0, 14)), min_size=2, max_size=60),
    st.integers(0, 3),
)
def test_folds_hold_out_every_row_once_and_never_cut_a_group(pairs, seed):
    labels = np.array([label for label, _ in pairs])
    groups = np.array([f"g{group}" for _, group in pairs])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # scikit-learn's, on classes with few members
        folds = inner_folds(labels, groups, seed=seed)
    fewest = min(len(set(groups[labels == label])) for label in set(labels))
    assert len(folds) == (min(FOLDS, fewest) if fewest > 1 else 0)
    if folds:
        assert sorted(np.concatenate([held_out for _, held_out in folds])) == list(range(len(pairs)))
    for train, held_out in folds:
        assert sorted([*train, *held_out]) == list(range(len(pairs)))
        assert not set(groups[train]) & set(groups[held_out])


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 2), min_size=6, max_size=80), st.integers(0, 3))
def test_folds_without_groups_give_each_class_its_share(labels, seed):
    labels = np.array(labels)
    folds = inner_folds(labels, np.array([str(row) for row in range(len(labels))]), seed=seed)
    for _, held_out in folds:
        for c in set(labels):
            share = (labels == c).sum() / len(folds)
            assert abs((labels[held_out] == c).sum() - share) < 1


def test_another_seed_shuffles_the_folds():
    labels, groups = np.arange(40) % 2, np.array([str(row) for row in range(40)])
    one, same, other = (inner_folds(labels, groups, seed=seed) for seed in (0, 0, 1))
    assert all((a[1] == b[1]).all() for a, b in zip(one, same, strict=True))
    assert not all((a[1] == b[1]).all() for a, b in zip(one, other, strict=True))


# Views


def test_views_of_a_sample_weigh_together_what_the_sample_weighs():
    rng = np.random.default_rng(0)
    rows = Rows(rng.normal(size=(40, 3)), rng.integers(0, 2, 40), rng.uniform(0.5, 2, 40), np.arange(40))
    [once] = fit_softmax(rows.features, rows.labels, rows.weights, classes=2, strengths=[0.1])
    both = stacked([rows, rows])
    [twice] = fit_softmax(both.features, both.labels, both.weights, classes=2, strengths=[0.1])
    np.testing.assert_allclose(twice.weight, once.weight, rtol=1e-4, atol=1e-6)
    assert both.weights.sum() == pytest.approx(rows.weights.sum())


def test_views_of_a_sample_are_on_one_side_of_every_inner_fold():
    rng = np.random.default_rng(0)
    rows = Rows(rng.normal(size=(30, 2)), np.arange(30) % 2, np.ones(30), np.arange(30).astype(str))
    both = stacked([rows, rows, rows])
    folds = inner_folds(both.labels, both.groups, seed=0)
    assert len(folds) == 5
    for train, held_out in folds:
        assert not set(both.groups[train]) & set(both.groups[held_out])


def test_one_view_is_left_as_it_is():
    rows = Rows(np.ones((2, 2)), np.arange(2), np.ones(2), np.arange(2))
    assert stacked([rows]) is rows


def test_views_are_averaged_as_probabilities():
    views = [np.log([[0.9, 0.1], [0.5, 0.5]]), np.log([[0.5, 0.5], [0.1, 0.9]])]
    np.testing.assert_allclose(np.exp(mean_log_proba(views)), [[0.7, 0.3], [0.3, 0.7]])
    far = [np.array([[-2000.0, 0.0]]), np.array([[-1000.0, 0.0]])]
    np.testing.assert_allclose(mean_log_proba(far), [[-1000 - np.log(2), 0.0]])
