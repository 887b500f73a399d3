"""The command line as a user meets it: another process, its exit code and what it prints."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

LOOK = "import sys; from flows.__main__ import main; code = main(sys.argv[1:]); print({}); sys.exit(code)"


def headstart(folder: Path, *words: str, show: str = "''") -> subprocess.CompletedProcess[str]:
    """Run the command line in `folder`; `show` is an expression to print at the end."""
    environment = {**os.environ, "PREFECT_HOME": str(folder / "prefect")}
    return subprocess.run(
        [sys.executable, "-c", LOOK.format(show), *words],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )


LOADED = "'loaded:', *(name for name in ('prefect', 'torch') if name in sys.modules)"


@pytest.mark.parametrize(
    ("study", "complaint"),
    [
        ("missing.toml", "no such file or folder"),
        ('name = "x"\n[data]\nfolder = "nowhere"', "no such folder"),
        ('name = "x"\n[data]\nmanifest = "nowhere.csv"', "no such manifest"),
        (
            'name = "x"\n[data]\nmanifest = "table.csv"\ntarget = "clas"',
            "no column 'clas'; did you mean 'class'?",
        ),
        ('name = "x"\n[data]\nfoldr = "."', "unknown key 'foldr'; did you mean 'folder'?"),
        ('name = "x"\n[data]\nfolder = "."\n[backbones.a]\nnetwork = "lite00"', "did you mean 'lite0'?"),
        (
            'name = "x"\n[data]\nfolder = "."\n[[experiments]]\nname = "e"\ntaps = ["last:median"]',
            "last:median",
        ),
        ('name = "x"\nname = "y"', "not a TOML file"),
    ],
)
def test_a_wrong_request_is_one_line_at_once_and_exit_code_2(tmp_path, study, complaint):
    (tmp_path / "table.csv").write_text("path,class\na.png,b\n")
    file = tmp_path / ("study.toml" if "\n" in study else study)
    if "\n" in study:
        file.write_text(study)
    told = headstart(tmp_path, "run", str(file), show=LOADED)
    assert told.returncode == 2
    [line] = told.stderr.splitlines()
    assert complaint in line
    assert told.stdout.split() == ["loaded:"]  # neither Prefect nor torch


def test_a_wrong_request_found_on_the_way_is_one_line_too(tmp_path, pictures):
    (pictures / "lying" / "0.png").write_text("no picture")
    told = headstart(tmp_path, "run", str(pictures), "--set", "data.max_bad=0.01")
    assert told.returncode == 2
    lines = [line for line in told.stderr.splitlines() if not line.startswith("  ")]
    assert lines[0] == "headstart: stripes"
    assert lines[1].startswith("headstart: 1 of 24 samples cannot be used")
    assert len(lines) == 2


def test_a_folder_runs_without_a_study_and_its_second_run_needs_no_torch(tmp_path, pictures):
    small = (
        "--set",
        "backbones.lite0.resize=48",
        "--set",
        "backbones.lite0.crop=48",
        "--set",
        "splits=[{name='s', seeds=[0]}]",
    )
    first = headstart(tmp_path, "run", str(pictures), *small, show=LOADED)
    assert first.returncode == 0, first.stderr
    assert "three depths" in first.stdout
    second = headstart(tmp_path, "run", str(pictures), *small, show=LOADED)
    assert second.returncode == 0, second.stderr
    assert "everything was reused: 24 samples, 14 heads" in second.stdout
    assert second.stdout.splitlines()[-1] == "loaded: prefect"
    summary = json.loads((tmp_path / "artifacts/studies/stripes/summary.json").read_text())
    assert [stage["state"] for stage in summary["stages"]] == ["Completed", *["Cached"] * 6]
