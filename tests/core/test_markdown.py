"""The page for the Prefect UI, and the terminal: what they say; nothing of a user's is taken for Markdown."""

from pathlib import Path

import pytest

from flows.console import show_summary
from tasks.core.history import COLUMNS
from tasks.core.markdown import grid, leaderboard, page, told_spent
from tasks.core.words import lasted


def score(value, low=0.7, high=0.9):
    return {"value": value, "ci95": [low, high], "sd": None}


def run(value):
    numbers = dict.fromkeys(COLUMNS, 0) | {"value": value, "low": value - 0.1, "high": value + 0.1}
    return numbers | {"split": "by day", "metric": "accuracy", "experiment": "deep"}


SENTENCE = (
    "Freeze up to blocks.3: 90.1 % +- 1.8 on unseen samples. Transfer helps by 18.8 points. "
    "More labels [bold]would[/bold] help: the last doubling gained 3.3 points."
)


def cell(depth, share, value, low=None, high=None, train=None):
    return {"depth": depth, "share": share, "train": train, "value": value, "ci95": [low, high]}


def verdict(**changes):
    return {
        "sentence": SENTENCE,
        "metric": "accuracy",
        "split": "by|day",
        "cells": [
            cell("head", 0.05, 0.71, 0.68, 0.74, train=98.0),
            cell("head", 1.0, 0.8, 0.78, 0.82, train=1968.0),
            cell("<b>3", 1.0, None, train=1968.0),
            cell("scratch", 0.05, 0.5),
        ],
        "chosen": [{"share": 0.05, "train": 98.0, "depth": "head"}],
        "left_out": [],
        "spent": {"seconds": 1234.0, "budget": 2700.0, "fits": 90, "epochs": 8800},
    } | changes


def summary(**changes):
    return {
        "study": "cats",
        "headline": "accuracy",
        "verdict": None,
        "best": {
            "experiment": "deep",
            "split": "by day",
            "inner_brier": 0.1,
            "metrics": {"accuracy": score(0.812)},
        },
        "scores": [
            {
                "experiment": "deep",
                "split": "by day",
                "metrics": {"accuracy": score(0.812)},
                "less_chosen": None,
            },
            {
                "experiment": "flat",
                "split": "by day",
                "metrics": {"accuracy": score(None, None, None)},
                "less_chosen": {"value": -0.0214, "ci95": [-0.03, -0.01], "real": True},
            },
        ],
        "samples": {"total": 1200, "extracted": 3, "reused": 1197, "quarantined": 1},
        "experiments": {"total": 140, "trained": 140, "reused": 0},
        "history": [run(0.812)],
    } | changes


def test_the_page_leads_with_the_headline_score_and_its_interval():
    told = page(summary(), "/a/report.html", {}).splitlines()
    assert told[0] == "# cats: 81.2 % accuracy"
    assert "Chosen on inner folds: **deep**, split by day, 95 % interval 70.0 to 90.0 %." in told


def test_experiments_stand_in_a_table_with_their_difference_from_the_chosen_one():
    told = page(summary(), "/a/report.html", {}).splitlines()
    assert "| deep | by day | 81\\.2 % | 70\\.0 to 90\\.0 % |  |" in told
    assert "| flat | by day | – | – to – | \\-2\\.1, real |" in told


def test_the_page_tells_how_the_score_moved_since_the_last_run_of_the_same_measure():
    other = run(0.1) | {"split": "at random"}
    told = page(summary(history=[run(0.802), other, run(0.812)]), "/a/report.html", {})
    assert "Since the last run: **+1.0 points**." in told


def test_a_first_run_tells_of_no_drift():
    assert "Since the last run" not in page(summary(), "/a/report.html", {})


def test_a_verdict_is_told_with_a_table_of_depths_and_what_it_took():
    told = page(summary(verdict=verdict()), "/a/report.html", {}).splitlines()
    assert any(line.startswith("**Freeze up to blocks\\.3: 90\\.1 %") for line in told)
    assert "| accuracy, by\\|day | 98 samples | 1,968 samples |" in told
    assert "| head | **71\\.0** \\(68\\.0 to 74\\.0\\) | 80\\.0 \\(78\\.0 to 82\\.0\\) |" in told
    assert "| \\<b\\>3 |  | – |" in told
    assert "| scratch | 50\\.0 |  |" in told
    assert "Spent 21 min in all, a run at most 45 min: 90 fits, 8,800 epochs\\." in told


