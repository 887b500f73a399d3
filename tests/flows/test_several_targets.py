"""A study of several targets as a user meets it: what is trained, what is told, and what a change costs."""

import json
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from sklearn.metrics import average_precision_score

from flows.console import show_summary
from flows.doctor import show_doctor
from flows.plan import show_plan
from flows.study import Study
from tasks.core.answer_words import ONE_SEED, read_gains
from tasks.core.answers import MACRO, MICRO
from tasks.core.backbones import find_backbone
from tasks.core.cuts import Prefix
from tasks.core.digest import digest_bytes
from tasks.core.errors import RequestError
from tasks.core.estimators import open_head
from tasks.core.heads import load_heads
from tasks.core.media import pixels
from tasks.core.networks import load_network
from tasks.core.taps import Tap
from tasks.core.trained import open_layers

SAMPLES = 120


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Noise with a bright square, a dark bar, both or neither, and a manifest that leaves some answers out."""
    folder, random = tmp_path_factory.mktemp("scenes"), np.random.default_rng(0)
    rows = []
    for number in range(SAMPLES):
        square, bar = (bool(each) for each in random.random(2) < 0.5)
        pixels = random.integers(90, 150, (48, 48, 3))
        if square:
            top, left = random.integers(4, 24, 2)
            pixels[top : top + 16, left : left + 16] = 250
        if bar:
            row = random.integers(4, 40)
            pixels[row : row + 5] = 5
        Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{number}.png")
        rows.append(
            {"path": f"{number}.png", "square": int(square), "bar": int(bar), "place": f"p{number // 3}"}
        )
    table = pd.DataFrame(rows).astype({"square": object, "bar": object})
    table.loc[random.random(SAMPLES) < 0.3, "square"] = "?"
    table.loc[random.random(SAMPLES) < 0.3, "bar"] = ""
    table["lone"] = np.where(random.random(SAMPLES) < 0.5, 1, np.nan)
    table["ground"] = np.where(random.random(SAMPLES) < 0.5, "grey", "?")
    table.loc[table.index[::3], "ground"] = "white"
    table.to_csv(folder / "scenes.csv", index=False)
    return folder


def study_of(folder: Path, **changes: Any) -> Study:
    fields: dict[str, Any] = {
        "name": "scenes",
        "data": {"manifest": folder / "scenes.csv", "targets": ["square", "bar"]},
        "backbones": {"small": {"network": "lite0", "resize": 48, "crop": 48}},
        "splits": [{"name": "random", "seeds": [0, 1], "test": 0.4}],
        "experiments": [
            {"name": "linear", "taps": ["blocks.1:mean+std"], "strengths": [0.1, 1.0]},
            {
                "name": "layer",
                "taps": ["blocks.1:mean+std"],
                "head": "mlp",
                "hidden": [[4], [16]],
                "learning_rates": [1e-2],
                "dropouts": [0.0],
            },
        ],
    }
    return Study.model_validate(fields | changes)


def with_targets(folder: Path, *targets: Any, **more: Any) -> dict[str, Any]:
    return {"manifest": folder / "scenes.csv", "targets": list(targets), **more}


Run = Callable[[Study], Any]


def test_every_target_has_its_scores_and_joint_stands_beside_separate(run: Run, scenes: Path) -> None:
    done = run(study_of(scenes))
    summary = done.summary
    assert {row["experiment"] for row in summary["scores"]} == {"linear", "layer", "layer, separate"}
    assert summary["experiments"] == {"total": 2 * 2 * 6, "trained": 24, "reused": 0}
    assert [row["target"] for row in summary["best"]["targets"]][:2] == ["square", "bar"]
    gains = {(row["target"], row["metric"]) for row in summary["joint"]}
    assert {("square", "AUROC"), ("bar", "F1"), (MACRO, "average precision")} <= gains
    assert [row["width"] for row in summary["widths"]] == ["4", "16"]
    assert 0.6 < summary["best"]["metrics"]["average precision"]["value"] <= 1
    assert summary["targets"]["left_out"] == {}
    assert summary["target"] == "square, bar"


def linear(scenes: Path, **changes: Any) -> Study:
    experiment = {"name": "linear", "taps": ["blocks.1:mean+std"], "strengths": [0.1, 1.0]}
    return study_of(scenes, **({"experiments": [experiment]} | changes))


def test_it_is_told_what_fewer_answers_to_each_target_would_give(run: Run, scenes: Path) -> None:
    done = run(linear(scenes))
    told = done.summary["learning_curve"]
    assert (told["experiment"], told["split"], told["metric"]) == ("linear", "random", "average precision")
    assert [each["target"] for each in told["targets"]] == ["square", "bar"]
    scored = {row["target"]: row for row in done.summary["best"]["targets"]}
    counts = {each["target"]: each["known"] for each in done.summary["targets"]["counts"]}
    for each in told["targets"]:
        points = each["points"]
        assert [point["share"] for point in points] == [0.125, 0.25, 0.5, 1.0]
        assert points[-1]["value"] == scored[each["target"]]["metrics"]["average precision"]["value"]
        assert points[-1]["ci95"] == scored[each["target"]]["metrics"]["average precision"]["ci95"]
        assert points[-1]["train"] == pytest.approx(0.6 * counts[each["target"]], abs=3)
        assert points[2]["train"] == pytest.approx(points[-1]["train"] / 2, abs=2)
        half, all_of_them = points[-2]["value"], points[-1]["value"]
        assert each["gain"]["difference"] == pytest.approx(all_of_them - half)
        assert each["gain"]["low"] <= each["gain"]["difference"] <= each["gain"]["high"]
        assert each["says"].startswith(f"{100 * (all_of_them - half):+.1f} points (")
    assert told["points"][-1]["value"] == done.summary["best"]["metrics"]["average precision"]["value"]
    assert told["points"][0]["value"] == pytest.approx(
        np.mean([each["points"][0]["value"] for each in told["targets"]])
    )
    page = (done.folder / "report.html").read_text()
    assert "Would more answers help, and to which question?" in page
    assert page.count(told["targets"][0]["says"]) == 1
    again = run(linear(scenes))
    assert again.state("learning curve") == "Cached"
    assert again.summary["learning_curve"] == told


def test_of_what_targets_share_there_is_no_learning_curve(run: Run, scenes: Path) -> None:
    [_, layer] = study_of(scenes).experiments
    done = run(study_of(scenes, experiments=[layer.model_copy(update={"sharing": "joint"})]))
    assert done.summary["learning_curve"] is None
    assert "Would more answers help" not in (done.folder / "report.html").read_text()


def test_scores_are_those_of_the_kept_predictions_of_known_answers(
    run: Run, scenes: Path, tmp_path: Path
) -> None:
    done = run(study_of(scenes))
    manifest = pd.read_csv(scenes / "scenes.csv", dtype=str, keep_default_na=False)
    by_path = manifest.set_index("path")
    [table] = (tmp_path / "artifacts" / "samples").glob("*.csv")
    name_of = {row.digest: Path(row.path).name for row in pd.read_csv(table).itertuples()}
    chosen = [row for row in done.results() if row["chosen"] == "True"]
    assert len(chosen) == 2 * 2 * 3
    for row in chosen:
        file = load_heads(tmp_path / "artifacts" / row["file"])[row["key"]]
        truth = [by_path.loc[name_of[digest], row["target"]] for digest in file.test_rows]
        assert set(truth) == {"0", "1"}  # an unknown answer is not tested
        assert len(truth) == int(row["test"])
        score = average_precision_score([answer == "1" for answer in truth], file.log_proba[:, 1])
        assert score == pytest.approx(float(row["average_precision"]))


def test_a_head_of_a_target_opens_elsewhere(run: Run, scenes: Path, tmp_path: Path) -> None:
    done = run(study_of(scenes))
    row = next(row for row in done.results() if row["experiment"] == "layer" and row["target"] == "bar")
    head = open_head(tmp_path / "artifacts" / row["file"], row["key"])
    assert head.classes_.tolist() == ["0", "1"]


def test_an_unchanged_study_runs_nothing(run: Run, scenes: Path) -> None:
    run(study_of(scenes))
    again = run(study_of(scenes))
    assert again.forwarded == []
    assert again.networks == 0
    assert again.summary["experiments"]["trained"] == 0
    for stage in ("targets", "train linear and 1 more", "train layer", "scores"):
        assert again.state(stage) == "Cached"


def test_an_added_experiment_trains_itself_alone(run: Run, scenes: Path) -> None:
    study = study_of(scenes)
    run(study)
    more = [
        *study.model_dump()["experiments"],
        {"name": "plain", "taps": ["blocks.1:mean"], "strengths": [1.0]},
    ]
    again = run(study_of(scenes, experiments=more))
    assert again.summary["experiments"]["trained"] == 2 * 2


def test_a_changed_answer_where_parts_are_written_down_leaves_other_targets_heads(
    run: Run, scenes: Path, tmp_path: Path
) -> None:
    """One more answer to one question: its heads and the joint ones run again, as far as folds stay."""
    table = pd.read_csv(scenes / "scenes.csv", dtype=str, keep_default_na=False)
    table["path"] = [str(scenes / path) for path in table.path]
    table["side"] = np.where(np.arange(SAMPLES) % 3 == 0, "test", "train")
    place = tmp_path / "written.csv"
    table.to_csv(place, index=False)
    changes = {
        "data": {"manifest": place, "targets": ["square", "bar"]},
        "splits": [{"name": "written", "column": "side", "seeds": [0]}],
    }
    first = run(study_of(scenes, **changes))
    assert first.summary["experiments"]["trained"] == 2 * 6
    tested = table.index[(table.side == "test") & (table.bar == "0")][0]
    table.loc[tested, "bar"] = "1"  # of a test row, so that folds stay as they are
    table.to_csv(place, index=False)
    again = run(study_of(scenes, **changes))
    assert again.forwarded == []
    assert (
        again.summary["experiments"]["trained"] == 4 + 2 + 2
    )  # all of bar; of square what was trained jointly


def test_targets_of_which_too_little_is_known_are_left_out_and_told(run: Run, scenes: Path) -> None:
    done = run(study_of(scenes, data=with_targets(scenes, "square", "bar", "lone", least_known=2)))
    assert list(done.summary["targets"]["left_out"]) == ["lone"]
    assert "one answer alone is known: 1" in done.summary["targets"]["left_out"]["lone"]
    assert {row["target"] for row in done.results()} == {"square", "bar"}
    with pytest.raises(RequestError, match=r"no target can be learnt .*least_known"):
        run(study_of(scenes, data=with_targets(scenes, "square", "bar", least_known=40)))


def test_a_target_of_classes_stands_beside_yes_and_no(run: Run, scenes: Path) -> None:
    kinds = {"name": "ground", "kind": "classes", "weight": 2.0}
    done = run(study_of(scenes, data=with_targets(scenes, "square", kinds)))
    assert done.summary["targets"]["answers"] == [
        "square = 0",
        "square = 1",
        "ground = grey",
        "ground = white",
    ]
    study = study_of(scenes, data=with_targets(scenes, "square", kinds))
    [joint] = [grid for grid in study.grids() if grid.name == "layer"]
    assert {hyper.factors for hyper in joint.hypers} == {(("ground", 2.0),)}


def test_a_wrong_answer_is_suspected_and_shown_under_its_target(run: Run, tmp_path: Path) -> None:
    """Of pictures that are light or dark, red or green, the three lightest are said not to be light."""
    random, rows, shades = np.random.default_rng(3), [], []
    for number in range(80):
        light, red = (bool(each) for each in random.random(2) < 0.5)
        shade = random.uniform(0.8, 1.0) if light else random.uniform(0.3, 0.5)
        colour = np.array([200, 60, 60] if red else [60, 200, 60]) * shade
        noise = random.normal(0, 12, (48, 48, 3))
        path = tmp_path / f"{number}.png"
        Image.fromarray(np.clip(colour + noise, 0, 255).astype(np.uint8)).save(path)
        rows.append({"path": str(path), "light": int(light), "red": "?" if number % 4 == 0 else int(red)})
        shades.append(shade)
    table, wrong = pd.DataFrame(rows).astype(str), np.argsort(shades)[-3:]
    table.loc[wrong, "light"] = "0"
    table.to_csv(tmp_path / "colours.csv", index=False)
    data = {"manifest": tmp_path / "colours.csv", "targets": ["light", "red"]}
    linear = {"name": "linear", "taps": ["blocks.1:mean+std"], "strengths": [3.0]}
    done = run(study_of(tmp_path, data=data, experiments=[linear]))
    listed = pd.read_csv(done.folder / "label_errors.csv", dtype=str)
    of_light = listed[listed.target == "light"]
    assert set(of_light.path) == set(table.path[wrong])
    assert set(zip(of_light.label, of_light.suggested, strict=True)) == {("0", "1")}
    assert "red" not in set(listed.target)
    counts = {each["target"]: each for each in done.summary["label_errors"]}
    assert (counts["light"]["count"], counts["light"]["looked_at"]) == (3, 80)
    assert (counts["red"]["count"], counts["red"]["looked_at"]) == (0, 60)
    page = (done.folder / "report.html").read_text()
    assert "3 of 80 answers" in page
    assert page.count("data:image/jpeg") >= 3


def test_no_group_stands_on_both_sides(run: Run, scenes: Path, tmp_path: Path) -> None:
    splits = [{"name": "by place", "seeds": [0], "test": 0.3, "group": "place"}]
    done = run(study_of(scenes, splits=splits))
    [table] = (tmp_path / "artifacts" / "samples").glob("*.csv")
    place = pd.read_csv(table, dtype=str).set_index("digest")["manifest.place"]
    sides: dict[str, set[str]] = {"test": set(), "train": set()}
    for row in done.results():
        file = load_heads(tmp_path / "artifacts" / row["file"])[row["key"]]
        sides["test"] |= set(place[file.test_rows])
        sides["train"] |= set(place[file.train_rows])
    assert sides["test"].isdisjoint(sides["train"])


def test_what_a_run_leaves_is_told_in_the_terminal_and_on_the_page(
    run: Run, scenes: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    done = run(study_of(scenes))
    capsys.readouterr()
    show_summary(done.summary, done.folder)
    printed = capsys.readouterr().out
    for text in ("square", "bar", "layer, random: ", "macro", "report.html"):
        assert text in printed
    page = (done.folder / "report.html").read_text()
    for text in ("Who knows what", "Jointly, or each by itself?", "share no number", "macro average"):
        assert text in page
    assert json.loads((done.folder / "summary.json").read_text())["verdict"] is None
    joint = pd.read_csv(done.folder / "joint.csv")
    assert set(joint.target) == {"square", "bar", "macro average", "micro average"}


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"targets": ["bar", "bar"]}, "'bar' stands twice"),
        ({"targets": ["bar", "nothing"]}, "no column 'nothing'"),
        ({"targets": ["bar", "square"], "target": "bar"}, "either target"),
        ({"targets": ["bar", "place"], "max_bad": 0.1}, "place: 'p0' is none of 0, 1 and"),
    ],
)
def test_wrong_targets_are_one_line(run: Run, scenes: Path, changes: dict[str, Any], line: str) -> None:
    with pytest.raises((RequestError, ValueError), match=line):
        run(study_of(scenes, data={"manifest": scenes / "scenes.csv", **changes}))


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"verdict": {"depths": ["head"]}}, "verdict goes with one target"),
        ({"operating_points": [{"recall": 0.9}]}, "operating_points goes with one target"),
        (
            {"experiments": [{"name": "all", "depth": "everything", "head_first": True}]},
            "experiment 'all': head_first .* goes with one target",
        ),
        ({"experiments": [{"name": "x", "sharing": "joint"}]}, "sharing does not go with head 'softmax'"),
    ],
)
def test_what_goes_with_one_target_alone_is_refused(scenes: Path, changes: dict[str, Any], line: str) -> None:
    with pytest.raises(ValueError, match=line):
        study_of(scenes, **changes)


def test_of_many_targets_the_terminal_tells_what_is_said_of_all_of_them(
    capsys: pytest.CaptureFixture[str],
) -> None:
    names = [f"t{number}" for number in range(12)]
    pair = {"joint": "layer", "split": "random"}
    told = pair | {"metric": "AUROC", "difference": 0.02, "low": 0.01, "high": 0.03, "real": True}
    counts = [{"target": name, "known": 100 + number} for number, name in enumerate(names)]
    says = read_gains(
        [told | {"target": name} for name in (*names, MACRO, MICRO)], "AUROC", counts, *pair.values(), 1
    )
    summary = {
        "targets": {"left_out": {}},
        "headline": "AUROC",
        "scores": [],
        "references": [],
        "notes": {},
        "near_copies": [],
        "operating_points": [],
        "best": {"experiment": "layer", "inner_brier": 0.1, "targets": [{}] * 12},
        "joint_says": [pair | {"says": says, "width_says": "best with a layer of 4"}],
        "samples": {"total": 9, "extracted": 0, "reused": 9, "quarantined": 0},
        "experiments": {"total": 2, "trained": 0, "reused": 2},
        "verdict": None,
    }
    show_summary(summary, Path("/a"))
    printed = capsys.readouterr().out.splitlines()
    of_pair = [line.removeprefix("layer, random: ") for line in printed if line.startswith("layer, random: ")]
    assert of_pair == [
        "each target's difference is in the report and in joint.csv",
        f"{MACRO}: joint helps by 2.0 points (+1.0 to +3.0)",
        "t0 has the fewest answers (100); what those to the others add to it: joint helps by 2.0 points (+1.0 to +3.0)",
        ONE_SEED,
        "best with a layer of 4",
    ]


# Layers

LAYERS = {
    "name": "late",
    "depth": "suffix",
    "cut": "blocks.5",
    "epochs": [1],
    "learning_rates": [1e-3],
    "folds": 2,
    "batch": 16,
}


def test_layers_are_trained_for_all_targets_and_for_each(run: Run, scenes: Path, tmp_path: Path) -> None:
    splits = [{"name": "random", "seeds": [0], "test": 0.4}]
    # many samples answer only what is left out: batches of four in which nothing else is known
    study = study_of(
        scenes,
        splits=splits,
        experiments=[{**LAYERS, "batch": 4}],
        data=with_targets(scenes, "square", "bar", "lone"),
    )
    done = run(study)
    assert {row["converged"] for row in done.results()} == {"True"}
    assert {row["experiment"] for row in done.summary["scores"]} == {"late", "late, separate"}
    assert done.summary["experiments"] == {"total": 4, "trained": 4, "reused": 0}
    assert {row["head"] for row in done.results()} == {"shared network", "network"}
    assert {row["joint"] for row in done.summary["joint"]} == {"late"}
    assert list((tmp_path / "artifacts" / "checkpoints").iterdir()) == []
    row = next(row for row in done.results() if row["head"] == "shared network" and row["target"] == "bar")
    head = load_heads(tmp_path / "artifacts" / row["file"])[row["key"]]
    backbone = find_backbone("lite0", resize=48, crop=48)
    files = {digest_bytes(path.read_bytes()): path for path in scenes.glob("*.png")}
    x = np.stack([pixels(files[digest].read_bytes(), backbone.preprocessing) for digest in head.test_rows])
    mean, std = (
        torch.tensor(each).view(1, 3, 1, 1)
        for each in (backbone.preprocessing.mean, backbone.preprocessing.std)
    )
    [seen] = Prefix(load_network(backbone), [Tap("blocks.5", "none")])(
        (torch.from_numpy(x).float() - mean) / std
    )
    with torch.inference_mode():
        said = [
            torch.log_softmax(layers(seen) / head.predictor.temperature, dim=1).exp()
            for layers in open_layers(head, backbone)
        ]
    np.testing.assert_allclose(np.exp(head.log_proba), torch.stack(said).mean(0).numpy(), atol=2e-2)
    again = run(study)
    assert again.summary["experiments"] == {"total": 4, "trained": 0, "reused": 4}


def test_layers_trained_for_each_target_alone_are_told_and_shown(run: Run, scenes: Path) -> None:
    splits = [{"name": "random", "seeds": [0], "test": 0.4}]
    done = run(study_of(scenes, splits=splits, experiments=[{**LAYERS, "sharing": "separate"}]))
    assert [each["target"] for each in done.summary["label_errors"]] == ["square", "bar"]
    assert [each["target"] for each in done.summary["best"]["heads"]] == ["square", "bar"]
    assert done.summary["joint"] == []


def test_a_plan_of_layers_for_several_targets_says_what_they_take(
    scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert show_plan(study_of(scenes, experiments=[LAYERS]), tmp_path / "artifacts") == 0
    assert "late, separate" in capsys.readouterr().out


# Told before


def test_a_plan_counts_a_head_for_every_target_and_part(
    run: Run, scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study, here = study_of(scenes), tmp_path / "artifacts"
    assert show_plan(study, here) == 0  # files to read
    assert "at most 8" in capsys.readouterr().out
    run(study)
    capsys.readouterr()
    assert show_plan(study, here) == 0
    assert "nothing to do" in capsys.readouterr().out
    wider = study_of(
        scenes, data=with_targets(scenes, "square", "bar", {"name": "ground", "kind": "classes"})
    )
    assert show_plan(wider, here) == 0
    table = capsys.readouterr().out
    assert "nothing to do" not in table


def test_doctor_tells_of_every_target(
    scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study = study_of(scenes, data=with_targets(scenes, "square", "bar", "lone"))
    assert show_doctor(study, tmp_path / "artifacts") == 0
    told = " ".join(capsys.readouterr().out.split())
    for text in (
        "square: ",
        " unknown",
        "lone would be left out: one answer alone is known: 1",
        "heads to train",
    ):
        assert text in told


def test_doctor_refuses_where_no_target_can_be_learnt(scenes: Path, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="no target has two answers"):
        show_doctor(study_of(scenes, data=with_targets(scenes, "lone")), tmp_path / "artifacts")
    with pytest.raises(RequestError, match="no target can be learnt"):
        show_doctor(
            study_of(scenes, data=with_targets(scenes, "square", "bar", least_known=40)),
            tmp_path / "artifacts",
        )


Written = Callable[[pd.DataFrame], dict[str, Any]]


@pytest.fixture
def listed(scenes: Path) -> pd.DataFrame:
    """The scenes with a target `weather` of three answers."""
    table = pd.read_csv(scenes / "scenes.csv", dtype=str, keep_default_na=False)
    table["path"] = [str(scenes / path) for path in table.path]
    return table.assign(weather=[("sun", "rain", "snow")[number % 3] for number in range(SAMPLES)])


@pytest.fixture
def written(tmp_path: Path) -> Written:
    """Write a manifest of two targets, the second of classes; give the study's `data`."""

    def to(table: pd.DataFrame) -> dict[str, Any]:
        table.to_csv(tmp_path / "listed.csv", index=False)
        targets = ["square", {"name": "weather", "kind": "classes"}]
        return {"manifest": tmp_path / "listed.csv", "targets": targets, "max_bad": 0.5}

    return to


