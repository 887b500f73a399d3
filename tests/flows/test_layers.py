"""Layers are trained as experiments like others: chosen on inner folds, cached, resumed, told in the results."""

import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

import tasks.core.finetune
import tasks.core.networks
from flows.study import Study
from tasks.core.backbones import find_backbone
from tasks.core.cuts import Prefix
from tasks.core.digest import digest_bytes
from tasks.core.heads import load_heads
from tasks.core.media import pixels
from tasks.core.networks import load_network
from tasks.core.taps import Tap
from tasks.core.trained import open_layers

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


def file_of(done: Any, name: str) -> Any:
    [row] = [row for row in done.results() if row["experiment"] == name]
    return load_heads(done.folder.parents[1] / row["file"])[row["key"]]


@pytest.mark.parametrize("experiment", [SUFFIX, EVERYTHING, SCRATCH], ids=lambda each: each["depth"])
def test_kept_layers_say_of_the_test_pictures_what_was_scored(run, pictures, experiment):
    done = run(study_of(pictures, experiment))
    head, backbone = file_of(done, experiment["name"]), find_backbone("lite0", resize=SIZE, crop=SIZE)
    layers, spec = open_layers(head, backbone), backbone.preprocessing
    assert len(layers) == 3
    files = {digest_bytes(path.read_bytes()): path for path in pictures.rglob("*.png")}
    x = np.stack([pixels(files[digest].read_bytes(), spec) for digest in head.test_rows])
    mean, std = (torch.tensor(each).view(1, 3, 1, 1) for each in (spec.mean, spec.std))
    seen = (torch.from_numpy(x).float() - mean) / std
    if experiment is SUFFIX:
        [seen] = Prefix(load_network(backbone), [Tap("blocks.5", "none")])(seen)
    with torch.inference_mode():
        said = [torch.log_softmax(each(seen) / head.predictor.temperature, dim=1).exp() for each in layers]
    mean_said = torch.stack(said).mean(0).numpy()
    np.testing.assert_allclose(np.exp(head.log_proba), mean_said, atol=2e-2)  # kept in half precision


def test_a_learning_rate_that_is_far_too_large_is_a_clear_row_and_not_the_end_of_the_study(run, pictures):
    wild = {**SUFFIX, "name": "wild", "learning_rates": [1e30]}
    done = run(study_of(pictures, HEAD, wild))
    rows = {row["experiment"]: row for row in done.results()}
    assert rows["wild"]["converged"] == "False"
    assert rows["wild"]["stopped"].startswith("the loss was not finite at step ")
    assert rows["head"]["converged"] == "True"
    assert done.summary["best"]["experiment"] == "head"


def test_a_candidate_that_diverges_loses_to_one_that_does_not(run, pictures):
    done = run(study_of(pictures, {**SUFFIX, "learning_rates": [1e30, 1e-3]}))
    [row] = done.results()
    assert (row["converged"], row["stopped"], float(row["learning_rate"])) == ("True", "", 1e-3)


def test_a_run_that_is_killed_amid_a_training_goes_on_with_the_same_bits(run, pictures, monkeypatch):
    study = study_of(pictures, {**SUFFIX, "epochs": [3]})
    monkeypatch.setattr(tasks.core.finetune, "EVERY", -1.0)
    taken = 0
    take = tasks.core.finetune.Training._take

    def count(training: Any, step: Any, *given: Any) -> None:
        nonlocal taken
        taken += 1
        if taken == 5:
            raise KeyboardInterrupt
        take(training, step, *given)

    with monkeypatch.context() as patched:
        patched.setattr(tasks.core.finetune.Training, "_take", count)
        with pytest.raises(KeyboardInterrupt):
            run(study)
    assert taken == 5
    taken = -1000
    with monkeypatch.context() as patched:
        patched.setattr(tasks.core.finetune.Training, "_take", count)
        done = run(study)
    resumed = file_of(done, "late")
    assert taken + 1000 == 3 * 3 * 2 - 4  # 3 folds, 3 epochs of 2 batches
    artifacts = done.folder.parents[1]
    assert not list((artifacts / "checkpoints").iterdir())
    shutil.rmtree(artifacts)
    undisturbed = file_of(run(study), "late")
    np.testing.assert_array_equal(undisturbed.log_proba, resumed.log_proba)
    ours, theirs = resumed.predictor.arrays(), undisturbed.predictor.arrays()
    assert all(np.array_equal(ours[name], theirs[name]) for name in ours)


def test_labels_changed_train_layers_again_and_nothing_is_forwarded(run, pictures, tmp_path, steps):
    rows = [(str(path), path.parent.name) for path in sorted(pictures.rglob("*.png"))]
    manifest = tmp_path / "manifest.csv"
    pd.DataFrame(rows, columns=["path", "class"]).to_csv(manifest, index=False)
    study = study_of(pictures, SUFFIX, data={"manifest": manifest})
    run(study)
    steps.clear()
    rows[0] = (rows[0][0], rows[-1][1])
    pd.DataFrame(rows, columns=["path", "class"]).to_csv(manifest, index=False)
    again = run(study)
    assert steps
    assert not again.forwarded


def test_views_are_kept_and_layers_say_their_mean(run, pictures):
    done = run(study_of(pictures, {**SUFFIX, "views": ["centre", "hflip"]}))
    assert len(done.forwarded) == 2 * 24
    assert done.summary["features"]["small"].keys() == {"blocks.5:none", "blocks.5:none hflip", "bn2:mean"}


def test_the_frozen_network_stays_as_it_is_byte_by_byte(run, pictures, monkeypatch):
    networks = []
    load = tasks.core.networks.load_network

    def keep(backbone: Any) -> Any:
        networks.append(load(backbone))
        return networks[-1]

    monkeypatch.setattr(tasks.core.networks, "load_network", keep)
    run(study_of(pictures, SUFFIX, {**EVERYTHING, "batch_norm": "live"}))
    fresh = load(find_backbone("lite0")).state_dict()
    assert len(networks) >= 3
    for network in networks:
        assert all(torch.equal(fresh[name], tensor) for name, tensor in network.state_dict().items())


@pytest.mark.parametrize(
    ("experiment", "told"),
    [
        ({**HEAD, "depth": "suffix"}, "strengths does not go with depth 'suffix'"),
        ({"name": "late", "depth": "suffix"}, "depth 'suffix' needs a cut"),
        ({**SUFFIX, "taps": ["blocks.3:mean"]}, "taps does not go with depth 'suffix'"),
        ({**SUFFIX, "start": "random", "batch_norm": "frozen"}, "batch_norm is for pretrained layers"),
        ({**SCRATCH, "cut": "blocks.3"}, "cut does not go with depth 'scratch'"),
        ({**SCRATCH, "head_first": True}, "head_first does not go with depth 'scratch'"),
        ({**HEAD, "epochs": [3]}, "epochs does not go with head 'softmax'"),
        ({**SUFFIX, "views": ["crop"]}, "view 'crop'"),
        ({**SUFFIX, "epochs": [0]}, "greater than 0"),
    ],
)
def test_keys_of_another_depth_are_refused(pictures, experiment, told):
    with pytest.raises(ValueError, match=re.escape(told)):
        study_of(pictures, experiment).grids()
