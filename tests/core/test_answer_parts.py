"""Which targets can be learnt and scored, and how answered samples are cut."""

import numpy as np
import pandas as pd
import pytest

from tasks.core.answer_parts import able_targets, answer_parts
from tasks.core.answer_splits import inner_folds_of
from tasks.core.errors import RequestError
from tasks.core.splits import SplitSpec
from tasks.core.targets import answers_of

SPEC = SplitSpec("random", 0.25, (0, 1))


def table_of(**answers: list[str]) -> pd.DataFrame:
    rows = len(next(iter(answers.values())))
    return pd.DataFrame(
        {
            "digest": [f"d{n:03}" for n in range(rows)],
            **{f"answer.{name}": column for name, column in answers.items()},
            "weight": 1.0,
            "manifest.side": ["test" if n % 4 == 0 else "train" for n in range(rows)],
            "manifest.kind": ["x" if n % 10 == 0 else "y" for n in range(rows)],
        }
    )


COMMON = ["0", "1"] * 60


def test_targets_that_are_known_well_enough_are_kept_and_the_others_say_why() -> None:
    table = table_of(
        common=COMMON,
        lone=["1"] * 120,
        silent=[""] * 120,
        rare=["1"] * 3 + ["0"] * 117,
        half=["0", "1", "", ""] * 30,
    )
    able = able_targets(table, [SPEC], 2)
    assert able.kept == ("common", "half")
    assert able.left_out["lone"] == "one answer alone is known: 1"
    assert able.left_out["silent"] == "no answer is known"
    assert "samples of answer 1, and data.least_known asks for 2" in able.left_out["rare"]


@pytest.mark.parametrize("least", [1, 2, 3, 5])
def test_the_poorest_fold_or_test_part_decides(least: int) -> None:
    table = table_of(common=COMMON, few=["1", "0", *[""] * 6] * 15)
    answers = answers_of(table)
    poorest = []
    for part in answer_parts(table, [SPEC]):
        training = np.flatnonzero(part.training)
        folds = inner_folds_of(answers.take(training), part.groups[training], seed=part.seed)
        for rows in (np.flatnonzero(part.test), *(training[held] for _, held in folds)):
            poorest += [int((answers.labels[rows, 1] == number).sum()) for number in (0, 1)]
    assert ("few" in able_targets(table, [SPEC], least).kept) == (min(poorest) >= least)


def test_samples_of_no_weight_count_for_nothing() -> None:
    table = table_of(common=COMMON, other=COMMON)
    table.loc[table["answer.other"] == "1", "weight"] = 0.0
    with pytest.raises(RequestError, match="no target can be learnt") as told:
        able_targets(table, [SPEC], 1)
    assert "an inner fold has 0 samples with a weight above 0 of answer 1, and" in str(told.value)
    assert str(told.value).endswith("; label more, weigh more samples above 0, or lower data.least_known")


def test_the_reason_that_is_told_is_one_that_can_be_mended() -> None:
    with pytest.raises(RequestError, match=r"\(first: common: .*data\.least_known asks for 500"):
        able_targets(table_of(lone=["1"] * 120, common=COMMON), [SPEC], 500)


def test_weights_are_not_named_where_all_are_above_zero() -> None:
    with pytest.raises(RequestError, match=r"has 1 samples of answer 1, and .*; label more, or lower data"):
        able_targets(table_of(rare=["1"] * 6 + ["0"] * 114), [SplitSpec("random", 0.25, (0,))], 2)


@pytest.mark.parametrize(
    ("share", "lacking"), [(0.25, "no sample is left to test on"), (0.75, "no sample is left to train on")]
)
def test_samples_of_a_single_group_cannot_be_parted(share: float, lacking: str) -> None:
    table = table_of(common=COMMON)
    table["manifest.place"] = "field\n1"
    with pytest.raises(RequestError) as told:
        able_targets(table, [SPEC, SplitSpec("far", share, (0,), group="place")], 1)
    assert str(told.value) == (
        f"split 'far': {lacking}, since column 'place' has all 120 answered samples in one group (field\\n1); "
        "name a finer group, or split otherwise"
    )


@pytest.mark.parametrize(
    ("side", "lacking", "other"),
    [
        ("train", "no sample is left to test on", "test"),
        ("test", "no sample is left to train on", "train"),
    ],
)
def test_a_column_that_puts_all_samples_on_one_side_is_refused(side: str, lacking: str, other: str) -> None:
    table = table_of(common=COMMON)
    table["manifest.side"] = side
    with pytest.raises(RequestError) as told:
        able_targets(table, [SplitSpec("written", seeds=(0,), column="side")], 1)
    assert str(told.value) == (
        f"split 'written': {lacking}, since column 'side' says {side!r} of all 120 answered samples; "
        f"write {other!r} for some of them, or split otherwise"
    )


def test_a_column_may_say_who_is_tested() -> None:
    table = table_of(common=COMMON)
    [part] = answer_parts(table, [SplitSpec("written", seeds=(0,), column="side")])
    assert part.test.tolist() == [n % 4 == 0 for n in range(120)]
    with pytest.raises(RequestError, match="only 'train' and 'test' are known"):
        list(answer_parts(table, [SplitSpec("written", seeds=(0,), column="kind")]))


def test_columns_of_the_manifest_keep_their_shares_too() -> None:
    table = table_of(common=COMMON)
    for part in answer_parts(table, [SplitSpec("by kind", 0.25, (0, 1, 2), stratify=("kind",))]):
        assert (table["manifest.kind"][part.test] == "x").sum() == pytest.approx(3, abs=1)
        assert part.test.sum() == pytest.approx(30, abs=2)
