"""A verdict in words: true to the intervals, modest, short; and rules of thumb beside it."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tasks.core.advice import NO_MATTER, sentence
from tasks.core.metrics import METRICS, Drawn
from tasks.core.report import templates
from tasks.core.rules import Target, rules
from tasks.core.verdict import Cell, Depth, Difference, Measured, differences

HEAD, CUT = Depth("head", "head"), Depth("blocks.3", "suffix", "blocks.3")
WHOLE, SCRATCH = Depth("everything", "everything"), Depth("scratch", "scratch")
DEPTHS = (HEAD, CUT, WHOLE, SCRATCH)
NAMES = [depth.name for depth in DEPTHS]
HALF = 0.01
"""Half of the interval that `scores` gives a difference; a score's own is wider."""

Scores = Mapping[str, tuple[float, float]]
"""Depth -> its score, and its Brier score on the inner folds."""


def draws(name: str, share: float, seed: int, half: float) -> np.ndarray:
    """Noise of a depth alone, so that two depths differ by `half` in 95 % of the draws."""
    noise = np.random.default_rng([seed, round(1e6 * share), *name.encode()]).normal(size=1000)
    noise -= noise.mean()
    return half / 1.96 / math.sqrt(2) * noise / noise.std()


def cells(
    scores: Scores,
    share: float = 1.0,
    *,
    half: float = HALF,
    seeds: Sequence[int] = (0, 1),
    samples: int = 1968,
) -> list[Cell]:
    return [
        Cell(
            name,
            share,
            seed,
            round(samples * share),
            inner,
            score_of(name, share, seed, value, half),
            1.0,
            1.0,
        )
        for name, (value, inner) in scores.items()
        for seed in seeds
    ]


def score_of(name: str, share: float, seed: int, value: float, half: float) -> Drawn:
    """All of a seed's scores move alike, and their differences by `half`."""
    alike = 0.03 * np.random.default_rng(seed).normal(size=1000)
    return Drawn(value, value + alike + draws(name, share, 0, half), np.arange(500))


def measured(
    *cells: Cell, depths: Sequence[Depth] = DEPTHS, metric: str = "accuracy", test: int = 656
) -> Measured:
    return Measured(metric, depths, cells, test)


def said(found: Measured) -> str:
    return sentence(found, differences(found))


def about(found: Measured, **told: tuple[float, float, float]) -> str:
    """What is said where the differences of the whole part are given as (value, low, high)."""
    given = [
        replace(each, value=told[each.what][0], low=told[each.what][1], high=told[each.what][2])
        if each.what in told and each.share == found.shares()[-1]
        else each
        for each in differences(found)
    ]
    return sentence(found, given)


def parted(text: str) -> list[str]:
    """The sentences, as the report parts them."""
    return list(templates().filters["sentences"](text))


def around(value: float, half: float) -> tuple[float, float, float]:
    return value, value - half, value + half


MANY = {"head": (0.880, 0.3), "blocks.3": (0.912, 0.2), "everything": (0.905, 0.25), "scratch": (0.713, 0.5)}
FEW = {"head": (0.760, 0.3), "blocks.3": (0.740, 0.4), "everything": (0.700, 0.5), "scratch": (0.550, 0.7)}


# The whole of it


def test_a_verdict_reads_as_it_should():
    found = measured(*cells(FEW, 0.05), *cells({**MANY, "blocks.3": (0.901, 0.2)}, 0.5), *cells(MANY))
    told = [
        Difference(0.05, 98.0, "transfer", "head", "scratch", *around(0.21, 0.03)),
        Difference(1.0, 1968.0, "transfer", "blocks.3", "scratch", *around(0.199, 0.018)),
        Difference(1.0, 1968.0, "depth", "blocks.3", "head", *around(0.032, 0.01)),
        Difference(1.0, 1968.0, "labels", "blocks.3", "blocks.3", *around(0.011, 0.006)),
    ]
    assert re.sub(r"((91\.2 %|2\.0) ± )\d\.\d", r"\g<1>x", sentence(found, told)) == (
        "Freeze up to blocks.3: 91.2 % ± x; everything frozen 88.0 %; from scratch 71.3 %. "
        "Transfer helps by 19.9 ± 1.8 points at 1,968 samples, and by 21.0 ± 3.0 points at 98 samples. "
        "At 98 samples a head alone beats freezing up to blocks.3 by 2.0 ± x points. "
        "More labels should still help: +1.1 ± 0.6 points from 50 to 100 %."
    )


