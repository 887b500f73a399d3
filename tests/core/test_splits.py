"""Splits: seeded, stratified, group-safe, and hardly moved by what is added."""

import itertools
import random
from collections import Counter

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.core.digest import digest_value
from tasks.core.errors import RequestError
from tasks.core.splits import SplitSpec, by_ticket, groups_of, split_by_group, split_table
from tasks.core.tables import told

shares = st.sampled_from([0.05, 0.1, 0.2, 0.25, 1 / 3, 0.5, 0.7, 0.9]) | st.floats(0.02, 0.98)
seeds = st.integers(0, 2**31)


def rows_of(groups, classes="abc", strata="xyz", most=40):
    """Rows as (group, class, stratum), from few of each so that they meet."""
    row = st.tuples(groups, st.sampled_from(classes), st.sampled_from(strata))
    return st.lists(row, min_size=2, max_size=most)


grouped = rows_of(st.integers(0, 9).map("g{}".format))


def split(rows, test, seed):
    groups, classes, strata = (list(column) for column in zip(*rows, strict=True))
    return split_by_group(groups, classes, strata, test=test, seed=seed)


def split_or_none(rows, test, seed):
    """The split, or None where it is refused."""
    try:
        return split(rows, test, seed)
    except RequestError as error:
        assert "\n" not in str(error)
        return None


def holders(rows):
    """Class -> the groups that hold it."""
    held = {}
    for group, name, _ in rows:
        held.setdefault(name, set()).add(group)
    return held


def alone(classes, strata=None):
    """Rows that are each a group of their own."""
    strata = classes if strata is None else strata
    return [
        (f"s{number}", name, stratum)
        for number, (name, stratum) in enumerate(zip(classes, strata, strict=True))
    ]


# What every split keeps


@settings(max_examples=200, deadline=None)
@given(rows=grouped, test=shares, seed=seeds)
def test_groups_never_cross_splits(rows, test, seed):
    answer = split_or_none(rows, test, seed)
    if answer is not None:
        assert (answer.shape, answer.dtype) == ((len(rows),), bool)
        train = {group for (group, *_), is_test in zip(rows, answer, strict=True) if not is_test}
        tested = {group for (group, *_), is_test in zip(rows, answer, strict=True) if is_test}
        assert train.isdisjoint(tested)


@settings(max_examples=200, deadline=None)
@given(rows=grouped, test=shares, seed=seeds)
def test_every_class_stands_on_both_sides_or_the_split_is_refused(rows, test, seed):
    answer = split_or_none(rows, test, seed)
    if answer is not None:
        for name in holders(rows):
            sides = {
                bool(is_test) for (_, each, _), is_test in zip(rows, answer, strict=True) if each == name
            }
            assert sides == {True, False}
    elif all(len(groups) > 1 for groups in holders(rows).values()):
        with pytest.raises(RequestError, match="cannot be parted"):
            split(rows, test, seed)


@settings(max_examples=200, deadline=None)
@given(rows=grouped, test=shares, seed=seeds)
def test_pure_groups_are_always_parted_when_each_class_has_two(rows, test, seed):
    pure = [(f"{group}{name}", name, stratum) for group, name, stratum in rows]
    enough = all(len(groups) > 1 for groups in holders(pure).values())
    assert (split_or_none(pure, test, seed) is not None) == enough


def test_a_class_in_one_group_is_refused_by_name():
    rows = [("g1", "a", "a"), ("g1", "b", "b"), ("g2", "a", "a"), ("g3", "a", "a")]
    with pytest.raises(RequestError, match=r"class 'b' has all its samples in one group \(g1\)"):
        split(rows, 0.25, 0)


def partings(rows):
    """Every choice of test groups that leaves each class on both sides, by trying them all."""
    groups = sorted({group for group, *_ in rows})
    for size in range(1, len(groups)):
        for chosen in itertools.combinations(groups, size):
            if all(held & set(chosen) and held - set(chosen) for held in holders(rows).values()):
                yield set(chosen)


