"""The learning curve tells what the chosen heads would do with fewer labels, and is cached like any stage."""

from collections.abc import Callable
from typing import Any

import h5py
import numpy as np
import pandas as pd
import pytest

from flows.stages import Stages
from flows.study import Study
from tasks.core.artifacts import Artifacts
from tasks.core.curve import halvings
from tasks.core.hyper import Softmax
from tasks.core.metrics import TestPart, draw_groups, draw_scores, intervals, mean_scores
from tasks.core.selection import Rows, said_of, train_heads
from tasks.core.splits import groups_of
from tasks.core.stored import Stored
from tasks.core.tables import read_table
from tasks.core.trials import parts_of

TestPart.__test__ = False  # a name that pytest would take for tests

Told = Callable[[Study], tuple[str, dict[str, Any] | None]]


@pytest.fixture
def returned(monkeypatch) -> dict[str, Any]:
    """What each stage of the last run returned."""
    told: dict[str, Any] = {}
    plain = Stages.run

    def keep(stages: Stages, name: str, *given: Any) -> Any:
        told[name] = plain(stages, name, *given)
        return told[name]

    monkeypatch.setattr(Stages, "run", keep)
    return told


@pytest.fixture
def curve(run, returned) -> Told:
    """Run a study; give the state of the stage, and what it tells."""

    def go(study: Study) -> tuple[str, dict[str, Any] | None]:
        state = run(study).state("learning curve")
        return state, returned["learning curve"].as_summary()

    return go


def study_of(data: dict[str, Any], **changes: Any) -> Study:
    fields: dict[str, Any] = {
        "name": "stripes",
        "data": data,
        "backbones": {"small": {"network": "lite0", "resize": 48, "crop": 48}},
        "splits": [
            {"name": "random", "seeds": [0, 1]},
            {"name": "other", "seeds": [5]},
        ],
        "experiments": [{"name": "early", "taps": ["blocks.1:mean"], "strengths": [1.0]}],
    }
    return Study.model_validate(fields | changes)


def test_points_are_what_heads_trained_by_hand_on_the_shares_score(curve, returned, pictures, tmp_path):
    rows = [(str(path), path.parent.name, 1 + len(path.stem)) for path in sorted(pictures.rglob("*.png"))]
    manifest = tmp_path / "manifest.csv"
    pd.DataFrame(rows, columns=["path", "class", "sure"]).to_csv(manifest, index=False)
    study = study_of({"manifest": manifest, "weight": "sure"})
    state, told = curve(study)
    assert state == "Completed"
    assert told is not None
    assert (told["experiment"], told["split"], told["metric"]) == ("early", "random", "weighted accuracy")
    assert [point["share"] for point in told["points"]] == [0.125, 0.25, 0.5, 1.0]
    assert [point["train"] for point in told["points"]] == [4, 6, 10, 18]
    half, whole = (point["value"] for point in told["points"][-2:])
    assert told["gain"]["difference"] == pytest.approx(whole - half)
    assert told["gain"]["low"] <= told["gain"]["difference"] <= told["gain"]["high"]
    here = Artifacts(tmp_path / "artifacts")
    for number, point in enumerate(reversed(told["points"][:-1])):
        found = by_hand(study, here, number)
        assert point["value"] == pytest.approx(found.value)
        assert point["ci95"] == pytest.approx([found.low, found.high])
    assert returned["report"]["learning_curve"] == told
    best = returned["report"]["best"]["metrics"]["weighted accuracy"]
    assert told["points"][-1]["value"] == best["value"]
    assert told["points"][-1]["ci95"] == best["ci95"]


def by_hand(study: Study, here: Artifacts, number: int) -> Any:
    """Train on the first, second, ... halving of each seed's training part, and score."""
    [place], [features] = here.samples.glob("*.csv"), here.features.glob("*/features.h5")
    table, [spec, _] = read_table(place), study.split_specs()
    with h5py.File(features) as file:
        order = {digest.decode(): row for row, digest in enumerate(file["digests"][:])}
        shown = file["features"][:][[order[digest] for digest in table.digest]]
    labels, weights = (table.label == "upright").to_numpy().astype(int), table.weight.to_numpy()
    drawn = []
    for part in parts_of(table, [spec]):
        taken = halvings(~part.test, part.groups, labels, seed=part.seed)[number]
        rows = Rows(shown[taken], labels[taken], weights[taken], part.groups[taken])
        [head] = train_heads(rows, [Softmax(1.0)], classes=2, seed=part.seed)
        [said] = said_of([head.predictor], shown[part.test], 1)
        test = TestPart(np.flatnonzero(part.test), labels[part.test], weights[part.test], said)
        drawn.append(draw_scores(test, draw_groups(groups_of(table, spec).tolist())))
    return intervals(mean_scores(drawn))["weighted accuracy"]


def test_it_is_cached_until_a_label_changes(curve, pictures):
    study = study_of({"folder": pictures})
    first = curve(study)
    assert first[0] == "Completed"
    assert curve(study) == ("Cached", first[1])
    (pictures / "upright" / "0.png").rename(pictures / "lying" / "was-upright.png")
    assert curve(study)[0] == "Completed"


def test_what_is_not_in_the_curve_does_not_make_it_again(curve, pictures):
    study = study_of({"folder": pictures})
    curve(study)
    fewer = study_of({"folder": pictures}, splits=[{"name": "random", "seeds": [0, 1]}])
    assert curve(fewer)[0] == "Cached"
    other_seeds = study_of({"folder": pictures}, splits=[{"name": "random", "seeds": [0, 2]}])
    assert curve(other_seeds)[0] == "Completed"


def test_unlabelled_samples_are_neither_learnt_from_nor_tested(curve, pictures, tmp_path):
    rows = [(str(path), path.parent.name) for path in sorted(pictures.rglob("*.png"))]
    table = pd.DataFrame(rows, columns=["path", "class"])
    table.loc[[0, 23], "class"] = "?"
    table.to_csv(tmp_path / "manifest.csv", index=False)
    _, told = curve(study_of({"manifest": tmp_path / "manifest.csv"}))
    assert told is not None
    assert [point["train"] for point in told["points"]] == [4, 8, 16], (
        "an eighth would have one of each class"
    )


def test_several_views_and_kinds_of_heads_have_a_curve(curve, pictures):
    for views, head in ((["centre", "hflip"], {"head": "knn", "k": [1]}), (["centre"], {"head": "centroid"})):
        experiment = {"name": "early", "taps": ["blocks.1:mean"], "views": views, **head}
        _, told = curve(study_of({"folder": pictures}, experiments=[experiment]))
        assert told is not None
        assert len(told["points"]) == 4


def test_features_that_do_not_fit_in_memory_leave_no_curve(curve, pictures, monkeypatch):
    monkeypatch.setattr(Stored, "fits", lambda stored: False)
    assert curve(study_of({"folder": pictures})) == ("Completed", None)


def test_too_few_samples_leave_no_curve(curve, pictures):
    for path in sorted(pictures.rglob("*.png")):
        if int(path.stem) > 2:
            path.unlink()
    study = study_of({"folder": pictures}, splits=[{"name": "random", "test": 0.34}])
    assert curve(study) == ("Completed", None)
    assert curve(study) == ("Cached", None)
