"""Shares of a training part: each within the one before, stratified, groups whole, and the same on any machine."""

from collections import Counter
from math import floor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.core.curve import SHARES, halvings
from tasks.core.digest import digest_value
from tasks.core.errors import RequestError
from tasks.core.shares import LEAST, keeps_every_class, nested
from tasks.core.splits import split_by_group


def singles(n: int) -> np.ndarray:
    return np.array([f"sample {row}" for row in range(n)], dtype=object)


def whole(n: int) -> np.ndarray:
    return np.ones(n, dtype=bool)


DESCENDING = st.lists(st.floats(0.02, 0.98), min_size=1, max_size=4, unique=True).map(
    lambda some: sorted(some, reverse=True)
)
LABELS = st.lists(st.integers(0, 2), min_size=1, max_size=60)
GROUPED = st.lists(st.tuples(st.integers(0, 1), st.integers(1, 6)), min_size=6, max_size=30)
"""A label and a size for each group."""


def spread_out(grouped: list[tuple[int, int]]) -> tuple[np.ndarray, np.ndarray]:
    ids = np.concatenate([[f"group {n}"] * size for n, (_, size) in enumerate(grouped)]).astype(object)
    return ids, np.concatenate([[label] * size for label, size in grouped])


def naive(training: np.ndarray, labels: np.ndarray, shares: list[float], seed: int) -> list[set[int]]:
    """Of single samples: the first of each class in the order of their tickets, again and again."""
    names = singles(len(labels))
    left = sorted(np.flatnonzero(training), key=lambda row: digest_value([seed, names[row]]))
    found, before = [], 1.0
    for share in shares:
        classes = Counter(labels[left].tolist())
        if min(classes.values()) < 2:
            break  # a class of one cannot give a part of itself
        wanted = {c: min(max(floor(n * (share / before) + 0.5), 1), n - 1) for c, n in classes.items()}
        seen: Counter[int] = Counter()
        kept = []
        for row in left:
            seen[labels[row]] += 1
            if seen[labels[row]] <= wanted[labels[row]]:
                kept.append(row)
        left, before = kept, share
        found.append(set(kept))
    return found


@given(LABELS, DESCENDING, st.integers(0, 5), st.data())
def test_single_samples_are_taken_class_by_class_in_the_order_of_their_tickets(labels, shares, seed, data):
    labels = np.array(labels)
    training = np.array(data.draw(st.lists(st.booleans(), min_size=len(labels), max_size=len(labels))))
    if not training.any():
        training[0] = True
    found = nested(training, singles(len(labels)), labels, shares, seed=seed)
    assert [set(np.flatnonzero(some)) for some in found] == naive(training, labels, shares, seed)


@given(st.one_of(GROUPED, LABELS.map(lambda labels: [(c, 1) for c in labels])), DESCENDING, st.integers(0, 5))
def test_each_share_lies_within_the_one_before_and_no_group_in_part(grouped, shares, seed):
    groups, labels = spread_out(grouped)
    training = np.arange(len(labels)) % 5 < 4
    training = np.isin(groups, groups[training])  # a group is not cut by the split either
    within = training
    for some in nested(training, groups, labels, shares, seed=seed):
        assert some.dtype == bool
        assert not (some & ~within).any()
        assert some.sum() < within.sum()
        assert set(groups[some]).isdisjoint(groups[training & ~some])
        assert set(labels[some]) == set(labels[training])
        within = some


@given(GROUPED, DESCENDING, st.integers(0, 5))
def test_classes_keep_their_parts_to_within_a_group_a_step(grouped, shares, seed):
    groups, labels = spread_out(grouped)
    found = nested(whole(len(labels)), groups, labels, shares, seed=seed)
    for step, (share, some) in enumerate(zip(shares, found, strict=False), 1):
        for name in set(labels.tolist()):
            largest = max(size for label, size in grouped if label == name)
            wanted = share * (labels == name).sum()
            assert abs((some & (labels == name)).sum() - wanted) <= step * (largest + 0.5)


@given(LABELS, DESCENDING)
def test_single_samples_keep_their_classes_parts_to_within_one_a_step(labels, shares):
    labels = np.array([*range(3)] * 4 + labels)
    found = nested(whole(len(labels)), singles(len(labels)), labels, shares, seed=0)
    for step, (share, some) in enumerate(zip(shares, found, strict=False), 1):
        for name in range(3):
            wanted = share * (labels == name).sum()
            assert abs((some & (labels == name)).sum() - wanted) <= step


