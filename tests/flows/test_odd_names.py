"""Names of any bytes go the whole way: through Prefect, the tables, the report, and a refusal."""

import csv
import os
from pathlib import Path

import pytest

from flows.study import Study
from tasks.core.errors import RequestError

NAMES = [b"caf\xe9.png", b"new\nline.png", b"a,b.png", b'"q".png', b" .png", "猫.png".encode(), b"{x}.png"]


def odd_folder(place: Path, painter) -> Path:
    """Two classes, one of them named in Latin-1, of pictures with odd names and some that are none."""
    for turn, kind in enumerate((b"d\xf6g", b"cat")):
        for number, name in enumerate(NAMES):
            path = place / os.fsdecode(kind) / f"{number} {os.fsdecode(name)}"
            painter(path, 100 * turn + number, 1.57 * turn)
    (place / "cat" / os.fsdecode(b"bad \xff\n.png")).write_bytes(b"")
    return place


def study_of(folder: Path, most_bad: float) -> Study:
    return Study.model_validate(
        {
            "name": "odd",
            "data": {"folder": folder, "max_bad": most_bad},
            "backbones": {"small": {"network": "lite0", "resize": 48, "crop": 48}},
            "splits": [{"name": "random", "seeds": [0]}],
            "experiments": [{"name": "early", "taps": ["blocks.1:mean"], "strengths": [1.0]}],
        }
    )


def test_odd_names_go_all_the_way(run, painter, tmp_path):
    done = run(study_of(odd_folder(tmp_path / "data", painter), 0.2))
    assert done.summary["samples"] == {"total": 14, "extracted": 14, "reused": 0, "quarantined": 1}
    with (done.folder / "quarantine.csv").open(errors="surrogateescape", newline="") as file:
        [row] = csv.DictReader(file)
    assert os.fsencode(row["path"]) == b"cat/bad \xff\n.png"
    page = (done.folder / "report.html").read_text(encoding="utf-8")
    assert "d\\udcf6g" in page
    assert "bad \\udcff" in page


def test_a_refusal_that_names_an_odd_file_goes_through_prefect(run, painter, tmp_path):
    with pytest.raises(RequestError, match=r"first: cat/bad \\udcff\\n\.png: empty file") as told:
        run(study_of(odd_folder(tmp_path / "data", painter), 0.0))
    assert "\n" not in str(told.value)
