"""`headstart plan` tells what a run then does, without Prefect, torch or a network."""

import subprocess
import sys
from pathlib import Path

import pytest

from flows.plan import show_plan, wanted_sets
from flows.study import Study
from tasks.core.artifacts import Artifacts

STUDY = {
    "name": "planned",
    "backbones": {"small": {"network": "lite0", "resize": 48, "crop": 48}},
    "splits": [{"name": "random", "seeds": [0, 1]}],
    "experiments": [
        {"name": "early", "taps": ["blocks.1:mean"], "strengths": [1.0]},
        {"name": "both", "taps": ["blocks.1:mean", "blocks.2:mean"], "strengths": [1.0]},
    ],
}


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


def test_a_new_study_is_all_to_do_at_most(study, plan):
    lines = plan(study)
    assert lines[0] == (
        "samples: 24 listed, 0 files unchanged, 24 to read (new or changed), 0 known to be set aside"
    )
    for tap in ("blocks.1:mean", "blocks.2:mean"):
        assert starting(lines, f"small {tap} 0 at most 24 not known yet none of this backbone yet")
    assert starting(lines, "small: at most 24 passes through the network")
    assert starting(lines, "early 0 at most 2")
    assert lines[-1].startswith("at most:")


def test_after_a_run_there_is_nothing_to_do(study, plan, run):
    run(study)
    lines = plan(study)
    assert lines[0].startswith("samples: 24 listed, 24 files unchanged, 0 to read")
    assert starting(lines, "small blocks.1:mean 24 0 0")
    assert starting(lines, "both 2 0")
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
    third = {"name": "late", "taps": ["blocks.3:mean"], "strengths": [1.0]}
    wider = Study.model_validate({**study.model_dump(), "experiments": [*STUDY["experiments"], third]})
    lines = plan(wider)
    assert starting(lines, "small blocks.3:mean 0 24 not known yet new tap or view")
    assert starting(lines, "late 0 2")
    assert starting(lines, "both 2 0")
    done = run(wider)
    assert (len(done.forwarded), done.trained) == (24, 2)


def test_the_sets_are_those_that_a_run_fills(study, run, tmp_path):
    summary = run(study).summary
    wanted = wanted_sets(study, Artifacts(tmp_path / "artifacts"))
    assert {each.tap: each.folder.name for each in wanted} == summary["features"]["small"]


def test_neither_prefect_nor_torch_is_imported(study, tmp_path):
    place = tmp_path / "study.toml"
    place.write_text(f'name = "planned"\n[data]\nfolder = "{study.data.folder}"\n')
    program = (
        "import sys; from pathlib import Path; from flows.study import load_study; from flows.plan import show_plan;"
        f"show_plan(load_study(Path({str(place)!r})), Path({str(tmp_path / 'artifacts')!r}));"
        "print(sorted({'prefect', 'torch', 'timm', 'sklearn', 'scipy'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[2],
    )
    assert done.stdout.splitlines()[-1] == "[]"
