"""Checks before a run: what each says of sound values, and of each way in which they can be bad."""

import pandas as pd
import pytest

from tasks.core.checks import (
    NOTE,
    OK,
    WRONG,
    of_copies,
    of_files,
    of_labels,
    of_split,
    of_verdict,
    of_weights,
)
from tasks.core.digest import digest_bytes
from tasks.core.splits import SplitSpec


def table(labels: list[str], **columns: list) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "digest": sorted(digest_bytes(bytes([number])) for number in range(len(labels))),
            "label": labels,
            "weight": 1.0,
            **columns,
        }
    )


def states(checks: list) -> list[str]:
    return [check.state for check in checks]


# Files


def quarantine(n: int) -> pd.DataFrame:
    rows = [(f"{number}.png", "no picture") for number in range(n)]
    return pd.DataFrame(rows, columns=["path", "reason"])


@pytest.mark.parametrize(("bad", "state"), [(0, OK), (1, NOTE), (5, NOTE), (6, WRONG)])
def test_files_set_aside_are_let_pass_up_to_the_share_that_a_run_lets_pass(bad, state):
    found = of_files(100, quarantine(bad), min(bad, 2), most_bad=0.05)
    assert found.state == state
    assert bool(found.todo) == (state != OK)
    if bad:
        assert f"{bad} to be set aside, {min(bad, 2)} of them unreadable (0.png: no picture" in found.found
        assert ("; ..." in found.found) == (bad > 3)


# Labels


def test_balanced_labels_are_counted_the_largest_class_first():
    [check] = of_labels(["a"] * 9 + ["b"] * 12, table(["a"] * 9 + ["b"] * 12))
    assert (check.state, check.found) == (OK, "2 classes: 'b' 12, 'a' 9")


@pytest.mark.parametrize(
    ("labels", "told"),
    [
        (["a"] * 9, "1 class(es) with usable samples (a)"),
        (["a"] * 9 + ["b"], "class 'b' has one usable sample"),
        ([""] * 9, "0 class(es)"),
    ],
)
def test_too_few_of_a_class_is_wrong_as_a_run_would_say(labels, told):
    check = of_labels(labels, table(labels))[0]
    assert check.state == WRONG
    assert told in check.found
    assert "at least two are needed" in check.todo


def test_samples_without_a_label_are_noted():
    labels = ["a", "b"] * 4 + [""]
    first, second = of_labels([*labels[:-1], "?"], table(labels))
    assert (first.state, second.state) == (OK, NOTE)
    assert "1 of 9 samples have no label" in second.found


@pytest.mark.parametrize(("many", "told"), [(19, False), (20, True)])
def test_a_strong_imbalance_is_noted(many, told):
    labels = ["rare"] * 2 + ["often"] * many
    found = [check for check in of_labels(labels, table(labels)) if "times as many" in check.found]
    assert bool(found) == told
    if found:
        assert "'often' has 10 times as many samples as 'rare'" in found[0].found


@pytest.mark.parametrize(
    ("names", "told"),
    [
        (["cat", "Cat"], "'Cat' and 'cat'"),
        (["cat", "cat "], "'cat' and 'cat '"),
        (["big cat", "Big  Cat"], "'Big  Cat' and 'big cat'"),
        (["cat", "cats"], ""),
        (["", "?", " "], ""),
    ],
)
def test_names_that_differ_by_case_or_space_are_probably_typos(names, told):
    written = [*names, "dog"] * 3
    found = [c for c in of_labels(written, table(["a", "b"] * 3)) if "differ only" in c.found]
    assert bool(found) == bool(told)
    for check in found:
        assert check.state == NOTE
        assert told in check.found


# Duplicates


def test_the_same_bytes_under_several_names_are_told_apart_by_whether_their_labels_agree():
    paths, labels = ["a", "b", "c", "d", "e", "f"], ["x", "x", "x", "y", "x", "y"]
    assert states(of_copies(paths, ["1", "2", "3", "4", "", ""], labels)) == [OK]
    torn, whole = of_copies(paths, ["1", "1", "2", "2", "", ""], labels)
    assert torn.state == whole.state == NOTE
    assert "1 pictures stand under several names with contradicting labels (c, d)" in torn.found
    assert "1 pictures stand under several names (a, b)" in whole.found


