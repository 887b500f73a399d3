"""The report: one page that stands alone, shows what was counted, and trusts no name."""

import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from math import nan
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prefect.serializers import JSONSerializer
from said_heads import CLASSES, head_of, random_study
from sklearn.metrics import confusion_matrix

from tasks.core.class_scores import CLASS_METRICS
from tasks.core.heads import save_heads
from tasks.core.history import COLUMNS
from tasks.core.metrics import METRICS
from tasks.core.pictures import Suspect, Twins, Unsure, Wrong
from tasks.core.predictors import Linear, Networks, log_softmax
from tasks.core.report import Confusion, calibration_of, confusion, render
from tasks.core.summary import (
    class_of,
    heads_told,
    history_row,
    label_errors_of,
    less_chosen,
    metrics_of,
    operating_of,
)
from tasks.references import Scores

# Confusion


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 4))
def test_confusion_is_scikit_learns_averaged_over_the_splits(seed, splits):
    heads, table = random_study(seed, splits)
    labels = dict(zip(table.digest, table.label, strict=True))
    expected = np.mean(
        [
            confusion_matrix(
                [labels[digest] for digest in head.test_rows],
                [CLASSES[c] for c in head.log_proba.argmax(axis=1)],
                labels=CLASSES,
            )
            for head in heads
        ],
        axis=0,
    )
    found = confusion(heads, table)
    assert found.classes == CLASSES
    np.testing.assert_allclose(found.counts, expected)


def test_shares_sum_to_one_and_a_class_without_rows_has_none():
    shares = Confusion(CLASSES, np.array([[3.0, 1, 0], [0, 0, 0], [1, 1, 2]])).shares()
    np.testing.assert_allclose(shares, [[0.75, 0.25, 0], [0, 0, 0], [0.25, 0.25, 0.5]])


# Calibration


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 4))
def test_bins_hold_the_test_rows_of_all_splits_together(seed, splits):
    heads, table = random_study(seed, splits)
    labels = dict(zip(table.digest, table.label, strict=True))
    rows = [
        (np.exp(said.max()), CLASSES[said.argmax()] == labels[digest])
        for head in heads
        for digest, said in zip(head.test_rows, head.log_proba, strict=True)
    ]
    found = calibration_of(heads, table)
    error = 0.0
    for each in found["bins"]:
        inside = [(sure, right) for sure, right in rows if each["low"] < sure <= each["high"]]
        sure, right = np.mean(inside, axis=0)
        assert (each["confidence"], each["accuracy"]) == pytest.approx((sure, right))
        assert each["share"] == pytest.approx(len(inside) / len(rows))
        error += abs(sure - right) * len(inside) / len(rows)
    assert sum(each["share"] for each in found["bins"]) == pytest.approx(1)
    assert found["expected_calibration_error"] == pytest.approx(error)
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_the_error_before_scaling_is_that_of_the_head_at_temperature_one():
    """Each split's head has a temperature of its own."""
    (one, two), table = random_study(0, 2)
    warm = [
        head_of(rows, np.exp(log_softmax(head.log_proba / warmth)), warmth)
        for head, warmth, rows in (
            (head, warmth, [int(digest, 16) for digest in head.test_rows])
            for head, warmth in ((one, 0.5), (two, 3.0))
        )
    ]
    found, raw = calibration_of(warm, table), calibration_of([one, two], table)
    assert found["before_scaling"] == pytest.approx(raw["expected_calibration_error"])
    assert found["expected_calibration_error"] != pytest.approx(raw["expected_calibration_error"], abs=1e-3)
    assert found["temperature"] == 1.75


# What the stage tells the page