def mixed_rows(seed):
    """A few groups of several classes each."""
    rng = random.Random(seed)  # noqa: S311
    return [(f"g{rng.randrange(4)}", *[rng.choice("ab")] * 2) for _ in range(rng.randint(4, 8))]


def test_a_split_is_refused_only_if_there_is_none():
    for seed in range(300):
        rows = mixed_rows(seed)
        possible = next(partings(rows), None)
        assert (split_or_none(rows, 0.75, seed) is not None) == (possible is not None), rows


# Shares


def by_quota(rows, test, seed):
    """The textbook answer for groups of one row: the first tickets of each stratum, as many as its share."""
    tickets = {group: digest_value([seed, group]) for group, *_ in rows}
    chosen = set()
    for stratum in {stratum for *_, stratum in rows}:
        members = sorted((group for group, _, each in rows if each == stratum), key=tickets.get)
        chosen.update(members[: int(len(members) * test + 0.5)])
    return np.array([group in chosen for group, *_ in rows])


@settings(max_examples=200, deadline=None)
@given(rows=rows_of(st.just("")), test=shares, seed=seeds)
def test_single_samples_meet_each_stratums_quota_unless_a_class_must_be_seated(rows, test, seed):
    rows = alone(*list(zip(*rows, strict=True))[1:])
    answer = split_or_none(rows, test, seed)
    expected = by_quota(rows, test, seed)
    sides = {
        name: {bool(t) for row, t in zip(rows, expected, strict=True) if row[1] == name} for name in "abc"
    }
    one_sided = [name for name, seen in sides.items() if len(seen) == 1]
    if answer is not None:
        assert int((answer != expected).sum()) <= len(one_sided)
    if not one_sided:
        assert np.array_equal(answer, expected)


def by_distance(rows, test, seed):
    """The rule as it is told, step by step: a ticket's group is taken if the strata's distances shrink."""
    strata = Counter(stratum for *_, stratum in rows)
    taken = set()

    def distance(groups):
        counts = Counter(stratum for group, _, stratum in rows if group in groups)
        return sum(abs(counts[stratum] - int(n * test + 0.5)) for stratum, n in strata.items())

    for group in sorted({group for group, *_ in rows}, key=lambda group: digest_value([seed, group])):
        if distance(taken | {group}) < distance(taken):
            taken.add(group)
    return taken


@settings(max_examples=150, deadline=None)
@given(rows=grouped, test=shares, seed=seeds)
def test_groups_are_taken_while_they_bring_the_strata_closer_to_their_shares(rows, test, seed):
    taken = by_distance(rows, test, seed)
    if all(held & taken and held - taken for held in holders(rows).values()):
        assert np.array_equal(split(rows, test, seed), [group in taken for group, *_ in rows])


@settings(max_examples=200, deadline=None)
@given(classes=st.lists(st.sampled_from("abc"), min_size=2, max_size=60), test=shares, seed=seeds)
def test_stratified_by_label_each_class_gives_its_share_to_half_a_sample(classes, test, seed):
    answer = split_or_none(alone(classes), test, seed)
    if answer is None:
        assert min(Counter(classes).values()) == 1
        return
    tested = Counter(name for name, is_test in zip(classes, answer, strict=True) if is_test)
    for name, n in Counter(classes).items():
        assert abs(tested[name] - n * test) <= 0.5 + 1e-9 or tested[name] in (1, n - 1)


@settings(max_examples=200, deadline=None)
@given(sizes=st.lists(st.integers(1, 7), min_size=2, max_size=25), test=shares, seed=seeds)
def test_one_stratum_meets_its_share_to_within_its_largest_group(sizes, test, seed):
    rows = [(f"g{number}", "a", "a") for number, size in enumerate(sizes) for _ in range(size)]
    answer = split(rows, test, seed)
    assert abs(int(answer.sum()) - len(rows) * test) <= max(sizes)


# Stability