def test_a_copy_without_a_label_contradicts_nobody():
    [check] = of_copies(["a", "b"], ["1", "1"], ["x", "?"])
    assert "contradicting" not in check.found


# Weights


def test_weights_that_are_all_zero_are_wrong_and_some_are_noted():
    labels = ["a", "b", ""]
    for weights, state in (([1.0, 2.0, 0.0], OK), ([0.0, 2.0, 1.0], NOTE), ([0.0, 0.0, 1.0], WRONG)):
        assert of_weights(table(labels, weight=weights), "sure").state == state


# Splits


def test_a_split_tells_its_sizes():
    [check] = of_split(SplitSpec("random", seeds=(0, 1)), table(["a", "b"] * 20), folds=5)
    assert (check.state, check.found) == (OK, "random: 30 to train on, 10 to test on, 2 seeds")


def test_a_group_column_of_one_group_is_wrong_and_of_as_many_as_samples_is_noted():
    spec, labels = SplitSpec("g", seeds=(0,), group="day"), ["a", "b"] * 20
    [check] = of_split(spec, table(labels, **{"manifest.day": ["monday"] * 40}), folds=5)
    assert check.state == WRONG
    assert "has all its samples in one group" in check.found
    days = [str(number) for number in range(40)]
    first, second = of_split(spec, table(labels, **{"manifest.day": days}), folds=5)
    assert "40 groups" in first.found
    assert "as many groups as samples" in second.found
    assert states([first, second]) == [OK, NOTE]
    assert states(of_split(spec, table(labels, **{"manifest.day": days[:20] * 2}), folds=5)) == [OK]


def test_a_class_that_is_lacking_from_a_side_is_wrong():
    spec = SplitSpec("written", column="part")
    sides = ["train", "train", "test", "train"] * 5
    [check] = of_split(spec, table(["a", "b"] * 10, **{"manifest.part": sides}), folds=5)
    assert check.state == WRONG
    assert "no sample of class 'b' is in 'test'" in check.found


@pytest.mark.parametrize(
    ("rare", "told"),
    [
        (7, ""),
        (5, "has 4 samples to train on: 4 inner folds instead of 5"),
        (2, "has 1 sample to train on: no inner folds"),
    ],
)
def test_too_few_of_a_class_for_inner_folds_are_noted(rare, told):
    found = of_split(SplitSpec("random"), table(["a"] * 40 + ["b"] * rare), folds=5)[1:]
    assert states(found) == [NOTE] * bool(told)
    assert all(told in check.found for check in found)


def test_a_training_part_without_weight_is_wrong():
    spec = SplitSpec("written", column="part")
    sides = ["train", "train", "test", "test"] * 5
    weights = [0.0, 0.0, 1.0, 1.0] * 5
    found = of_split(spec, table(["a", "b"] * 10, weight=weights, **{"manifest.part": sides}), folds=5)
    assert states(found) == [OK, WRONG]


# Verdict


def test_a_verdict_whose_cells_fit_into_its_minutes_is_fine():
    check = of_verdict(9, 0, [60.0, 120.0], 300.0)
    assert (check.state, check.found) == (
        OK,
        "9 cells; 2 to measure in about 3 minutes; a run gives them 5 minutes",
    )
    assert of_verdict(9, 0, [], 300.0).state == OK


def test_of_cells_that_do_not_fit_those_count_that_a_run_would_measure():
    """A cell that is too long for what is left is passed over, and shorter ones behind it are measured."""
    check = of_verdict(9, 0, [200.0, 200.0, 50.0, 60.0], 300.0)
    assert (check.state, check.todo) == (
        NOTE,
        "raise verdict.minutes, or run again: the next run goes on from there",
    )
    assert "enough for 2 of them" in check.found


def test_cells_that_take_longer_than_a_run_gives_them_are_never_measured():
    check = of_verdict(9, 0, [200.0, 1000.0, 700.0], 300.0)
    assert check.state == NOTE
    assert check.found.endswith("enough for 1 of them; 2 take longer by themselves, and are never measured")
    assert check.todo == "raise verdict.minutes to 17"


def test_shares_that_are_too_small_are_told_and_so_is_what_nobody_knows():
    assert "7 cells, 2 more are left out: their share leaves a class too few" in of_verdict(7, 2, [], 1).found
    assert of_verdict(9, 0, None, 300.0).state == NOTE
