"""`headstart plan` tells what a run then does and writes, without Prefect, and without torch where nothing lacks."""

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flows.plan import show_plan, wanted_sets
from flows.study import Study
from tasks.core.artifacts import Artifacts
from tasks.core.backbones import Backbone
from tasks.core.errors import RequestError

STUDY = {
    "name": "planned",
    "backbones": {"small": {"network": "lite0", "resize": 48, "crop": 48}},
    "splits": [{"name": "random", "seeds": [0, 1]}],
    "experiments": [
        {"name": "early", "taps": ["blocks.1:mean"], "strengths": [1.0]},
        {"name": "both", "taps": ["blocks.1:mean", "blocks.2:mean"], "strengths": [1.0]},
    ],
}
LATE = {
    "name": "late",
    "depth": "suffix",
    "cut": "blocks.5",
    "epochs": [1],
    "learning_rates": [1e-3],
    "batch": 8,
}
VERDICT = {"depths": ["head", LATE], "shares": [0.5, 1.0], "seeds": 2, "minutes": 5}


@pytest.fixture
def study(pictures, monkeypatch):
    """Two experiments on two taps; files are remembered however lately they changed."""
    monkeypatch.setattr("tasks.core.digest.RACY_NS", -(10**15))
    return Study.model_validate({**STUDY, "data": {"folder": pictures, "max_bad": 0.2}})


@pytest.fixture
def plan(tmp_path, capsys):
    """Print a study's plan and return its lines, spaces squeezed."""

    def told(study):
        assert show_plan(study, tmp_path / "artifacts") == 0
        return [" ".join(line.split()) for line in capsys.readouterr().out.splitlines() if line.strip()]

    return told


def starting(lines, *start):
    return [line for line in lines if line.startswith(start)]


def changed(study: Study, **fields: Any) -> Study:
    return Study.model_validate({**study.model_dump(), **fields})