def test_what_cannot_be_told_says_what_would_settle_it():
    found = measured(*cells({"head": (0.90, 0.3), "blocks.3": (0.91, 0.2), "scratch": (0.9, 0.4)}, half=0.02))
    assert parted(about(found, depth=around(0.01, 0.02), transfer=around(0.01, 0.04)))[2:4] == [
        "Whether freezing up to blocks.3 is worth more than a head alone cannot be told (+1.0 ± 2.0 points); "
        "about 2,700 test samples or more (now 656) would settle it.",
        "Whether transfer helps cannot be told at 1,968 samples (+1.0 ± 4.0 points); "
        "about 11,000 test samples or more (now 656) would settle it.",
    ]


def test_without_cells_there_is_nothing_to_tell():
    assert said(measured()) == "Cannot tell: nothing was measured; give it more minutes."
    assert rules(measured(), Target(2, 1000)) == []


def test_without_folds_no_depth_is_advised():
    found = measured(*cells(dict.fromkeys(NAMES, (0.5, None))))
    assert said(found) == (
        "Cannot tell: no inner folds could be made of the training part, so that no depth can be chosen; "
        "more samples, or more groups, of each class would settle it."
    )
    assert rules(found, Target(2, 1000)) == []


def test_without_a_split_that_all_depths_share_no_depth_is_advised():
    found = measured(*cells({"head": (0.8, 0.2)}, seeds=[0]), *cells({"scratch": (0.7, 0.1)}, seeds=[1]))
    assert said(found) == "Cannot tell: no split was measured at every depth; give it more minutes."


# What is advised


@pytest.mark.parametrize(
    ("chosen", "advice"),
    [
        ("head", "Freeze everything and train a head alone: 88.0 %"),
        ("blocks.3", "Freeze up to blocks.3: 91.2 %"),
        ("everything", "Fine-tune everything: 90.5 %"),
        ("scratch", "Train from scratch: 71.3 %"),
    ],
)
def test_the_depth_that_inner_folds_chose_is_advised_whatever_the_test_part_says(chosen, advice):
    scores = {name: (value, 0.1 if name == chosen else 0.3) for name, (value, _) in MANY.items()}
    first = parted(said(measured(*cells(scores))))[0]
    assert first.startswith(f"{advice} ± ")
    beside = first.removesuffix(".").split("; ")[1:]
    others = {"head": "everything frozen 88.0 %", "scratch": "from scratch 71.3 %"}
    assert beside == [text for name, text in others.items() if name != chosen]


def test_a_score_is_told_with_the_wider_side_of_its_interval():
    score = Drawn(0.9, np.linspace(0.85, 0.92, 1001), np.arange(9))
    found = measured(Cell("head", 1.0, 0, 100, 0.2, score, 1.0, 1.0))
    low = np.percentile(score.draws, 2.5)
    assert said(found).startswith(
        f"Freeze everything and train a head alone: 90.0 % ± {100 * (0.9 - low):.1f}."
    )