@pytest.fixture
def told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[[Study], list[str]]:
    """Run doctor, which may refuse; give its lines with spaces squeezed."""

    def of(study: Study) -> list[str]:
        capsys.readouterr()
        with suppress(RequestError):
            show_doctor(study, tmp_path / "artifacts")
        return [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]

    return of


Told = Callable[[Study], list[str]]


def test_doctor_refuses_as_a_run_does_more_than_two_answers_that_would_be_learnt_from_a_stream(
    run: Run, listed: pd.DataFrame, written: Written, told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    for place in ("stored", "resources"):
        monkeypatch.setattr(f"tasks.core.{place}.machine_memory", lambda: 30_000)
    linear = {"name": "linear", "taps": ["blocks.1:mean"], "strengths": [1.0]}
    study = study_of(Path(), data=written(listed), experiments=[linear])
    [memory] = [line for line in told(study) if " memory " in line]
    assert memory.startswith("✗ wrong memory linear: training on 120 rows of 24 features takes ")
    assert "head softmax needs that for weather; only questions of two answers" in memory
    with pytest.raises(RequestError, match=r"target 'weather': .* only questions of two answers"):
        run(study)
    two = listed.assign(weather=listed.weather.replace("snow", "rain"))
    [memory] = [
        line for line in told(study_of(Path(), data=written(two), experiments=[linear])) if " memory " in line
    ]
    assert memory.startswith("! note memory linear: training on 120 rows")


def test_doctor_tells_of_answers_that_are_probably_misspelt(
    listed: pd.DataFrame, written: Written, told: Told
) -> None:
    listed.loc[:2, "weather"] = ["Rain", "?", "NaN"]
    [line] = [line for line in told(study_of(Path(), data=written(listed))) if "differ only" in line]
    assert line == (
        "! note targets weather: 'Rain' and 'rain' differ only by case or space: probably one answer; write them alike"
    )


def test_doctor_tells_of_copies_and_of_what_they_contradict_each_other_in(
    listed: pd.DataFrame, written: Written, told: Told, tmp_path: Path
) -> None:
    alike = [line for line in told(study_of(Path(), data=written(listed))) if " duplicates " in line]
    assert alike == ["✓ ok duplicates no two files hold the same bytes"]
    for number, weather in ((0, "?"), (1, "hail")):
        copy = tmp_path / f"copy {number}.png"
        shutil.copy(listed.path[number], copy)
        row = listed.loc[number].to_dict() | {"path": str(copy), "weather": weather}
        listed.loc[len(listed)] = row
    torn, whole = [line for line in told(study_of(Path(), data=written(listed))) if " duplicates " in line]
    assert torn.startswith(
        "! note duplicates weather: 1 pictures stand under several names with contradicting labels ("
    )
    assert "copy 1.png); say which label is right: all of their copies are set aside" in torn
    assert whole.startswith("! note duplicates 1 pictures stand under several names (")
    assert "copy 0.png)" in whole


def test_doctor_tells_of_samples_that_weigh_nothing(
    listed: pd.DataFrame, written: Written, told: Told
) -> None:
    def weights(sure: Any) -> str:
        data = written(listed.assign(sure=sure)) | {"weight": "sure"}
        [line] = [line for line in told(study_of(Path(), data=data)) if " weights " in line]
        return line

    assert weights([0] * 4 + [2] * (SAMPLES - 4)) == (
        "! note weights column 'sure': from 0 to 2, 4 of 120 weigh nothing; such samples are not learnt from"
    )
    assert weights(0).startswith("✗ wrong weights column 'sure': no labelled sample weighs more than zero")