def test_scores_that_are_read_back_are_told_as_the_fresh_ones():
    """Prefect keeps a NaN as null: of the precision of a class that is never called, say."""
    row = {"experiment": "b", "split": "s", "class": "c", "wanted": "recall", "at_least": 0.9}
    ends = {f"{name}{end}": 0.5 for name in (*METRICS, "recall") for end in ("", "_low", "_high")}
    gone = {f"{name}{end}": nan for name in ("log loss", "precision") for end in ("", "_low", "_high")}
    row |= {"thresholds": [0.5], **ends, **gone}
    row = {name.replace(" ", "_") if name in ends or name in gone else name: v for name, v in row.items()}
    pair = {"first": "a", "second": "b", "split": "s", "real": False}
    differences = [
        pair | {"metric": "accuracy", "difference": 0.25, "low": 0.125, "high": 0.5, "real": True},
        pair | {"metric": "log loss", "difference": nan, "low": nan, "high": nan},
    ]
    kind = {"class": "c", "test": 2.5} | {
        f"{name.replace(' ', '_')}{end}": nan if name == "precision" else 0.5
        for name in CLASS_METRICS
        for end in ("", "_low", "_high")
    }
    fresh = Scores(splits=[], means=[row], differences=differences, operating=[row], classes=[kind])
    again = JSONSerializer().loads(JSONSerializer().dumps(fresh))
    for scores in (fresh, again):
        [mean] = scores.means
        assert metrics_of(mean)["accuracy"] == {"value": 0.5, "ci95": [0.5, 0.5], "sd": None}
        assert metrics_of(mean)["log loss"] == UNKNOWN | {"sd": None}
        assert operating_of(scores.operating[0])["precision"] == UNKNOWN
        assert class_of(scores.classes[0])["precision"] == UNKNOWN
        assert class_of(scores.classes[0])["F1"] == {"value": 0.5, "ci95": [0.5, 0.5]}
        told = {"value": -0.25, "ci95": [-0.5, -0.125], "real": True}
        assert less_chosen(mean, "a", scores.differences, "accuracy") == told
        assert less_chosen(mean, "a", scores.differences, "log loss") == UNKNOWN | {"real": False}
        assert less_chosen(mean, "b", scores.differences, "accuracy") is None
        assert less_chosen(mean | {"split": "t"}, "a", scores.differences, "accuracy") is None


# The page

PICTURE = "data:image/jpeg;base64,AAAA"
CALIBRATION = {
    "expected_calibration_error": 0.0312,
    "before_scaling": 0.0875,
    "temperature": 1.3749,
    "bins": [
        {"low": 0.4, "high": 0.6, "confidence": 0.55, "accuracy": 0.0, "share": 0.25},
        {"low": 0.8, "high": 1.0, "confidence": 0.875, "accuracy": 1.0, "share": 0.75},
    ],
}
GAIN = {"difference": 0.01, "low": -0.005, "high": 0.025}
CURVE = [
    {"share": share, "train": 1000 * share, "value": value, "ci95": [value - 0.02, value + 0.02]}
    for share, value in ((0.25, 0.7), (0.5, 0.75), (1.0, 0.76))
]
UNKNOWN = {"value": None, "ci95": [None, None]}


def run_of(name: str, ended: str, value: float) -> dict:
    """A row of a study's history."""
    known = {"ended": ended, "metric": "accuracy", "value": value, "low": value - 0.05, "high": value + 0.05}
    return dict.fromkeys(COLUMNS, 7) | dict.fromkeys(("run", "experiment", "split"), name) | known


SHARES = ((0.05, 98.0), (0.25, 492.0), (1.0, 1968.0))
MEASURED = {"head": (0.71, 0.8, 0.839), "blocks.3": (0.672, 0.822, 0.901), "scratch": (0.55, 0.63, 0.713)}
CHOSEN = ("head", "blocks.3", "blocks.3")


def verdict_of(name: str = "plain", **changes: object) -> dict:
    """A verdict in which every text, but for the depths' names, is `name`."""

    def difference(what: str, number: int, second: str, less: float) -> dict:
        share, train = SHARES[number]
        value = MEASURED[CHOSEN[number]][number] - less
        told = {"difference": value, "ci95": [value - 0.03, value + 0.03], "real": value > 0.03}
        return {
            "share": share,
            "train": train,
            "what": what,
            "first": CHOSEN[number],
            "second": second,
            **told,
        }

    cells = [
        {"depth": depth, "share": share, "train": train, "seeds": 3, "value": value}
        | {"ci95": [value - 0.02, value + 0.015], "inner_brier": 0.3, "stopped": ""}
        | {"seconds": 40 * share, "seconds_without_cache": None if depth == "scratch" else 3600 * share}
        for depth, values in MEASURED.items()
        for (share, train), value in zip(SHARES, values, strict=True)
    ]
    cells[-2]["stopped"] = name
    return {
        "sentence": name,
        "metric": "weighted accuracy",
        "split": name,
        "cells": cells,
        "chosen": [
            {"share": share, "train": train, "depth": depth}
            for (share, train), depth in zip(SHARES, CHOSEN, strict=True)
        ],
        "differences": [
            *(difference("transfer", n, "scratch", MEASURED["scratch"][n]) for n in range(3)),
            *(difference("depth", n, "head", MEASURED["head"][n]) for n in (1, 2)),
            *(difference("labels", n, CHOSEN[n - 1], MEASURED[CHOSEN[n - 1]][n - 1]) for n in (1, 2)),
        ],
        "rules": [
            {"rule": name, "says": "head", "measured": "blocks.3", "agrees": False},
            {"rule": name, "says": name, "measured": name, "agrees": True},
        ],
        "preflight": {
            "classes": [{"label": name, "count": 1131}, {"label": "other", "count": 837}],
            "target": 1968,
            "source": 1281167,
            "source_name": name,
            "notes": [name, "grey pictures; the network learnt from colour photographs"],
            "taps": [{"backbone": name, "tap": name, "log_me": -0.125, "h_score": 0.61}],
        },
        "left_out": [
            {"depth": "everything", "share": 1.0, "seed": seed, "reason": name} for seed in range(3)
        ],
        "spent": {"seconds": 2510.0, "budget": 2700.0, "fits": 72, "epochs": 880},
        **changes,
    }


