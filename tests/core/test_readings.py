"""What the report's drawings say in words."""

import pytest

from tasks.core.readings import read_curve, read_drift

NOW = {
    "ended": "2026-03-02T03:04:05+00:00",
    "experiment": "e",
    "split": "s",
    "metric": "accuracy",
    "value": 0.80,
    "low": 0.77,
    "high": 0.83,
    "samples": 1000,
    "targets": "",
}
BEFORE = NOW | {"ended": "2026-03-01T23:59:59+00:00"}


def step(difference: float | None, low: float | None, high: float | None) -> dict:
    points = [{"train": 500.0}, {"train": 1000.0}, {"train": 2000.4}]
    return {"points": points, "gain": {"difference": difference, "low": low, "high": high}}


@pytest.mark.parametrize(
    ("gain", "told"),
    [
        (
            (0.01, 0.001, 0.03),
            "+1.0 points (+0.1 to +3.0) from 1,000 to 2,000 labels: more should still help",
        ),
        (
            (0.01, -0.01, 0.0149),
            "+1.0 points (-1.0 to +1.5) from 1,000 to 2,000 labels: more should hardly help",
        ),
        (
            (0.01, -0.01, 0.016),
            "+1.0 points (-1.0 to +1.6) from 1,000 to 2,000 labels: cannot tell whether more would help",
        ),
        ((-0.02, -0.03, -0.01), "-2.0 points (-3.0 to -1.0) from 1,000 to 2,000 labels: more did not help"),
    ],
)
def test_the_last_step_of_a_learning_curve_helped_or_hardly_or_one_cannot_tell(gain, told):
    assert read_curve(step(*gain)) == told
    assert read_curve(step(*gain), "answers") == told.replace("labels", "answers")


def test_of_what_is_not_known_nothing_is_told():
    assert "cannot be told" in read_curve(step(None, None, None))


@pytest.mark.parametrize(
    ("before", "told"),
    [
        (BEFORE, "unchanged since the last run (2026-03-01 23:59 UTC)"),
        (
            BEFORE | {"value": 0.79, "low": 0.76, "high": 0.82},
            "+1.0 points since the last run (2026-03-01 23:59 UTC), within that run's interval",
        ),
        (
            BEFORE | {"value": 0.9, "low": 0.88, "high": 0.92},
            "-10.0 points since the last run (2026-03-01 23:59 UTC), outside that run's interval",
        ),
        (
            BEFORE | {"samples": 900, "experiment": "f"},
            "unchanged since the last run (2026-03-01 23:59 UTC); then f was chosen; then of 900 samples",
        ),
    ],
)
def test_the_headline_is_held_against_the_last_run(before, told):
    assert read_drift([before, NOW]) == told


def test_the_last_run_of_the_same_split_and_metric_is_the_one():
    other = BEFORE | {"metric": "weighted accuracy", "value": 0.2}
    assert read_drift([BEFORE, other, NOW]) == read_drift([BEFORE, NOW])
    assert read_drift([other, NOW]) == read_drift([NOW]) == read_drift([]) == ""


def test_a_mean_over_other_targets_is_not_held_against_this_one():
    before = BEFORE | {"value": 0.94, "low": 0.92, "high": 0.96, "targets": "bar, car"}
    now = NOW | {"targets": "bar, car, hat"}
    assert read_drift([before, now]) == (
        "the targets changed since the last run (2026-03-01 23:59 UTC), "
        "so its score is not held against this one; then bar, car"
    )
    assert read_drift([now, before, now]).startswith("unchanged since the last run")
    assert read_drift([now | dict.fromkeys(("value", "low", "high")), now]) == ""


def test_of_targets_that_are_not_told_nothing_is_said():
    assert read_drift([BEFORE | {"targets": ""}, NOW | {"targets": "bar"}]) == ""
    assert read_drift([BEFORE | {"targets": "bar"}, NOW | {"targets": ""}]) == ""


def test_of_many_targets_the_first_are_named():
    many = ", ".join(f"target {number:03}" for number in range(500))
    told = read_drift([BEFORE | {"targets": many}, NOW | {"targets": "bar"}])
    assert "then target 000, target 001, " in told
    assert told.endswith(" …")
    assert len(told) < 300


def test_a_headline_that_is_not_known_has_not_moved():
    lost = NOW | dict.fromkeys(("value", "low", "high"))
    assert read_drift([BEFORE, BEFORE, lost]) == ""
    assert read_drift([BEFORE, lost, NOW]) == read_drift([BEFORE, NOW])
