"""A run that asks for it is told to MLflow: read back with MLflow's own client, and held against what the run left."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import flows.study
from flows.__main__ import main
from flows.study import Study
from tasks.core.estimators import open_head
from tasks.tracking import DEFAULTS, FILES, PRIVATE

os.environ.update(PRIVATE)  # before MLflow is imported: between tests it does not know that it is tested
mlflow = pytest.importorskip("mlflow", reason="MLflow is not installed: pip install 'headstart[mlflow]'")

OTHERS = ("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME", "MLFLOW_EXPERIMENT_ID", "MLFLOW_ALLOW_FILE_STORE")


@pytest.fixture(autouse=True)
def unconfigured(monkeypatch):
    """MLflow as it is where nobody has set it up; what the stage sets is taken back."""
    for name in (*DEFAULTS, *OTHERS):
        monkeypatch.setenv(name, "")  # so that monkeypatch knows the name
        monkeypatch.delenv(name)


@pytest.fixture
def stripes(pictures):
    """Pictures of which some are labelled wrongly, so that scores are not all 1."""
    for number in range(3):
        (pictures / "upright" / f"{number}.png").rename(pictures / "lying" / f"wrong-{number}.png")
    return pictures


def study_of(folder: Path, **changes: Any) -> Study:
    fields: dict[str, Any] = {
        "name": "stripes",
        "data": {"folder": folder},
        "backbones": {"small": {"network": "lite0", "resize": 48, "crop": 48}},
        "splits": [{"name": "random", "seeds": [0, 7]}],
        "experiments": [
            {"name": "early", "taps": ["blocks.1:mean"], "strengths": [0.01, 1.0]},
            {"name": "both", "taps": ["blocks.1:mean", "blocks.2:max"], "head": "knn", "k": [1, 3]},
        ],
        "tracking": "mlflow",
    }
    return Study.model_validate(fields | changes)


def client_of(done: Any) -> Any:
    return mlflow.MlflowClient(tracking_uri=done.summary["tracking"]["uri"])


def runs_of(done: Any) -> tuple[list[Any], list[Any]]:
    """Whole runs, the latest first, and those of single experiments."""
    client = client_of(done)
    place = client.get_experiment_by_name(done.summary["tracking"]["experiment"]).experiment_id
    runs = client.search_runs([place], order_by=["attributes.start_time DESC"])
    nested = [run for run in runs if "mlflow.parentRunId" in run.data.tags]
    return [run for run in runs if run not in nested], nested


def flat(metrics: dict[str, Any]) -> dict[str, float]:
    """Spell the summary's scores as MLflow has them."""
    found = {}
    for name, score in metrics.items():
        place = name.replace(" ", "_")
        ends = {"": score["value"], "_low": score["ci95"][0], "_high": score["ci95"][1], "_sd": score["sd"]}
        found |= {place + end: value for end, value in ends.items()}
    return found


def without_seeds(metrics: dict[str, float]) -> dict[str, float]:
    return {name: value for name, value in metrics.items() if not name.endswith("_of_seed")}


def test_a_run_is_told_with_its_experiments_scores_and_files(run, stripes):
    done = run(study_of(stripes))
    tracking = done.summary["tracking"]
    assert (tracking["state"], tracking["experiment"]) == ("told", "stripes")
    [whole], nested = runs_of(done)
    assert (whole.info.run_id, whole.info.status) == (tracking["run"], "FINISHED")
    counts = {"samples_total": 24, "samples_extracted": 24, "samples_reused": 0, "samples_quarantined": 0}
    counts |= {"heads_total": 8, "heads_trained": 8, "heads_reused": 0}
    assert without_seeds(whole.data.metrics) == flat(done.summary["best"]["metrics"]) | counts
    assert whole.data.params["experiment"] == done.summary["best"]["experiment"]
    told = {(each.data.params["experiment"], each.data.params["split"]): each for each in nested}
    assert set(told) == {("early", "random"), ("both", "random")}
    for row in done.summary["scores"]:
        each = told[row["experiment"], row["split"]]
        assert each.data.tags["mlflow.parentRunId"] == whole.info.run_id
        assert without_seeds(each.data.metrics) == flat(row["metrics"])
    client, kept = client_of(done), Path(done.folder)
    for file in FILES:
        copy = Path(client.download_artifacts(whole.info.run_id, file))
        if file != "summary.json":
            assert copy.read_bytes() == (kept / file).read_bytes()
        else:
            assert json.loads(copy.read_text()) | {"tracking": tracking} == done.summary