def page(name: str = "plain", **changes: object) -> str:
    """Render a page in which every text that a user or a file can choose is `name`."""
    middling = {"value": 0.5, "ci95": [0.25, 0.75]}
    scores = dict.fromkeys(METRICS, middling)
    lost = {"value": -0.125, "ci95": [-0.25, -0.0004], "real": True}
    point = {"experiment": name, "split": name, "class": name, "wanted": "recall", "at_least": 0.95}
    summary = {
        "study": name,
        "target": name,
        "headline": "accuracy",
        "samples": {"total": 1234, "extracted": 1200, "reused": 34, "quarantined": 2},
        "experiments": {"total": 5, "trained": 4, "reused": 1},
        "stages": [{"name": name, "state": name, "seconds": 1.25}],
        "best": {"experiment": name, "split": name, "metrics": scores},
        "scores": [
            {"experiment": name, "split": name, "seeds": 5, "metrics": scores, "less_chosen": None},
            {"experiment": "other", "split": name, "seeds": 5, "metrics": scores, "less_chosen": lost},
        ],
        "calibration": CALIBRATION,
        "operating_points": [
            point | {"thresholds": [0.125, None, 0.0625], "recall": scores["accuracy"], "precision": UNKNOWN},
            point | {"thresholds": [None, None, None]},
        ],
        "notes": {name: name, "silent": ""},
        "references": [{"name": name, "metric": "accuracy", "value": 0.8}],
        "features": {name: {name: "a" * 40}},
        "near_copies": [{"split": name, "count": 2.5, "share": 0.0625, "pairs": []}],
        "verdict": verdict_of(name),
        "classes": [
            {"class": name, "test": 12.5, "precision": UNKNOWN} | dict.fromkeys(CLASS_METRICS[1:], middling),
        ],
        "learning_curve": {
            "experiment": name,
            "split": name,
            "metric": "accuracy",
            "points": CURVE,
            "gain": GAIN,
        },
        "label_errors": {
            "count": 30,
            "looked_at": 1200,
            "kinds": [{"label": name, "suggested": name, "count": 30}],
        },
        "history": [
            run_of(name, "2026-01-02T03:04:05+00:00", 0.5),
            run_of(name, "2026-01-03T03:04:05+00:00", 0.6),
        ],
        "versions": {"torch": name},
        "made": {
            **dict.fromkeys(("python", "platform", "device", "commit"), name),
            "ended": "2026-01-03T03:04:05+00:00",
            "sets": [
                {"set": name, "backbone": name, "preprocessing": [1, 256, 224, [127.0], [128.0], "area"]}
                | {**dict.fromkeys(("architecture", "weights", "fingerprint", "tap", "view", "dtype"), name)}
                | {"versions": {name: name}, "made": [name, "others"]}
            ],
        },
        **changes,
    }
    matrix = Confusion([name, "other"], np.array([[3.0, 1.0], [0.0, 2.0]]))
    wrong = [Wrong(f"/data/{name}/{name}", name, name, 0.125, PICTURE), Wrong(name, name, name, 0.25, "")]
    twins = [Twins(f"/data/{name}/{name}", name, 0.97531, PICTURE, PICTURE), Twins(name, name, 0.9, "", "")]
    unsure = [Unsure(f"/data/{name}/{name}", name, name, name, 0.375, 0.3125, PICTURE)]
    suspects = [Suspect(f"/data/{name}/{name}", name, name, 0.0625, 0.875, PICTURE)]
    quarantine = [(name, name), ("other", name)]
    return render(summary, matrix, wrong, quarantine, {name: twins}, unsure, suspects)


