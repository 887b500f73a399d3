"""The table "what a change costs": each row is a test, counted where the work is done."""

import os
import shutil
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
import pytest

import tasks.core.cuts
import tasks.core.engine
from flows.study import Study

SMALL = {"network": "lite0", "resize": 48, "crop": 48}


def study_of(folder: Path, **changes: Any) -> Study:
    """A folder study with one experiment, two seeds and small pictures."""
    fields: dict[str, Any] = {
        "name": "stripes",
        "data": {"folder": folder},
        "backbones": {"small": SMALL},
        "splits": [{"name": "random", "seeds": [0, 1]}],
        "experiments": [{"name": "early", "taps": ["blocks.1:mean"], "strengths": [0.01, 1.0]}],
    }
    return Study.model_validate(fields | changes)


def two_experiments() -> list[dict[str, Any]]:
    return [
        {"name": "early", "taps": ["blocks.1:mean"], "strengths": [0.01, 1.0]},
        {"name": "strong", "taps": ["blocks.1:mean"], "strengths": [10.0]},
    ]


def shards(artifacts: Path) -> list[Path]:
    return sorted(artifacts.glob("features/*/shards/*.h5"))


def test_the_first_run_forwards_each_sample_once_and_trains_each_split(run, pictures):
    done = run(study_of(pictures))
    assert len(done.forwarded) == len(set(done.forwarded)) == 24
    assert (done.networks, done.trained) == (1, 4)
    assert done.summary["samples"] == {"total": 24, "extracted": 24, "reused": 0, "quarantined": 0}
    assert done.summary["experiments"] == {"total": 4, "trained": 4, "reused": 0}
    assert [(row["seed"], row["strength"]) for row in done.results()] == [
        ("0", "0.01"),
        ("0", "1.0"),
        ("1", "0.01"),
        ("1", "1.0"),
    ]


def test_nothing_changed_runs_nothing_and_loads_no_network(run, pictures):
    first, second = run(study_of(pictures)), run(study_of(pictures))
    assert (second.forwarded, second.networks, second.trained) == ([], 0, 0)
    assert second.summary["samples"]["reused"] == 24
    assert second.summary["experiments"] == {"total": 4, "trained": 0, "reused": 4}
    assert [second.state(name) for name in ("features small", "train early", "scores")] == ["Cached"] * 3
    assert second.results() == first.results()


def test_renamed_moved_and_touched_files_change_the_table_only(run, pictures):
    first = run(study_of(pictures))
    (pictures / "upright" / "0.png").rename(pictures / "upright" / "renamed.png")
    (pictures / "lying" / "deeper").mkdir()
    (pictures / "lying" / "1.png").rename(pictures / "lying" / "deeper" / "1.png")
    os.utime(pictures / "lying" / "2.png", (1, 1))
    second = run(study_of(pictures))
    assert (second.forwarded, second.trained) == ([], 0)
    assert second.results() == first.results()


def test_another_label_trains_again_on_the_same_features(run, pictures):
    run(study_of(pictures))
    (pictures / "upright" / "0.png").rename(pictures / "lying" / "was-upright.png")
    second = run(study_of(pictures))
    assert (second.forwarded, second.networks, second.trained) == ([], 0, 4)


def test_another_split_trains_that_split_only(run, pictures):
    run(study_of(pictures))
    second = run(study_of(pictures, splits=[{"name": "random", "seeds": [0, 1, 2]}]))
    assert (second.forwarded, second.trained) == ([], 2)
    assert second.summary["experiments"] == {"total": 6, "trained": 2, "reused": 4}


def test_weights_train_again_on_the_same_features(run, pictures, tmp_path):
    rows = pd.DataFrame(
        [(str(path), path.parent.name, 1.0) for path in sorted(pictures.rglob("*.png"))],
        columns=["path", "class", "importance"],
    )
    manifest = tmp_path / "manifest.csv"
    rows.to_csv(manifest, index=False)
    weighted = study_of(pictures, data={"manifest": manifest, "weight": "importance"})
    run(weighted)
    rows.loc[3, "importance"] = 2.5
    rows.to_csv(manifest, index=False)
    second = run(weighted)
    assert (second.forwarded, second.trained) == ([], 4)


def test_added_samples_cost_their_own_forward_passes(run, pictures, painter):
    first = run(study_of(pictures))
    for number in range(3):
        painter(pictures / "lying" / f"new-{number}.png", 500 + number, 1.5)
    second = run(study_of(pictures))
    assert len(second.forwarded) == 3
    assert not set(second.forwarded) & set(first.forwarded)
    assert second.trained == 4
    assert second.summary["samples"] == {"total": 27, "extracted": 3, "reused": 24, "quarantined": 0}