def test_depths_are_told_apart_by_the_names_that_tables_show():
    """A suffix that starts at random is one of two with the same cut; so are several heads and random starts."""
    depths = (
        *(Depth("ridge", "head"), Depth("softmax", "head"), Depth("blocks.3", "suffix", "blocks.3")),
        *(
            Depth("blocks.3 anew", "suffix", "blocks.3"),
            Depth("scratch", "scratch"),
            Depth("slow", "scratch"),
        ),
    )
    inners = dict(zip([depth.name for depth in depths], (0.4, 0.3, 0.2, 0.1, 0.6, 0.5), strict=True))
    values = dict(zip(inners, (0.80, 0.81, 0.82, 0.83, 0.5, 0.6), strict=True))
    scores = {name: (values[name], inner) for name, inner in inners.items()}
    told = parted(about(measured(*cells(scores), depths=depths), depth=around(0.0, 0.03)))
    assert re.sub(r" ± \d\.\d", "", told[0]) == (
        "Freeze up to blocks.3 (blocks.3 anew): 83.0 %; everything frozen (softmax) 81.0 %; from scratch (slow) 60.0 %."
    )
    assert told[1].startswith(
        "Whether freezing up to blocks.3 (blocks.3 anew) is worth more than a head alone (softmax) cannot be told"
    )
    scores["ridge"] = (0.80, 0.01)
    told = parted(said(measured(*cells(scores), depths=depths)))
    assert told[0].startswith("Freeze everything and train a head alone (ridge): 80.0 % ")
    assert "frozen" not in told[0]
    assert told[1].startswith("Transfer helps by 20.0 ± 1.")


def test_what_there_was_no_time_for_is_named():
    few = {"head": (0.8, 0.2), "scratch": (0.5, 0.6)}
    told = parted(said(measured(*cells(few), *cells(FEW, 0.05))))
    assert told[1] == "Not measured at 1,968 samples: blocks.3, everything."
    told = parted(said(measured(*cells(FEW, 0.05))))
    assert told[1] == "Of the training part no more than 5 % was measured."


def test_a_single_split_is_owned_up_to():
    warned = "One split alone was compared; other training samples may tell otherwise."
    assert warned in parted(said(measured(*cells(MANY, seeds=[0]))))
    assert warned not in parted(said(measured(*cells(MANY, seeds=[0, 1]))))
    some = measured(*cells({"head": (0.8, 0.3)}, seeds=[0, 1, 2]), *cells({"scratch": (0.7, 0.2)}, seeds=[0]))
    assert (
        "It was chosen on 1 split alone, where all of this was measured; "
        "other training samples may tell otherwise."
    ) in parted(said(some))


# Whether it is worth more than a head alone


@pytest.mark.parametrize(
    ("difference", "told"),
    [
        (around(0.032, 0.01), []),  # the scores say so
        (
            around(-0.02, 0.01),
            ["A head alone is better by 2.0 ± 1.0 points, though inner folds chose otherwise."],
        ),
        (around(0.001, 0.01), ["A head alone is as good (paired difference +0.1 ± 1.0 points)."]),
        (
            around(0.015, 0.015),
            [
                "Whether freezing up to blocks.3 is worth more than a head alone cannot be told "
                "(+1.5 ± 1.5 points); more test samples would settle it."  # nought is an end: who knows how many
            ],
        ),
        (
            around(0.015, 0.0151),
            [
                "Whether freezing up to blocks.3 is worth more than a head alone cannot be told "
                "(+1.5 ± 1.5 points); about 670 test samples or more (now 656) would settle it."
            ],
        ),
    ],
)
def test_a_head_alone_is_weighed_by_the_paired_interval(difference, told):
    found = measured(*cells(MANY))
    without = parted(about(found, depth=around(0.5, 0.1)))
    assert parted(about(found, depth=difference)) == [without[0], *told, *without[1:]]


def test_scores_that_stand_side_by_side_are_of_the_same_splits():
    uneven = [
        *cells({"everything": (0.885, 0.1)}, seeds=(0, 1)),
        *cells({"head": (0.88, 0.2)}, seeds=(0, 1)),
        *cells({"head": (0.60, 0.2)}, seeds=(2,)),
        *cells({"scratch": (0.70, 0.5)}, seeds=(0, 1, 2)),
    ]
    told = said(measured(*uneven))
    assert told.startswith("Fine-tune everything: 88.5 %")
    assert "everything frozen 88.0 %; from scratch 70.0 %." in told
    assert "It was chosen on 2 splits alone, where all of this was measured." in told
    assert "It was chosen on" not in said(measured(*(each for each in uneven if each.seed < 2)))