def test_without_a_verdict_the_page_tells_of_none():
    told = page(summary(), "/a/report.html", {})
    assert "Spent" not in told
    with_one = page(summary(verdict=verdict(cells=[], chosen=[])), "/a/report.html", {}).splitlines()
    assert [line for line in with_one if not line.startswith(("Spent", "**Freeze"))] == told.replace(
        "\n\nChosen", "\n\n\nChosen"
    ).replace("\n\n| exp", "\n\n\n| exp").splitlines()


def test_log_loss_of_a_depth_is_no_percentage():
    told = page(summary(verdict=verdict(metric="log loss")), "/a/report.html", {})
    assert "**0\\.710** \\(0\\.680 to 0\\.740\\)" in told


def test_a_share_whose_samples_one_cell_knows_is_told_with_them():
    laid = grid(verdict())
    assert laid.shares == {0.05: 98.0, 1.0: 1968.0}
    assert laid.depths == ["head", "<b>3", "scratch"]
    assert laid.chosen == {("head", 0.05)}


@pytest.mark.parametrize(
    ("seconds", "told"),
    [
        *((None, "–"), (float("nan"), "–"), (0.0, "0 s"), (0.34, "0.34 s"), (9.96, "10 s"), (89.0, "89 s")),
        *((90.0, "1.5 min"), (300.0, "5 min"), (5399.0, "90 min"), (5400.0, "1.5 h"), (7.2e6, "2,000 h")),
    ],
)
def test_times_are_told_in_their_own_unit(seconds, told):
    assert lasted(seconds) == told


def test_what_a_verdict_took_leaves_out_what_is_not_known():
    spent = dict.fromkeys(("seconds", "budget", "fits", "epochs"))
    assert told_spent(verdict(spent=spent)) == "Spent –."
    assert told_spent(verdict(spent=spent | {"seconds": 5.0, "fits": 1})) == "Spent 5 s: 1 fit."
    assert told_spent(verdict(spent=spent | {"seconds": 5.0}, left_out=[{}])) == "Spent 5 s: 1 cell left out."


# In the terminal


def shown(capsys, **changes):
    told = summary(near_copies=[], notes={}, references=[], operating_points=[], **changes)
    for row in (told["best"], *told["scores"]):
        row["metrics"] = dict.fromkeys(
            ("accuracy", "balanced accuracy", "average precision"), row["metrics"]["accuracy"]
        )
    show_summary(told, Path("/a"))
    return capsys.readouterr().out.splitlines()


@pytest.mark.parametrize("wide", [40, 72, 500])
def test_the_terminal_ends_with_the_verdict_wrapped_to_its_width(capsys, monkeypatch, wide):
    monkeypatch.setenv("COLUMNS", str(wide))
    lines = shown(capsys, verdict=verdict())
    first = next(number for number, line in enumerate(lines) if line.startswith("Freeze up to"))
    *told, spent, empty, report = lines[first:]
    if wide == 40:  # the last line, too, is wrapped
        spent = f"{told.pop()} {spent}"
    assert " ".join(told) == SENTENCE
    assert all(len(line) <= wide for line in lines[first:-2])
    assert spent == "Spent 21 min in all, a run at most 45 min: 90 fits, 8,800 epochs."
    assert (lines[first - 1], empty, report) == ("", "", "report: /a/report.html")


def test_without_a_verdict_the_terminal_tells_of_none(capsys):
    lines = shown(capsys)
    assert lines[-2].startswith("samples: ")
    assert lines[-1] == "report: /a/report.html"


def test_a_report_is_linked_where_a_server_shows_it_and_named_where_none_does():
    assert "[The whole report](http://127.0.0.1:4200/r.html)" in page(
        summary(), "http://127.0.0.1:4200/r.html", {}
    )
    assert "The whole report: `/a/report.html`" in page(summary(), "/a/report.html", {})


def test_what_users_write_is_not_taken_for_markdown():
    told = page(summary(study="a|b <img src=x> **c** [d](e)"), "/a/report.html", {})
    assert told.splitlines()[0] == ("# a\\|b \\<img src=x\\> \\*\\*c\\*\\* \\[d\\]\\(e\\): 81.2 % accuracy")


def test_pictures_stand_under_their_titles():
    told = page(summary(), "/a/report.html", {"a [plot]": "data:image/svg+xml;base64,AA=="})
    assert "![a \\[plot\\]](data:image/svg+xml;base64,AA==)\n\n*a \\[plot\\]*" in told


def test_the_leaderboard_has_a_row_for_each_experiment_and_split():
    assert leaderboard(summary()) == [
        {"experiment": "deep", "split": "by day", "accuracy": 0.812},
        {"experiment": "flat", "split": "by day", "accuracy": None},
    ]