def test_a_changed_sample_is_a_new_one(run, pictures, painter):
    run(study_of(pictures))
    painter(pictures / "lying" / "3.png", 999, 1.4)
    second = run(study_of(pictures))
    assert (len(second.forwarded), second.trained) == (1, 4)


def test_added_samples_get_the_features_that_a_fresh_run_gives_them(run, pictures, painter, tmp_path):
    run(study_of(pictures))
    painter(pictures / "lying" / "new.png", 500, 1.5)
    run(study_of(pictures))
    grown = stored_rows(tmp_path / "artifacts")
    shutil.rmtree(tmp_path / "artifacts")
    run(study_of(pictures))
    assert stored_rows(tmp_path / "artifacts") == grown


def stored_rows(artifacts: Path) -> dict[bytes, bytes]:
    [view] = artifacts.glob("features/*/features.h5")
    with h5py.File(view) as file:
        return {
            name: row.tobytes() for name, row in zip(file["digests"][:], file["features"][:], strict=True)
        }


def test_removed_samples_train_again_and_load_no_network(run, pictures):
    run(study_of(pictures))
    (pictures / "lying" / "3.png").unlink()
    second = run(study_of(pictures))
    assert (second.forwarded, second.networks, second.trained) == ([], 0, 4)
    assert second.summary["samples"] == {"total": 23, "extracted": 0, "reused": 23, "quarantined": 0}


def test_an_added_experiment_trains_itself_only(run, pictures):
    run(study_of(pictures))
    second = run(study_of(pictures, experiments=two_experiments()))
    assert (second.forwarded, second.trained) == ([], 2)
    assert second.state("train early and 1 more") == "Completed"
    assert second.summary["experiments"] == {"total": 6, "trained": 2, "reused": 4}


def test_an_added_experiment_on_other_taps_leaves_the_first_stage_alone(run, pictures):
    run(study_of(pictures))
    other = {"name": "deeper", "taps": ["blocks.2:mean"], "strengths": [1.0]}
    second = run(study_of(pictures, experiments=[two_experiments()[0], other]))
    assert (second.state("train early"), second.state("train deeper")) == ("Cached", "Completed")
    assert second.trained == 2


def test_an_added_strength_trains_that_strength_only(run, pictures):
    first = run(study_of(pictures))
    wider = [{**two_experiments()[0], "strengths": [0.01, 0.1, 1.0]}]
    second = run(study_of(pictures, experiments=wider))
    assert (second.forwarded, second.trained) == ([], 2)
    kept = [row for row in second.results() if row["strength"] != "0.1"]
    assert [row["key"] for row in kept] == [row["key"] for row in first.results()]
    assert [row["inner_brier"] for row in kept] == [row["inner_brier"] for row in first.results()]


def test_a_strength_left_out_trains_nothing(run, pictures):
    run(study_of(pictures))
    narrow = [{**two_experiments()[0], "strengths": [1.0]}]
    second = run(study_of(pictures, experiments=narrow))
    assert (second.trained, second.summary["experiments"]["total"]) == (0, 2)


def test_only_what_the_inner_folds_chose_is_scored_on_the_test_part(run, pictures):
    """One head of a grid for each split and seed, the one with the least inner Brier score."""
    rows = pd.DataFrame(run(study_of(pictures)).results())
    for _, grid in rows.groupby(["split", "seed"]):
        assert (grid.chosen == "True").sum() == 1
        best = grid.inner_brier.astype(float).idxmin()
        assert rows.chosen[best] == "True"
        assert (grid.accuracy != "").equals(grid.chosen == "True")


def test_every_kind_of_head_goes_all_the_way(run, pictures):
    shared = {"taps": ["blocks.1:mean"]}
    experiments = [
        {**shared, "name": "softmax", "strengths": [0.1]},
        {**shared, "name": "ridge", "head": "ridge", "strengths": [1.0]},
        {**shared, "name": "near", "head": "knn", "k": [1, 3]},
        {**shared, "name": "mean", "head": "centroid"},
        {**shared, "name": "small", "head": "mlp", "hidden": [[8]], "dropouts": [0.0]},
    ]
    wish = [{"recall": 0.5}]
    first = run(study_of(pictures, experiments=experiments, operating_points=wish))
    assert {row["head"] for row in first.results()} == {"softmax", "ridge", "knn", "centroid", "mlp"}
    assert first.trained == first.summary["experiments"]["total"] == 12
    assert len(first.summary["operating_points"]) == 5
    assert (first.folder / "differences.csv").read_text().count("\n") > 10 * 5
    second = run(study_of(pictures, experiments=experiments, operating_points=wish))
    assert (second.trained, second.results()) == (0, first.results())