class Reader(HTMLParser):
    """Collects tags with their attributes, the text, and the text within style."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, tuple]] = []
        self.text = self.style = ""
        self.feed(html)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, tuple(attrs)))

    def handle_data(self, data):
        self.text += data
        if self.tags and self.tags[-1][0] == "style":
            self.style += data


HOSTILE = [
    "<script>alert(1)<\\script>",
    '"><img src=x onerror=alert(1)>',
    "' onmouseover='alert(1)",
    "</td></table><iframe srcdoc=x>",
    "<!-- ",
    "{{ 7 * 7 }}{% raw %}",
    "&lt;b&gt; &amp;amp;",
    "javascript:alert(1)",
    "<style>*{background:url(evil)}",
]


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_stay_text(name):
    hostile, plain = Reader(page(name)), Reader(page("plain"))
    assert hostile.tags == plain.tags
    assert name.split("/")[-1] in hostile.text
    if "/" not in name:  # a path is shown by its last two parts
        assert hostile.text == plain.text.replace("plain", name)


def test_the_page_leads_nowhere():
    html = page()
    read = Reader(html)
    assert not re.search(r"https?:|//[a-z]", html)
    for tag, attributes in read.tags:
        assert tag not in {"script", "link", "iframe", "object", "embed", "base", "form"}
        for name, value in attributes:
            assert name not in {"href", "action", "srcset", "srcdoc", "poster"}
            assert not name.startswith("on")
            if name == "src":
                assert value.startswith("data:")
            if name == "style":
                assert "url" not in value
    assert read.style
    assert not re.search(r"url|@import", read.style)


def test_every_tag_that_is_opened_is_closed():
    html = page()
    for tag in {tag for tag, _ in Reader(html).tags} - {"meta", "img", "br"}:
        opened = re.findall(rf"<{tag}(?:\s[^>]*)?(?<!/)>", html)  # in a drawing a tag may close itself
        assert len(opened) == html.count(f"</{tag}>"), tag


def test_the_page_shows_scores_counts_and_chances():
    text = _text(page("plain"))
    for shown in (
        "50.0 % accuracy (25.0 % to 75.0 %)",
        "1,234 samples 1,200 run through the network, 34 reused",
        "5 heads 4 trained, 1 reused",
        "2 quarantined",
        "75.0 %",  # the share of the first class that was called so
        "12.5 % · plain/plain",
        "accuracy, %",
        "50.0 25.0 to 75.0",
        "0.500 0.250 to 0.750",  # log loss
        "80.0",  # the reference
        "-12.5 -25.0 to +0.0, real",
        "Expected calibration error 3.1 %; before the temperature was scaled on inner folds (to 1.37) 8.8 %",
        "25.0 % of the rows: sure by 55.0 %, right in 0.0 %",
        "recall of 95.0 % 0.062 to 0.125 none for 1 of 3 seeds 50.0 25.0 to 75.0 –",
        "recall of 95.0 % none – –",
        "6.2 % of the test samples (2.5) have a near copy in the training part",
        "0.975 · tested plain/plain · trained on plain",
        "+10.0 points since the last run (2026-01-02 03:04 UTC), outside that run's interval",
        "+1.0 points (-0.5 to +2.5) from 500 to 1,000 labels: cannot tell whether more would help",
        "plain 12.5 – 50.0 25.0 to 75.0 50.0 25.0 to 75.0 50.0 25.0 to 75.0",  # the class
        "plain (37.5 %) or plain (31.2 %) labelled plain · plain/plain",
        "30 of 1,200 labels (2.5 %) are suspected",
        "These are suspicions, not findings.",
        "labelled plain, looks like plain (30).",
        "labelled plain (6.2 %), looks like plain (87.5 %) plain/plain",
        "resize 256, crop 224, mean 127.0, deviation 128.0, area plain; others",
    ):
        assert shown in text


def _text(html: str) -> str:
    """The text as it is read: a new line or cell is a space."""
    return re.sub(r"\s+", " ", Reader(re.sub(r"<br>|</td>|</th>", " ", html)).text)


def test_log_loss_is_no_percentage():
    head, *rows = re.findall(r"<tr.*?</tr>", _scores(page("plain")), flags=re.DOTALL)
    assert "log loss</th>" in head
    assert "accuracy, %</th>" in head
    for row in rows:
        figures = [cell for cell in re.findall(r"<td>.*?</td>", row, flags=re.DOTALL) if "<svg" not in cell]
        assert len(figures) > 4
        assert "%" not in "".join(figures)


@pytest.mark.parametrize("unknown", [None, float("nan")])
def test_what_is_not_known_is_a_dash(unknown):
    """A class that a test part lacks has no average precision, nor a difference."""
    nothing = {"value": unknown, "ci95": [unknown, unknown]}
    scores = dict.fromkeys(METRICS, nothing)
    text = _text(
        page(
            best={"experiment": "plain", "split": "plain", "metrics": scores},
            scores=[
                {
                    "experiment": "plain",
                    "split": "one",
                    "metrics": scores,
                    "less_chosen": nothing | {"real": False},
                }
            ],
        )
    )
    assert "nan" not in text.lower()
    assert "None" not in text
    assert "plain, – accuracy" in text
    assert "plain one – – – – –" in text


def test_a_difference_of_nearly_nought_has_no_sign_of_its_own():
    for value in (-0.0004, -0.0, 0.0, 0.0004):
        row = {"value": value, "ci95": [-0.0123, 0.0123], "real": False}
        summary = _summary()
        summary["scores"] = [
            {"experiment": "e", "split": "s", "metrics": summary["best"]["metrics"], "less_chosen": row}
        ]
        text = _text(render(summary, Confusion(["a", "b"], np.eye(2)), [], [], {}))
        assert " +0.0 -1.2 to +1.2 " in text


@pytest.mark.parametrize(
    "thresholds", [[0.25], [0.25, 0.2501], [0.25, 0.75, 0.5], [None, 0.75], [None], [None, None]]
)
def test_thresholds_are_shown_from_the_least_to_the_largest(thresholds):
    known = [each for each in thresholds if each is not None]
    point = {"experiment": "e", "split": "s", "class": "c", "wanted": "precision", "at_least": 0.999}
    point |= {"thresholds": thresholds}
    if known:
        point |= {name: {"value": 0.5, "ci95": [0.25, 0.75]} for name in ("recall", "precision")}
    summary = _summary() | {"operating_points": [point]}
    text = _text(render(summary, Confusion(["a", "b"], np.eye(2)), [], [], {}))
    expected = {0: "none – –", 1: f"{min(known, default=0):.3f}", 2: "0.250 50.0", 3: "0.250 to 0.750"}[
        len(known)
    ]
    assert f"precision of 99.9 % {expected}" in text
    assert ("none for 1 of 2 seeds" in text) == (thresholds == [None, 0.75])


def test_without_wishes_there_are_no_operating_points():
    assert "Operating points" not in page(operating_points=[])


@pytest.mark.parametrize("bins", [1, 2, 15])
def test_the_reliability_diagram_is_drawn_to_scale(bins):
    """Bars from the ground to the accuracy, from a bin's lower end to its upper, in a square of 240."""
    ends = np.linspace(0, 1, bins + 1)
    drawn = [
        {"low": low, "high": high, "confidence": high, "accuracy": accuracy, "share": 1 / bins}
        for low, high, accuracy in zip(
            ends, ends[1:], np.random.default_rng(0).uniform(size=bins), strict=False
        )
    ]
    html = page(calibration=CALIBRATION | {"bins": drawn})
    [svg] = drawings(html, "reliability diagram")
    frame, *bars = svg.findall(".//rect")
    assert (frame.get("width"), frame.get("height")) == ("240", "240")
    assert len(bars) == bins
    for bar, each in zip(bars, drawn, strict=True):
        x, width, y, height = (float(bar.get(name)) / 240 for name in ("x", "width", "y", "height"))
        assert x == pytest.approx(each["low"], abs=1e-3)
        assert x + width == pytest.approx(each["high"], abs=1e-3)
        assert y == pytest.approx(1 - each["accuracy"], abs=1e-3)
        assert y + height == pytest.approx(1, abs=1e-3)
    left, top, wide, high = map(float, svg.get("viewBox").split())
    assert left < 0
    assert top < 0
    assert left + wide > 240
    assert top + high > 240