def test_each_experiment_tells_what_results_csv_says_of_the_chosen_heads(run, stripes):
    done = run(study_of(stripes))
    _, nested = runs_of(done)
    client, sets = client_of(done), done.summary["features"]["small"]
    for each in nested:
        params = each.data.params
        rows = [
            r for r in done.results() if r["chosen"] == "True" and r["experiment"] == params["experiment"]
        ]
        assert [row["seed"] for row in rows] == params["seeds"].split(", ") == ["0", "7"]
        hyper = {"early": "strength", "both": "k"}[params["experiment"]]
        chosen = [float(row[hyper]) for row in rows]
        expected = chosen if len(set(chosen)) > 1 else chosen[:1]
        assert [float(value) for value in params[hyper].split(", ")] == expected
        assert {params["head"]} == {row["head"] for row in rows}
        assert (params["backbone"], params["views"], params["tried"]) == ("small", "centre", "2")
        history = {m.step: m.value for m in client.get_metric_history(each.info.run_id, "log_loss_of_seed")}
        assert history == {int(row["seed"]): pytest.approx(float(row["log_loss"]), abs=1e-12) for row in rows}
        used = {"early": ["blocks.1:mean"], "both": ["blocks.1:mean", "blocks.2:max"]}[params["experiment"]]
        assert params["taps"] == ", ".join(used)
        assert each.data.tags["headstart.features"] == ", ".join(sets[tap] for tap in used)


def test_the_model_says_what_the_head_says_and_nothing_is_pickled(run, stripes, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = run(study_of(stripes))
    assert not (tmp_path / "mlflow.db").exists()
    assert not (tmp_path / "mlruns").exists()
    [whole], _ = runs_of(done)
    [output] = whole.outputs.model_outputs
    logged = client_of(done).get_logged_model(output.model_id)
    assert logged.status == "READY"
    folder = Path(logged.artifact_location.removeprefix("file://"))
    model = mlflow.pyfunc.load_model(str(folder))
    best = done.summary["best"]["heads"][0]
    head = open_head(tmp_path / "artifacts" / best["file"], best["key"])
    rows = np.random.default_rng(0).normal(size=(5, head.n_features_in_)).astype(np.float32)
    expected = head.predict_proba(rows)
    for given in (rows, pd.DataFrame(rows), rows.astype(np.float64)):
        said = model.predict(given)
        assert list(said.columns) == list(head.classes_)
        np.testing.assert_array_equal(said.to_numpy(), expected)
    files = [path for path in (tmp_path / "artifacts" / "mlflow").rglob("*") if path.is_file()]
    assert not [path for path in files if path.suffix in (".pkl", ".pickle", ".joblib")]
    assert not [path for path in files if path.read_bytes()[:1] == b"\x80"]  # how a pickle begins
    assert [path.suffix for path in folder.rglob("artifacts/*")] == [".safetensors"]


def test_an_unchanged_run_tells_its_scores_and_leaves_no_more_files(run, stripes):
    first, second = run(study_of(stripes)), run(study_of(stripes))
    assert second.summary["tracking"]["state"] == "reused"
    [latest, whole], nested = runs_of(second)
    assert latest.data.tags["headstart.reused"] == "true"
    assert latest.data.tags["headstart.same_as"] == whole.info.run_id == first.summary["tracking"]["run"]
    assert latest.data.params == whole.data.params
    assert without_seeds(latest.data.metrics) | {"samples_extracted": 24, "samples_reused": 0} | {
        "heads_trained": 8,
        "heads_reused": 0,
    } == without_seeds(whole.data.metrics)
    assert latest.data.metrics["heads_reused"] == 8
    client = client_of(second)
    assert client.list_artifacts(latest.info.run_id) == [] == latest.outputs.model_outputs
    assert {each.data.tags["mlflow.parentRunId"] for each in nested} == {whole.info.run_id}


def test_other_results_are_told_whole_again(run, stripes):
    run(study_of(stripes))
    done = run(study_of(stripes, splits=[{"name": "random", "seeds": [0]}]))  # nothing is trained for it
    assert (done.trained, done.summary["tracking"]["state"]) == (0, "told")
    [latest, _], nested = runs_of(done)
    assert len(nested) == 4
    assert len(client_of(done).list_artifacts(latest.info.run_id)) == len(FILES)


def test_mlflow_is_used_as_it_is_set_up(run, stripes, tmp_path, monkeypatch):
    store = (tmp_path / "a store").as_uri()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store)
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "of the team")
    done = run(study_of(stripes))
    assert {key: done.summary["tracking"][key] for key in ("state", "uri", "experiment")} == {
        "state": "told",
        "uri": store,
        "experiment": "of the team",
    }
    [whole], nested = runs_of(done)
    assert len(nested) == 2
    assert without_seeds(nested[0].data.metrics)
    assert whole.info.artifact_uri.startswith(store)
    assert not (tmp_path / "artifacts" / "mlflow").exists()
    assert run(study_of(stripes)).summary["tracking"]["state"] == "reused"


