"""Bad samples are set aside and the run goes on; a bad request is one line."""

import csv
import os
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import tasks.core.engine
import tasks.core.selection
from flows.study import Study
from tasks.core.errors import RequestError


def study_of(folder: Path, **data: Any) -> Study:
    return Study.model_validate(
        {
            "name": "odd",
            "data": {"max_bad": 0.2} | ({} if "manifest" in data else {"folder": folder}) | data,
            "backbones": {"small": {"network": "lite0", "resize": 48, "crop": 48}},
            "splits": [{"name": "random", "seeds": [0]}],
            "experiments": [{"name": "early", "taps": ["blocks.1:mean"], "strengths": [1.0]}],
        }
    )


def quarantine(folder: Path) -> dict[str, str]:
    with (folder / "quarantine.csv").open() as file:
        return {row["path"]: row["reason"] for row in csv.DictReader(file)}


def test_bad_files_are_quarantined_with_their_reasons_and_the_run_goes_on(run, pictures):
    (pictures / "lying" / "empty.png").write_bytes(b"")
    (pictures / "lying" / "text.png").write_text("this is no picture")
    whole = (pictures / "lying" / "0.png").read_bytes()
    (pictures / "lying" / "half.png").write_bytes(whole[: len(whole) // 2])
    (pictures / "lying" / "gone.png").symlink_to(pictures / "nowhere.png")
    os.mkfifo(pictures / "lying" / "pipe.png")
    done = run(study_of(pictures))
    assert done.summary["samples"] == {"total": 24, "extracted": 24, "reused": 0, "quarantined": 5}
    reasons = quarantine(done.folder)
    assert reasons["lying/empty.png"] == "empty file"
    assert reasons["lying/text.png"].startswith("not a picture")
    assert reasons["lying/half.png"].startswith("cannot be decoded")
    assert reasons["lying/gone.png"].startswith("no such file")
    assert reasons["lying/pipe.png"] == "neither a file nor a folder"
    assert all(
        reason in (done.folder / "report.html").read_text() for reason in ("empty file", "no such file")
    )


def test_too_many_bad_files_stop_the_run_before_any_network_is_loaded(run, pictures, monkeypatch):
    for number in range(3):
        (pictures / "lying" / f"{number}.png").write_text("no picture")
    monkeypatch.setattr(tasks.core.engine, "run_prefix", None)
    with pytest.raises(RequestError, match=r"3 of 24 samples .* max_bad = 0.1 .*quarantine.csv"):
        run(study_of(pictures, max_bad=0.1))


def test_a_class_left_with_one_sample_stops_the_run(run, pictures):
    for path in sorted((pictures / "lying").iterdir())[1:]:
        path.write_text("no picture")
    with pytest.raises(RequestError, match="class 'lying' has one usable sample"):
        run(study_of(pictures, max_bad=1.0))


def test_the_same_picture_in_two_classes_is_set_aside(run, pictures):
    twin = pictures / "upright" / "twin.png"
    twin.write_bytes((pictures / "lying" / "0.png").read_bytes())
    done = run(study_of(pictures))
    assert done.summary["samples"]["total"] == 23
    assert set(quarantine(done.folder)) == {"upright/twin.png", "lying/0.png"}


def test_copies_of_one_picture_are_one_sample(run, pictures):
    for number in range(4):
        copy = pictures / "lying" / f"copy-{number}.png"
        copy.write_bytes((pictures / "lying" / "0.png").read_bytes())
    done = run(study_of(pictures))
    assert done.summary["samples"]["total"] == len(done.forwarded) == 24


def test_a_file_that_changes_while_it_waits_is_set_aside_and_comes_in_next_time(run, pictures, monkeypatch):
    victim = pictures / "lying" / "5.png"
    run_prefix = tasks.core.engine.run_prefix

    def change_first(*given: Any) -> Any:
        Image.new("RGB", (48, 48), "red").save(victim)
        return run_prefix(*given)

    with monkeypatch.context() as patch:
        patch.setattr(tasks.core.engine, "run_prefix", change_first)
        first = run(study_of(pictures))
    assert first.summary["samples"] == {"total": 23, "extracted": 23, "reused": 0, "quarantined": 1}
    assert "changed while" in (first.folder / "quarantine.csv").read_text()
    second = run(study_of(pictures))
    assert second.summary["samples"] == {"total": 24, "extracted": 1, "reused": 23, "quarantined": 0}


def test_a_tap_that_the_network_lacks_is_a_wrong_request(run, pictures):
    study = study_of(pictures)
    [trial] = study.experiments
    wrong = study.model_copy(
        update={"experiments": (trial.model_copy(update={"taps": ("blocks.77:mean",)}),)}
    )
    with pytest.raises(RequestError, match=r"no module 'blocks\.77'"):
        run(wrong)


LAYERS = {"name": "late", "depth": "suffix", "epochs": (1,), "learning_rates": (1e-3,), "batch": 8}


@pytest.mark.parametrize(
    ("cut", "told"),
    [
        ("blocks.4.1.conv_pw", r"does not fall in two there; choose from blocks\.4\.0, blocks\.4\.1 \("),
        ("blocks.77", r"no module of that name; choose from blocks"),
        ("classifier", r"does not fall in two there; choose from global_pool \("),
    ],
)
@pytest.mark.parametrize("place", ["experiment", "verdict"])
def test_a_cut_that_is_none_is_refused_before_anything_is_extracted_or_trained(
    run, pictures, monkeypatch, cut, told, place
):
    monkeypatch.setattr(tasks.core.engine, "run_prefix", None)
    monkeypatch.setattr(tasks.core.selection, "train_heads", None)
    late, fields = {**LAYERS, "cut": cut}, study_of(pictures).model_dump()
    if place == "experiment":
        fields["experiments"] = [*fields["experiments"], late]
    else:
        fields["verdict"] = {"depths": ["head", late]}
    with pytest.raises(RequestError, match=rf"cut '{cut}': the network .*{told}"):
        run(Study.model_validate(fields))


def test_a_cut_that_is_none_is_refused_though_its_activations_are_kept(run, pictures):
    """They can be had as features of heads."""
    fields = study_of(pictures).model_dump()
    tap = {"name": "head", "taps": ("blocks.4.1.conv_pw:none",), "strengths": (1.0,)}
    run(Study.model_validate({**fields, "experiments": [tap]}))
    late = {**LAYERS, "cut": "blocks.4.1.conv_pw"}
    with pytest.raises(RequestError, match="does not fall in two there"):
        run(Study.model_validate({**fields, "experiments": [tap, late]}))


def test_the_last_cut_goes_by_that_name_where_layers_are_trained_as_it_does_in_taps(run, pictures):
    fields = study_of(pictures).model_dump()
    done = run(Study.model_validate({**fields, "experiments": [{**LAYERS, "cut": "last"}]}))
    assert done.summary["features"]["small"].keys() == {"bn2:mean", "bn2:none"}
    assert done.summary["experiments"]["trained"] == 1


def test_three_cats_with_three_pictures_each_are_enough(run, painter, tmp_path):
    for cat, angle in (("minka", 0.0), ("mog", 0.8), ("tom", 1.57)):
        for number in range(3):
            painter(tmp_path / "cats" / cat / f"{number}.png", number, angle)
    done = run(study_of(tmp_path / "cats"))
    assert done.summary["samples"]["total"] == 9
    assert {row["test"] for row in done.results()} == {"3"}


def test_unlabelled_samples_are_forwarded_but_neither_trained_nor_tested(run, pictures, tmp_path):
    manifest = tmp_path / "manifest.csv"
    rows = [(str(path), path.parent.name) for path in sorted(pictures.rglob("*.png"))]
    rows[0], rows[20] = (rows[0][0], "?"), (rows[20][0], "")
    manifest.write_text("path,class\n" + "".join(f"{path},{label}\n" for path, label in rows))
    done = run(study_of(pictures, manifest=manifest))
    assert len(done.forwarded) == 24
    assert {int(row["train"]) + int(row["test"]) for row in done.results()} == {22}