def drawings(html: str, label: str) -> list[ElementTree.Element]:
    """The drawings whose label begins so."""
    found = [ElementTree.fromstring(each) for each in re.findall(r"<svg.*?</svg>", html, re.DOTALL)]  # noqa: S314
    return [svg for svg in found if svg.get("aria-label").startswith(label)]


def inside(svg: ElementTree.Element) -> bool:
    """Whether all dots, and the places of lines, lie within what is shown."""
    left, top, wide, high = map(float, svg.get("viewBox").split())
    places = [(float(dot.get("cx")), float(dot.get("cy"))) for dot in svg.iter("circle")]
    for kind in ("polyline", "polygon"):
        for line in svg.iter(kind):
            places += [tuple(map(float, place.split(","))) for place in line.get("points").split()]
    assert places
    return all(left <= x <= left + wide and top <= y <= top + high for x, y in places)


def test_each_score_is_drawn_beside_its_figures_on_one_axis():
    scores = [0.7, 0.8, 0.9]
    rows = [
        {
            "experiment": f"e{n}",
            "split": "s",
            "less_chosen": None,
            "metrics": {name: {"value": value, "ci95": [value - 0.05, value + 0.05]} for name in METRICS},
        }
        for n, value in enumerate(scores)
    ]
    html = page(scores=rows, references=[{"name": "paper", "metric": "accuracy", "value": 0.75}])
    strips = [drawings(html, f"{100 * value:.1f}")[0] for value in (*scores, 0.75)]
    at = [float(svg.find("circle").get("cx")) for svg in strips]
    assert at[1] == pytest.approx((at[0] + at[2]) / 2, abs=0.11)
    assert at[3] == pytest.approx((at[0] + at[1]) / 2, abs=0.11)
    assert all(map(inside, strips))
    low, high = map(float, re.findall(r"[\d.]+", strips[0].findall("path")[-1].get("d"))[::2])
    assert (low + high) / 2 == pytest.approx(at[0], abs=0.11)
    assert [svg.find("circle").get("class") for svg in strips] == ["spot"] * 3 + ["ring"]
    assert len(strips[3].findall("path")) == len(strips[0].findall("path")) - 1  # no interval


