"""Grids of heads as a user meets them: rows of results.csv, what is printed, heads opened elsewhere."""

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
import pytest

from flows.console import show_summary
from flows.study import Study
from tasks.core.errors import RequestError
from tasks.core.estimators import open_head
from tasks.core.heads import load_heads

STRENGTHS = [float(f"{10 ** (-3 + number / 10):.3g}") for number in range(40)]


def study_of(folder: Path, **changes: Any) -> Study:
    fields: dict[str, Any] = {
        "name": "stripes",
        "data": {"folder": folder},
        "backbones": {"small": {"network": "lite0", "resize": 48, "crop": 48}},
        "splits": [{"name": "random", "seeds": [0, 1], "test": 0.4}],
        "experiments": [
            {"name": "early", "taps": ["blocks.1:mean"], "strengths": [0.1, 1.0]},
            {"name": "deep", "taps": ["blocks.2:mean", "last:mean"], "strengths": [0.1, 1.0]},
        ],
    }
    return Study.model_validate(fields | changes)


def rows_of(artifacts: Path, sets: list[str], digests: list[str]) -> np.ndarray:
    """The features that a head takes, by h5py alone."""
    blocks = []
    for name in sets:
        with h5py.File(artifacts / "features" / name / "features.h5") as file:
            place = {digest.decode(): number for number, digest in enumerate(file["digests"][:])}
            blocks.append(file["features"][:][[place[digest] for digest in digests]])
    return np.concatenate(blocks, axis=1)


def test_a_chosen_head_opens_elsewhere_and_says_the_same_of_the_test_part(run, pictures, tmp_path):
    done, artifacts = run(study_of(pictures)), tmp_path / "artifacts"
    for told in done.summary["best"]["heads"]:
        head, kept = open_head(artifacts / told["file"], told["key"]), load_heads(artifacts / told["file"])
        rows = rows_of(artifacts, told["sets"], kept[told["key"]].test_rows)
        np.testing.assert_allclose(
            head.predict_log_proba(rows), kept[told["key"]].log_proba, rtol=1e-5, atol=1e-6
        )
        assert head.classes_.tolist() == ["lying", "upright"]


def test_a_head_must_be_named_where_a_file_holds_several(run, pictures, tmp_path):
    [told, *_] = run(study_of(pictures)).summary["best"]["heads"]
    for key in (None, "0" * 40):
        with pytest.raises(RequestError, match=r"holds 2 heads .* results.csv has their keys"):
            open_head(tmp_path / "artifacts" / told["file"], key)


def test_a_hundred_experiments_are_one_task_run_and_a_row_each(run, pictures):
    wide = {"taps": ["blocks.1:mean"], "strengths": STRENGTHS}
    experiments = [
        {**wide, "name": "one", "class_weights": ["none", "balanced"]},
        {**wide, "name": "two", "head": "ridge"},
    ]
    done = run(study_of(pictures, experiments=experiments))
    assert [stage["name"] for stage in done.summary["stages"]] == [
        "samples",
        "features small",
        "train one and 1 more",
        "scores",
        "learning curve",
        "near copies",
    ]
    rows = pd.DataFrame(done.results())
    assert rows.groupby(["experiment", "seed"]).size().tolist() == [80, 80, 40, 40]
    assert rows.key.nunique() == 120
    assert (rows.converged == "True").all()
    assert (rows.gradient_norm[rows["head"] == "softmax"].astype(float) <= 1e-5).all()


def test_features_that_do_not_fit_in_memory_give_the_same_heads(run, pictures, tmp_path, monkeypatch):
    experiments = [{"name": "both", "taps": ["blocks.1:mean", "last:mean"], "strengths": [0.1, 1.0, 10.0]}]
    study = study_of(pictures, experiments=experiments)
    held = pd.DataFrame(run(study).results())
    (tmp_path / "artifacts" / "heads").rename(tmp_path / "kept")
    monkeypatch.setattr("tasks.core.stored.Stored.fits", lambda stored: False)
    monkeypatch.setattr("tasks.core.stored.NUMBERS_AT_ONCE", 8000)
    monkeypatch.setattr("tasks.core.stored.load", None)  # nothing may be read at once
    done = run(study)
    streamed = pd.DataFrame(done.results())
    assert done.trained == 6
    assert (streamed.converged == "True").all()
    for name in ("inner_brier", "inner_log_loss", "objective"):
        np.testing.assert_allclose(
            streamed[name].astype(float), held[name].astype(float), rtol=2e-3, atol=1e-6, err_msg=name
        )
    assert streamed.inner_accuracy.tolist() == held.inner_accuracy.tolist()


def test_differences_and_operating_points_are_told(run, pictures, capsys):
    wishes = [{"recall": 0.9}, {"label": "lying", "precision": 0.6}]
    done = run(study_of(pictures, operating_points=wishes))
    show_summary(done.summary, done.folder)
    lines = capsys.readouterr().out.splitlines()
    [line] = [line for line in lines if "less the chosen one" in line]
    assert line.startswith("random: ")
    assert any(line.startswith("random: recall of 90.0 % for 'upright'") for line in lines)
    assert any(line.startswith("random: precision of 60.0 % for 'lying'") for line in lines)
    page = (done.folder / "report.html").read_text()
    assert "<h2>Operating points</h2>" in page
    table = pd.read_csv(done.folder / "differences.csv")
    assert table.groupby("metric").size().tolist() == [1] * 5


def test_a_wish_for_a_class_that_is_not_there_is_refused_in_one_line(run, pictures):
    with pytest.raises(RequestError, match=r"lyin.*lying") as refusal:
        run(study_of(pictures, operating_points=[{"label": "lyin", "recall": 0.9}]))
    assert "\n" not in str(refusal.value)


def test_one_experiment_has_no_differences_and_its_table_can_be_read(run, pictures):
    done = run(study_of(pictures, experiments=[{"name": "alone", "taps": ["blocks.1:mean"]}]))
    assert pd.read_csv(done.folder / "differences.csv").empty
    assert done.summary["scores"][0]["less_chosen"] is None