def test_a_server_that_does_not_answer_costs_one_line_and_the_next_run_tells_all(
    run, stripes, monkeypatch, capsys
):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://user:secret@127.0.0.1:{port}")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    done = run(study_of(stripes))
    tracking = done.summary["tracking"]
    assert (tracking["state"], tracking["uri"]) == ("failed", f"http://127.0.0.1:{port}")
    assert tracking["problem"].endswith("Connection refused")
    errors = capsys.readouterr().err
    assert "secret" not in errors
    [line] = [line for line in errors.splitlines() if line.startswith("headstart: ")]
    assert line.startswith(
        f"headstart: not tracked: MLflow at http://127.0.0.1:{port}: {tracking['problem']}"
    )
    assert (done.folder / "report.html").is_file()
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    again = run(study_of(stripes))
    assert (again.trained, again.summary["tracking"]["state"]) == (0, "told")


def test_a_store_that_fails_on_the_way_leaves_a_failed_run_and_the_next_tells_all(
    run, stripes, monkeypatch, capsys
):
    def full(*given: Any, **named: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(mlflow.MlflowClient, "log_artifact", full)
        broken = run(study_of(stripes))
    assert broken.summary["tracking"]["problem"] == "[Errno 28] No space left on device"
    [whole], _ = runs_of(broken)
    assert whole.info.status == "FAILED"
    assert run(study_of(stripes)).summary["tracking"]["state"] == "told"


def test_a_broken_mlflow_costs_one_line(run, stripes, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "mlflow.pyfunc", None)
    monkeypatch.delattr(mlflow, "pyfunc", raising=False)
    done = run(study_of(stripes))
    assert done.summary["tracking"]["state"] == "failed"
    [line] = [line for line in capsys.readouterr().err.splitlines() if line.startswith("headstart: ")]
    assert "MLflow cannot be imported" in line
    assert "pip install 'headstart[mlflow]'" in line


def test_without_mlflow_the_study_is_refused_in_one_line(stripes, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(flows.study, "find_spec", lambda name: None)
    file = tmp_path / "study.toml"
    file.write_text(f'name = "x"\ntracking = "mlflow"\n[data]\nfolder = "{stripes}"\n')
    assert main(["plan", str(file)]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert "MLflow is not installed" in line
    assert "pip install 'headstart[mlflow]'" in line
    assert main(["plan", str(file), "--set", "tracking=none", "--artifacts", str(tmp_path / "none")]) == 0


def test_mlflow_reports_to_nobody_whatever_is_set():
    """In a process of its own: MLflow says nothing under pytest anyway."""
    quiet = {"CI", "GITHUB_ACTIONS", "PYTEST_CURRENT_TEST", *PRIVATE}
    environment = {name: value for name, value in os.environ.items() if name not in quiet}
    script = (
        "from tasks.tracking import _import_mlflow; _import_mlflow()\n"
        "from mlflow.telemetry import get_telemetry_client as client\n"
        "from mlflow.telemetry.utils import is_telemetry_disabled as off\n"
        "print(off(), client())"
    )
    told = subprocess.run(
        [sys.executable, "-c", script],
        env=environment | {"MLFLOW_DISABLE_TELEMETRY": "false", "DO_NOT_TRACK": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert told.stdout.split() == ["True", "None"]