def test_the_learning_curve_and_the_history_are_drawn_where_there_are_some():
    html = page()
    [curve], [past] = drawings(html, "learning curve"), drawings(html, "accuracy from run to run")
    assert inside(curve)
    assert inside(past)
    assert len(curve.findall("circle")) == 3
    assert "<h2>Would more labels help?</h2>" in html
    bare = page(learning_curve=None, history=[run_of("plain", "2026-01-02T03:04:05+00:00", 0.5)])
    assert drawings(bare, "learning curve") == drawings(bare, "accuracy from run to run") == []
    assert "more labels" not in _text(bare).replace("more labels alike", "")
    assert "since the last run" not in bare


def test_the_verdict_leads_the_page_and_says_each_sentence_beside_its_drawing():
    sentence = "Freeze up to blocks.3: 90.1 % +- 1.8. Transfer helps by 18.8 points. More labels would help."
    html = page(verdict=verdict_of(sentence=sentence))
    header, section = html.split("<h2>How much to train</h2>")
    assert f'<p class="verdict">{sentence}</p>' in header
    assert re.findall(r"<li>(.*?)</li>", section.split("</ul>")[0]) == [
        "Freeze up to blocks.3: 90.1 % +- 1.8.",
        "Transfer helps by 18.8 points.",
        "More labels would help.",
    ]
    assert section.index("<h2>Scores</h2>") > section.index("What it took")


def test_without_a_verdict_the_page_is_as_if_there_were_none():
    html = page()
    without = re.sub(r'<p class="verdict">.*?</p>\n', "", html)
    first, rest = without.split("<h2>How much to train</h2>")
    assert first + rest[rest.index("<h2>Scores</h2>") :] == page(verdict=None)
    assert "How much to train" not in page(verdict=None)


def test_the_verdict_is_shown_with_its_costs_rules_and_omissions():
    text = _text(page())
    for shown in (
        "training samples 98 5 % 492 25 % 1,968 100 %",
        "head 71.0 69.0 to 72.5 2 s, else 3 min chosen 80.0 78.0 to 81.5 10 s, else 15 min 83.9",
        "blocks.3 67.2 65.2 to 68.7 2 s, else 3 min 82.2 80.2 to 83.7 10 s, else 15 min chosen 90.1",
        "scratch 55.0 53.0 to 56.5 2 s 63.0 61.0 to 64.5 10 s stopped: plain 71.3",
        "+18.8 +15.8 to +21.8, real blocks.3 less scratch",
        "+2.2 -0.8 to +5.2 blocks.3 less head",
        "plain no head blocks.3",
        "plain yes plain plain",
        "plain (1,131), other (837)",
        "1,968 to learn from; the network learnt from 1,281,167 of plain, 651 for each one here",
        "grey pictures; the network learnt from colour photographs",
        "plain plain -0.125 0.610",
        "You et al. 2021. H-score: Bao et al. 2019, with the shrinkage of Ibrahim et al. 2022",
        "Spent 42 min in all, a run at most 45 min: 72 fits, 880 epochs, 3 cells left out.",
        "everything 100 % 0, 1, 2 plain",
    ):
        assert shown in text, shown


def test_a_comparison_that_is_not_fair_says_why():
    told = "scratch: trained with one learning rate alone; the comparison is not fair to it"
    assert told in _text(page(verdict=verdict_of() | {"unfair": [told]}))
    assert "not fair" not in _text(page(verdict=verdict_of()))


def test_a_cell_that_was_left_out_says_so():
    verdict = verdict_of()
    verdict["cells"] = verdict["cells"][:-1]
    assert "left out, see below" not in page(verdict=verdict)
    out = {"depth": "scratch", "share": 1.0, "seed": 0, "reason": "no time"}
    assert "10 s stopped: plain – left out, see below" in _text(page(verdict=verdict | {"left_out": [out]}))