def test_what_scores_tell_apart_is_the_difference_that_is_told():
    uneven = [
        *cells({"everything": (0.90, 0.1), "head": (0.80, 0.2)}, seeds=(0,)),
        *cells({"everything": (0.88, 0.1), "head": (0.87, 0.2)}, seeds=(1, 2)),
        *cells({"scratch": (0.70, 0.5)}, seeds=(0,)),
    ]
    told = said(measured(*uneven))
    assert "Fine-tune everything: 88.7 %" in told
    assert "everything frozen 84.7 %; from scratch 70.0 % (on 1 split)." in told
    assert "It was chosen on 1 split alone" in told
    [depth] = [each for each in differences(measured(*uneven)) if each.what == "depth"]
    assert depth.value == pytest.approx(0.04)


@pytest.mark.parametrize("chosen", ["head", "scratch"])
def test_a_head_is_not_weighed_against_itself_and_scratch_is_left_to_transfer(chosen):
    scores = {name: (0.8, 0.1 if name == chosen else 0.3) for name in NAMES}
    told = parted(said(measured(*cells(scores))))
    assert not any("worth more" in each or "ead alone" in each for each in told[1:])


# Whether transfer helps


@pytest.mark.parametrize(
    ("difference", "told"),
    [
        (around(0.199, 0.018), "Transfer helps by 19.9 ± 1.8 points at 1,968 samples."),
        (
            around(-0.05, 0.02),
            "Transfer does not help at 1,968 samples: a start from scratch is better by 5.0 ± 2.0 points, "
            "though inner folds chose otherwise.",
        ),
        (around(0.0, 0.01), "Transfer makes hardly any difference at 1,968 samples (0.0 ± 1.0 points)."),
        (
            around(-0.0001, 0.0104),
            "Transfer makes hardly any difference at 1,968 samples (0.0 ± 1.0 points).",
        ),
        (around(0.0, 0.0), "Transfer makes hardly any difference at 1,968 samples (less than 0.1 points)."),
        (
            around(-0.008, 0.05),
            "Whether transfer helps cannot be told at 1,968 samples (-0.8 ± 5.0 points); "
            "about 26,000 test samples or more (now 656) would settle it.",
        ),
        (
            (math.nan, math.nan, math.nan),
            "Whether transfer helps cannot be told at 1,968 samples: these test parts give no interval.",
        ),
        (
            (0.3, math.nan, math.nan),
            "Whether transfer helps cannot be told at 1,968 samples: these test parts give no interval.",
        ),
    ],
)
def test_transfer_is_judged_by_the_paired_interval(difference, told):
    assert parted(about(measured(*cells(MANY)), transfer=difference, depth=around(0.5, 0.1)))[1] == told


@pytest.mark.parametrize("chosen", NAMES)
def test_where_transfer_turns_out_other_than_inner_folds_chose_that_is_said(chosen):
    scores = {name: (value, 0.1 if name == chosen else 0.3) for name, (value, _) in MANY.items()}
    otherwise = ", though inner folds chose otherwise."
    helps = next(each for each in parted(said(measured(*cells(scores)))) if each.startswith("Transfer helps"))
    assert helps.endswith(otherwise) == (chosen == "scratch")
    scores["scratch"] = (0.99, scores["scratch"][1])
    told = said(measured(*cells(scores)))
    better = next(
        each for each in parted(told) if each.startswith("Transfer does not help at 1,968 samples: ")
    )
    assert better.endswith(otherwise) == (chosen != "scratch")
    few = {**FEW, "scratch": (0.55, 0.1)}
    last = parted(said(measured(*cells(few, 0.05), *cells({"head": (0.9, 0.1)}))))
    assert rounded(last)[3] == f"At 98 samples transfer helps by 21.0 points{otherwise}"


def test_without_a_random_start_transfer_was_not_measured():
    scores = {name: MANY[name] for name in NAMES[:3]}
    for depths in (DEPTHS, DEPTHS[:3]):
        found = measured(*cells(scores), depths=depths)
        assert "Whether transfer helps was not measured at 1,968 samples." in parted(said(found))


# With the fewest labels