@settings(max_examples=150, deadline=None)
@given(rows=grouped, test=shares, seed=seeds, shuffle=st.randoms(use_true_random=False))
def test_the_order_of_rows_does_not_matter(rows, test, seed, shuffle):
    numbers = list(range(len(rows)))
    shuffle.shuffle(numbers)
    answer = split_or_none(rows, test, seed)
    again = split_or_none([rows[number] for number in numbers], test, seed)
    assert (answer is None) == (again is None)
    assert answer is None or np.array_equal(answer[numbers], again)


@settings(deadline=None)
@given(rows=grouped, test=shares, seed=seeds)
def test_the_same_seed_gives_the_same_answer(rows, test, seed):
    one, other = split_or_none(rows, test, seed), split_or_none(rows, test, seed)
    assert (one is None and other is None) or np.array_equal(one, other)


def test_different_seeds_give_different_answers():
    rows = alone(["a", "b"] * 50)
    assert len({split(rows, 0.25, seed).tobytes() for seed in range(50)}) == 50


def test_a_sample_is_tested_about_as_often_as_the_share_says():
    rows = alone(["a", "b"] * 10)
    often = np.mean([split(rows, 0.25, seed) for seed in range(300)], axis=0)
    assert np.abs(often - 0.25).max() < 0.12  # 5 standard errors: each sample's chance is its own


@settings(max_examples=200, deadline=None)
@given(
    old=st.lists(st.sampled_from("abc"), min_size=2, max_size=40),
    new=st.lists(st.sampled_from("abc"), max_size=12),
    test=shares,
    seed=seeds,
)
def test_adding_m_samples_of_a_stratum_moves_at_most_m_old_ones(old, new, test, seed):
    rows = alone([*old, *new])
    before, after = split_or_none(rows[: len(old)], test, seed), split_or_none(rows, test, seed)
    if before is None or after is None:
        return
    moved = Counter(np.array(old)[before != after[: len(old)]].tolist())
    assert all(moved[stratum] <= new.count(stratum) for stratum in "abc")


@settings(max_examples=100, deadline=None)
@given(
    classes=st.lists(st.sampled_from("abc"), min_size=3, max_size=40), test=shares, seed=seeds, gone=st.data()
)
def test_removing_a_sample_moves_at_most_one_other(classes, test, seed, gone):
    rows = alone(classes)
    lost = gone.draw(st.integers(0, len(rows) - 1))
    before, after = split_or_none(rows, test, seed), split_or_none(rows[:lost] + rows[lost + 1 :], test, seed)
    if before is not None and after is not None:
        assert int((np.delete(before, lost) != after).sum()) <= 1


@settings(deadline=None)
@given(names=st.sets(st.text(), max_size=20), seed=seeds)
def test_tickets_order_ids_by_the_digest_of_seed_and_id(names, seed):
    order = by_ticket(sorted(names), seed)
    assert set(order) == names
    assert order == sorted(names, key=lambda name: digest_value([seed, name]))


def test_the_rule_does_not_change_silently():
    """If this fails, every study's test part has changed: then say so in the changelog."""
    single = alone(["cat", "dog", "dog", "cat"] * 4)
    chosen = {row[0] for row, is_test in zip(single, split(single, 0.25, 0), strict=True) if is_test}
    assert chosen == {"s0", "s10", "s12", "s6"}
    families = [
        (f"family {n // 3}", "cat" if n % 2 else "dog", "north" if n < 12 else "south") for n in range(24)
    ]
    chosen = {row[0] for row, is_test in zip(families, split(families, 0.3, 7), strict=True) if is_test}
    assert chosen == {"family 3", "family 7"}


# Tables