def test_each_depth_is_drawn_and_the_chosen_are_ringed():
    [svg] = drawings(page(), "how much to train")
    assert inside(svg)
    ways = svg.findall("g")
    assert [way.find("text").text for way in ways] == list(MEASURED)
    for way, depth in zip(ways, MEASURED, strict=True):
        spots = [path for path in way.findall("path") if path.find("title") is not None]
        assert [spot.find("title").text.split(" (")[0] for spot in spots] == [
            f"{depth}, {train:,.0f} samples: {100 * value:.1f}"
            for (_, train), value in zip(SHARES, MEASURED[depth], strict=True)
        ]
        ringed = [(float(ring.get("cx")), float(ring.get("cy"))) for ring in way.findall("circle")]
        places = [tuple(map(float, re.findall(r"[\d.]+", spot.get("transform")))) for spot in spots]
        assert ringed == [place for place, pick in zip(places, CHOSEN, strict=True) if pick == depth]


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_of_depths_stay_text(name):
    def renamed(depth: str) -> Reader:
        verdict = json.loads(json.dumps(verdict_of()).replace('"blocks.3"', json.dumps(depth)))
        return Reader(page(verdict=verdict))

    hostile, plain = renamed(name), renamed("blocks")
    assert [tag for tag, _ in hostile.tags] == [tag for tag, _ in plain.tags]
    assert f"{name}, 98 samples: 67.2" in hostile.text
    assert f"{name} less scratch" in hostile.text


def test_what_a_verdict_does_not_know_is_a_dash():
    def forget(value: object) -> object:
        if isinstance(value, dict):
            kept = {"share", "seed"}
            return {key: each if key in kept else forget(each) for key, each in value.items()}
        if isinstance(value, list):
            return [forget(each) for each in value]
        return None if isinstance(value, int | float) and not isinstance(value, bool) else value

    html = page(verdict=forget(verdict_of(left_out=[])))
    section = html.split("<h2>How much to train</h2>")[1].split("<h2>Scores</h2>")[0]
    text = _text(section)
    assert "None" not in text
    assert "<svg" not in section
    assert "training samples – 5 % – 25 % – 100 %" in text
    assert "head – – chosen – – – –" in text
    assert "plain (–), other (–)" in text
    assert "plain plain – –" in text
    assert "Spent –" in text


def test_a_verdict_with_empty_lists_still_makes_a_page():
    bare = {name: [] for name in ("cells", "chosen", "differences", "rules", "left_out")}
    quiet = {"classes": [], "target": None, "source": None, "source_name": "", "notes": [], "taps": []}
    text = _text(page(verdict=verdict_of(**bare, preflight=quiet)))
    assert "How much to train" in text
    assert "Spent 42 min in all, a run at most 45 min" in text
    assert "Rules of thumb" not in text
    assert "LogME" not in text


def test_a_verdict_in_log_loss_is_told_in_its_own_unit():
    section = page(verdict=verdict_of(metric="log loss")).split("How much to train</h2>")[1]
    text = _text(section.split("Rules of thumb")[0])
    assert "0.901 0.881 to 0.916" in text
    assert "+0.188 +0.158 to +0.218, real" in text
    assert "where lower is better" in text
    assert "points" not in text


def test_many_classes_are_told_in_brief():
    preflight = verdict_of()["preflight"] | {"classes": [{"label": f"c{n}", "count": n} for n in range(1000)]}
    text = _text(page(verdict=verdict_of(preflight=preflight)))
    assert "c11 (11) and 988 more" in text
    assert "c12 " not in text


def test_the_page_can_be_heard_and_read_on_a_phone():
    """Drawings say what they are, tables name their rows and columns, and lie in a box that scrolls."""
    html = page()
    read = Reader(html)
    assert ("viewport", "width=device-width, initial-scale=1") in [
        (dict(attributes).get("name"), dict(attributes).get("content")) for tag, attributes in read.tags
    ]
    for tag, attributes in read.tags:
        if tag == "svg":
            assert dict(attributes)["role"] == "img"
            assert dict(attributes)["aria-label"]
        if tag == "th":
            assert dict(attributes)["scope"] in ("row", "col")
        if tag == "img":
            assert "alt" in dict(attributes)
    assert html.count("<table>") == len(re.findall(r'<div class="scroll" tabindex="0"[^>]*><table>', html))


def test_colours_are_for_light_and_dark():
    """Every colour is a variable that both schemes set."""
    html = page()
    style = Reader(html).style
    body = html.split("</style>")[1]
    used = set(re.findall(r"var\((--\w+)\)", html))
    for scheme in re.findall(r":root {([^}]*)}", style):
        assert used <= set(re.findall(r"--\w+(?=:)", scheme)), scheme
    assert len(re.findall(r":root {", style)) == 2
    assert not re.search(r"#[0-9a-f]{3,6}\b", body)
    for colour in re.findall(r"(?:fill|stroke|background)[=:]\s*\"?([^\";]+)", body):
        assert colour == "none" or colour.startswith(("var(--", "rgb(var(--")), colour


def test_a_silent_note_is_not_shown():
    assert "silent" not in page()