def with_few(few: Scores, many: Scores = MANY, *, half: float = HALF) -> list[str]:
    """What is said of 98 of 1,968 samples."""
    return [
        each for each in parted(said(measured(*cells(few, 0.05, half=half), *cells(many)))) if "98 s" in each
    ]


def rounded(told: Sequence[str]) -> list[str]:
    """With the intervals left out."""
    return [re.sub(r" ± \d+\.\d", "", each) for each in told]


@pytest.mark.parametrize(
    ("few", "told"),
    [
        (
            {"head": (0.76, 0.3), "blocks.3": (0.74, 0.4)},
            "a head alone beats freezing up to blocks.3 by 2.0 points.",
        ),
        (
            {"head": (0.76, 0.3), "blocks.3": (0.78, 0.4)},
            "freezing up to blocks.3 beats a head alone by 2.0 points, though inner folds chose otherwise.",
        ),
        (
            {"head": (0.76, 0.3), "blocks.3": (0.78, 0.2)},
            "freezing up to blocks.3 beats a head alone by 2.0 points.",
        ),
        (
            {"head": (0.76, 0.3), "blocks.3": (0.74, 0.2)},
            "a head alone beats freezing up to blocks.3 by 2.0 points, though inner folds chose otherwise.",
        ),
        (
            {"head": (0.76, 0.3), "blocks.3": (0.761, 0.2)},
            "a head alone is as good (paired difference +0.1 points).",
        ),
        (
            {"head": (0.76, 0.3), "everything": (0.761, 0.2)},
            "a head alone is as good as fine-tuning everything (paired difference +0.1 points).",
        ),
        ({"head": (0.76, 0.3), "everything": (0.7, 0.4)}, "inner folds choose a head alone."),
        ({"head": (0.76, 0.3), "scratch": (0.76, 0.2)}, "inner folds choose training from scratch."),
        (
            {"blocks.3": (0.76, 0.3), "everything": (0.7, 0.4)},
            "inner folds choose freezing up to blocks.3, too.",
        ),
        ({"blocks.3": (0.76, 0.4), "everything": (0.7, 0.3)}, "inner folds choose fine-tuning everything."),
    ],
)
def test_with_few_labels_what_is_advised_is_weighed_against_a_head_alone(few, told):
    assert rounded(with_few(few)) == [f"At 98 samples {told}"]


def test_with_few_labels_too_what_cannot_be_told_is_not():
    [told] = with_few({"head": (0.76, 0.3), "blocks.3": (0.80, 0.2)}, half=0.2)
    assert re.fullmatch(
        r"At 98 samples whether freezing up to blocks\.3 is worth more than a head alone cannot be told "
        r"\(\+4\.0 ± \d+\.\d points\); about [\d,]+ test samples or more \(now 656\) would settle it\.",
        told,
    )


def test_where_a_head_is_best_with_few_and_with_all_labels_that_is_said():
    many = {"head": (0.9, 0.1), "blocks.3": (0.8, 0.3)}
    assert with_few({"head": (0.76, 0.3), "blocks.3": (0.74, 0.4)}, many) == [
        "At 98 samples inner folds choose a head alone, too."
    ]


def test_with_few_labels_transfer_is_told_beside_that_with_all():
    few = {"head": (0.76, 0.3), "scratch": (0.5, 0.6)}
    told = rounded(with_few(few, MANY))
    assert told[0] == "Transfer helps by 19.9 points at 1,968 samples, and by 26.0 points at 98 samples."
    alike = {**MANY, "scratch": (0.912, 0.5)}
    assert rounded(with_few(few, alike))[0] == "At 98 samples transfer helps by 26.0 points."
    worse = {"head": (0.5, 0.6), "scratch": (0.76, 0.3)}
    assert rounded(with_few(worse, MANY))[0] == "At 98 samples a start from scratch is better by 26.0 points."
    unsure = with_few({"head": (0.5, 0.3), "scratch": (0.5, 0.6)})
    assert not any("ransfer" in each for each in unsure)


def test_of_one_depth_alone_nothing_is_said_with_few_labels():
    assert with_few({"head": (0.76, 0.3)}) == []


