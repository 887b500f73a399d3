"""Layers are trained as experiments like others: chosen on inner folds, cached, resumed, told in the results."""

from pathlib import Path
from typing import Any

import pytest

import tasks.core.finetune
from flows.study import Study

SIZE = 48


def study_of(folder: Path, *experiments: dict[str, Any], **changes: Any) -> Study:
    fields: dict[str, Any] = {
        "name": "stripes",
        "data": {"folder": folder},
        "backbones": {"small": {"network": "lite0", "resize": SIZE, "crop": SIZE}},
        "splits": [{"name": "random", "seeds": [0]}],
        "experiments": list(experiments),
    }
    return Study.model_validate(fields | changes)


HEAD = {"name": "head", "strengths": [1.0]}
SUFFIX = {
    "name": "late",
    "depth": "suffix",
    "cut": "blocks.5",
    "epochs": [2],
    "learning_rates": [1e-3],
    "batch": 8,
}
EVERYTHING = {"name": "all", "depth": "everything", "epochs": [1], "learning_rates": [1e-3], "batch": 8}
SCRATCH = {"name": "none", "depth": "scratch", "epochs": [1], "learning_rates": [1e-3], "batch": 8}


@pytest.fixture
def steps(monkeypatch) -> list[int]:
    """The samples of each step that was taken."""
    taken: list[int] = []
    take = tasks.core.finetune.Training._take

    def count(training: Any, step: Any, *given: Any) -> None:
        taken.append(len(step.rows))
        take(training, step, *given)

    monkeypatch.setattr(tasks.core.finetune.Training, "_take", count)
    return taken


def test_every_depth_is_an_experiment_with_scores_and_nothing_runs_twice(run, pictures, steps):
    random = {**SUFFIX, "name": "late anew", "start": "random"}
    study = study_of(pictures, HEAD, SUFFIX, random, EVERYTHING, SCRATCH)
    done = run(study)
    assert [row["experiment"] for row in done.results()] == ["head", "late", "late anew", "all", "none"]
    assert all(0 <= float(row["accuracy"]) <= 1 for row in done.results())
    assert {row["experiment"]: row["converged"] for row in done.results()}["late"] == "True"
    assert done.summary["experiments"] == {"total": 5, "trained": 5, "reused": 0}
    assert steps

    steps.clear()
    again = run(study)
    assert not steps
    assert again.networks == 0
    assert again.state("train late") == "Cached"
    assert [row["accuracy"] for row in again.results()] == [row["accuracy"] for row in done.results()]

    more = run(study_of(pictures, HEAD, SUFFIX, {**SUFFIX, "name": "longer", "epochs": [3]}))
    assert more.summary["experiments"] == {"total": 3, "trained": 1, "reused": 2}
