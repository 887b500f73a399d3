"""Drawings that stand alone are whole SVG documents that ask for nothing."""

import base64
from xml.etree import ElementTree

from tasks.core.plots import plots

POINTS = [
    {"share": 0.5, "train": 50.0, "value": 0.7, "ci95": [0.6, 0.8]},
    {"share": 1.0, "train": 100.0, "value": 0.8, "ci95": [0.7, 0.9]},
]
CELLS = [
    {"depth": depth, "share": share, "train": 100 * share, "value": 0.7, "ci95": [0.6, 0.8]}
    for depth in ("head", "<b>&")
    for share in (0.5, 1.0)
]
VERDICT = {
    "metric": "balanced accuracy",
    "cells": CELLS,
    "chosen": [{"share": 1.0, "train": 100.0, "depth": "head"}],
}
CURVE = {"experiment": "deep", "split": "random", "metric": "accuracy", "points": POINTS}


def run(value):
    return {
        "ended": "2026-01-02T03:04:05+00:00",
        "split": "random",
        "metric": "accuracy",
        "targets": "",
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


def test_the_verdict_is_drawn_first_with_its_depths_by_name():
    drawn = plots({"headline": "accuracy", "learning_curve": CURVE, "history": [], "verdict": VERDICT})
    assert list(drawn) == [
        "balanced accuracy of each depth over training samples",
        "accuracy over training samples",
    ]
    svg = svg_of(next(iter(drawn.values())))
    space = "{http://www.w3.org/2000/svg}"
    assert [way.find(f"{space}text").text for way in svg.findall(f"{space}g")] == ["head", "<b>&"]
    assert len(list(svg.iter(f"{space}circle"))) == 1
    tones = {way.get("class").split()[1] for way in svg.findall(f"{space}g")}
    assert all(f".{tone} " in svg.find(f"{space}style").text for tone in tones)


def test_without_a_verdict_or_its_scores_no_depths_are_drawn():
    rest = {"headline": "accuracy", "learning_curve": None, "history": []}
    assert plots(rest | {"verdict": None}) == {}
    assert plots(rest | {"verdict": VERDICT | {"cells": [], "chosen": []}}) == {}


def test_nothing_is_drawn_of_a_single_point():
    few = {**CURVE, "points": POINTS[:1]}
    assert plots({"headline": "accuracy", "learning_curve": few, "history": [run(0.7)]}) == {}
    assert plots({"headline": "accuracy", "learning_curve": None, "history": []}) == {}


def test_a_drawing_refers_to_nothing_outside_of_it():
    for drawn in plots(
        {"headline": "accuracy", "learning_curve": CURVE, "history": [], "verdict": VERDICT}
    ).values():
        text = base64.b64decode(drawn.split(",", 1)[1]).decode()
        assert text.count("http") == text.count('xmlns="http://www.w3.org/2000/svg"') == 1
        assert "url(" not in text