def test_without_folds_nothing_is_said_of_few_labels():
    assert with_few({"head": (0.76, None), "blocks.3": (0.7, None), "scratch": (0.5, None)}) == []


# Whether more labels would help


@pytest.mark.parametrize(
    ("difference", "told"),
    [
        (around(0.011, 0.006), "More labels should still help: +1.1 ± 0.6 points from 12.5 to 100 %."),
        (around(-0.011, 0.006), "More labels did not help: -1.1 ± 0.6 points from 12.5 to 100 %."),
        (around(0.002, 0.006), "More labels should hardly help: +0.2 ± 0.6 points from 12.5 to 100 %."),
        (
            around(0.02, 0.03),
            "Whether more labels would help cannot be told (+2.0 ± 3.0 points from 12.5 to 100 %); "
            "about 1,500 test samples or more (now 656) would settle it.",
        ),
        (
            (math.nan, math.nan, math.nan),
            "Whether more labels would help cannot be told: these test parts give no interval.",
        ),
    ],
)
def test_labels_are_judged_by_the_last_step(difference, told):
    found = measured(*cells(FEW, 0.05), *cells(FEW, 0.125), *cells(MANY))
    assert parted(about(found, labels=difference))[-1] == told


def test_with_one_share_alone_nothing_is_known_of_more_labels():
    told = parted(said(measured(*cells(MANY))))
    assert told[-1] == "Whether more labels would help was not measured."
    assert len(told) == 3


def test_the_step_starts_at_the_last_share_for_which_there_was_a_choice():
    """The half could not be cut into folds; what is told is measured from the quarter."""
    unknown = {name: (value, None) for name, (value, _) in MANY.items()}
    found = measured(*cells(FEW, 0.25), *cells(unknown, 0.5), *cells(MANY))
    assert parted(said(found))[-1].endswith("points from 25 to 100 %.")


# Numbers


@pytest.mark.parametrize("value", [0.05, -0.05])
def test_log_loss_is_told_in_its_own_unit_and_less_is_better(value):
    scores = {"head": (0.5, 0.1), "scratch": (0.5 + value, 0.3)}
    told = said(measured(*cells(scores, 0.5), *cells(scores), metric="log loss"))
    better = "Transfer helps by" if value > 0 else "a start from scratch is better by"
    assert re.search(rf"{better} 0\.050 ± 0\.01\d", told)
    assert re.match(
        r"Freeze everything and train a head alone: 0\.500 ± 0\.0\d\d; from scratch 0\.\d50\.", told
    )
    assert re.search(r"more labels would help cannot be told \(0\.000 ± 0\.01\d from 50 to 100 %\)", told)
    assert "%" not in told.replace("from 50 to 100 %", "")
    assert "point" not in told


def test_log_loss_knows_no_difference_too_small_to_matter():
    found = measured(*cells(MANY), metric="log loss")
    told = about(found, transfer=around(0.0, 0.0001))
    assert "Whether transfer helps cannot be told at 1,968 samples (less than 0.001); it is too small" in told
    assert "any likely number of test samples to settle" in told


BETWEEN = st.tuples(st.floats(-0.5, 0.5), st.floats(0, 0.5), st.floats(0, 0.5)).map(
    lambda each: (each[0], each[0] - each[1], each[0] + each[2])
)


@given(BETWEEN)
@example(around(0.0, 0.0))
@example(around(0.0, NO_MATTER))
@example(around(0.004, 0.004))
@settings(deadline=None)
def test_nothing_is_claimed_that_the_interval_does_not_allow(difference):
    value, low, high = difference
    told = about(TRANSFERRED, transfer=difference)
    assert ("Transfer helps" in told) == (low > 0)
    assert ("start from scratch is better" in told) == (high < 0)
    if "hardly any difference" in told:
        assert -NO_MATTER < low <= 0 <= high < NO_MATTER
    if "cannot be told at" in told:
        assert low <= 0 <= high
        assert max(-low, high) >= NO_MATTER
        amount = re.search(r"about ([\d,]+) test samples or more \(now 656\)", told)
        if amount is None:
            assert "any likely number" in told or "more test samples would settle it" in told
        else:
            needed = int(amount[1].replace(",", ""))
            assert needed > 656
            narrower = math.sqrt(656 / needed)
            low, high = value - narrower * (value - low), value + narrower * (high - value)
            assert low > -1e-9 or high < 1e-9 or max(-low, high) <= NO_MATTER + 1e-9
    shown = re.search(r"([\d.]+) ± ([\d.]+) points at", told)
    if shown:  # of what is real, no less is shown than what it is told with
        assert float(shown[1]) >= float(shown[2])


