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
}
BEFORE = NOW | {"ended": "2026-03-01T23:59:59+00:00"}


def curve(before: float | None, last: float, low: float, high: float, metric: str = "accuracy") -> dict:
    ends = [None, None] if before is None else [before - 0.02, before + 0.02]
    return {
        "metric": metric,
        "points": [
            {"share": 0.5, "train": 1234.0, "value": before, "ci95": ends},
            {"share": 1.0, "train": 2468.0, "value": last, "ci95": [low, high]},
        ],
    }


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (curve(0.70, 0.75, 0.72, 0.78), "gained 5.0 points, more than the interval allows for"),
        (curve(0.73, 0.75, 0.72, 0.78), "gained 2.0 points, no more than the interval allows for"),
        (curve(0.76, 0.75, 0.72, 0.78), "gained nothing (-1.0 points)"),
        (curve(0.75, 0.75, 0.72, 0.78), "gained nothing (+0.0 points)"),
        (curve(0.50, 0.40, 0.35, 0.45, "log loss"), "gained 0.100, more than"),
        (curve(0.42, 0.40, 0.35, 0.45, "log loss"), "gained 0.020, no more than"),
    ],
)
def test_the_last_step_is_held_against_the_interval(given, told):
    said = read_curve(given)
    assert said.startswith("From 1,234 to 2,468 training samples it ")
    assert told in said


def test_of_what_is_not_known_nothing_is_said():
    assert read_curve(curve(None, 0.75, 0.7, 0.8)) == ""


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