def test_long_quarantine_lists_are_cut_with_a_hint():
    matrix = Confusion(["a", "b"], np.eye(2))
    listed = [(f"file {number}", "empty file") for number in range(73)]
    shown = Reader(render(_summary(), matrix, [], listed, {})).text
    assert sum(f"file {number}\n" in shown or f"file {number}empty" in shown for number in range(73)) == 50
    assert "23 more in quarantine.csv" in shown


def test_nothing_wrong_and_nothing_quarantined_is_said_or_left_out():
    shown = Reader(render(_summary(), Confusion(["a", "b"], np.eye(2)), [], [], {})).text
    assert "No test sample was called wrong" in shown
    assert "Quarantine" not in shown
    assert "Near copies" not in shown


def test_the_sample_weights_show_only_where_they_are_the_headline():
    assert "weighted accuracy" not in _scores(page()).split("</tr>")[0]
    assert "weighted accuracy" in _scores(page(headline="weighted accuracy")).split("</tr>")[0]


def _scores(html: str) -> str:
    return html.split("<h2>Scores</h2>")[1].split("</table>")[0]


def _summary() -> dict:
    scores = {metric: {"value": 1.0, "ci95": [0.9, 1.0]} for metric in METRICS}
    return {
        **dict.fromkeys(("study", "target"), "s"),
        "headline": "accuracy",
        "samples": {"total": 1, "extracted": 1, "reused": 0, "quarantined": 0},
        "experiments": {"total": 1, "trained": 1, "reused": 0},
        "best": {"experiment": "e", "split": "s", "metrics": scores},
        "calibration": CALIBRATION,
        **{key: [] for key in ("stages", "scores", "operating_points", "references")},
        **{key: {} for key in ("notes", "features", "versions")},
    }


def test_wrong_samples_are_told_by_folder_and_name():
    item = Wrong("/a/b/class one/7.png", "x", "y", 0.5, "")
    for picture in ("", PICTURE):
        html = render(_summary(), Confusion(["a", "b"], np.eye(2)), [replace(item, picture=picture)], [], {})
        assert "50.0 % · class one/7.png" in _text(html)
        assert ("<img" in html) == bool(picture)


# What the summary says of them


@pytest.mark.parametrize("predictor", [Networks({"0 a": np.ones(3)}), Linear(np.ones((3, 2)), np.ones(3))])
def test_of_heads_what_they_said_is_read_and_nothing_else(predictor, tmp_path):
    heads, _ = random_study(0)
    paths = [save_heads(tmp_path, {"k": replace(head, predictor=predictor)}) for head in heads]
    found = heads_told([{"file": path.name, "key": "k"} for path in paths], tmp_path)
    for one, head in zip(found, heads, strict=True):
        np.testing.assert_allclose(one.log_proba, head.log_proba, rtol=1e-6)
        assert (one.story, one.test_rows, one.train_rows) == (head.story, head.test_rows, head.train_rows)
        assert (one.inner is None) == (head.inner is None)
        assert one.predictor == Networks({})


def test_suspected_labels_are_counted_by_kind_the_most_frequent_first():
    listed = pd.DataFrame({"label": ["b", "a", "b", "a", "b"], "suggested": ["a", "c", "a", "b", "c"]})
    assert label_errors_of(listed, 50) == {
        "count": 5,
        "looked_at": 50,
        "kinds": [
            {"label": "b", "suggested": "a", "count": 2},
            {"label": "a", "suggested": "c", "count": 1},
            {"label": "a", "suggested": "b", "count": 1},
            {"label": "b", "suggested": "c", "count": 1},
        ],
    }
    assert label_errors_of(listed[:0], 50) == {"count": 0, "looked_at": 50, "kinds": []}


@pytest.mark.parametrize("run", ["", "a-run"])
def test_a_run_is_told_as_a_row_of_the_history(run):
    best = {"experiment": "e", "split": "s", "weighted_accuracy": 0.5}
    best |= {"weighted_accuracy_low": 0.25, "weighted_accuracy_high": nan}
    story = {
        "headline": "weighted accuracy",
        "samples": {"total": 9, "extracted": 4, "reused": 5, "quarantined": 1},
        "experiments": {"total": 8, "trained": 6, "reused": 2},
    } | ({"run": run} if run else {})
    row = history_row(best, story, "2026-01-02T03:04:05+00:00")
    assert set(row) == set(COLUMNS)
    assert row == {
        "ended": "2026-01-02T03:04:05+00:00",
        "run": run,
        "experiment": "e",
        "split": "s",
        "metric": "weighted accuracy",
        "value": 0.5,
        "low": 0.25,
        "high": None,
        "samples": 9,
        "extracted": 4,
        "trained": 6,
        "quarantined": 1,
        "targets": "",
    }
    assert history_row(best, story, "", ["car", "bar"]) == row | {"ended": "", "targets": "bar, car"}