TRANSFERRED = measured(*cells({name: MANY[name] for name in ("head", "scratch")}), depths=(HEAD, SCRATCH))


# Whatever was measured

ANY_DEPTHS = (
    *DEPTHS,
    Depth("ridge", "head"),
    Depth("blocks.3 anew", "suffix", "blocks.3"),
    Depth("slow", "scratch"),
)
ANY_CELLS = st.dictionaries(
    st.tuples(
        st.sampled_from([depth.name for depth in ANY_DEPTHS]),
        st.sampled_from([0.05, 0.125, 0.5, 1.0]),
        st.integers(0, 1),
    ),
    st.tuples(
        st.sampled_from([0.0, 0.5, 0.52, 0.9, 1.0, math.nan]),
        st.sampled_from([0.1, 0.2, 0.3, None, math.nan]),
        st.sampled_from([0.0, 0.001, 0.05]),
    ),
    max_size=40,
)


def any_measured(
    some: Mapping[tuple[str, float, int], tuple[float, float | None, float]], metric: str
) -> Measured:
    return measured(
        *(
            Cell(name, share, seed, round(1968 * share), inner, wobbling(name, seed, value, wobble), 1.0, 1.0)
            for (name, share, seed), (value, inner, wobble) in some.items()
        ),
        depths=ANY_DEPTHS,
        metric=metric,
    )


def wobbling(name: str, seed: int, value: float, wobble: float) -> Drawn:
    noise = np.random.default_rng([seed, *name.encode()]).normal(size=100)
    return Drawn(value, value + wobble * noise, np.arange(1 + 40 * seed))


@given(ANY_CELLS, st.sampled_from(METRICS))
@settings(max_examples=150, deadline=None)
def test_whatever_was_measured_is_said_in_whole_sentences(some, metric):
    found = any_measured(some, metric)
    text = said(found)
    for each in parted(text):
        assert re.match(r"[A-Z]", each), each
        assert each.endswith("."), each
        assert len(re.findall(r"\.(?= |$)", each)) == 1, each  # or the report would not part it there
        assert each.count("(") == each.count(")")
    assert not re.search(r"nan|None|inf\b|[+-]0\.0+ |  |\.\.|,\.", text), text
    assert len(set(parted(text))) == len(parted(text))
    assert len(parted(text)) <= 9
    best = found.chosen(found.shares()[-1]) if some else None
    assert text.startswith("Cannot tell: ") == (best is None)
    for each in re.findall(r"[^.]*cannot be told.*?\.(?= |$)", text):
        assert re.search(r"would settle it|samples to settle|no interval", each), each


@given(ANY_CELLS, st.sampled_from(METRICS), st.integers(1, 2000), st.sampled_from([None, 100, 10**6]))
@settings(max_examples=100, deadline=None)
def test_rules_are_told_of_every_share_with_a_choice_and_of_the_source(some, metric, classes, source):
    found = any_measured(some, metric)
    told = rules(found, Target(classes, source))
    chosen = [found.chosen(share) for share in found.shares()]
    by_labels = [rule for rule in told if not rule["rule"].startswith("a source")]
    assert [rule["measured"] for rule in by_labels] == [name for name in chosen if name is not None]
    assert len(told) - len(by_labels) <= (source is not None)
    for rule in told:
        assert list(rule) == ["rule", "says", "measured", "agrees"]
        assert rule["agrees"] in (True, False, None)


# Rules of thumb