def table_of(n=24, **columns):
    fields = {"digest": [f"d{number:02}" for number in range(n)], "label": ["cat", "dog"] * (n // 2)}
    return pd.DataFrame(fields | {told(name): values for name, values in columns.items()})


def test_a_table_is_stratified_by_its_label_if_nothing_else_is_named():
    table = table_of()
    expected = split_by_group(list(table.digest), list(table.label), list(table.label), test=0.25, seed=3)
    assert np.array_equal(split_table(table, SplitSpec("random"), 3), expected)


def test_a_table_is_stratified_by_the_combinations_of_the_columns_named():
    table = table_of(48, site=list("ns") * 24, year=list("1122") * 12)
    answer = split_table(table, SplitSpec("by site", stratify=("site", "year")), 0)
    for _, part in table.groupby([told("site"), told("year")]):
        assert int(answer[part.index].sum()) == len(part) // 4


def test_combinations_are_told_apart_whatever_their_text():
    table = table_of(32, one=["x|y", "x|y", "x", "x"] * 8, two=["z", "z", "y|z", "y|z"] * 8)
    for seed in range(20):
        answer = split_table(table, SplitSpec("odd", stratify=("one", "two")), seed)
        for _, part in table.groupby([told("one"), told("two")]):
            assert int(answer[part.index].sum()) == 4


def test_a_named_group_stays_together_and_a_blank_one_is_a_group_of_its_own():
    table = table_of(40, patient=[f"p{number // 8}" if number < 24 else "" for number in range(40)])
    spec = SplitSpec("by patient", group="patient")
    groups = groups_of(table, spec)
    assert list(groups[:24]) == list(table[told("patient")][:24])
    assert list(groups[24:]) == list(table.digest[24:])
    blanks = set()
    for seed in range(10):
        answer = split_table(table, spec, seed)
        assert (
            table[answer][told("patient")].ne("")
            & table[answer][told("patient")].isin(table[~answer][told("patient")])
        ).sum() == 0
        blanks.add(len(set(answer[24:])))
    assert blanks == {2}


def test_without_a_group_column_each_sample_is_a_group():
    table = table_of()
    assert list(groups_of(table, SplitSpec("random"))) == list(table.digest)


@settings(max_examples=40, deadline=None)
@given(seed=seeds, shuffle=st.integers(0, 10**6))
def test_the_order_of_a_tables_rows_does_not_matter(seed, shuffle):
    table = table_of(24, kind=["x", "y"] * 12, patient=[f"p{n // 3}" if n < 12 else "" for n in range(24)])
    spec = SplitSpec("by patient", stratify=("kind",), group="patient")
    mixed = table.sample(frac=1, random_state=shuffle)
    one = dict(zip(table.digest, split_table(table, spec, seed), strict=True))
    assert dict(zip(mixed.digest, split_table(mixed, spec, seed), strict=True)) == one


def test_a_written_column_decides_alone():
    table = table_of(8, part=["train", "test", "test", "train"] * 2, patient=["p"] * 8)
    spec = SplitSpec("as published", column="part", group="patient", test=0.9)
    for seed in (0, 1):
        assert list(split_table(table, spec, seed)) == [False, True, True, False] * 2


@pytest.mark.parametrize("odd", ["", "val", "Test", "0"])
def test_a_written_column_holds_train_and_test_only(odd):
    table = table_of(8, part=["train", "test", "test", "train"] * 2)
    table.loc[5, told("part")] = odd
    with pytest.raises(
        RequestError, match=f"column 'part' holds .*{odd!r}.*; only 'train' and 'test' are known"
    ):
        split_table(table, SplitSpec("pinned", column="part"), 0)


@pytest.mark.parametrize(("part", "absent"), [("train", "test"), ("test", "train")])
def test_a_written_column_must_put_every_class_on_both_sides(part, absent):
    table = table_of(8, part=["train", "train", "test", "test"] * 2)
    table.loc[table.label == "dog", told("part")] = part
    with pytest.raises(RequestError, match=f"no sample of class 'dog' is in '{absent}'"):
        split_table(table, SplitSpec("pinned", column="part"), 0)


def test_a_spec_lists_the_columns_that_it_reads():
    assert SplitSpec("random").columns() == ()
    spec = SplitSpec("all", stratify=("site", "year"), group="patient", column="part")
    assert spec.columns() == ("site", "year", "patient", "part")