@pytest.mark.parametrize("seed", [0, 1, 17])
@pytest.mark.parametrize("members", [1, 3])
def test_halves_of_halves_are_those_of_the_learning_curve(members, seed):
    """What the learning curve learns from: a part cut in two, its half cut in two, and so on."""
    rows = np.arange(120)
    groups, labels = np.array([f"g{row // members}" for row in rows], dtype=object), rows * 5 % 7 % 3
    training = rows // members % 4 > 0
    left = np.flatnonzero(training)
    for half, found in zip(
        halvings(training, groups, labels, seed=seed),
        nested(training, groups, labels, SHARES, seed=seed),
        strict=True,
    ):
        names = labels[left].astype(str).tolist()
        left = left[split_by_group(groups[left].tolist(), names, names, test=0.5, seed=seed)]
        assert np.flatnonzero(found).tolist() == np.flatnonzero(half).tolist() == left.tolist()


@given(st.permutations(range(24)), DESCENDING)
def test_the_order_of_samples_moves_no_share(order, shares):
    labels, groups = np.arange(24) % 2, np.array([f"g{row // 2}" for row in range(24)], dtype=object)
    one, other = (
        nested(whole(24), groups[rows], labels[rows], shares, seed=3)
        for rows in (np.arange(24), np.array(order))
    )
    assert len(one) == len(other)
    for here, there in zip(one, other, strict=True):
        assert set(np.flatnonzero(here)) == set(np.array(order)[there])


def test_the_same_seed_takes_the_same_samples_and_another_one_others():
    labels = np.arange(60) % 3
    first, again, other = (
        nested(whole(60), singles(60), labels, [0.5, 0.1], seed=seed) for seed in (0, 0, 1)
    )
    for one, two, three in zip(first, again, other, strict=True):
        assert (one == two).all()
        assert (one != three).any()


def test_what_is_not_trained_on_moves_no_share():
    """Neither test samples, nor what they are labelled."""
    rows = np.arange(60)
    labels, training = rows % 3, rows % 4 > 0
    some = nested(training, singles(60), labels, [0.5, 0.1], seed=0)
    other = nested(training, singles(60), np.where(training, labels, 0), [0.5, 0.1], seed=0)
    alone = nested(whole(45), singles(60)[training], labels[training], [0.5, 0.1], seed=0)
    for one, two, three in zip(some, other, alone, strict=True):
        assert (one == two).all()
        assert (one[training] == three).all()


def test_a_class_that_lies_in_one_group_gives_no_share():
    groups = np.array(["a"] * 4 + ["b"] * 4 + ["c"] * 4, dtype=object)
    labels = np.array([0] * 8 + [1] * 4)
    assert nested(whole(12), groups, labels, [0.5, 0.25], seed=0) == []
    with pytest.raises(RequestError):
        split_by_group(groups.tolist(), labels.tolist(), labels.tolist(), test=0.5, seed=0)


def test_shares_end_where_a_class_has_one_sample_left():
    labels = np.array([0] * 60 + [1] * 4)
    found = nested(whole(64), singles(64), labels, [0.5, 0.25, 0.125], seed=0)
    assert [(some & (labels == 1)).sum() for some in found] == [2, 1]


def test_no_shares_of_a_part_are_none():
    assert nested(whole(4), singles(4), np.arange(4) % 2, [], seed=0) == []


# Whether a share is large enough


@given(
    st.lists(st.tuples(st.integers(0, 3), st.sampled_from([0.0, 0.5, 2.0]), st.integers(0, 2)), min_size=1)
)
def test_a_share_is_large_enough_where_every_class_keeps_two_samples_of_weight(rows):
    """The third number says where a sample stands: not trained on, left out of the share, or in it."""
    labels, weights, place = (np.array(column) for column in zip(*rows, strict=True))
    counts = Counter(label for label, weight, where in rows if weight > 0 and where == 2)
    needed = {label for label, weight, where in rows if weight > 0 and where > 0}
    enough = keeps_every_class(labels, weights, place > 0, place == 2)
    assert enough is all(counts[label] >= LEAST for label in needed)


def test_of_nothing_nothing_need_be_kept():
    nothing = np.zeros(3, dtype=bool)
    assert keeps_every_class(np.arange(3), np.ones(3), nothing, nothing)
