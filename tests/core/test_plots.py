"""Drawings that stand alone are whole SVG documents that ask for nothing."""

import base64
from xml.etree import ElementTree

from tasks.core.plots import plots

POINTS = [
    {"share": 0.5, "train": 50.0, "value": 0.7, "ci95": [0.6, 0.8]},
    {"share": 1.0, "train": 100.0, "value": 0.8, "ci95": [0.7, 0.9]},
]
CURVE = {"experiment": "deep", "split": "random", "metric": "accuracy", "points": POINTS}


def run(value):
    return {
        "ended": "2026-01-02T03:04:05+00:00",
        "split": "random",
        "metric": "accuracy",
        "value": value,
        "low": value - 0.1,
        "high": value + 0.1,
    }


def svg_of(uri):
    head, text = uri.split(",", 1)
    assert head == "data:image/svg+xml;base64"
    return ElementTree.fromstring(base64.b64decode(text))  # noqa: S314 - made just now


def test_the_learning_curve_and_the_runs_are_drawn():
    drawn = plots(
        {"headline": "accuracy", "learning_curve": CURVE, "history": [run(0.7), run(0.8), run(0.75)]}
    )
    assert list(drawn) == ["accuracy over training samples", "accuracy from run to run"]
    curve, runs = map(svg_of, drawn.values())
    circles = "{http://www.w3.org/2000/svg}circle"
    assert len(curve.findall(circles)) == len(POINTS)
    assert len(runs.findall(circles)) == 1
    assert "3 runs" in "".join(runs.itertext())


def test_nothing_is_drawn_of_a_single_point():
    few = {**CURVE, "points": POINTS[:1]}
    assert plots({"headline": "accuracy", "learning_curve": few, "history": [run(0.7)]}) == {}
    assert plots({"headline": "accuracy", "learning_curve": None, "history": []}) == {}


def test_a_drawing_refers_to_nothing_outside_of_it():
    [drawn] = plots({"headline": "accuracy", "learning_curve": CURVE, "history": []}).values()
    text = base64.b64decode(drawn.split(",", 1)[1]).decode()
    assert text.count("http") == text.count('xmlns="http://www.w3.org/2000/svg"') == 1
    assert "url(" not in text
