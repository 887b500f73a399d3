"""What a run leaves for people and for scripts, from the first run to the next."""

import csv
import importlib.metadata

import pandas as pd
import pytest

from flows.study import Study


@pytest.fixture
def study(pictures):
    return Study.model_validate(
        {
            "name": "told",
            "data": {"folder": pictures},
            "backbones": {"small": {"network": "lite0", "resize": 64, "crop": 64}},
            "splits": [{"name": "random", "seeds": [0, 1], "test": 0.5}],
            "experiments": [{"name": "early", "taps": ["blocks.1:mean"], "strengths": [1.0]}],
        }
    )


def test_a_run_tells_how_it_was_made_and_how_each_class_fares(study, run):
    done = run(study)
    best, classes = done.summary["best"], done.summary["classes"]
    assert [each["class"] for each in classes] == ["lying", "upright"]
    assert [each["test"] for each in classes] == [6.0, 6.0]
    recalls = [each["recall"]["value"] for each in classes]
    assert sum(recalls) / 2 == pytest.approx(best["metrics"]["balanced accuracy"]["value"])
    for each in classes:
        for name in ("precision", "recall", "F1", "average precision"):
            low, high = each[name]["ci95"]
            assert low <= each[name]["value"] <= high
    made = done.summary["made"]
    assert made["versions"]["torch"] == importlib.metadata.version("torch")
    [[tap, name]] = done.summary["features"]["small"].items()
    [told] = made["sets"]
    assert told["set"] == name
    assert f"{told['tap']}" == tap
    assert len(told["fingerprint"]) == 40
    assert told["fingerprint"] in (done.folder / "report.html").read_text()


def test_each_run_is_a_row_of_the_history_and_a_broken_one_is_begun_anew(study, run):
    first, second = run(study).summary, run(study).summary
    assert [len(each["history"]) for each in (first, second)] == [1, 2]
    assert second["history"][0] == first["history"][0]
    row, metric = second["history"][1], first["headline"]
    assert row["ended"] == second["made"]["ended"]
    assert row["value"] == second["best"]["metrics"][metric]["value"]
    assert [each["extracted"] for each in second["history"]] == [24, 0]
    assert [each["trained"] for each in second["history"]] == [2, 0]
    done = run(study)
    page = (done.folder / "report.html").read_text()
    assert "Unchanged since the last run" in page
    assert "3 runs" in page
    (done.folder / "history.csv").write_bytes(b"\xff nothing of the kind")
    assert len(run(study).summary["history"]) == 1
    assert (done.folder / "history.csv.bad").read_bytes() == b"\xff nothing of the kind"


def test_a_label_that_is_plainly_wrong_is_suspected(study, run, pictures):
    (pictures / "upright" / "3.png").rename(pictures / "lying" / "wrong.png")
    done = run(study)
    listed = pd.read_csv(done.folder / "label_errors.csv", dtype=str)
    assert done.summary["label_errors"]["looked_at"] == 24
    assert done.summary["label_errors"]["count"] == len(listed)
    assert listed.path[0].endswith("lying/wrong.png")
    assert (listed.label[0], listed.suggested[0]) == ("lying", "upright")
    assert float(listed.label_probability[0]) < float(listed.suggested_probability[0])
    assert "Suspected label errors" in (done.folder / "report.html").read_text()


def test_where_no_label_is_suspected_the_list_is_there_and_empty(study, run):
    done = run(study)
    assert done.summary["label_errors"] == {"count": 0, "looked_at": 24, "kinds": []}
    with (done.folder / "label_errors.csv").open() as file:
        [header] = csv.reader(file)
    assert header == ["path", "label", "suggested", "label_probability", "suggested_probability"]
    assert "<h2>Suspected label errors</h2>" not in (done.folder / "report.html").read_text()
