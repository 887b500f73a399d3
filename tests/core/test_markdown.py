"""The page for the Prefect UI: what it says, and that nothing of a user's is taken for Markdown."""

from tasks.core.history import COLUMNS
from tasks.core.markdown import leaderboard, page


def score(value, low=0.7, high=0.9):
    return {"value": value, "ci95": [low, high], "sd": None}


def run(value):
    numbers = dict.fromkeys(COLUMNS, 0) | {"value": value, "low": value - 0.1, "high": value + 0.1}
    return numbers | {"split": "by day", "metric": "accuracy", "experiment": "deep"}


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


def test_a_verdict_is_told_where_there_is_one():
    assert "**freeze up to blocks\\.4**" in page(
        summary(verdict="freeze up to blocks.4"), "/a/report.html", {}
    )


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
