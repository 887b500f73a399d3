"""The verdict measures depths on shares of the training part within a time, keeps every cell, and goes on later."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import tasks.core.cells
import tasks.core.measuring
from flows.study import Study

SIZE = 48
LATE = {
    "name": "late",
    "depth": "suffix",
    "cut": "blocks.5",
    "epochs": [1],
    "learning_rates": [1e-3],
    "batch": 8,
}
SCRATCH = {"name": "scratch", "depth": "scratch", "epochs": [1], "learning_rates": [1e-3], "batch": 8}
HEAD = {"name": "head", "strengths": [1.0]}


def study_of(folder: Path, verdict: dict[str, Any], **changes: Any) -> Study:
    fields: dict[str, Any] = {
        "name": "stripes",
        "data": {"folder": folder},
        "backbones": {"small": {"network": "lite0", "resize": SIZE, "crop": SIZE}},
        "splits": [{"name": "random", "seeds": [0, 1, 2]}],
        "experiments": [{"name": "last layer", "strengths": [1.0]}],
        "verdict": {"depths": [HEAD, LATE, SCRATCH], "shares": [0.5, 1.0], "seeds": 2, "minutes": 30}
        | verdict,
    }
    return Study.model_validate(fields | changes)


@pytest.fixture
def searched(monkeypatch) -> list[str]:
    """The cuts of the searches that were made; "" where all layers were trained."""
    made: list[str] = []
    plain = tasks.core.cells.train_network

    def noted(source: Any, hypers: Any, *given: Any) -> Any:
        made.extend(hyper.cut for hyper in hypers.values())
        return plain(source, hypers, *given)

    monkeypatch.setattr(tasks.core.cells, "train_network", noted)
    return made


def test_every_cell_is_measured_once_and_found_again(run, pictures, searched):
    done = run(study_of(pictures, {}))
    told = done.summary["verdict"]
    assert [(cell["depth"], cell["share"], cell["seeds"]) for cell in told["cells"]] == [
        (depth, share, 2) for depth in ("head", "late", "scratch") for share in (0.5, 1.0)
    ]
    assert sorted(searched) == [""] * 4 + ["blocks.5"] * 4
    assert told["sentence"]
    assert told["metric"] == "accuracy"
    assert {each["what"] for each in told["differences"]} >= {"transfer", "labels"}
    assert [each["share"] for each in told["chosen"]] == [0.5, 1.0]
    assert [each["tap"] for each in told["preflight"]["taps"]]
    assert told["preflight"]["source"] == 1_281_167
    assert told["preflight"]["classes"] == [
        {"label": "lying", "count": 12},
        {"label": "upright", "count": 12},
    ]
    assert told["left_out"] == []
    assert [each.partition(":")[0] for each in told["unfair"]] == ["late", "scratch"]
    for cell in told["cells"]:
        assert cell["seconds"] > 0  # whoever trained it: the head on all samples is the experiment's
        without = cell["seconds_without_cache"]
        assert (
            without is None if cell["depth"] == "scratch" else without > cell["seconds"]
        )  # nothing is kept for it
    assert told["sentence"].split(".")[0] in (done.folder / "report.html").read_text()

    searched.clear()
    again = run(study_of(pictures, {}))
    assert again.state("verdict") == "Cached"
    assert not searched
    assert again.networks == 0
    assert again.summary["verdict"] == told | {"trained": 0}


def test_an_experiment_that_a_cell_has_measured_is_not_trained_again(run, pictures, searched):
    run(study_of(pictures, {"seeds": 3}))
    searched.clear()
    done = run(study_of(pictures, {"seeds": 3}, experiments=[LATE]))
    assert not searched
    assert done.summary["experiments"] == {"total": 3, "trained": 0, "reused": 3}


def test_what_there_is_no_time_for_is_told_and_the_next_run_goes_on(run, pictures, searched, monkeypatch):
    monkeypatch.setattr(tasks.core.measuring.Bench, "_pace", lambda bench, depth, network: 0.01 * (depth + 1))
    # expected: late 2 s or less a cell, scratch 3 s or less
    short = run(study_of(pictures, {"minutes": 1e-3}))
    told = short.summary["verdict"]
    assert not searched
    assert {cell["depth"] for cell in told["cells"]} <= {"head"}
    assert {each["depth"] for each in told["left_out"]} >= {"late", "scratch"}
    assert all("of the budget were left" in each["reason"] for each in told["left_out"])
    assert "was not measured" in told["sentence"] or "annot tell" in told["sentence"]

    more = run(study_of(pictures, {"minutes": 30}))
    assert len(searched) == 8
    assert more.summary["verdict"]["left_out"] == []


def test_a_verdict_that_lacked_time_is_not_taken_from_the_cache(run, pictures, searched, monkeypatch):
    clock = {"left": 0.0}
    monkeypatch.setattr(
        tasks.core.measuring.Bench,
        "_expected",
        lambda bench, rung: 0.5 if rung.depth == 0 or clock["left"] else 59.9,
    )
    study = study_of(pictures, {"minutes": 1})
    slow = SimpleNamespace(monotonic=iter(range(0, 10**6, 20)).__next__)
    with monkeypatch.context() as patched:
        patched.setattr(tasks.core.measuring, "time", slow)
        first = run(study)
    assert first.summary["verdict"]["left_out"]
    clock["left"] = 1.0
    second = run(study)
    assert second.state("verdict") == "Completed"
    assert second.summary["verdict"]["left_out"] == []


def test_what_is_there_costs_no_time(run, pictures, searched):
    whole = run(study_of(pictures, {})).summary["verdict"]
    searched.clear()
    found = run(study_of(pictures, {"minutes": 1e-6})).summary["verdict"]
    assert (found["left_out"], searched) == ([], [])
    anew = {"seconds_without_cache": None}  # measured anew
    assert [cell | anew for cell in found["cells"]] == [cell | anew for cell in whole["cells"]]


def test_a_cell_that_was_trained_since_is_added_to_a_verdict_that_had_no_time_for_it(
    run, pictures, searched, monkeypatch
):
    monkeypatch.setattr(
        tasks.core.measuring.Bench, "_expected", lambda bench, rung: 90.0 if rung.depth == 2 else 0.0
    )
    short = study_of(pictures, {"minutes": 1})  # never long enough for scratch
    left_out = run(short).summary["verdict"]["left_out"]
    assert {each["depth"] for each in left_out} == {"scratch"}
    assert left_out[0].keys() == {"depth", "share", "seed", "reason", "seconds"}
    assert run(short).state("verdict") == "Cached"

    run(study_of(pictures, {"minutes": 2}))
    searched.clear()
    again = run(short)
    assert again.state("verdict") == "Completed"
    assert (again.summary["verdict"]["left_out"], searched) == ([], [])


def test_a_cell_that_is_lost_or_damaged_is_measured_again(run, pictures, searched):
    first = run(study_of(pictures, {}))
    heads = first.folder.parents[1] / "heads"
    # of a share alone: no experiment asks for it
    [lost, hurt, *_] = [
        path for path in sorted(heads.glob("*/*.safetensors")) if path.stat().st_size < 300_000
    ]
    scores = [cell["value"] for cell in first.summary["verdict"]["cells"]]
    before = len(list(lost.parent.glob("*.safetensors")))
    lost.unlink()
    searched.clear()
    again = run(study_of(pictures, {}))
    assert again.state("verdict") == "Completed"
    assert (
        len(list(lost.parent.glob("*.safetensors"))) == before
    )  # layers are named by their bytes, time included
    hurt.write_bytes(hurt.read_bytes()[:-1])
    third = run(study_of(pictures, {}))
    assert third.state("verdict") == "Completed"
    assert [cell["value"] for cell in third.summary["verdict"]["cells"]] == scores
    assert run(study_of(pictures, {})).state("verdict") == "Cached"


def test_labels_changed_measure_anew_and_removed_results_cost_nothing(run, pictures, searched):
    first = run(study_of(pictures, {}))
    searched.clear()
    for path in (first.folder.parents[1] / "results").iterdir():
        path.unlink()
    again = run(study_of(pictures, {}))
    assert not searched
    ours, theirs = (
        [
            (cell["depth"], cell["share"], cell["value"], cell["ci95"])
            for cell in done.summary["verdict"]["cells"]
        ]
        for done in (first, again)
    )
    assert ours == theirs


def test_without_a_verdict_nothing_is_told_of_one(run, pictures):
    done = run(study_of(pictures, {}).model_copy(update={"verdict": None}))
    assert done.summary["verdict"] is None
    assert "verdict" not in [stage["name"] for stage in done.summary["stages"]]
    assert json.loads((done.folder / "summary.json").read_text())["verdict"] is None


def test_depths_that_are_named_alone_are_spelled_out(pictures):
    study = study_of(
        pictures, {"depths": ["head", "blocks.3", "everything", "scratch"], "views": ["centre", "hflip"]}
    )
    grids = study.depths()
    assert [grid.name for grid in grids] == ["head", "blocks.3", "everything", "scratch"]
    assert grids[1].inputs.taps == ("blocks.3:none",)
    assert {grid.inputs.views for grid in grids} == {("centre", "hflip")}
    assert Study.model_validate(json.loads(study.model_dump_json())) == study


@pytest.mark.parametrize(
    ("verdict", "told"),
    [
        ({"shares": [0.5]}, "1.0 is missing"),
        ({"depths": ["head", "head"]}, "'head' stands twice"),
        ({"shares": [0.0, 1.0]}, "greater than 0"),
        ({"minutes": 0}, "greater than 0"),
        ({"depths": [{"name": "x", "depth": "suffix"}]}, "needs a cut"),
        ({"minute": 3}, "did you mean 'minutes'"),
    ],
)
def test_a_wrong_verdict_is_refused(pictures, verdict, told):
    with pytest.raises(ValueError, match=told):
        study_of(pictures, verdict)
