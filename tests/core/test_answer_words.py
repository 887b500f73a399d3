"""What joint training changes, in words."""

from tasks.core.answer_words import read_gain, read_gains, read_widths
from tasks.core.answers import MACRO, MICRO


def gain(target: str, value: float | None, low: float | None, high: float | None, **more: object) -> dict:
    real = low is not None and high is not None and (low > 0 or high < 0)
    told = {"joint": "layer", "split": "random", "metric": "AUROC", "target": target}
    return told | {"difference": value, "low": low, "high": high, "real": real} | more


def test_it_helps_it_hurts_or_one_cannot_tell() -> None:
    assert read_gain(gain("car", 0.021, 0.01, 0.03)) == "car: joint helps by 2.1 points (+1.0 to +3.0)"
    assert read_gain(gain("car", -0.021, -0.03, -0.01)) == "car: joint hurts by 2.1 points (-3.0 to -1.0)"
    assert read_gain(gain("car", 0.004, -0.01, 0.02)) == "car: cannot tell (+0.4 points, -1.0 to +2.0)"
    assert read_gain(gain("car", -0.0002, -0.01, 0.01)).startswith("car: cannot tell (+0.0 points")
    assert read_gain(gain("car", None, None, None)).startswith("car: cannot tell; ")


def test_what_the_others_add_to_the_target_with_the_fewest_answers_is_told() -> None:
    rows = [
        gain("car", 0.01, -0.01, 0.02),
        gain("sign", 0.05, 0.01, 0.09),
        gain(MACRO, 0.03, 0.01, 0.04),
        gain(MICRO, 0.02, 0.01, 0.04),
        gain("sign", 0.5, 0.4, 0.6, metric="F1"),
    ]
    counts = [{"target": "car", "known": 900}, {"target": "sign", "known": 40}, {"target": "out", "known": 1}]
    told = read_gains(rows, "AUROC", counts, "layer", "random", 3)
    assert "One seed alone" not in told[-1]
    assert "One seed alone" in read_gains(rows, "AUROC", counts, "layer", "random", 1)[-1]
    assert [line.split(":")[0] for line in told[:3]] == ["car", "sign", MACRO]
    assert told[3] == (
        "sign has the fewest answers (40); what those to the others add to it: joint helps by 5.0 points (+1.0 to +9.0)"
    )
    assert read_gains(rows, "AUROC", counts, "another", "random", 1) == []


def width(name: str, joint: float, difference: float, *, real: bool) -> dict:
    return {"width": name, "joint_value": joint, "difference": difference, "real": real}


def test_a_network_is_too_small_only_where_a_wider_one_is_not_worse() -> None:
    told = read_widths([width("2", 0.6, -0.1, real=True), width("64", 0.7, -0.1, real=True)])
    assert (
        told
        == "On inner folds the joint network is best with a layer of 64; with 2, 64 it is worse than separate ones."
    )


def test_widths_that_are_too_small_are_named() -> None:
    rows = [width("2", 0.6, -0.1, real=True), width("64", 0.9, 0.02, real=True)]
    assert read_widths(rows) == (
        "On inner folds the joint network is best with a layer of 64; with 2 it is worse than separate ones: "
        "too small for all targets."
    )
    assert "of no width can it be told to be worse" in read_widths(
        [width("2", 0.6, -0.1, real=False), rows[1]]
    )
    assert read_widths(rows[:1]) == ""