def test_a_renamed_experiment_trains_nothing(run, pictures):
    run(study_of(pictures))
    renamed = [{**two_experiments()[0], "name": "another name"}]
    second = run(study_of(pictures, experiments=renamed))
    assert (second.forwarded, second.trained) == ([], 0)
    assert second.results()[0]["experiment"] == "another name"


def test_an_added_tap_costs_one_pass_and_keeps_the_other_tap(run, pictures):
    run(study_of(pictures))
    both = [*two_experiments()[:1], {"name": "both", "taps": ["blocks.1:mean", "blocks.0:max"]}]
    second = run(study_of(pictures, experiments=both))
    assert len(second.forwarded) == 24
    assert second.trained == 14


def test_other_preprocessing_forwards_everything_again(run, pictures):
    run(study_of(pictures))
    second = run(study_of(pictures, backbones={"small": {**SMALL, "resize": 56}}))
    assert len(second.forwarded) == 24
    assert second.trained == 4


def test_the_backbones_name_in_the_study_decides_nothing(run, pictures):
    run(study_of(pictures))
    second = run(study_of(pictures, backbones={"renamed": SMALL}))
    assert (second.forwarded, second.trained) == ([], 0)


@pytest.mark.parametrize("harm", ["lost", "cut short", "bits flipped"])
def test_a_harmed_shard_costs_its_own_rows_and_ends_the_same(run, pictures, painter, tmp_path, harm):
    run(study_of(pictures))
    for number in range(3):
        painter(pictures / "lying" / f"new-{number}.png", 500 + number, 1.5)
    before = run(study_of(pictures))
    small = min(shards(tmp_path / "artifacts"), key=lambda path: path.stat().st_size)
    content = bytearray(small.read_bytes())
    if harm == "lost":
        small.unlink()
    elif harm == "cut short":
        small.write_bytes(content[: len(content) // 2])
    else:
        with h5py.File(small) as file:
            content[file["features"].id.get_offset() + 5] ^= 1
        small.write_bytes(content)
    after = run(study_of(pictures))
    assert sorted(after.forwarded) == sorted(before.forwarded)
    assert len(after.forwarded) == 3
    assert after.trained == 0
    assert after.results() == before.results()


def test_a_damaged_head_is_trained_again(run, pictures, tmp_path):
    before = run(study_of(pictures))
    head = next((tmp_path / "artifacts" / "heads").glob("*/*.safetensors"))
    head.write_bytes(head.read_bytes()[:-10])
    after = run(study_of(pictures))
    assert (after.forwarded, after.trained) == ([], 2)
    assert after.results() == before.results()


def test_a_lost_file_of_heads_is_missed_though_another_file_holds_the_same_heads(run, pictures, tmp_path):
    """References name files; a head that stands in another one does not make up for the file."""
    first = run(study_of(pictures))
    heads = tmp_path / "artifacts" / "heads"
    kept = tmp_path / "kept"
    shutil.move(heads, kept)
    wider = [{**two_experiments()[0], "strengths": [0.01, 0.1, 1.0]}]
    run(study_of(pictures, experiments=wider))
    second = run(study_of(pictures))
    assert second.trained == 0
    assert [row["key"] for row in second.results()] == [row["key"] for row in first.results()]


def test_losing_prefects_results_loses_no_work(run, pictures, tmp_path):
    before = run(study_of(pictures))
    shutil.rmtree(tmp_path / "artifacts" / "results")
    after = run(study_of(pictures))
    assert (after.forwarded, after.trained) == ([], 0)
    assert after.results() == before.results()


def test_the_same_study_gives_the_same_bits(run, pictures, tmp_path):
    before = run(study_of(pictures))
    shutil.rmtree(tmp_path / "artifacts")
    after = run(study_of(pictures))
    assert after.forwarded == before.forwarded
    assert after.results() == before.results()


def test_features_h5_is_read_by_h5py_alone(run, pictures, tmp_path):
    run(study_of(pictures))
    [view] = (tmp_path / "artifacts").glob("features/*/features.h5")
    with h5py.File(view) as file:
        assert file["features"].shape == (24, 24)  # (samples, channels of blocks.1)
        assert file["features"].dtype == np.float16
        assert np.isfinite(file["features"][:]).all()


# Views and kept activations


def with_views(*views: str) -> dict[str, Any]:
    return {"experiments": [{"name": "early", "taps": ["blocks.1:mean"], "strengths": [1.0], "views": views}]}


def test_an_added_view_costs_one_pass_of_that_view(run, pictures):
    run(study_of(pictures, **with_views("centre")))
    second = run(study_of(pictures, **with_views("centre", "hflip")))
    assert (len(second.forwarded), second.trained) == (24, 2)
    third = run(study_of(pictures, **with_views("hflip", "crop:0", "centre")))
    assert (len(third.forwarded), third.trained) == (24, 2)
    assert run(study_of(pictures, **with_views("centre", "hflip"))).forwarded == []


def test_each_view_is_of_its_own_pixels(run, pictures):
    folder = run(study_of(pictures, **with_views("centre", "hflip", "vflip", "crop:0", "crop:1"))).folder
    sets = [sorted_rows(path.parent) for path in (folder.parent.parent / "features").glob("*/features.h5")]
    assert len({rows.tobytes() for rows in sets}) == 5


def sorted_rows(folder: Path) -> np.ndarray:
    with h5py.File(folder / "features.h5") as file:
        rows: np.ndarray = file["features"][:][np.argsort(file["digests"][:])]
        return rows


@pytest.fixture
def started(monkeypatch) -> list[tuple[str | None, int]]:
    """Where each pass starts, and how many samples it takes."""
    passes: list[tuple[str | None, int]] = []
    run_activations, prefix = tasks.core.engine.run_activations, tasks.core.cuts.Prefix

    def activations(body: Any, read: Any, digests: Any) -> Any:
        for batch in run_activations(body, read, digests):
            passes.append((starts[-1], len(batch.digests)))
            yield batch

    starts: list[str | None] = []

    def build(network: Any, taps: Any, start: str | None = None) -> Any:
        starts.append(start)
        return prefix(network, taps, start)

    monkeypatch.setattr(tasks.core.engine, "run_activations", activations)
    monkeypatch.setattr(tasks.core.cuts, "Prefix", build)
    return passes


def on_taps(*taps: str) -> dict[str, Any]:
    return {
        "backbones": {"small": {**SMALL, "dtype": "float32"}},
        "experiments": [
            {"name": f"{number}", "taps": [tap], "strengths": [1.0]} for number, tap in enumerate(taps)
        ],
    }


def test_a_tap_behind_a_stored_cut_starts_from_the_deepest_stored_activations(
    run, pictures, started, tmp_path
):
    kept = ("blocks.0:none", "blocks.2:none")
    run(study_of(pictures, **on_taps(*kept)))
    assert started == []
    second = run(study_of(pictures, **on_taps(*kept, "blocks.3:mean", "blocks.2:max", "blocks.1:mean")))
    assert second.forwarded == []
    assert [sum(n for start, n in started if start == cut) for cut in ("blocks.0", "blocks.2")] == [24, 24]
    assert second.summary["samples"]["extracted"] == 24
    by_tap = second.summary["features"]["small"]
    shutil.rmtree(tmp_path / "artifacts" / "features" / by_tap["blocks.0:none"])
    shutil.rmtree(tmp_path / "artifacts" / "features" / by_tap["blocks.2:none"])
    later = ("blocks.1:mean", "blocks.2:max", "blocks.3:mean")
    ours = {tap: sorted_rows(tmp_path / "artifacts" / "features" / by_tap[tap]) for tap in later}
    for tap in later:
        shutil.rmtree(tmp_path / "artifacts" / "features" / by_tap[tap])
    assert len(run(study_of(pictures, **on_taps(*later))).forwarded) == 24
    for tap in later:
        straight = sorted_rows(tmp_path / "artifacts" / "features" / by_tap[tap])
        np.testing.assert_allclose(ours[tap], straight, rtol=1e-4, atol=1e-5)


def test_samples_without_stored_activations_start_from_their_pixels(run, pictures, painter, started):
    run(study_of(pictures, **on_taps("blocks.0:none")))
    for number in range(3):
        painter(pictures / "lying" / f"new-{number}.png", 500 + number, 1.5)
    second = run(study_of(pictures, **on_taps("blocks.1:mean")))
    assert len(second.forwarded) == 3
    assert sum(n for _, n in started) == 24


def test_a_shallow_tap_added_does_not_run_the_deep_layers(run, pictures, monkeypatch):
    run(study_of(pictures, **on_taps("blocks.4:mean")))
    built: list[list[str]] = []
    prefix = tasks.core.cuts.Prefix

    def build(network: Any, taps: Any, start: str | None = None) -> Any:
        built.append([str(tap) for tap in taps])
        return prefix(network, taps, start)

    monkeypatch.setattr(tasks.core.cuts, "Prefix", build)
    run(study_of(pictures, **on_taps("blocks.4:mean", "blocks.1:mean")))
    assert built == [["blocks.1:mean"]]


def test_a_pinned_engine_has_rows_of_its_own(run, pictures):
    run(study_of(pictures))
    pinned = study_of(pictures, backbones={"small": {**SMALL, "engine": "eager"}})
    assert len(run(pinned).forwarded) == 24
    assert run(pinned).forwarded == []