def bytes_in(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*.*") if path.is_file())


def test_a_new_study_is_all_to_do_at_most(study, plan):
    lines = plan(study)
    assert lines[0] == (
        "samples: 24 listed, 0 files unchanged, 24 to read (new or changed), 0 known to be set aside"
    )
    for tap, size in (("blocks.1:mean", "1.2 KB"), ("blocks.2:mean", "1.9 KB")):
        assert starting(lines, f"small {tap} 0 at most 24 at most {size} none of this backbone yet")
    assert starting(lines, "small: at most 24 passes through the network")
    assert starting(lines, "early 1 head 0 at most 2")
    assert starting(lines, "to write in all: at most 3.1 KB") == ["to write in all: at most 3.1 KB"]
    assert lines[-1].startswith("at most:")


def test_after_a_run_there_is_nothing_to_do(study, plan, run):
    run(study)
    lines = plan(study)
    assert lines[0].startswith("samples: 24 listed, 24 files unchanged, 0 to read")
    assert starting(lines, "small blocks.1:mean 24 0 0")
    assert starting(lines, "both 1 head 2 0")
    assert starting(lines, "to write") == []
    assert lines[-1] == "nothing to do"


def test_the_plan_is_what_the_run_then_does(study, plan, run, pictures, painter):
    run(study)
    painter(pictures / "lying" / "new.png", 1000, 1.57)
    (pictures / "upright" / "3.png").unlink()
    lines = plan(study)
    assert lines[0].startswith("samples: 24 listed, 23 files unchanged, 1 to read")
    assert starting(lines, "small: at most 1 passes")
    done = run(study)
    assert (len(done.forwarded), done.trained) == (1, 4)
    assert plan(study)[-1] == "nothing to do"
    third = {"name": "third", "taps": ["blocks.3:mean"], "strengths": [1.0]}
    wider = changed(study, experiments=[*STUDY["experiments"], third])
    lines = plan(wider)
    assert starting(lines, "small blocks.3:mean 0 24 3.8 KB new tap or view")
    assert starting(lines, "third 1 head 0 2")
    assert starting(lines, "both 1 head 2 0")
    done = run(wider)
    assert (len(done.forwarded), done.trained) == (24, 2)


def test_layers_are_searches_and_what_they_write_is_told_before_any_is_stored(study, plan, run, tmp_path):
    study = changed(study, experiments=[LATE])
    lines = plan(study)
    [activations] = starting(lines, "small blocks.5:none 0")
    assert activations.split(" ", 3)[3].startswith("at most 24 at most 36.9 KB")  # 192 x 2 x 2 float16
    assert starting(lines, "late 1 search 0 at most 2 at most")
    run(study)
    assert starting(plan(study), "late 1 search 2 0 0")
    [told] = [line.split() for line in lines if line.startswith("late ")]
    kept = bytes_in(tmp_path / "artifacts" / "heads") / 1e6
    # a search's three checkpoints of three times the layers come on top of three networks a search
    assert float(told[told.index("MB") - 1]) == pytest.approx(kept * (2 * 3 + 3 * 3) / (2 * 3), rel=0.05)


def test_the_cells_of_the_verdict_are_counted(study, plan, run):
    study = changed(study, experiments=[LATE], verdict=VERDICT)
    lines = plan(study)
    assert starting(lines, "head 0 at most 4 0 not measured yet")
    assert starting(lines, "late 0 at most 2 at most")[0].endswith("2 more by experiments")
    assert starting(lines, "verdict: 8 cells, at most 6 to measure; a run trains them for 5 minutes at most")
    run(changed(study, verdict={**VERDICT, "shares": [1.0]}))
    lines = plan(study)
    assert starting(lines, "head 2 2 0")
    assert starting(lines, "late 2 2 ")
    assert starting(lines, "verdict: 8 cells, 4 to measure")
    run(study)
    lines = plan(study)
    assert starting(lines, "verdict: 8 cells, 0 to measure") == ["verdict: 8 cells, 0 to measure"]
    assert lines[-1] == "nothing to do"


def test_what_does_not_fit_on_the_disk_is_told_with_the_room_that_there_is(study, plan, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda place: shutil._ntuple_diskusage(10**6, 0, 2000))
    [line] = starting(plan(study), "to write in all")
    assert line == (
        "to write in all: at most 3.1 KB; features take 3.1 KB; 2.0 KB are free; "
        "free some, choose another disk with --artifacts, or take fewer taps, cuts or views"
    )


def test_a_network_that_cannot_tell_leaves_sizes_open(study, plan, monkeypatch):
    monkeypatch.setattr("tasks.core.estimates.outline", lambda backbone: 1 / 0)
    lines = plan(study)
    assert starting(lines, "small blocks.1:mean 0 at most 24 not known yet")
    [line] = starting(lines, "to write in all")
    assert line.startswith("to write in all: at most 0 B, and what small takes, of unknown size; ")


@pytest.mark.parametrize(
    ("experiment", "told"),
    [
        ({**LATE, "cut": "blocks.4.1.conv_pw"}, "cut 'blocks.4.1.conv_pw': the network does not fall in two"),
        ({"name": "head", "taps": ["blockz.1:mean"]}, "no module 'blockz.1'"),
    ],
)
def test_a_place_that_the_network_lacks_is_refused(study, tmp_path, experiment, told):
    with pytest.raises(RequestError, match=told):
        show_plan(changed(study, experiments=[experiment]), tmp_path / "artifacts")


def test_weights_that_are_not_here_are_not_downloaded_and_all_is_to_do(study, plan, run, monkeypatch):
    run(study)
    monkeypatch.setattr(Backbone, "lacks_weights", lambda backbone: True)
    monkeypatch.setattr(Backbone, "weights_file", lambda backbone: pytest.fail("is downloaded"))
    lines = plan(study)
    assert "small: weights are not on this machine; a run would download them" in lines
    assert starting(lines, "small blocks.1:mean 0 24 1.2 KB")
    assert starting(lines, "to write in all: 3.1 KB")


def test_the_sets_are_those_that_a_run_fills(study, run, tmp_path):
    study = changed(study, experiments=[*STUDY["experiments"], {**LATE, "views": ["centre", "hflip"]}])
    summary = run(study).summary
    wanted = wanted_sets(study, Artifacts(tmp_path / "artifacts"))
    assert {each.name: each.folder.name for each in wanted} == summary["features"]["small"]


@pytest.fixture
def loaded(tmp_path) -> Callable[..., str]:
    """Plan a study in a process of its own; tell which of the slow libraries it loaded."""

    def of(study: Study) -> str:
        program = (
            "import sys; from pathlib import Path; from flows.study import Study; from flows.plan import show_plan;"
            f"show_plan(Study.model_validate_json({study.model_dump_json()!r}), Path({str(tmp_path / 'artifacts')!r}));"
            "print(sorted({'prefect', 'torch', 'timm', 'sklearn', 'scipy'} & set(sys.modules)))"
        )
        done = subprocess.run(
            [sys.executable, "-c", program],
            capture_output=True,
            text=True,
            check=True,
            cwd=Path(__file__).parents[2],
        )
        return done.stdout.splitlines()[-1]

    return of


def test_neither_prefect_nor_torch_is_imported_where_nothing_lacks(study, run, loaded):
    study = changed(study, experiments=[*STUDY["experiments"], LATE], verdict=VERDICT)
    assert "torch" in loaded(study)
    run(study)
    assert loaded(study) == "[]"
    more = {"name": "more", "taps": ["blocks.1:mean"], "strengths": [0.5]}
    assert loaded(changed(study, experiments=[*study.experiments, more])) == "[]"