@pytest.mark.parametrize(
    ("classes", "says", "rule"),
    [
        (20, "head", "1,968 samples, 98 a class: few labels: freeze everything and train a head alone"),
        (19, "suffix", "1,968 samples, 104 a class: more labels: freeze fewer layers"),
        (2, "suffix", "1,968 samples, 984 a class: more labels: freeze fewer layers"),
        (
            1,
            "everything",
            "1,968 samples, 1,968 a class: many labels: pretrained weights are the start for everything",
        ),
    ],
)
def test_rules_go_by_how_many_samples_a_class_has(classes, says, rule):
    [told] = rules(measured(*cells(MANY)), Target(classes, None))
    assert (told["rule"], told["says"], told["measured"]) == (rule, says, "blocks.3")
    assert told["agrees"] is (says != "head")  # everything is no worse, a head alone is


@pytest.mark.parametrize(
    ("samples", "says"), [(198, "head"), (200, "suffix"), (1998, "suffix"), (2000, "everything")]
)
def test_few_and_many_labels_begin_where_the_constants_say(samples, says):
    [told] = rules(measured(*cells(MANY, samples=samples)), Target(2, None))
    assert told["says"] == says


@pytest.mark.parametrize(
    ("head", "agrees"),
    [
        ((0.880, 0.30), False),  # really worse
        ((0.905, 0.30), True),  # no worse, as far as can be told
        ((0.930, 0.30), True),  # really better, though not chosen
        ((0.700, 0.10), True),  # chosen
        (None, None),  # not measured
    ],
)
def test_a_rule_agrees_where_what_it_names_was_chosen_or_is_no_worse(head, agrees):
    scores = {name: each for name, each in {**MANY, "head": head}.items() if each is not None}
    [told] = rules(measured(*cells(scores)), Target(100, None))
    assert told["says"] == "head"
    assert told["agrees"] is agrees


def test_a_rule_agrees_where_any_depth_that_it_names_is_no_worse():
    depths = (Depth("poor", "head"), Depth("good", "head"), CUT)
    scores = {"poor": (0.5, 0.4), "good": (0.912, 0.3), "blocks.3": (0.912, 0.2)}
    assert rules(measured(*cells(scores), depths=depths), Target(100, None))[0]["agrees"] is True
    del scores["good"]
    assert rules(measured(*cells(scores), depths=depths), Target(100, None))[0]["agrees"] is False


@pytest.mark.parametrize(
    ("scratch", "source", "says", "measured_is", "agrees"),
    [
        (0.713, 10**6, "transfer", "blocks.3", True),
        (0.713, 19_679, "scratch", "blocks.3", False),
        (0.713, 19_680, "transfer", "blocks.3", True),
        (0.960, 10**6, "transfer", "scratch", False),
        (0.960, 1000, "scratch", "scratch", True),
        (0.912, 10**6, "transfer", "no difference", False),
        (0.912, 1000, "scratch", "no difference", True),
    ],
)
def test_a_much_larger_source_should_help(scratch, source, says, measured_is, agrees):
    found = measured(*cells({**MANY, "scratch": (scratch, 0.5)}))
    [_, told] = rules(found, Target(2, source))
    assert (told["says"], told["measured"], told["agrees"]) == (says, measured_is, agrees)
    size = f"{'' if says == 'transfer' else 'not '}much larger than the target"
    assert told["rule"].startswith(f"a source of {source:,} samples is {size}: transfer h")


def test_where_transfer_cannot_be_told_the_rule_of_its_source_neither_agrees_nor_disagrees():
    found = measured(*cells({**MANY, "scratch": (0.912, 0.5)}, half=0.1))
    for source in (1000, 10**6):
        [_, told] = rules(found, Target(2, source))
        assert (told["measured"], told["agrees"]) == ("cannot be told", None)


def test_without_a_source_or_a_random_start_there_is_no_rule_of_it():
    assert len(rules(measured(*cells(MANY)), Target(2, None))) == 1
    assert len(rules(measured(*cells({"head": (0.8, 0.2)})), Target(2, 10**6))) == 1
